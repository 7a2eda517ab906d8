//! Templates of the simulator: the catalogue of the Content API and the variables of a message. The catalogue is read once
//! from a file, or is the demo's own.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

/// Template of the catalogue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// SID: `HX` and 32 hexadecimal digits.
    pub sid: String,
    /// Name.
    pub friendly_name: String,
    /// Language: `en`, `pt_BR`, ..
    pub language: String,
    /// Text, with `{{1}}` in the places of variables.
    pub body: String,
    /// Approval by WhatsApp: `approved`, `pending`, `unsubmitted`, `rejected`, `paused`, `disabled`.
    #[serde(default = "approved")]
    pub approval: String,
    /// Category: `UTILITY`, `MARKETING`, `AUTHENTICATION`.
    #[serde(default = "utility")]
    pub category: String,
}

fn approved() -> String {
    "approved".to_owned()
}

fn utility() -> String {
    "UTILITY".to_owned()
}

/// Default catalogue: SID, name, language, approval, category, text.
const USUAL: [[&str; 6]; 5] = [
    [
        "HX00112233445566778899aabbccddeeff",
        "shipping_update",
        "en_US",
        "approved",
        "UTILITY",
        "Hello {{1}}, your order {{2}} is on its way.",
    ],
    [
        "HX00112233445566778899aabbccddee01",
        "shipping_update",
        "pt_BR",
        "approved",
        "UTILITY",
        "Oi {{1}}, seu pedido {{2}} está a caminho.",
    ],
    [
        "HX00112233445566778899aabbccddee02",
        "may_we_write",
        "en_US",
        "approved",
        "UTILITY",
        "There is news about your order. Answer this message to read it.",
    ],
    [
        "HX00112233445566778899aabbccddee03",
        "spring_sale",
        "en_US",
        "pending",
        "MARKETING",
        "{{1}}, everything is cheaper until {{2}}.",
    ],
    [
        "HX00112233445566778899aabbccddee04",
        "winter_sale",
        "en_US",
        "rejected",
        "MARKETING",
        "{{1}}, buy it now!",
    ],
];

/// Returns the default catalogue.
pub fn usual() -> Vec<Content> {
    let content = |[sid, name, language, approval, category, body]: [&str; 6]| Content {
        sid: sid.to_owned(),
        friendly_name: name.to_owned(),
        language: language.to_owned(),
        body: body.to_owned(),
        approval: approval.to_owned(),
        category: category.to_owned(),
    };
    USUAL.map(content).into()
}

impl Content {
    /// Returns the text with `variables` filled in; the error is Twilio's code of the refusal.
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

    /// Returns whether WhatsApp treats the template as free text.
    pub(super) fn is_free_text(&self) -> bool {
        self.approval != "approved"
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

    /// Returns the content as `GET /v1/Content/{sid}` shows it.
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

    /// Returns the content as `GET /v1/ContentAndApprovals` shows it.
    pub(super) fn with_approval(&self, account: &str, date: &str, origin: &str) -> Value {
        let mut shown = self.to_json(account, date, origin);
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("url");
            fields.remove("links");
            fields.insert("approval_requests".to_owned(), self.approval_requests());
        }
        shown
    }

    /// Returns the approval as `GET /v1/Content/{sid}/ApprovalRequests` shows it.
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
        let mut content = usual().swap_remove(0);
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
