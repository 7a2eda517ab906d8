//! Report of `explain` as sentences.

use std::fmt;

use twilio_edge_diagnosis::{Change, Computed, Report, RouteRefusal, RouteVerdict, Shape, Signed};
use twilio_edge_platform::terminal::line;

/// Report to print.
pub(super) struct ReportText<'r>(pub(super) &'r Report);

impl fmt::Display for ReportText<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = match self.0.body_rule {
            "form" if self.0.parameters == 1 => "1 parameter of a form".to_owned(),
            "form" => format!("{} parameters of a form", self.0.parameters),
            "hash" => format!("the hash of a body of {} bytes, in the URL", self.0.body_bytes),
            _ => "nothing else: a GET has its parameters in the URL".to_owned(),
        };
        match (&self.0.reason, &self.0.signed) {
            (None, Some(signed)) => {
                writeln!(
                    out,
                    "It is Twilio's: {} signed\n    {}\nand {content}.",
                    line(&signed.key),
                    line(&signed.url)
                )?;
            }
            (reason, signed) => {
                writeln!(out, "The filter would refuse it: {}.\n", reason.unwrap_or("no reason"))?;
                let mut label = "tried";
                for url in &self.0.candidates {
                    writeln!(out, "  {label:<6} {}", line(url))?;
                    label = "";
                }
                writeln!(out, "  and    {content}")?;
                writeln!(out, "  by     {}\n", line(&self.0.keys.join(", ")))?;
                match signed {
                    Some(signed) => self.differences(signed, out)?,
                    None => self.nothing_found(out)?,
                }
            }
        }
        self.shape(out)?;
        self.route(out)?;
        for note in &self.0.notes {
            writeln!(out, "Note: {}", line(note))?;
        }
        for Computed { key, url, signature } in &self.0.signatures {
            let (key, url) = (line(key), line(url));
            writeln!(out, "{signature} would be {key}'s signature of {url}")?;
        }
        Ok(())
    }
}

impl ReportText<'_> {
    fn differences(&self, signed: &Signed, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Twilio did sign it, but it is not as it was when signed:")?;
        for Change { finding, fix, .. } in &signed.changes {
            writeln!(out, "  - {}\n    {}", line(finding), line(fix))?;
        }
        writeln!(out, "Signed by {}:\n    {}\n", line(&signed.key), line(&signed.url))
    }

    fn nothing_found(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.tried == 0 {
            return writeln!(out, "There is nothing to compare with.\n");
        }
        let end = if self.0.complete { "" } else { "; there are more, but that is the bound" };
        writeln!(
            out,
            "Nothing near it has this signature ({} variants tried{end}). The likeliest causes:\n\
             \x20 - The token is not this account's. A subaccount signs with its own; a secondary token\n\
             \x20   does not sign until it is promoted; API key secrets never sign.\n\
             \x20 - The URL in the Twilio console is quite another one: give it with --try-url.\n\
             \x20 - A parameter with a value that cannot be guessed was changed or dropped.\n\
             \x20 - It is not Twilio's.\n",
            self.0.tried
        )
    }

    fn shape(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { class, accepted, reason, field } = self.0.shape;
        match (accepted, reason) {
            (true, _) if class == "other" => {
                writeln!(
                    out,
                    "On a route of class other the filter asks no more of its parameters."
                )
            }
            (true, _) => writeln!(out, "Its parameters are what a route of class {class} takes."),
            (false, reason) => {
                let field = field.map(|field| format!(" ({field})")).unwrap_or_default();
                let reason = reason.unwrap_or_default();
                writeln!(
                    out,
                    "A route of class {class} would refuse its parameters, signed or not: {reason}{field}."
                )
            }
        }
    }

    fn route(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RouteVerdict { route, refusals, note, .. } = &self.0.route;
        let name = route.as_deref().unwrap_or("A route that sets neither methods nor bodies");
        for RouteRefusal { reason, fix } in refusals {
            writeln!(out, "{name} would refuse it: {reason}.\n    {}", line(fix))?;
        }
        if self.0.route.accepted == Some(true) {
            writeln!(out, "{name} accepts its method and its body.")?;
        }
        match note {
            Some(note) => writeln!(out, "Note: {}", line(note)),
            None => Ok(()),
        }
    }
}
