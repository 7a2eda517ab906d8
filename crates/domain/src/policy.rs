//! Policy of an account: who may receive messages, and whether media of inbound messages are fetched. It has the
//! settings that a tenant can override, and the decisions that follow from them. [`Policy`] is `[policy]` of the configuration. A tenant's own policy is a JSON document that names only the
//! differences; [`Policy::with`] merges it. This module knows no store and no clock.
//!
//! ```json
//! {"resubscribe": "never", "consent": {"freshness": [{"category": "marketing", "days": 90}]}}
//! ```
//!
//! Tables are merged name by name; a list or a word replaces the previous value.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    keyword_reply::{self, ReceivedKeyword, ReplyText},
    suppression::{EVERY_CHANNEL, Source},
};

/// Upper bound of `days` of a freshness rule: a hundred years.
const MAX_DAYS: u32 = 36_500;

/// Maximum number of freshness rules: enough for one per category and country of the world.
const MAX_RULES: usize = 1_000;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Rules that an account's messages have to comply with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Channels on which a STOP suppresses the contact.
    pub stop_reaches: Reach,
    /// Groups of channels that share opt-outs: a STOP on one channel suppresses the contact on every channel of its
    /// group.
    pub shared_channels: Vec<Vec<String>>,
    /// Days after which the suppression of a STOP ends by itself; 0: never.
    #[schema(maximum = 36500)]
    pub stop_lasts_days: u32,
    /// Suppressions that a START may end.
    pub resubscribe: Resubscribe,
    /// Sources of suppressions, and error codes of callbacks, that a START may end at all.
    pub start_ends: Vec<String>,
    /// Channels on which Twilio itself answers opt-out keywords; the sidecar sends no reply there.
    pub twilio_answers: Vec<String>,
    /// Texts that reply to opt-out keywords, opt-in keywords and requests for help.
    pub replies: Vec<ReplyText>,
    /// Rules about consents.
    pub consent: ConsentRules,
    /// Channels on which free text may be sent only while the conversation window is open.
    pub windowed_channels: Vec<String>,
    /// Media of inbound messages.
    pub inbound_media: InboundMediaRules,
}

/// Rules about media of inbound messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InboundMediaRules {
    /// True if the sidecar fetches media of inbound messages from Twilio and stores them.
    pub fetch: bool,
    /// True if the sidecar deletes a medium at Twilio after it has stored it.
    pub delete_after_fetch: bool,
}

/// Channels that a suppression covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The channel on which the STOP arrived.
    Channel,
    /// Every channel.
    EveryChannel,
}

impl Reach {
    /// Returns the channel to suppress after an opt-out on `channel`.
    pub fn of(self, channel: &str) -> &str {
        match self {
            Reach::Channel => channel,
            Reach::EveryChannel => EVERY_CHANNEL,
        }
    }
}

/// Suppressions that a START may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resubscribe {
    /// The suppression of its channel, and one of every channel, on whichever channel that began.
    Keyword,
    /// A suppression that began on the channel of the START.
    SameChannel,
    /// No suppression: only an administrator ends one.
    Never,
}

/// Rules about consents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsentRules {
    /// Categories of messages that need a consent on record.
    pub required_for: Vec<Category>,
    /// True if a consent from before a contact's STOP is in effect again after their START.
    pub survives_stop: bool,
    /// Maximum age of a consent. Without a rule, a consent does not age.
    pub freshness: Vec<Freshness>,
}

/// Maximum age of a consent. A rule with a country applies to that country; a rule without one applies to all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// Category of messages that the rule is about.
    pub category: Category,
    /// Country of the recipient's number: two letters (ISO 3166-1), as in FR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Days after the consent was given.
    #[schema(minimum = 1, maximum = 36500)]
    pub days: u32,
}

twilio_edge_contract::string_enum! {
    /// Purpose of a message.
    #[derive(
        Debug,
        Clone,
        Copy,
        PartialEq,
        Eq,
        PartialOrd,
        Ord,
        Hash,
        Serialize,
        Deserialize,
        utoipa::ToSchema,
    )]
    pub enum Category: serde {
        /// Sells or promotes.
        Marketing = "marketing",
        /// About something the contact has agreed to: an order, an appointment.
        Utility = "utility",
        /// One-time passwords.
        Authentication = "authentication",
        /// An answer to a question of the contact.
        Service = "service",
    }
}

