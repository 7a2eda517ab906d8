//! Suppressions of contacts, and their reasons: a contact is suppressed as long as one reason is in force. This module
//! and [`Policy`] decide which events create a reason, which channels it covers and which reasons a START ends. They do
//! not know where suppressions are stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twilio_edge_contract::Opt;

use crate::{
    address::Address,
    contact::{self, ContactKeys},
    optout::{self, Arrival, Cause},
    period,
    phone::{self, Region},
    policy::Policy,
    webhook::Webhook,
};

/// Channel name that stands for every channel.
pub const EVERY_CHANNEL: &str = "*";

/// Longest time to live of a suppression: a hundred years.
const LONGEST_MS: i64 = 36_525 * period::DAY_MS;

/// Returns whether a suppression on `suppressed` also covers `channel`: the only place that decides this.
pub fn covers(suppressed: &str, channel: &str, policy: &Policy) -> bool {
    suppressed == EVERY_CHANNEL || policy.shares_opt_outs(suppressed, channel)
}

/// Parses the contact to suppress: an address as [`Address::recordable`] reads it, or a number with [`EVERY_CHANNEL`]
/// as its channel.
pub fn parse_contact(
    text: &str,
    channel: Option<&str>,
    region: Option<Region>,
) -> Result<Address, String> {
    match channel.map(str::trim) {
        Some(EVERY_CHANNEL) => {
            let channel = contact::is_user_id(text.trim()).then_some(contact::CHANNEL);
            let address = Address::recordable(text, channel, region)?;
            Ok(Address { channel: EVERY_CHANNEL.to_owned(), ..address })
        }
        channel => Address::recordable(text, channel, region),
    }
}

twilio_edge_contract::string_enum! {
    /// Origin of a suppression.
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
    #[schema(as = SuppressionSource)]
    pub enum Source: serde {
        /// The contact sent an opt-out keyword.
        Keyword = "keyword",
        /// The contact opted out through Twilio's Advanced Opt-Out.
        OptOutType = "opt_out_type",
        /// A status callback had an error code that suppresses the contact.
        Callback = "callback",
        /// An administrator, by API or command line.
        Administrator = "administrator",
        /// An application, by API.
        Application = "application",
        /// An imported list.
        Import = "import",
    }
}

impl Source {
    /// Returns whether the contact caused it. Only such a suppression overtakes earlier consents.
    pub fn is_by_contact(self) -> bool {
        matches!(self, Source::Keyword | Source::OptOutType | Source::Callback)
    }
}

/// One reason for suppressing a contact. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// The account, which is the tenant.
    pub account_sid: String,
    /// The contact, on the suppressed channel or on [`EVERY_CHANNEL`].
    pub address: Address,
    /// Origin.
    pub source: Source,
    /// Error code of a callback; empty for every other source.
    pub error_code: String,
    /// False if an event ended it; it is then stored as history. [`Suppression::is_in_force`] also knows its expiry.
    pub is_open: bool,
    /// Time when it last began.
    pub since_ms: i64,
    /// Time at which it ends by itself; `None` if it lasts until an event ends it.
    pub expires_at_ms: Option<i64>,
    /// Time when it last began, was prolonged or ended.
    pub changed_at_ms: i64,
    /// Message that began or ended it.
    pub message_sid: Option<String>,
    /// Route on which that message arrived.
    pub route: Option<String>,
    /// Channel on which the opt-out arrived.
    pub origin_channel: Option<String>,
    /// Our number or sender that received the opt-out, or that a callback was about.
    pub sender: Option<String>,
    /// Messaging Service that a callback was about.
    pub service_sid: Option<String>,
    /// API key or command line that began or ended it; `None` when the contact did.
    pub changed_by: Option<String>,
}

/// Contact to suppress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSuppression {
    /// The contact, on one channel or on [`EVERY_CHANNEL`].
    pub address: Address,
    /// Time at which the suppression ends by itself, in milliseconds since 1970; `None`: never.
    pub expires_at_ms: Option<i64>,
}

/// Parses the time at which a suppression ends by itself. It must be in the future, and within a hundred years.
///
/// # Errors
/// Returns the problem with the text.
pub fn parse_expiry(text: &str, now_ms: i64) -> Result<i64, String> {
    let expires_at_ms = period::instant(text)?;
    let most_ms = now_ms.saturating_add(LONGEST_MS);
    match expires_at_ms {
        _ if expires_at_ms <= now_ms => Err(format!("{text} is not in the future")),
        _ if expires_at_ms > most_ms => {
            Err(format!("{text} is not within a hundred years: omit it instead"))
        }
        expires_at_ms => Ok(expires_at_ms),
    }
}

