//! Retention periods of each part of a webhook, and the means of its redaction: the settings of `[retention]` and a
//! tenant's overlay. This module decides which parts of a row are due at a time. It must not know where rows are
//! stored, nor which parameters belong to a part ([`super::part`] and [`super::redaction`] do).

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    part::Part,
    redaction::{RedactionMethod, RedactionPlan},
};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Minimum of `addresses.keep`: the conversation window lasts a day and is found by the addresses of the last message.
const LEAST_ADDRESSES_MS: i64 = 2 * DAY_MS;

/// Retention period, counted from the first arrival of the webhook. Its text is `none` (never written), `12h`, `30d` or
/// `forever`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RetentionPeriod(i64);

impl RetentionPeriod {
    /// Redacted before it is written.
    pub const NONE: RetentionPeriod = RetentionPeriod(0);
    /// Never redacted.
    pub const FOREVER: RetentionPeriod = RetentionPeriod(i64::MAX);

    /// Returns the latest arrival that is due at `now_ms`, in milliseconds since 1970, or `None` if it is kept forever.
    pub fn cutoff_ms(self, now_ms: i64) -> Option<i64> {
        (self != RetentionPeriod::FOREVER).then(|| now_ms.saturating_sub(self.0))
    }

    /// Returns the period in milliseconds, and at most `ms`.
    pub fn at_most_ms(self, ms: i64) -> i64 {
        self.0.min(ms)
    }

    fn is_less_than(self, ms: i64) -> bool {
        self.0 < ms
    }
}

impl FromStr for RetentionPeriod {
    type Err = String;

    fn from_str(text: &str) -> Result<RetentionPeriod, String> {
        let problem =
            || "must be none, forever, or a number of hours or days, as in 12h or 30d".to_owned();
        match text {
            "none" => return Ok(RetentionPeriod::NONE),
            "forever" => return Ok(RetentionPeriod::FOREVER),
            _ => {}
        }
        let units = [('h', HOUR_MS), ('d', DAY_MS)];
        let units = units.iter().find_map(|(sign, ms)| Some((text.strip_suffix(*sign)?, ms)));
        let (count, unit) = units.ok_or_else(problem)?;
        let count: u32 = count.parse().map_err(|_| problem())?;
        match count {
            0 => Err("must be at least 1h; use none to store nothing".to_owned()),
            count => Ok(RetentionPeriod(i64::from(count).saturating_mul(*unit))),
        }
    }
}

impl TryFrom<String> for RetentionPeriod {
    type Error = String;

    fn try_from(text: String) -> Result<RetentionPeriod, String> {
        text.parse()
    }
}

impl From<RetentionPeriod> for String {
    fn from(keep: RetentionPeriod) -> String {
        keep.to_string()
    }
}

impl fmt::Display for RetentionPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            RetentionPeriod::NONE => f.write_str("none"),
            RetentionPeriod::FOREVER => f.write_str("forever"),
            RetentionPeriod(ms) if ms % DAY_MS == 0 => write!(f, "{}d", ms / DAY_MS),
            RetentionPeriod(ms) => write!(f, "{}h", ms / HOUR_MS),
        }
    }
}

/// Retention period and means of redaction of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Retention period.
    pub keep: RetentionPeriod,
    /// Means of redaction after the period.
    pub redact: RedactionMethod,
}

/// Rules of one tenant, or of all tenants without an overlay. `defaults.toml` describes each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Text of the message.
    pub body: RetentionRule,
    /// URLs of media.
    pub media: RetentionRule,
    /// Name and location of the contact, without their address.
    pub person: RetentionRule,
    /// Addresses of both ends.
    pub addresses: RetentionRule,
    /// Parameters of no other part that are not technical.
    pub other: RetentionRule,
    /// Answers of the backend.
    pub answers: RetentionPeriod,
    /// Whole rows with everything that is left: account, times, status.
    pub events: RetentionPeriod,
    /// Audit log of administrative changes.
    pub audit: RetentionPeriod,
    /// Refused requests and their causes.
    pub refused_requests: RetentionPeriod,
    /// True if codes of 4 to 8 digits are removed from bodies before they are written.
    pub redact_codes: bool,
}

