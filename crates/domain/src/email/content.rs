//! Content of an e-mail, as it is stored until the e-mail has ended, and the body of SendGrid's `mail/send` for it.
//! Sources: twilio.com/docs/sendgrid/api-reference/mail-send (parameters) and /mail-send/limitations.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::EmailAddress;

/// Custom argument with our message id. SendGrid returns it in every event about the e-mail.
pub const MESSAGE_ID_ARGUMENT: &str = "twilio_edge_message_id";

/// Largest content of one e-mail in bytes: texts, or the values of a template. SendGrid accepts 30 MB with attachments; mail
/// programs cut a text of this size.
pub const MAX_CONTENT_BYTES: usize = 256 << 10;

/// Longest subject, in characters. A line of a header has at most 998 (RFC 5322).
const MAX_SUBJECT_CHARS: usize = 300;

/// Longest display name, in characters.
const MAX_NAME_CHARS: usize = 100;

/// Deepest nesting of the values of a template.
const MAX_DEPTH: usize = 8;

/// Sender or reply address, with the name that mail programs show.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Address; empty for the default sender of the account.
    pub address: String,
    /// Display name; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Content of an e-mail.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Text, HTML or both, with a subject.
    #[serde(rename = "own")]
    Own {
        /// Subject.
        subject: String,
        /// Plain text; empty without one.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
        /// HTML; empty without one.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        html: String,
    },
    /// Dynamic template of SendGrid.
    #[serde(rename = "template")]
    Template {
        /// Id of the template, `d-` and 32 hexadecimal digits.
        id: String,
        /// Values for the template.
        #[serde(default)]
        data: Map<String, Value>,
    },
}

/// One e-mail to one recipient.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    /// Address of the recipient.
    pub to: String,
    /// Sender.
    pub from: Mailbox,
    /// Address for replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Mailbox>,
    /// Content.
    pub body: Body,
}

/// Shows no address and no text, because neither must reach a log.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Email").field("template_id", &self.template_id()).finish_non_exhaustive()
    }
}

impl Email {
    /// Returns the stored form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the stored form of [`Email::to_json`].
    pub fn read(text: &str) -> Option<Email> {
        serde_json::from_str(text).ok()
    }

    /// Returns the id of the template; empty without one.
    pub fn template_id(&self) -> &str {
        match &self.body {
            Body::Template { id, .. } => id,
            Body::Own { .. } => "",
        }
    }

    /// Returns the first problem, with the name of its field. An empty sender is the default one.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let from = Some(&self.from).filter(|from| !from.address.is_empty());
        let mailboxes = [("from", from), ("reply_to", self.reply_to.as_ref())];
        let of_mailbox =
            mailboxes.into_iter().find_map(|(field, mailbox)| Some((field, mailbox?.problem()?)));
        let of_name = self.from.has_unfit_name().then(|| ("from_name", name_problem()));
        of_mailbox.or(of_name).or_else(|| self.body.problem())
    }

    /// Returns the body of `POST /v3/mail/send`.
    pub fn send_grid_json(&self, message_id: &str) -> String {
        let mut to = json!({
            "to": [{"email": self.to}],
            "custom_args": {MESSAGE_ID_ARGUMENT: message_id},
        });
        let mut request = json!({"from": self.from.send_grid_json()});
        if let Some(reply_to) = &self.reply_to {
            insert(&mut request, "reply_to", reply_to.send_grid_json());
        }
        match &self.body {
            Body::Own { subject, text, html } => {
                insert(&mut request, "subject", json!(subject));
                // SendGrid requires plain text before HTML.
                let parts = [("text/plain", text), ("text/html", html)];
                let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
                let content = parts.map(|(kind, value)| json!({"type": kind, "value": value}));
                insert(&mut request, "content", Value::Array(content.collect()));
            }
            Body::Template { id, data } => {
                insert(&mut request, "template_id", json!(id));
                insert(&mut to, "dynamic_template_data", Value::Object(data.clone()));
            }
        }
        insert(&mut request, "personalizations", json!([to]));
        request.to_string()
    }
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}

impl Mailbox {
    fn problem(&self) -> Option<String> {
        EmailAddress::parse(&self.address).err().map(str::to_owned)
    }

    fn has_unfit_name(&self) -> bool {
        self.name.chars().count() > MAX_NAME_CHARS || self.name.chars().any(char::is_control)
    }

    fn send_grid_json(&self) -> Value {
        match self.name.as_str() {
            "" => json!({"email": self.address}),
            name => json!({"email": self.address, "name": name}),
        }
    }
}

fn name_problem() -> String {
    format!("must have at most {MAX_NAME_CHARS} characters, without line breaks")
}