/// Key of a suppression: account, number, channel, error code and source.
type Reason = (String, String, String, String, Source);

/// Opt-out, opt-in or request for help by a contact, or opt-out by a callback about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptEvent {
    /// STOP, START or HELP.
    pub opt: Opt,
    /// Origin.
    pub source: Source,
    /// On time, or late: then it may be older than what is already recorded.
    pub arrival: Arrival,
    /// The account, which is the tenant.
    pub account_sid: String,
    /// Message; each message has an effect once.
    pub message_sid: String,
    /// The contact, with the channel.
    pub address: Address,
    /// The error code of a callback; empty otherwise.
    pub error_code: String,
    /// Route on which it arrived.
    pub route: String,
    /// Our number or sender.
    pub sender: String,
    /// The Messaging Service of a callback.
    pub service_sid: Option<String>,
}

impl OptEvent {
    /// Returns the keyword of a webhook, or the opt-out that its error code means, if it has one.
    pub fn of(webhook: &Webhook, arrival: Arrival) -> Option<OptEvent> {
        let (opt, source, participants) = match (&webhook.inbound, &webhook.outbound) {
            (Some(inbound), _) => {
                let (opt, cause) = inbound.opt?;
                let source = match cause {
                    Cause::Keyword => Source::Keyword,
                    Cause::OptOutType => Source::OptOutType,
                };
                (opt, source, &inbound.participants)
            }
            (None, Some(participants)) if webhook.suppresses => {
                (Opt::Stop, Source::Callback, participants)
            }
            _ => return None,
        };
        let error_code = match source {
            Source::Callback => webhook.identity.error_code.clone().unwrap_or_default(),
            _ => String::new(),
        };
        Some(OptEvent {
            opt,
            source,
            arrival,
            account_sid: participants.account_sid.clone(),
            message_sid: webhook.identity.message_sid.clone(),
            address: participants.theirs.clone(),
            error_code,
            route: webhook.route.clone(),
            sender: participants.ours.clone(),
            service_sid: webhook.parameter("MessagingServiceSid").filter(|sid| !sid.is_empty()),
        })
    }

    /// Returns the cause as the history of opt-outs shows it.
    pub fn cause(&self) -> &str {
        match self.source {
            Source::Callback => &self.error_code,
            source => source.as_str(),
        }
    }
}

/// Suppressions of some contacts, with pending changes.
#[derive(Debug, Default)]
pub struct SuppressionSet {
    /// By account and number: other keys that certainly belong to the same contact.
    links: BTreeMap<(String, String), Vec<String>>,
    reasons: BTreeMap<Reason, Suppression>,
    changed: Vec<Reason>,
}

impl SuppressionSet {
    /// Creates a set from the stored suppressions of these contacts.
    pub fn new(known: impl IntoIterator<Item = Suppression>) -> SuppressionSet {
        let reasons = known.into_iter().map(|known| (known.reason(), known)).collect();
        SuppressionSet { links: BTreeMap::new(), reasons, changed: Vec::new() }
    }

    /// Registers the other keys that a START of a contact also applies to.
    pub fn add_links(&mut self, account_sid: &str, keys: &ContactKeys) {
        for number in &keys.own {
            let sure = keys.certain_keys().into_iter().map(str::to_owned).collect();
            self.links.insert((account_sid.to_owned(), number.clone()), sure);
        }
    }

    /// Applies an event; call it in the order of arrival. Returns whether anything changed.
    pub fn apply(&mut self, event: &OptEvent, policy: &Policy, now_ms: i64) -> bool {
        match event.opt {
            Opt::Stop => return self.begin(event.suppression(policy, now_ms)),
            Opt::Help => return false,
            Opt::Start => {}
        }
        let (number, channel) = (&event.address.number, &event.address.channel);
        let linked = self.links.get(&(event.account_sid.clone(), number.clone()));
        let linked = linked.cloned().unwrap_or_default();
        let is_theirs = |other: &String| phone::is_same(other, number) || linked.contains(other);
        let mut ended_any = false;
        for known in self.reasons.values_mut() {
            let ends = known.is_in_force(now_ms)
                && known.account_sid == event.account_sid
                && is_theirs(&known.address.number)
                && known.holds_for(&known.address.number, channel, policy)
                && optout::is_ended_by_start(event.arrival, known.since_ms, now_ms)
                && policy.start_may_end(
                    known.source,
                    &known.error_code,
                    known.origin_channel.as_deref(),
                    channel,
                );
            if ends {
                known.end(Some(event.message_sid.clone()), None, now_ms);
                self.changed.push(known.reason());
                ended_any = true;
            }
        }
        ended_any
    }

