//! Forms that change the records of a contact.

use maud::{Markup, html};
use serde::Deserialize;

use super::{CATEGORIES, contact::path, records::Suppression};
use crate::{
    action::given,
    components::{form_key, text},
    viewer::Viewer,
};

/// Forms of the page. A refused form keeps what was written.
#[derive(Debug, Default)]
pub(super) struct Forms {
    pub(super) consent: NewConsent,
    pub(super) suppression: Option<NewSuppression>,
}

/// Form of a consent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NewConsent {
    pub(super) channel: String,
    pub(super) category: String,
    pub(super) state: String,
    pub(super) at: String,
    pub(super) source: String,
    pub(super) proof: String,
    pub(super) form_key: String,
}

/// Renders the form of a consent.
pub(super) fn consent_form(number: &str, form: &NewConsent) -> Markup {
    let is_refused = !form.category.is_empty();
    html! {
        details open[is_refused] {
            summary { "Record a consent or its withdrawal" }
            form.card method="post" action={ (path(number)) "/consent" } {
                input type="hidden" name="form_key" value=(form_key());
                label for="consent-category" { "Purpose" }
                select #consent-category name="category" {
                    @for category in CATEGORIES { option value=(category) selected[category == form.category] { (category) } }
                }
                label for="consent-state" { "State" }
                select #consent-state name="state" {
                    @for state in ["granted", "withdrawn"] { option value=(state) selected[state == form.state] { (state) } }
                }
                label for="consent-source" { "Source of the evidence" }
                input #consent-source name="source" value=(form.source) required maxlength="100" placeholder="form on example.com/newsletter";
                label for="consent-proof" { "Text that the contact was shown, and the reply" }
                textarea #consent-proof name="proof" rows="3" maxlength="4000" { (form.proof) }
                label for="consent-at" { "Time (UTC), empty for now" }
                input #consent-at name="at" value=(form.at) placeholder="2026-01-31T12:00:00Z" spellcheck="false";
                label for="consent-channel" { "Channel" }
                (channel_field("consent-channel", number, given(&form.channel).unwrap_or("sms")))
                button.primary type="submit" { "Record the consent" }
            }
        }
    }
}

/// Renders the field for a channel; a number with a channel prefix needs none.
fn channel_field(id: &str, number: &str, default: &str) -> Markup {
    let prefix = number.split_once(':').map(|(channel, _)| channel);
    html! {
        input id=(id) name="channel" placeholder="sms, whatsapp, .." spellcheck="false" disabled[prefix.is_some()]
            value=(prefix.unwrap_or(default));
    }
}

/// Form of a suppression.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NewSuppression {
    pub(super) channel: String,
    pub(super) expires_at: String,
    pub(super) form_key: String,
}

/// Renders the form of a suppression.
pub(super) fn suppression_form(number: &str, refused: Option<&NewSuppression>) -> Markup {
    let channel = refused.map_or("*", |form| form.channel.as_str());
    let expires_at = refused.map_or("", |form| form.expires_at.as_str());
    html! {
        details open[refused.is_some()] {
            summary { "Suppress the contact" }
            form.card method="post" action={ (path(number)) "/suppress" } {
                input type="hidden" name="form_key" value=(form_key());
                label for="suppression-channel" { "Channel; * for every channel" }
                (channel_field("suppression-channel", number, channel))
                label for="suppression-end" { "Ends by itself (UTC), empty for never" }
                input #suppression-end name="expires_at" value=(expires_at) placeholder="2026-12-31T00:00:00Z" spellcheck="false";
                button.danger type="submit" { "Suppress the contact" }
            }
        }
    }
}

/// Form of the end of a suppression.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct End {
    pub(super) channel: String,
}

/// Renders the form of the end of a suppression.
pub(super) fn end_form(viewer: &Viewer, number: &str, suppression: &Suppression) -> Markup {
    html! {
        @if !suppression.in_force {
            (text(None))
        } @else if viewer.is_administrator() {
            form method="post" action={ (path(number)) "/end-suppression" } {
                input type="hidden" name="channel" value=(suppression.channel);
                button.danger type="submit"
                    data-confirm="End the suppression? Do this only if the contact has agreed to receive messages again." {
                    "End"
                }
            }
        } @else {
            span.small { "An administrator can end it." }
        }
    }
}