/// Policy of each account: the configured one, except for accounts with their own. Clones share one state.
#[derive(Debug, Clone)]
pub struct Policies {
    usual: Arc<Policy>,
    own: Arc<RwLock<HashMap<String, Arc<Policy>>>>,
}

impl Policies {
    /// Creates policies without exceptions: `usual` applies to every account.
    pub fn new(usual: Policy) -> Policies {
        Policies { usual: Arc::new(usual), own: Arc::default() }
    }

    /// Returns the policy of an account.
    pub fn of(&self, account_sid: &str) -> Arc<Policy> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        own.get(account_sid).unwrap_or(&self.usual).clone()
    }

    /// Replaces the policies of accounts that have their own; all other accounts return to the configured one.
    pub fn replace(&self, own: HashMap<String, Policy>) {
        let own = own.into_iter().map(|(sid, policy)| (sid, Arc::new(policy))).collect();
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = own;
    }
}

impl Policy {
    /// Returns this policy merged with `document`, or every problem of the document, each with its path.
    pub fn with(&self, document: &Value) -> Result<Policy, Vec<String>> {
        let mut problems = Vec::new();
        let Value::Object(document) = document else {
            return Err(vec!["the policy: must be a JSON object".to_owned()]);
        };
        let mut merged = match serde_json::to_value(self) {
            Ok(Value::Object(merged)) => merged,
            _ => Map::new(),
        };
        overlay(&mut merged, document, "", &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let policy: Policy = serde_json::from_value(Value::Object(merged))
            .map_err(|error| vec![format!("the policy: {error}")])?;
        match policy.problems() {
            problems if problems.is_empty() => Ok(policy),
            problems => Err(problems),
        }
    }

    /// Returns every problem of the policy, each with its path.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.inbound_media.delete_after_fetch && !self.inbound_media.fetch {
            problems.push(
                "inbound_media.delete_after_fetch: needs inbound_media.fetch = true".to_owned(),
            );
        }
        for word in &self.start_ends {
            let is_code = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
            if !is_code && Source::try_from(word.clone()).is_err() {
                problems.push(format!(
                    "start_ends: {word:?} must be a source of suppressions or an error code"
                ));
            }
        }
        for channel in &self.windowed_channels {
            if channel.is_empty() || !channel.bytes().all(|byte| byte.is_ascii_lowercase()) {
                problems.push(format!(
                    "windowed_channels: {channel:?} is not a channel such as whatsapp"
                ));
            }
        }
        if self.stop_lasts_days > MAX_DAYS {
            problems.push(format!("stop_lasts_days: must be 0 to {MAX_DAYS}"));
        }
        let mut grouped = HashSet::new();
        for (place, group) in self.shared_channels.iter().enumerate() {
            let path = format!("shared_channels[{place}]");
            if group.len() < 2 {
                problems.push(format!("{path}: must name at least two channels"));
            }
            for channel in group {
                let is_channel = (1..=32).contains(&channel.len())
                    && channel.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                if !is_channel {
                    problems
                        .push(format!("{path}: {channel:?} is not a channel such as sms or rcs"));
                } else if !grouped.insert(channel.as_str()) {
                    problems.push(format!("{path}: {channel:?} occurs twice"));
                }
            }
        }
        for channel in &self.twilio_answers {
            if channel.is_empty() || !channel.bytes().all(|byte| byte.is_ascii_lowercase()) {
                problems.push(format!("twilio_answers: {channel:?} is not a channel such as sms"));
            }
        }
        problems.extend(keyword_reply::problems(&self.replies, &self.twilio_answers));
        let rules = &self.consent.freshness;
        if rules.len() > MAX_RULES {
            problems.push(format!("consent.freshness: must have at most {MAX_RULES} rules"));
        }
        for (place, rule) in rules.iter().enumerate() {
            let path = format!("consent.freshness[{place}]");
            if !(1..=MAX_DAYS).contains(&rule.days) {
                problems.push(format!("{path}.days: must be 1 to {MAX_DAYS}"));
            }
            let is_country =
                |code: &str| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
            if let Some(country) = rule.country.as_deref().filter(|code| !is_country(code)) {
                problems.push(format!(
                    "{path}.country: {country:?} is not a country: use two capital letters, as in FR"
                ));
            }
            let same = |other: &&Freshness| {
                (other.category, &other.country) == (rule.category, &rule.country)
            };
            if rules.iter().take(place).any(|other| same(&other)) {
                problems.push(format!("{path}: an earlier rule has the same category and country"));
            }
        }
        problems
    }

    /// Returns whether a START on `on_channel` may end a suppression of this source that began on the channel
    /// `origin_channel`, if it began on one.
    pub fn start_may_end(
        &self,
        source: Source,
        error_code: &str,
        origin_channel: Option<&str>,
        on_channel: &str,
    ) -> bool {
        let word = if error_code.is_empty() { source.as_str() } else { error_code };
        let named = |words: &[String]| words.iter().any(|known| known == word);
        match self.resubscribe {
            Resubscribe::Keyword => named(&self.start_ends),
            Resubscribe::SameChannel => {
                named(&self.start_ends)
                    && origin_channel.is_some_and(|origin_channel| {
                        self.shares_opt_outs(origin_channel, on_channel)
                    })
            }
            Resubscribe::Never => false,
        }
    }

    /// Returns the time at which an opt-out of this source, recorded at `now_ms`, ends by itself; `None` if it does not.
    /// An opt-out that Twilio reports with an error code does not end, because Twilio still refuses messages to the contact.
    pub fn opt_out_expires_ms(&self, source: Source, now_ms: i64) -> Option<i64> {
        let is_stop = matches!(source, Source::Keyword | Source::OptOutType);
        let lasts_ms = i64::from(self.stop_lasts_days).saturating_mul(DAY_MS);
        (is_stop && lasts_ms > 0).then(|| now_ms.saturating_add(lasts_ms))
    }

    /// Returns the maximum age of a consent in milliseconds, or `None` when it does not age.
    pub fn consent_lasts_ms(&self, category: Category, country: Option<&str>) -> Option<i64> {
        let rules = || self.consent.freshness.iter().filter(|rule| rule.category == category);
        let of_country = country
            .and_then(|country| rules().find(|rule| rule.country.as_deref() == Some(country)));
        let rule = of_country.or_else(|| rules().find(|rule| rule.country.is_none()))?;
        Some(i64::from(rule.days).saturating_mul(DAY_MS))
    }

    /// Returns whether an opt-out on one of these channels also holds on the other.
    pub fn shares_opt_outs(&self, one: &str, other: &str) -> bool {
        one == other || self.channels_with(one).any(|channel| channel == other)
    }

    /// Returns the channels on which an opt-out on `channel` holds: itself first, then the others of its group.
    pub fn channels_with<'a>(&'a self, channel: &'a str) -> impl Iterator<Item = &'a str> {
        let is_member = move |group: &&Vec<String>| group.iter().any(|member| member == channel);
        let group = self.shared_channels.iter().filter(is_member).flatten();
        let others = group.map(String::as_str).filter(move |member| *member != channel);
        std::iter::once(channel).chain(others)
    }

    /// Returns whether messages of this category need a consent on record.
    pub fn asks_consent_for(&self, category: Category) -> bool {
        self.consent.required_for.contains(&category)
    }

    /// Returns the text that replies to a keyword; `None` if the account wants no reply, or Twilio answers.
    pub fn reply(&self, received: ReceivedKeyword<'_>) -> Option<&str> {
        let is_twilios = self.twilio_answers.iter().any(|channel| channel == received.channel);
        let text = keyword_reply::select(&self.replies, received).filter(|_| !is_twilios)?;
        Some(&text.text)
    }

    /// Returns whether free text on this channel needs an open conversation window.
    pub fn has_window(&self, channel: &str) -> bool {
        self.windowed_channels.iter().any(|windowed| windowed == channel)
    }
}

/// Merges `over` into `base`. A name that `base` lacks, or a value of another type, is a problem.
fn overlay(
    base: &mut Map<String, Value>,
    over: &Map<String, Value>,
    parent: &str,
    problems: &mut Vec<String>,
) {
    for (key, value) in over {
        let path = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
        match (base.get_mut(key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => {
                overlay(base, over, &path, problems)
            }
            (Some(base), value)
                if std::mem::discriminant(&*base) == std::mem::discriminant(value) =>
            {
                *base = value.clone();
            }
            (Some(base), _) => problems.push(format!("{path}: must be {}", kind(base))),
            (None, _) => problems.push(format!("{path}: is not a setting")),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