impl Body {
    fn problem(&self) -> Option<(&'static str, String)> {
        let (field, bytes) = match self {
            Body::Own { subject, text, html } => {
                let count = subject.chars().count();
                let is_line = !subject.chars().any(char::is_control);
                if !is_line || !(1..=MAX_SUBJECT_CHARS).contains(&count) {
                    let must = format!(
                        "must have 1 to {MAX_SUBJECT_CHARS} characters, without line breaks"
                    );
                    return Some(("subject", must));
                }
                if text.is_empty() && html.is_empty() {
                    return Some(("text", "is required, unless there is html".to_owned()));
                }
                ("text", text.len().saturating_add(html.len()))
            }
            Body::Template { id, data } => {
                if !is_template_id(id) {
                    return Some((
                        "template_id",
                        "must be d- and 32 hexadecimal digits".to_owned(),
                    ));
                }
                if data.values().any(|value| !is_within_depth(value, MAX_DEPTH)) {
                    let must = format!("must not be nested deeper than {MAX_DEPTH} levels");
                    return Some(("data", must));
                }
                ("data", serde_json::to_string(data).map_or(0, |text| text.len()))
            }
        };
        let must = format!("the content must have at most {MAX_CONTENT_BYTES} bytes");
        (bytes > MAX_CONTENT_BYTES).then_some((field, must))
    }
}

fn is_within_depth(value: &Value, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match value {
        Value::Array(list) => list.iter().all(|value| is_within_depth(value, depth)),
        Value::Object(fields) => fields.values().all(|value| is_within_depth(value, depth)),
        _ => true,
    }
}

/// Returns whether a text is the id of a dynamic template.
pub fn is_template_id(text: &str) -> bool {
    text.strip_prefix("d-")
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mailbox(address: &str, name: &str) -> Mailbox {
        Mailbox { address: address.into(), name: name.into() }
    }

    fn email(body: Body) -> Email {
        Email {
            to: "ava@example.com".into(),
            from: mailbox("shop@example.com", "Shop"),
            reply_to: None,
            body,
        }
    }

    fn own(subject: &str, text: &str, html: &str) -> Body {
        Body::Own { subject: subject.into(), text: text.into(), html: html.into() }
    }

    fn template(id: &str, data: Value) -> Body {
        let data = data.as_object().cloned().unwrap_or_default();
        Body::Template { id: id.into(), data }
    }

    #[test]
    fn request_has_the_fields_of_send_grid() {
        let request = |email: &Email| -> Value {
            serde_json::from_str(&email.send_grid_json("ms_1")).unwrap()
        };
        let texts = Email {
            reply_to: Some(mailbox("help@example.com", "")),
            ..email(own("Hi", "hello", "<p>hello"))
        };
        assert_eq!(
            request(&texts),
            json!({
                "personalizations": [{
                    "to": [{"email": "ava@example.com"}],
                    "custom_args": {"twilio_edge_message_id": "ms_1"},
                }],
                "from": {"email": "shop@example.com", "name": "Shop"},
                "reply_to": {"email": "help@example.com"},
                "subject": "Hi",
                "content": [
                    {"type": "text/plain", "value": "hello"},
                    {"type": "text/html", "value": "<p>hello"},
                ],
            })
        );
        let id = format!("d-{}", "0".repeat(32));
        let order = request(&email(template(&id, json!({"order": {"items": [1, 2]}}))));
        assert_eq!(order["template_id"], id);
        let data = &order["personalizations"][0]["dynamic_template_data"];
        assert_eq!(*data, json!({"order": {"items": [1, 2]}}));
        assert_eq!((order.get("content"), order.get("subject")), (None, None));
    }

    #[test]
    fn problem_names_the_field() {
        let good = format!("d-{}", "0".repeat(32));
        let deep = (0..9).fold(json!(1), |inner, _| json!([inner]));
        let large = "x".repeat(MAX_CONTENT_BYTES + 1);
        for (email, field) in [
            (email(own("", "hello", "")), "subject"),
            (email(own("a\r\nBcc: b@example.com", "hello", "")), "subject"),
            (email(own(&"s".repeat(301), "hello", "")), "subject"),
            (email(own("Hi", "", "")), "text"),
            (email(own("Hi", &large, "")), "text"),
            (email(template("d-1", json!({}))), "template_id"),
            (email(template(&good, json!({"a": deep}))), "data"),
            (email(template(&good, json!({"a": large}))), "data"),
            (Email { from: mailbox("shop", ""), ..email(own("Hi", "hello", "")) }, "from"),
            (Email { from: mailbox("", "a\nb"), ..email(own("Hi", "x", "")) }, "from_name"),
            (
                Email { reply_to: Some(mailbox("", "")), ..email(own("Hi", "hello", "")) },
                "reply_to",
            ),
        ] {
            assert_eq!(email.problem().unwrap().0, field);
        }
        let usual = Email { from: mailbox("", ""), ..email(own("Hi", "hello", "")) };
        assert_eq!(usual.problem(), None, "the account has a default sender");
        assert_eq!(email(own("Hi", "hello", "")).problem(), None);
        assert_eq!(email(template(&good, json!({"name": "Ava"}))).problem(), None);
    }

    proptest! {
        #[test]
        fn stored_email_is_read_back(subject: String, text: String, html: String, name: String) {
            let email = Email { from: mailbox("shop@example.com", &name), ..email(own(&subject, &text, &html)) };
            prop_assert!(Email::read(&email.to_json()) == Some(email));
        }
    }
}