/// Differences of one tenant from the general rules, as JSON: `{"body": {"keep": "7d"}, "redact_codes": true}`. Fields
/// that it omits follow the general rules. The audit log belongs to the operator, so a tenant cannot change its period.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionOverlay {
    /// Text of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<RetentionRuleOverlay>,
    /// URLs of media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<RetentionRuleOverlay>,
    /// Name and location of the contact, without their address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<RetentionRuleOverlay>,
    /// Addresses of both ends; at least two days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<RetentionRuleOverlay>,
    /// Parameters of no other part that are not technical.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<RetentionRuleOverlay>,
    /// Answers of the backend: `none`, `12h`, `30d` or `forever`.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<RetentionPeriod>,
    /// Whole rows: `12h`, `30d` or `forever`, but at least as long as duplicates are recognized.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<RetentionPeriod>,
    /// True if codes of 4 to 8 digits are removed from bodies before they are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redact_codes: Option<bool>,
}

/// Differences from a [`RetentionRule`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionRuleOverlay {
    /// Retention period: `none`, `12h`, `30d` or `forever`.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<RetentionPeriod>,
    /// Means of redaction after the period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redact: Option<RedactionMethod>,
}

/// Parts that are due together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRedaction {
    /// The parts, each with its means of redaction.
    pub plan: RedactionPlan,
    /// Latest arrival that is due, in milliseconds since 1970.
    pub until_ms: i64,
}

impl Retention {
    /// Returns these rules merged with a tenant's overlay.
    pub fn with(&self, overlay: &RetentionOverlay) -> Retention {
        let rule = |own: RetentionRule, over: Option<RetentionRuleOverlay>| {
            let over = over.unwrap_or_default();
            RetentionRule {
                keep: over.keep.unwrap_or(own.keep),
                redact: over.redact.unwrap_or(own.redact),
            }
        };
        Retention {
            body: rule(self.body, overlay.body),
            media: rule(self.media, overlay.media),
            person: rule(self.person, overlay.person),
            addresses: rule(self.addresses, overlay.addresses),
            other: rule(self.other, overlay.other),
            answers: overlay.answers.unwrap_or(self.answers),
            events: overlay.events.unwrap_or(self.events),
            audit: self.audit,
            refused_requests: self.refused_requests,
            redact_codes: overlay.redact_codes.unwrap_or(self.redact_codes),
        }
    }

    /// Returns every invalid setting: its path, and the valid values. `result_ms`: milliseconds for which duplicates
    /// are recognized. `hashes`: whether a hash key is configured.
    pub fn problems(&self, result_ms: i64, hashes: bool) -> Vec<String> {
        let mut problems = Vec::new();
        if self.addresses.keep.is_less_than(LEAST_ADDRESSES_MS) {
            problems.push(
                "addresses.keep: must be at least 2d, because conversation windows and opt-outs are found by address".into(),
            );
        }
        if self.events.is_less_than(result_ms) {
            let problem = "events: must be at least leases.result_ttl_s, because the sidecar accepts copies of a deleted webhook again";
            problems.push(problem.into());
        }
        for (part, rule) in self.rules() {
            if rule.redact == RedactionMethod::Hash && !hashes {
                problems.push(format!(
                    "{}.redact: hash requires redaction.hash_key, because an unkeyed digest of a number can be reversed by trying all numbers",
                    part.as_str()
                ));
            }
        }
        problems
    }

    /// Returns the redactions of a form before it is written.
    pub fn on_arrival(&self) -> RedactionPlan {
        let mut plan = RedactionPlan::of_codes(self.redact_codes);
        for (part, rule) in
            self.rules().into_iter().filter(|(_, rule)| rule.keep == RetentionPeriod::NONE)
        {
            plan.add(part, rule.redact);
        }
        plan
    }

    /// Returns the redactions that are due now; parts with the same period share one entry.
    pub fn due(&self, now_ms: i64) -> Vec<DueRedaction> {
        let answers = RetentionRule { keep: self.answers, redact: RedactionMethod::Remove };
        let mut plans: BTreeMap<i64, RedactionPlan> = BTreeMap::new();
        for (part, rule) in self.rules().into_iter().chain([(Part::Answer, answers)]) {
            if let Some(until_ms) = rule.keep.cutoff_ms(now_ms) {
                plans.entry(until_ms).or_default().add(part, rule.redact);
            }
        }
        plans.into_iter().map(|(until_ms, plan)| DueRedaction { plan, until_ms }).collect()
    }

