//! Tenants: accounts with a profile, and the rules that follow from it. This module validates a profile and merges it
//! with the general rules. It must not know where profiles are stored, nor who writes them.

use serde_json::Value;

use crate::{
    message::NumberQuery,
    policy::Policy,
    retention::{Retention, RetentionOverlay},
};

/// Maximum length of a name, in characters.
const MAX_NAME_CHARS: usize = 100;

/// Maximum number of senders, and of Messaging Services.
const MAX_ENTRIES: usize = 1000;

/// Problem of a policy that fetches media without a store for them.
pub const NO_MEDIA_STORE: &str = "inbound_media.fetch: needs a media store with links of its own: the operator has to set media.store.url, media.store.public_url and media.store.link_key";

/// Profile of an account.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Parent account of a subaccount.
    pub parent_sid: Option<String>,
    /// Display name.
    pub friendly_name: String,
    /// Numbers and senders of the account.
    pub senders: Vec<String>,
    /// Messaging Services of the account.
    pub services: Vec<String>,
    /// Differences from the general policy, as JSON.
    pub policy: Value,
    /// Differences from the general retention, as JSON.
    pub retention: Value,
}

/// Account with a stored profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Account.
    pub account_sid: String,
    /// Profile.
    pub profile: Profile,
    /// Revision, from 1; each change increments it.
    pub revision: i64,
    /// Time of creation, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// Time of the last change, in milliseconds since 1970.
    pub updated_at_ms: i64,
    /// Time when the account was closed, in milliseconds since 1970; requests of its applications are refused since
    /// then.
    pub closed_at_ms: Option<i64>,
}

/// General rules, against which a profile is validated.
#[derive(Debug, Clone)]
pub struct GeneralRules {
    /// General policy.
    pub policy: Policy,
    /// General retention.
    pub retention: Retention,
    /// Milliseconds for which duplicates are recognized.
    pub result_ms: i64,
    /// True if a hash key is configured.
    pub hashes: bool,
    /// True if the settings permit links to stored media of inbound messages.
    pub links_media: bool,
}

/// Reason why a profile is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileError {
    /// A field has the wrong syntax.
    Syntax(String),
    /// The syntax is correct, but the value cannot be in effect.
    Invalid(String),
}

impl Profile {
    /// Creates the profile of an account without any settings.
    pub fn empty() -> Profile {
        let nothing = Value::Object(serde_json::Map::new());
        Profile {
            parent_sid: None,
            friendly_name: String::new(),
            senders: Vec::new(),
            services: Vec::new(),
            policy: nothing.clone(),
            retention: nothing,
        }
    }

    /// Returns the rules in effect for the account.
    pub fn rules(&self, general: &GeneralRules) -> Result<(Policy, Retention), ProfileError> {
        let meaning = |field: &str, problems: Vec<String>| {
            ProfileError::Invalid(
                problems.iter().map(|one| format!("{field}.{one}")).collect::<Vec<_>>().join("; "),
            )
        };
        let policy = general.policy.with(&self.policy).map_err(|them| meaning("policy", them))?;
        if policy.inbound_media.fetch && !general.links_media {
            return Err(meaning("policy", vec![NO_MEDIA_STORE.to_owned()]));
        }
        let overlay: RetentionOverlay = serde_json::from_value(self.retention.clone())
            .map_err(|error| ProfileError::Invalid(format!("retention: {error}")))?;
        let retention = general.retention.with(&overlay);
        let problems = retention.problems(general.result_ms, general.hashes);
        match problems.is_empty() {
            true => Ok((policy, retention)),
            false => Err(meaning("retention", problems)),
        }
    }

