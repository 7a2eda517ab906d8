//! Tables of suppressions, consents and conversation windows.

use maud::{Markup, html};
use serde::Deserialize;

use super::link;
use crate::components::{state, text, time};

/// A suppression.
#[derive(Debug, Deserialize)]
pub(super) struct Suppression {
    pub(super) number: String,
    pub(super) channel: String,
    source: String,
    error_code: Option<String>,
    pub(super) in_force: bool,
    since: Option<String>,
    expires_at: Option<String>,
    changed_at: Option<String>,
    message_sid: Option<String>,
    changed_by: Option<String>,
}

/// One piece of evidence of a consent.
#[derive(Debug, Deserialize)]
pub(super) struct Consent {
    id: String,
    number: String,
    channel: String,
    category: String,
    state: String,
    at: Option<String>,
    source: String,
    proof: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
    recorded_at: Option<String>,
    recorded_by: String,
}

/// A conversation window.
#[derive(Debug, Deserialize)]
pub(super) struct Window {
    channel: String,
    sender: String,
    last_inbound_at: Option<String>,
    expires_at: Option<String>,
    open: bool,
}

/// Renders suppressions; `action` renders the last cell of a row.
pub(super) fn suppressions_table(
    suppressions: &[Suppression],
    has_number: bool,
    action: impl Fn(&Suppression) -> Markup,
) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Suppressions" {
            table {
                caption { "Suppressions" }
                thead {
                    tr {
                        @if has_number { th scope="col" { "Number" } }
                        th scope="col" { "Channel" }
                        th scope="col" { "In effect" }
                        th scope="col" { "Source" }
                        th scope="col" { "Since (UTC)" }
                        th scope="col" { "Ends (UTC)" }
                        th scope="col" { "Last change (UTC)" }
                        @if !has_number { th scope="col" { "Action" } }
                    }
                }
                tbody {
                    @for one in suppressions {
                        tr data-row={ (one.channel) " " (one.number) " " (one.source) } {
                            @if has_number { td { (link(&one.number)) } }
                            td { (if one.channel == "*" { "every channel" } else { &one.channel }) }
                            td { (state(if one.in_force { "suppressed" } else { "ended" })) }
                            td.wide { (cause(one)) }
                            td { (time(one.since.as_deref())) }
                            td { (time(one.expires_at.as_deref())) }
                            td { (time(one.changed_at.as_deref())) @if let Some(by) = &one.changed_by { " by " (by) } }
                            @if !has_number { td { (action(one)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Renders the cause of a suppression, with the message that caused it.
fn cause(suppression: &Suppression) -> Markup {
    html! {
        (suppression.source.replace('_', " "))
        @if let Some(code) = &suppression.error_code { " error " code { (code) } }
        @if let Some(sid) = &suppression.message_sid {
            " " a href=(crate::path::join("/console/messages", sid)) { (sid) }
        }
    }
}

/// Renders consents with their evidence.
pub(super) fn consents_table(caption: &str, consents: &[Consent], has_number: bool) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead {
                    tr {
                        @if has_number { th scope="col" { "Number" } }
                        th scope="col" { "Purpose" }
                        th scope="col" { "State" }
                        th scope="col" { "Channel" }
                        th scope="col" { "Time (UTC)" }
                        th scope="col" { "Evidence" }
                        th scope="col" { "Recorded (UTC)" }
                    }
                }
                tbody {
                    @for one in consents {
                        tr data-row=(one.id) {
                            @if has_number { td { (link(&one.number)) } }
                            td { (one.category) }
                            td { (state(&one.state)) }
                            td { (one.channel) }
                            td { (time(one.at.as_deref())) }
                            td.wide { (evidence(one)) }
                            td { (time(one.recorded_at.as_deref())) " by " (one.recorded_by) }
                        }
                    }
                }
            }
        }
    }
}

fn evidence(consent: &Consent) -> Markup {
    html! {
        strong { (consent.source) }
        @if let Some(proof) = &consent.proof { br; (proof) }
        @if consent.ip.is_some() || consent.user_agent.is_some() {
            br;
            span.small { "IP " (text(consent.ip.as_deref())) ", user agent " (text(consent.user_agent.as_deref())) }
        }
    }
}

/// Renders the conversation windows of a contact.
pub(super) fn windows_table(windows: &[Window]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Conversation windows" {
            table {
                caption { "Conversation windows" }
                thead {
                    tr {
                        th scope="col" { "Channel" }
                        th scope="col" { "Own number" }
                        th scope="col" { "Window" }
                        th scope="col" { "Last message of the contact (UTC)" }
                        th scope="col" { "Free text until (UTC)" }
                    }
                }
                tbody {
                    @for window in windows {
                        tr {
                            td { (window.channel) }
                            td { (window.sender) }
                            td { (state(if window.open { "open" } else { "closed" })) }
                            td { (time(window.last_inbound_at.as_deref())) }
                            td { (time(window.expires_at.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}
