//! Diagnosis of a webhook whose signature does not match: the request that Twilio signed, the difference from the one that
//! arrived, and the change of the configuration that would make it pass.
//!
//! The command `twilio-edge explain` and the sidecar's captured refusals use the same functions. The verdict is the filter's
//! own ([`Captured`]). [`Capture::read`] reads a request in each form in which people have one. `url_changes` and `body_changes` have the changes that may have happened to a request, `search`
//! searches for them, [`Case`] draws the conclusions, and [`Explanation`] names the one cause and its remedy.
//!
//! Architecture invariant: plain functions over plain values; no clock, no file, no network. It explains, and never admits a
//! request.

mod body_changes;
mod capture;
mod captured;
mod case;
mod change;
mod explanation;
mod report;
mod route;
mod search;
mod url;
mod url_changes;
mod url_checks;

pub use self::{
    capture::{Capture, Format, JsonLine, MAX_BYTES, Part, header},
    captured::{Captured, Rejection},
    case::{Case, Token},
    change::{Change, What},
    explanation::{Explanation, KnownKey, explain},
    report::{Computed, Report, Shape, Signed},
    route::{RouteRefusal, RouteVerdict, Routes},
    search::SearchLimits,
    url::{Clues, Url},
    url_checks::{UrlCheck, UrlReport, Verdict},
};