    /// Validates the profile of this account.
    pub fn check(&self, account_sid: &str, general: &GeneralRules) -> Result<(), ProfileError> {
        let form = |good: bool, problem: String| {
            if good { Ok(()) } else { Err(ProfileError::Syntax(problem)) }
        };
        form(
            self.parent_sid.as_deref().is_none_or(is_account_sid),
            "parent_sid: must be AC and 32 lower-case hexadecimal digits".into(),
        )?;
        let name = &self.friendly_name;
        form(
            name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control),
            format!(
                "friendly_name: must be at most {MAX_NAME_CHARS} characters, none of them a control character"
            ),
        )?;
        form(
            self.senders.len() <= MAX_ENTRIES && self.services.len() <= MAX_ENTRIES,
            format!("senders, services: must have at most {MAX_ENTRIES} entries each"),
        )?;
        for sender in &self.senders {
            let problem =
                "senders: each must be a number such as +15551234567 or whatsapp:+15551234567";
            form(NumberQuery::parse_query(sender).is_some(), problem.into())?;
        }
        for service in &self.services {
            let problem = "services: each must be MG and 32 lower-case hexadecimal digits";
            form(is_service_sid(service), problem.into())?;
        }
        if self.parent_sid.as_deref() == Some(account_sid) {
            return Err(ProfileError::Invalid("parent_sid: must be another account".into()));
        }
        self.rules(general).map(|_| ())
    }
}

/// Returns whether a text is an account SID: `AC` and 32 lower-case hexadecimal digits.
pub fn is_account_sid(text: &str) -> bool {
    is_sid("AC", text)
}

/// Returns whether a text is the SID of a Messaging Service: `MG` and 32 lower-case hexadecimal digits.
pub fn is_service_sid(text: &str) -> bool {
    is_sid("MG", text)
}

fn is_sid(prefix: &str, text: &str) -> bool {
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::retention::RetentionPeriod;

    fn general() -> GeneralRules {
        GeneralRules {
            policy: crate::defaults::section("policy"),
            retention: crate::defaults::section("retention"),
            result_ms: 7 * 24 * 60 * 60 * 1000,
            hashes: false,
            links_media: false,
        }
    }

    const SID: &str = "AC00112233445566778899aabbccddeeff";

    #[test]
    fn profile_overrides_the_general_rules() {
        let general = general();
        let profile = Profile {
            policy: json!({"stop_reaches": "channel"}),
            retention: json!({"body": {"keep": "7d"}}),
            ..Profile::empty()
        };
        profile.check(SID, &general).unwrap();
        let (policy, retention) = profile.rules(&general).unwrap();
        assert_eq!(retention.body.keep, "7d".parse::<RetentionPeriod>().unwrap());
        assert_eq!(retention.media, general.retention.media);
        assert_eq!(policy, general.policy.with(&json!({"stop_reaches": "channel"})).unwrap());
        assert_eq!(Profile::empty().rules(&general).unwrap(), (general.policy, general.retention));
    }

    #[test]
    fn profile_problem_names_its_field() {
        let empty = Profile::empty;
        for (profile, field) in [
            (Profile { parent_sid: Some("AC1".into()), ..empty() }, "parent_sid"),
            (Profile { parent_sid: Some(SID.into()), ..empty() }, "parent_sid"),
            (Profile { friendly_name: "n".repeat(101), ..empty() }, "friendly_name"),
            (Profile { friendly_name: "a\u{7}b".into(), ..empty() }, "friendly_name"),
            (Profile { senders: vec!["whatsapp:".into()], ..empty() }, "senders"),
            (Profile { senders: vec!["1".into(); 1001], ..empty() }, "senders"),
            (Profile { services: vec!["MG1".into()], ..empty() }, "services"),
            (Profile { policy: json!([]), ..empty() }, "policy"),
            (Profile { policy: json!({"nonsense": 1}), ..empty() }, "policy.nonsense"),
            (
                Profile { policy: json!({"inbound_media": {"fetch": true}}), ..empty() },
                "policy.inbound_media.fetch",
            ),
            (
                Profile {
                    policy: json!({"inbound_media": {"delete_after_fetch": true}}),
                    ..empty()
                },
                "policy.inbound_media.delete_after_fetch",
            ),
            (Profile { retention: json!({"body": {"keep": "soon"}}), ..empty() }, "retention"),
            (Profile { retention: json!({"events": "1h"}), ..empty() }, "retention.events"),
            (
                Profile { retention: json!({"body": {"redact": "hash"}}), ..empty() },
                "retention.body",
            ),
        ] {
            let (ProfileError::Syntax(problem) | ProfileError::Invalid(problem)) =
                profile.check(SID, &general()).unwrap_err();
            assert!(problem.starts_with(field), "{field}: {problem}");
        }
    }
}
