//! Report about a capture without a signature, as sentences.

use std::fmt;

use twilio_edge_diagnosis::{RouteRefusal, UrlReport, Verdict};
use twilio_edge_platform::terminal::line;

/// Report to print.
pub(super) struct UrlReportText<'r>(pub(super) &'r UrlReport);

impl fmt::Display for UrlReportText<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(
            out,
            "Whether Twilio signed it cannot be checked: this capture has no {}.",
            report.absent.join(" and no ")
        )?;
        writeln!(out, "Only its URL can be checked, with the URL in the Twilio console.\n")?;
        let mut label = "filter";
        for url in &report.candidates {
            writeln!(out, "  {label:<6} {}", line(url))?;
            label = "";
        }
        match &report.called {
            Some(url) => writeln!(out, "  Twilio {}\n", line(url))?,
            None => writeln!(
                out,
                "  Twilio unknown: give the URL in the Twilio console with --try-url\n"
            )?,
        }
        for check in &report.checks {
            let mark = match check.verdict {
                Verdict::Fine => "ok",
                Verdict::Suspicious => "check",
                Verdict::Different => "WRONG",
            };
            writeln!(out, "  {mark:<6} {}", line(&check.finding))?;
            if let Some(fix) = check.fix {
                writeln!(out, "         {fix}")?;
            }
        }
        writeln!(out)?;
        if let Some(shape) = &report.shape {
            match shape.reason {
                None => writeln!(
                    out,
                    "Its parameters are what a route of class {} takes.",
                    shape.class
                )?,
                Some(reason) => {
                    let field = shape.field.map(|field| format!(" ({field})")).unwrap_or_default();
                    writeln!(
                        out,
                        "A route of class {} would refuse its parameters, signed or not: {reason}{field}.",
                        shape.class
                    )?;
                }
            }
        }
        let name =
            report.route.route.as_deref().unwrap_or("A route that sets neither methods nor bodies");
        for RouteRefusal { reason, fix } in &report.route.refusals {
            writeln!(out, "{name} would refuse it: {reason}.\n    {}", line(fix))?;
        }
        for note in report.route.note.iter().chain(&report.notes) {
            writeln!(out, "Note: {}", line(note))?;
        }
        Ok(())
    }
}