    /// Ends every reason that `which` selects. Returns their number.
    pub fn end(
        &mut self,
        which: impl Fn(&Suppression) -> bool,
        changed_by: &str,
        now_ms: i64,
    ) -> usize {
        let before = self.changed.len();
        let is_selected = |known: &&mut Suppression| known.is_in_force(now_ms) && which(known);
        for known in self.reasons.values_mut().filter(is_selected) {
            known.end(None, Some(changed_by.to_owned()), now_ms);
            self.changed.push(known.reason());
        }
        self.changed.len() - before
    }

    /// Adds a reason. Returns whether it is new. One that is already in force is prolonged if the new one lasts longer, and
    /// otherwise stays unchanged: nothing shortens a suppression but its end.
    pub fn begin(&mut self, new: Suppression) -> bool {
        let reason = new.reason();
        if let Some(known) =
            self.reasons.get_mut(&reason).filter(|known| known.is_in_force(new.since_ms))
        {
            if new.lasts_longer_than(known) {
                known.expires_at_ms = new.expires_at_ms;
                known.changed_at_ms = new.changed_at_ms;
                known.changed_by = new.changed_by;
                self.changed.push(reason);
            }
            return false;
        }
        self.changed.push(reason.clone());
        self.reasons.insert(reason, new);
        true
    }

    /// Ends every reason whose time to live is over. Returns their number.
    pub fn expire(&mut self, now_ms: i64) -> usize {
        let before = self.changed.len();
        for known in self.reasons.values_mut() {
            let Some(expired_ms) = known.expires_at_ms.filter(|at_ms| *at_ms <= now_ms) else {
                continue;
            };
            if known.is_open {
                known.end(None, None, expired_ms);
                self.changed.push(known.reason());
            }
        }
        self.changed.len() - before
    }

    /// Returns the changed suppressions, each once, in the order of their keys.
    pub fn changes(self) -> Vec<Suppression> {
        let SuppressionSet { mut reasons, mut changed, .. } = self;
        changed.sort();
        changed.dedup();
        changed.into_iter().filter_map(|reason| reasons.remove(&reason)).collect()
    }
}

impl OptEvent {
    /// Returns the suppression that a STOP creates.
    fn suppression(&self, policy: &Policy, now_ms: i64) -> Suppression {
        Suppression {
            account_sid: self.account_sid.clone(),
            address: Address {
                channel: policy.stop_reaches.of(&self.address.channel).to_owned(),
                number: self.address.number.clone(),
            },
            source: self.source,
            error_code: self.error_code.clone(),
            is_open: true,
            since_ms: now_ms,
            expires_at_ms: policy.opt_out_expires_ms(self.source, now_ms),
            changed_at_ms: now_ms,
            message_sid: Some(self.message_sid.clone()),
            route: Some(self.route.clone()),
            origin_channel: Some(self.address.channel.clone()),
            sender: Some(self.sender.clone()).filter(|sender| !sender.is_empty()),
            service_sid: self.service_sid.clone(),
            changed_by: None,
        }
    }
}

impl Suppression {
    /// Returns whether it forbids messages at this time: nothing has ended it, and its time to live is not over.
    pub fn is_in_force(&self, now_ms: i64) -> bool {
        self.is_open && self.expires_at_ms.is_none_or(|expires_at_ms| now_ms < expires_at_ms)
    }

    fn lasts_longer_than(&self, other: &Suppression) -> bool {
        match (self.expires_at_ms, other.expires_at_ms) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(other)) => own > other,
        }
    }

    /// Returns whether the STOP of this message began it. Its confirmation may be sent nevertheless.
    pub fn is_begun_by(&self, message_sid: &str) -> bool {
        self.is_open
            && self.source == Source::Keyword
            && self.message_sid.as_deref() == Some(message_sid)
    }

    /// Returns whether it is about this number, on this channel or one that shares opt-outs with it.
    pub fn holds_for(&self, number: &str, channel: &str, policy: &Policy) -> bool {
        self.address.number == number && covers(&self.address.channel, channel, policy)
    }

    fn end(&mut self, message_sid: Option<String>, changed_by: Option<String>, now_ms: i64) {
        self.is_open = false;
        self.changed_at_ms = now_ms;
        self.message_sid = message_sid;
        self.changed_by = changed_by;
    }

    fn reason(&self) -> Reason {
        let Address { channel, number } = self.address.clone();
        (self.account_sid.clone(), number, channel, self.error_code.clone(), self.source)
    }
}

#[cfg(test)]
mod tests;
