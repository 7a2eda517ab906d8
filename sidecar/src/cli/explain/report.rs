//! Report of `explain`, as sentences and as JSON.
//!
//! The JSON's fields are API: a field is added, never renamed or given another meaning without raising `schema`.

use std::fmt;

use serde::Serialize;

use super::change::Change;
use super::route::{RouteRefusal, RouteVerdict};
use twilio_edge_platform::terminal::line;

/// Version of the JSON.
pub(super) const SCHEMA: u32 = 1;

/// Complete report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: u32,
    /// True if the filter accepts the signature as it is.
    pub(super) matches: bool,
    /// Reason of the filter, if it refuses.
    pub(super) reason: Option<&'static str>,
    pub(super) method: String,
    /// URLs that Twilio may have signed according to the configuration.
    pub(super) candidates: Vec<String>,
    /// `form`, `hash` or `none`.
    pub(super) body_rule: &'static str,
    pub(super) body_bytes: usize,
    /// Number of signed parameters, if the body is a form.
    pub(super) parameters: usize,
    /// Names of the keys that were tried.
    pub(super) keys: Vec<String>,
    /// Request that was signed; with `matches` it is the received one.
    pub(super) signed: Option<Signed>,
    /// Number of computed signatures.
    pub(super) tried: usize,
    /// True if the search was complete, or was stopped at its limits.
    pub(super) complete: bool,
    pub(super) shape: Shape,
    pub(super) route: RouteVerdict,
    /// Further notes.
    pub(super) notes: Vec<String>,
    /// Only on demand: anyone who has them can send this request as Twilio.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) signatures: Vec<Computed>,
}

/// Request that was signed.
#[derive(Debug, Serialize)]
pub(super) struct Signed {
    pub(super) key: String,
    pub(super) url: String,
    /// Differences from the request that arrived.
    pub(super) changes: Vec<Change>,
}

/// Verdict of the filter on the parameters, if the signature is right.
#[derive(Debug, Serialize)]
pub(super) struct Shape {
    pub(super) class: &'static str,
    pub(super) accepted: bool,
    pub(super) reason: Option<&'static str>,
    pub(super) field: Option<&'static str>,
}

/// Signature that would match.
#[derive(Debug, Serialize)]
pub(super) struct Computed {
    pub(super) key: String,
    pub(super) url: String,
    pub(super) signature: String,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = match self.body_rule {
            "form" if self.parameters == 1 => "1 parameter of a form".to_owned(),
            "form" => format!("{} parameters of a form", self.parameters),
            "hash" => format!("the hash of a body of {} bytes, in the URL", self.body_bytes),
            _ => "nothing else: a GET has its parameters in the URL".to_owned(),
        };
        match (&self.reason, &self.signed) {
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
                for url in &self.candidates {
                    writeln!(out, "  {label:<6} {}", line(url))?;
                    label = "";
                }
                writeln!(out, "  and    {content}")?;
                writeln!(out, "  by     {}\n", line(&self.keys.join(", ")))?;
                match signed {
                    Some(signed) => self.differences(signed, out)?,
                    None => self.nothing_found(out)?,
                }
            }
        }
        self.shape(out)?;
        self.route(out)?;
        for note in &self.notes {
            writeln!(out, "Note: {}", line(note))?;
        }
        for Computed { key, url, signature } in &self.signatures {
            let (key, url) = (line(key), line(url));
            writeln!(out, "{signature} would be {key}'s signature of {url}")?;
        }
        Ok(())
    }
}

impl Report {
    fn differences(&self, signed: &Signed, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Twilio did sign it, but it is not as it was when signed:")?;
        for Change { finding, fix, .. } in &signed.changes {
            writeln!(out, "  - {}\n    {}", line(finding), line(fix))?;
        }
        writeln!(out, "Signed by {}:\n    {}\n", line(&signed.key), line(&signed.url))
    }

    fn nothing_found(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tried == 0 {
            return writeln!(out, "There is nothing to compare with.\n");
        }
        let end = if self.complete { "" } else { "; there are more, but that is the bound" };
        writeln!(
            out,
            "Nothing near it has this signature ({} variants tried{end}). The likeliest causes:\n\
             \x20 - The token is not this account's. A subaccount signs with its own; a secondary token\n\
             \x20   does not sign until it is promoted; API key secrets never sign.\n\
             \x20 - The URL in the Twilio console is quite another one: give it with --try-url.\n\
             \x20 - A parameter with a value that cannot be guessed was changed or dropped.\n\
             \x20 - It is not Twilio's.\n",
            self.tried
        )
    }

    fn shape(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { class, accepted, reason, field } = self.shape;
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
        let RouteVerdict { route, refusals, note, .. } = &self.route;
        let name = route.as_deref().unwrap_or("A route that sets neither methods nor bodies");
        for RouteRefusal { reason, fix } in refusals {
            writeln!(out, "{name} would refuse it: {reason}.\n    {}", line(fix))?;
        }
        if self.route.accepted == Some(true) {
            writeln!(out, "{name} accepts its method and its body.")?;
        }
        match note {
            Some(note) => writeln!(out, "Note: {}", line(note)),
            None => Ok(()),
        }
    }
}