    /// Returns the redaction of every part, with the means that these rules set.
    pub fn of_all_parts(&self) -> RedactionPlan {
        let mut plan = RedactionPlan::default();
        self.rules().into_iter().for_each(|(part, rule)| plan.add(part, rule.redact));
        plan.add(Part::Answer, RedactionMethod::Remove);
        plan
    }

    fn rules(&self) -> [(Part, RetentionRule); 5] {
        [
            (Part::Body, self.body),
            (Part::Media, self.media),
            (Part::Person, self.person),
            (Part::Addresses, self.addresses),
            (Part::Other, self.other),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Retention {
        crate::defaults::section("retention")
    }

    #[test]
    fn times_are_texts_that_say_themselves_again() {
        for text in ["none", "forever", "12h", "36h", "30d", "400d"] {
            assert_eq!(text.parse::<RetentionPeriod>().unwrap().to_string(), text);
        }
        assert_eq!("48h".parse::<RetentionPeriod>().unwrap().to_string(), "2d");
        for wrong in ["", "d", "0d", "-1d", "30", "30 d", "3.5d", "30dd", "1w", "99999999999d"] {
            assert!(wrong.parse::<RetentionPeriod>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_that_are_kept_equally_long_are_due_together() {
        let day = |days| RetentionPeriod(days * DAY_MS);
        let rule = |keep| RetentionRule { keep, redact: RedactionMethod::Remove };
        let rules = Retention {
            body: rule(day(7)),
            media: rule(RetentionPeriod::NONE),
            person: rule(day(7)),
            addresses: RetentionRule { keep: day(90), redact: RedactionMethod::Mask },
            other: rule(RetentionPeriod::FOREVER),
            answers: day(7),
            ..rules()
        };
        let now_ms = 1000 * DAY_MS;
        let due: Vec<(i64, String)> = rules
            .due(now_ms)
            .into_iter()
            .map(|due| ((now_ms - due.until_ms) / DAY_MS, due.plan.to_string()))
            .collect();
        let expected = [(90, "addresses"), (7, "body person answer"), (0, "media")];
        assert_eq!(due, expected.map(|(days, parts)| (days, parts.to_owned())));
        assert_eq!(rules.on_arrival().to_string(), "media");
    }

    #[test]
    fn tenant_overlay_contains_only_differences() {
        let overlay =
            r#"{"body": {"keep": "7d"}, "other": {"redact": "hash"}, "events": "forever"}"#;
        let overlay: RetentionOverlay = serde_json::from_str(overlay).unwrap();
        let own = rules().with(&overlay);
        assert_eq!(own.body, RetentionRule { keep: RetentionPeriod(7 * DAY_MS), ..rules().body });
        assert_eq!(own.other, RetentionRule { redact: RedactionMethod::Hash, ..rules().other });
        assert_eq!((own.events, own.media), (RetentionPeriod::FOREVER, rules().media));
        assert_eq!(rules().with(&RetentionOverlay::default()), rules());

        let again = serde_json::to_string(&overlay).unwrap();
        assert_eq!(serde_json::from_str::<RetentionOverlay>(&again).unwrap(), overlay);
        for wrong in [
            r#"{"bodies": {}}"#,
            r#"{"body": {"keep": 7}}"#,
            r#"{"body": {"days": "7d"}}"#,
            r#"{"body": {"redact": "shred"}}"#,
            r#"{"audit": "1d"}"#,
        ] {
            assert!(serde_json::from_str::<RetentionOverlay>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn retention_shorter_than_windows_or_duplicates_is_refused() {
        assert_eq!(rules().problems(7 * DAY_MS, false), Vec::<String>::new());
        let short: RetentionOverlay = serde_json::from_str(
            r#"{"addresses": {"keep": "47h"}, "events": "6d", "body": {"redact": "hash"}}"#,
        )
        .unwrap();
        let problems = rules().with(&short).problems(7 * DAY_MS, false);
        let paths: Vec<&str> =
            problems.iter().filter_map(|problem| problem.split(':').next()).collect();
        assert_eq!(paths, ["addresses.keep", "events", "body.redact"]);
        assert_eq!(rules().with(&short).problems(6 * DAY_MS, true).len(), 1);
    }
}
