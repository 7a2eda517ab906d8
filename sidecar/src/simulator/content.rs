//! Templates: the catalogue of the Content API and what a message may fill in. Read once from a file, or the demo's own.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

/// A template.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// `HX` and 32 hexadecimal digits.
    pub sid: String,
    /// Its name.
    pub friendly_name: String,
    /// `en`, `pt_BR`, ..
    pub language: String,
    /// Its text, with `{{1}}` where variables go.
    pub body: String,
    /// `approved`, `pending`, `rejected`, `paused`, `disabled`: what WhatsApp says of it.
    #[serde(default = "approved")]
    pub approval: String,
    /// `UTILITY`, `MARKETING`, `AUTHENTICATION`
    #[serde(default = "utility")]
    pub category: String,
}

fn approved() -> String {
    "approved".to_owned()
}

fn utility() -> String {
    "UTILITY".to_owned()
}

/// What is there when nobody names a catalogue.
pub fn usual() -> Vec<Content> {
    vec![Content {
        sid: "HX00112233445566778899aabbccddeeff".to_owned(),
        friendly_name: "shipping_update".to_owned(),
        language: "en_US".to_owned(),
        body: "Hello {{1}}, your order {{2}} is on its way.".to_owned(),
        approval: approved(),
        category: utility(),
    }]
}

impl Content {
    /// The text with `variables` in it; the error is Twilio's code for what it cannot be sent for.
    pub(super) fn filled(&self, variables: &BTreeMap<String, String>) -> Result<String, u32> {
        match self.approval.as_str() {
            "rejected" => return Err(63040),
            "paused" => return Err(63041),
            "disabled" => return Err(63042),
            _ => {}
        }
        let mut text = self.body.clone();
        for name in self.variables() {
            let value = variables.get(&name).ok_or(63028_u32)?;
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        Ok(text)
    }

    fn variables(&self) -> BTreeSet<String> {
        let names = self.body.split("{{").skip(1);
        names.filter_map(|rest| rest.split_once("}}")).map(|(name, _)| name.to_owned()).collect()
    }

    fn approval_requests(&self) -> Value {
        json!({
            "name": self.friendly_name, "category": self.category, "content_type": "twilio/text",
            "status": self.approval, "rejection_reason": "", "allow_category_change": true,
        })
    }

    /// As `GET /v1/Content/{sid}` shows it.
    pub(super) fn to_json(&self, account: &str, date: &str, origin: &str) -> Value {
        let url = format!("{origin}/v1/Content/{}", self.sid);
        let variables: BTreeMap<String, &str> =
            self.variables().into_iter().map(|name| (name, "")).collect();
        json!({
            "sid": self.sid, "account_sid": account, "friendly_name": self.friendly_name,
            "language": self.language, "variables": variables,
            "types": { "twilio/text": { "body": self.body } },
            "date_created": date, "date_updated": date, "url": url,
            "links": {
                "approval_create": format!("{url}/ApprovalRequests/whatsapp"),
                "approval_fetch": format!("{url}/ApprovalRequests"),
            },
        })
    }

    /// As `GET /v1/ContentAndApprovals` shows it.
    pub(super) fn with_approval(&self, account: &str, date: &str, origin: &str) -> Value {
        let mut shown = self.to_json(account, date, origin);
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("url");
            fields.remove("links");
            fields.insert("approval_requests".to_owned(), self.approval_requests());
        }
        shown
    }

    /// As `GET /v1/Content/{sid}/ApprovalRequests` shows it.
    pub(super) fn approval(&self, account: &str, origin: &str) -> Value {
        json!({
            "sid": self.sid, "account_sid": account, "whatsapp": self.approval_requests(),
            "url": format!("{origin}/v1/Content/{}/ApprovalRequests", self.sid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_needed_and_what_is_not_approved_is_not_sent() {
        let [mut content] = <[Content; 1]>::try_from(usual()).unwrap();
        let given = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let filled = content.filled(&given(&[("1", "Ada"), ("2", "7")]));
        assert_eq!(filled.unwrap(), "Hello Ada, your order 7 is on its way.");
        assert_eq!(content.filled(&given(&[("1", "Ada")])), Err(63028));
        content.approval = "paused".to_owned();
        assert_eq!(content.filled(&given(&[])), Err(63041));
    }
}
