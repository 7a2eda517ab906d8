//! Parser of templates from Twilio's Content API. Source: twilio_content_v1.json, `ContentAndApprovals`.

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Approval, MAX_TEXT_CHARS, Source, Template, is_content_sid, is_name, locale::Locale, variables,
};
use crate::policy::Category;

/// Entry of `contents`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Content {
    sid: Option<String>,
    friendly_name: Option<String>,
    language: Option<String>,
    types: Option<Value>,
    approval_requests: Option<Value>,
}

impl Content {
    /// Returns the template, or `None` if it has no valid id, name, language or variables, and so cannot be selected.
    pub fn template(self, now_ms: i64) -> Option<Template> {
        let content_sid = self.sid.filter(|sid| is_content_sid(sid))?;
        let approval = self.approval_requests.unwrap_or_default();
        let of_approval =
            |name: &str| approval.get(name).and_then(Value::as_str).unwrap_or_default();
        let name = match self.friendly_name {
            Some(name) if !name.is_empty() => name,
            _ => of_approval("name").to_owned(),
        };
        let locale = Locale::parse(self.language.as_deref().unwrap_or_default())?;
        let types = self.types.unwrap_or_default();
        let places = variables::variable_names(&types);
        if !is_name(&name) || !variables::are_variable_names(&places) {
            return None;
        }
        let category = of_approval("category").to_ascii_lowercase();
        let mut reason = of_approval("rejection_reason").to_owned();
        reason.retain(|c| !c.is_control());
        Some(Template {
            source: Source::Twilio,
            content_sid,
            name,
            locale,
            approval: Approval::of(of_approval("status")),
            reason: reason.chars().take(200).collect(),
            category: Category::ALL.into_iter().find(|known| known.as_str() == category),
            variables: places,
            text: text(&types).chars().take(MAX_TEXT_CHARS).collect(),
            has_others: has_others(&types, of_approval("content_type")),
            digest: digest(&types),
            changed_at_ms: now_ms,
        })
    }
}

/// Returns the text of the first type that has one.
fn text(types: &Value) -> &str {
    let fields = types.as_object().into_iter().flatten().map(|(_, fields)| fields);
    let texts = fields
        .filter_map(|fields| ["body", "title"].iter().find_map(|name| fields.get(*name)?.as_str()));
    texts.into_iter().next().unwrap_or_default()
}

/// Returns whether WhatsApp shows more than a text: for the approved type, or else for any type.
fn has_others(types: &Value, approved: &str) -> bool {
    const TEXT: &str = "twilio/text";
    match approved {
        "" => types.as_object().into_iter().flatten().any(|(name, _)| name != TEXT),
        approved => approved != TEXT,
    }
}

/// Returns a digest of all visible content, independent of the order of its fields.
fn digest(types: &Value) -> String {
    let digest = Sha256::digest(types.to_string().as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(change: Value) -> Option<Template> {
        let mut usual = json!({
            "sid": "HX00112233445566778899aabbccddeeff", "friendly_name": "shipping", "language": "pt_BR",
            "types": {"twilio/text": {"body": "Oi {{1}}"}},
            "approval_requests": {"name": "x", "category": "UTILITY", "status": "approved", "rejection_reason": ""},
            "account_sid": "AC1", "variables": {"1": "Ada"},
        });
        usual.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value::<Content>(usual).unwrap().template(7)
    }

    #[test]
    fn content_of_twilio_is_parsed() {
        let template = of(json!({})).unwrap();
        assert_eq!((template.name.as_str(), template.locale.as_str()), ("shipping", "pt_BR"));
        assert_eq!(
            (template.approval, template.category),
            (Approval::Approved, Some(Category::Utility))
        );
        assert_eq!((template.text.as_str(), template.variables.len()), ("Oi {{1}}", 1));
        let same = of(json!({"friendly_name": "other"})).unwrap();
        assert_eq!(same.digest, template.digest);
        let other = of(json!({"types": {"twilio/text": {"body": "Oi {{1}}!"}}})).unwrap();
        assert_ne!(other.digest, template.digest);
    }

    #[test]
    fn template_with_buttons_has_more_than_a_text() {
        let card = json!({"twilio/card": {"title": "Oi"}, "twilio/text": {"body": "Oi"}});
        let of_type = |name: &str| {
            let approval =
                json!({"category": "UTILITY", "status": "approved", "content_type": name});
            of(json!({"types": card, "approval_requests": approval})).unwrap().has_others
        };
        assert!(of_type("twilio/card") && !of_type("twilio/text"));
        assert!(of(json!({"types": card})).unwrap().has_others);
        assert!(!of(json!({})).unwrap().has_others);
    }

    #[test]
    fn content_without_fields_stays_empty() {
        let bare = of(json!({"approval_requests": null, "types": null})).unwrap();
        assert_eq!((bare.approval, bare.category), (Approval::Unsubmitted, None));
        let named = of(json!({"friendly_name": ""})).unwrap();
        assert_eq!(named.name, "x");
        for (status, approval) in [
            ("received", Approval::Pending),
            ("PAUSED", Approval::Paused),
            ("invented tomorrow", Approval::Unsubmitted),
        ] {
            let said =
                of(json!({"approval_requests": {"status": status, "category": "TRANSACTIONAL"}}));
            let said = said.unwrap();
            assert_eq!((said.approval, said.category), (approval, None));
        }
        assert_eq!(of(json!({"sid": "HX1"})), None);
        assert_eq!(of(json!({"language": ""})), None);
        assert_eq!(of(json!({"friendly_name": "a\nb"})), None);
    }
}
