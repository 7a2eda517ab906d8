//! Typed view of what a contact sends besides text: a tapped button, a chosen list item, a location, contacts, and the
//! advertisement or message that it answers. Twilio sends all of it as parameters. A value that does not have Twilio's form is
//! in `raw` only.
//! Source: twilio.com/docs/messaging/guides/webhook-request.

use std::borrow::Cow;

use serde::Serialize;

/// Maximum number of media of a message that are read.
const MAX_MEDIA: usize = 10;

/// Media types of contacts.
const CONTACT_TYPES: [&str; 3] = ["text/vcard", "text/x-vcard", "text/directory"];

type Text<'a> = Option<Cow<'a, str>>;

/// Reply of a contact.
#[derive(Debug, Default, Serialize)]
pub(super) struct Reply<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    button: Option<Button<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<ListItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referral: Option<Referral<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contacts: Vec<Contact<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replied_to: Option<RepliedTo<'a>>,
}

/// Button that the contact tapped.
#[derive(Debug, Serialize)]
struct Button<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Text<'a>,
}

/// List item that the contact chose.
#[derive(Debug, Serialize)]
struct ListItem<'a> {
    id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Text<'a>,
}

/// Location that the contact shared.
#[derive(Debug, Serialize)]
struct Location<'a> {
    latitude: f64,
    longitude: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Text<'a>,
}

/// Advertisement that the contact came from.
#[derive(Debug, Serialize)]
struct Referral<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    source_id: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_type: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_url: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headline: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_url: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_content_type: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ctwa_clid: Text<'a>,
}

/// Shared contact, as a vCard at Twilio.
#[derive(Debug, Serialize)]
struct Contact<'a> {
    url: Cow<'a, str>,
    content_type: Cow<'a, str>,
}

/// Message that the contact replied to.
#[derive(Debug, Serialize)]
struct RepliedTo<'a> {
    message_sid: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Text<'a>,
}

impl<'a> Reply<'a> {
    /// Reads the parameters. `parameter` returns the first value of a name.
    pub(super) fn read(parameter: impl Fn(&str) -> Text<'a>) -> Reply<'a> {
        let text = |name: &str| parameter(name).filter(|value| !value.is_empty());
        let button = Button { text: text("ButtonText"), payload: text("ButtonPayload") };
        let referral = Referral {
            source_id: text("ReferralSourceId"),
            source_type: text("ReferralSourceType"),
            source_url: text("ReferralSourceUrl"),
            headline: text("ReferralHeadline"),
            body: text("ReferralBody"),
            media_url: text("ReferralMediaUrl"),
            media_content_type: text("ReferralMediaContentType"),
            ctwa_clid: text("ReferralCtwaClid"),
        };
        let has_button = button.text.is_some() || button.payload.is_some();
        let has_referral =
            [&referral.source_id, &referral.source_url, &referral.headline, &referral.ctwa_clid]
                .iter()
                .any(|value| value.is_some());
        let contact = |n: usize| {
            let content_type = text(&format!("MediaContentType{n}"))?;
            let media_type = content_type.split(';').next().unwrap_or_default().trim();
            CONTACT_TYPES.contains(&media_type.to_ascii_lowercase().as_str()).then_some(())?;
            Some(Contact { url: text(&format!("MediaUrl{n}"))?, content_type })
        };
        Reply {
            button: has_button.then_some(button),
            list: text("ListId").map(|id| ListItem { id, title: text("ListTitle") }),
            location: location(&text),
            referral: has_referral.then_some(referral),
            contacts: (0..MAX_MEDIA).filter_map(contact).collect(),
            replied_to: text("OriginalRepliedMessageSid").map(|message_sid| RepliedTo {
                message_sid,
                sender: text("OriginalRepliedMessageSender"),
            }),
        }
    }
}

fn location<'a>(text: &impl Fn(&str) -> Text<'a>) -> Option<Location<'a>> {
    let degrees = |name: &str, most: f64| {
        let degrees: f64 = text(name)?.trim().parse().ok()?;
        (-most..=most).contains(&degrees).then_some(degrees)
    };
    Some(Location {
        latitude: degrees("Latitude", 90.0)?,
        longitude: degrees("Longitude", 180.0)?,
        address: text("Address"),
        label: text("Label"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Value {
        let parameter = |name: &str| {
            let found = parameters.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| Cow::Owned((*value).to_owned()))
        };
        serde_json::to_value(Reply::read(parameter)).unwrap()
    }

    #[test]
    fn each_kind_of_reply_is_typed() {
        for (parameters, expected) in [
            (&[("Body", "hello")][..], json!({})),
            (
                &[("ButtonText", "Yes"), ("ButtonPayload", "yes-1")],
                json!({"button": {"text": "Yes", "payload": "yes-1"}}),
            ),
            (
                &[("ListId", "l1"), ("ListTitle", "Small")],
                json!({"list": {"id": "l1", "title": "Small"}}),
            ),
            (
                &[
                    ("Latitude", "52.5"),
                    ("Longitude", "-13.25"),
                    ("Label", "Office"),
                    ("Address", ""),
                ],
                json!({"location": {"latitude": 52.5, "longitude": -13.25, "label": "Office"}}),
            ),
            (&[("Latitude", "91"), ("Longitude", "0")], json!({})),
            (&[("Latitude", "NaN"), ("Longitude", "0")], json!({})),
            (
                &[
                    ("ReferralSourceId", "17"),
                    ("ReferralHeadline", "Sale"),
                    ("ReferralCtwaClid", "c"),
                ],
                json!({"referral": {"source_id": "17", "headline": "Sale", "ctwa_clid": "c"}}),
            ),
            (
                &[
                    ("MediaContentType0", "image/png"),
                    ("MediaUrl0", "https://a/0"),
                    ("MediaContentType1", "text/vcard"),
                    ("MediaUrl1", "https://a/1"),
                ],
                json!({"contacts": [{"url": "https://a/1", "content_type": "text/vcard"}]}),
            ),
            (
                &[
                    ("OriginalRepliedMessageSid", "SM1"),
                    ("OriginalRepliedMessageSender", "whatsapp:+1"),
                ],
                json!({"replied_to": {"message_sid": "SM1", "sender": "whatsapp:+1"}}),
            ),
        ] {
            assert_eq!(read(parameters), expected, "{parameters:?}");
        }
    }
}
