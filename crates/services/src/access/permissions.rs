//! Permission to write to contacts: adds and ends suppressions, records consents, and checks whether a message may be
//! sent. It calls the domain and the stores, and stores an audit entry for each change. It adds no rule of its own and
//! knows neither HTTP nor SQL.

use std::{collections::BTreeSet, slice, sync::Arc};

use serde_json::json;

use crate::access::{answered_keyword::AnsweredKeyword, api_keys::Caller};
use twilio_edge_domain::{
    address::Address,
    check::{self, Facts, Kind, Question, Verdict},
    consent::{self, Consent, State},
    phone::{self, Region},
    policy::{Category, Policies},
    suppression::{self, EVERY_CHANNEL, NewSuppression, Source, Suppression},
    window,
};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{AuditEntry, Consents, StoreError, Stores, Suppressions};

/// Management of suppressions and consents.
#[derive(Clone)]
pub struct Permissions {
    /// Store of consents.
    pub consents: Consents,
    /// Store of suppressions.
    pub suppressions: Suppressions,
    /// Policies of the accounts, for instance which channels share opt-outs.
    pub policies: Policies,
    metrics: Option<Arc<Metrics>>,
}

/// Checks whether a message may be sent.
#[derive(Clone)]
pub struct Checks {
    stores: Stores,
    policies: Policies,
    metrics: Arc<Metrics>,
}

/// Message that a caller intends to send.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The account that sends.
    pub account_sid: String,
    /// Our number or sender, if it is known yet.
    pub from: Option<String>,
    /// Recipient.
    pub to: Address,
    /// Category, for instance marketing.
    pub category: Category,
    /// Kind: session message or template.
    pub kind: Kind,
    /// Keyword to which the message replies.
    pub reply: Option<AnsweredKeyword>,
    /// True if a suppression that the contact caused does not forbid the message, because the contact asked for it.
    pub ignores_opt_outs: bool,
}

/// Number of entries of a list that are written in one transaction.
pub const PAGE_SIZE: usize = 500;

impl Permissions {
    /// Creates the service. `metrics` counts changes; commands have none.
    pub fn new(
        consents: Consents,
        policies: Policies,
        metrics: Option<Arc<Metrics>>,
    ) -> Permissions {
        Permissions { suppressions: consents.suppressions(), consents, policies, metrics }
    }

    /// Suppresses contacts of an account. Returns the suppressions that are new for this source, or that it prolonged.
    /// Repeating it changes nothing.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn suppress(
        &self,
        by: &Caller,
        account_sid: &str,
        contacts: &[NewSuppression],
        source: Source,
        now_ms: i64,
    ) -> Result<Vec<Suppression>, StoreError> {
        let numbers: Vec<&str> = contacts.iter().map(|new| new.address.number.as_str()).collect();
        let begin = |new: &NewSuppression| Suppression {
            account_sid: account_sid.to_owned(),
            address: new.address.clone(),
            source,
            error_code: String::new(),
            is_open: true,
            since_ms: now_ms,
            expires_at_ms: new.expires_at_ms,
            changed_at_ms: now_ms,
            message_sid: None,
            route: None,
            origin_channel: None,
            sender: None,
            service_sid: None,
            changed_by: Some(by.actor.clone()),
        };
        let change = |suppressions: &mut twilio_edge_domain::suppression::SuppressionSet| {
            for new in contacts {
                suppressions.begin(begin(new));
            }
        };
        let audit_entry = |changes: &[Suppression]| {
            let action = match source {
                Source::Import => "suppressions.imported",
                _ => "suppression.added",
            };
            let detail = match changes {
                [Suppression { expires_at_ms: Some(expires_at_ms), .. }] => {
                    json!({"source": source, "expires_at": window::rfc3339(*expires_at_ms)})
                }
                _ => json!({"source": source}),
            };
            entry(by, account_sid, action, &subject_of(changes), detail, now_ms)
        };
        let changes = self.suppressions.change(account_sid, &numbers, change, audit_entry).await?;
        self.count(&changes);
        Ok(changes)
    }

    /// Suppresses every contact of an imported list. Returns the number of suppressions that are new.
    ///
    /// # Errors
    /// Returns an error if the database fails; the part of the list before it stays suppressed.
    pub async fn suppress_list(
        &self,
        by: &Caller,
        account_sid: &str,
        mut contacts: impl Iterator<Item = NewSuppression>,
        now_ms: i64,
    ) -> Result<usize, StoreError> {
        let mut added = 0;
        while let Some(batch) = next_batch(&mut contacts) {
            added += self.suppress(by, account_sid, &batch, Source::Import, now_ms).await?.len();
        }
        Ok(added)
    }

    /// Ends every suppression of a number in an account, on one channel or on all. Returns the suppressions that were
    /// in force.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn unsuppress(
        &self,
        by: &Caller,
        account_sid: &str,
        number: &str,
        channel: Option<&str>,
        now_ms: i64,
    ) -> Result<Vec<Suppression>, StoreError> {
        let keys = self.consents.contacts().keys(account_sid, number).await?;
        let numbers = keys.certain_keys();
        let policy = self.policies.of(account_sid);
        let of_channel = |known: &Suppression| {
            channel.is_none_or(|channel| known.holds_for(&known.address.number, channel, &policy))
        };
        let change = |suppressions: &mut twilio_edge_domain::suppression::SuppressionSet| {
            suppressions.end(of_channel, &by.actor, now_ms);
        };
        let audit_entry = |changes: &[Suppression]| {
            let sources: Vec<Source> = changes.iter().map(|known| known.source).collect();
            let detail = json!({"channel": channel, "sources": sources});
            entry(by, account_sid, "suppression.removed", &subject_of(changes), detail, now_ms)
        };
        let changes = self.suppressions.change(account_sid, &numbers, change, audit_entry).await?;
        self.count(&changes);
        Ok(changes)
    }

    /// Records a consent or its withdrawal. Returns whether it is new.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn record(
        &self,
        by: &Caller,
        account_sid: &str,
        consent: &Consent,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let action = match consent.state {
            State::Withdrawn => "consent.withdrawn",
            State::Granted => "consent.recorded",
        };
        let subject = format!("consent of {}", consent.address);
        let entry =
            entry(by, account_sid, action, &subject, json!({"state": consent.state}), now_ms);
        Ok(self.consents.record(slice::from_ref(consent), entry).await? > 0)
    }

    /// Records every consent of an imported list. Returns the number of new ones.
    ///
    /// # Errors
    /// Returns an error if the database fails; the part of the list before it stays recorded.
    pub async fn record_list(
        &self,
        by: &Caller,
        account_sid: &str,
        mut consents: impl Iterator<Item = Consent>,
        now_ms: i64,
    ) -> Result<usize, StoreError> {
        let mut added = 0;
        while let Some(batch) = next_batch(&mut consents) {
            let subject = format!("{} consents", batch.len());
            let entry = entry(by, account_sid, "consents.imported", &subject, json!({}), now_ms);
            added += self.consents.record(&batch, entry).await?;
        }
        Ok(added)
    }

    /// Returns the contact that a text names exactly as a webhook did, if the account knows that address: it sent a
    /// message, or has a suppression or a consent. Used for texts that [`suppression::parse_contact`] cannot parse.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn known_address(
        &self,
        account_sid: &str,
        text: &str,
        channel: Option<&str>,
    ) -> Result<Option<Address>, StoreError> {
        let is_everywhere = channel == Some(EVERY_CHANNEL);
        let Some(address) = Address::as_in_webhook(text, channel.filter(|_| !is_everywhere)) else {
            return Ok(None);
        };
        let numbers = phone::spellings(&address.number);
        let has_channel = |channel: &str| [EVERY_CHANNEL, &address.channel].contains(&channel);
        let last_inbound =
            self.consents.last_inbound(account_sid, &address.channel, &numbers).await?;
        let is_known = !last_inbound.is_empty()
            || self
                .suppressions
                .of_numbers(account_sid, &numbers)
                .await?
                .iter()
                .any(|known| has_channel(&known.address.channel))
            || self
                .consents
                .of_numbers(account_sid, &numbers)
                .await?
                .iter()
                .any(|consent| has_channel(&consent.address.channel));
        let channel = if is_everywhere { EVERY_CHANNEL.to_owned() } else { address.channel };
        Ok(is_known.then_some(Address { channel, number: address.number }))
    }

    /// Returns the contact that a text names, or the problem with the text if it cannot be parsed and the account does
    /// not know the address.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn resolve_contact(
        &self,
        account_sid: &str,
        text: &str,
        channel: Option<&str>,
        region: Option<Region>,
    ) -> Result<Result<Address, String>, StoreError> {
        match suppression::parse_contact(text, channel, region) {
            Ok(address) => Ok(Ok(address)),
            Err(problem) => {
                let known = self.known_address(account_sid, text, channel).await?;
                Ok(known.ok_or(problem))
            }
        }
    }

    /// Returns those of these addresses that the account knows ([`Permissions::known_address`]).
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn known_addresses(
        &self,
        account_sid: &str,
        unread: BTreeSet<Address>,
    ) -> Result<BTreeSet<Address>, StoreError> {
        let mut known = BTreeSet::new();
        for Address { channel, number } in unread {
            known.extend(self.known_address(account_sid, &number, Some(&channel)).await?);
        }
        Ok(known)
    }

    fn count(&self, changes: &[Suppression]) {
        let Some(metrics) = &self.metrics else { return };
        // One that was only prolonged neither began nor ended.
        let is_counted = |one: &&Suppression| !one.is_open || one.since_ms == one.changed_at_ms;
        changes
            .iter()
            .filter(is_counted)
            .for_each(|one| metrics.webhooks.suppression_changed(one.is_open, one.source));
    }
}

impl Checks {
    /// Creates the checks on these stores.
    pub fn new(stores: Stores, policies: Policies, metrics: Arc<Metrics>) -> Checks {
        Checks { stores, policies, metrics }
    }

    /// Returns whether the account has received a message from this address. Such an address can be answered even if
    /// its number is invalid in its numbering plan.
    ///
    /// # Errors
    /// Returns an error if the stores fail.
    pub async fn has_sent_message(
        &self,
        account_sid: &str,
        address: &Address,
    ) -> Result<bool, StoreError> {
        let numbers = phone::spellings(&address.number);
        let has_any = |found: &[(String, i64)]| !found.is_empty();
        let found =
            self.stores.last_inbound(account_sid, &address.channel, &numbers, has_any).await?;
        Ok(has_any(&found))
    }

    /// Evaluates every rule for a message. Suppressions and consents are read from the database, not from a cache, so a
    /// STOP that any sidecar has acknowledged is respected.
    ///
    /// # Errors
    /// Returns an error if the stores fail.
    pub async fn may_send(&self, intent: &Intent, now_ms: i64) -> Result<Vec<Verdict>, StoreError> {
        let Intent { account_sid, from, to, category, kind, reply, ignores_opt_outs } = intent;
        let keys = self.stores.contacts().keys(account_sid, &to.number).await?;
        let numbers = keys.certain_keys();
        let policy = self.policies.of(account_sid);
        let mut facts = Facts { possible: keys.possible.clone(), ..Facts::default() };
        if *kind == Kind::Session && policy.has_window(&to.channel) {
            let last = |found: &[(String, i64)]| {
                let to_sender = |ours: &str| from.as_deref().is_none_or(|from| from == ours);
                let found = found.iter().filter(|(ours, _)| to_sender(ours));
                found.map(|(_, last_inbound_ms)| *last_inbound_ms).max()
            };
            let is_open = |found: &[(String, i64)]| {
                last(found).is_some_and(|last_ms| now_ms < window::expires_ms(last_ms))
            };
            let found =
                self.stores.last_inbound(account_sid, &to.channel, &numbers, is_open).await?;
            facts.last_inbound_ms = last(&found);
        }
        let received_ms = reply.as_ref().map(|reply| reply.received_ms);
        facts.last_inbound_ms = facts.last_inbound_ms.max(received_ms);
        let all = keys.all();
        let consents = self.stores.consents().of_numbers(account_sid, &all).await?;
        let is_in_effect = |consent: &Consent| {
            // An address that may belong to another contact can forbid a message, but never permit it.
            let is_uncertain = keys.possible.contains(&consent.address.number);
            consent.category == *category
                && consent.address.channel == to.channel
                && (consent.state == State::Withdrawn || !is_uncertain)
        };
        facts.consent = consent::current(consents.into_iter().filter(is_in_effect));
        // Suppressions are read last, so that a STOP that arrives during the check is not missed.
        facts.suppressions = self.stores.suppressions().of_numbers(account_sid, &all).await?;
        if *ignores_opt_outs {
            facts.suppressions.retain(|known| !known.source.is_by_contact());
        }
        if let Some(reply) = reply {
            facts.suppressions.retain(|known| !known.is_begun_by(&reply.message_sid));
        }
        let question =
            Question { channel: &to.channel, number: &to.number, category: *category, kind: *kind };
        let verdicts = check::may_send(&policy, &question, &facts, now_ms);
        self.metrics.webhooks.checked(&verdicts);
        Ok(verdicts)
    }
}

/// Takes the next batch of the list; `None` at its end.
fn next_batch<T>(list: &mut impl Iterator<Item = T>) -> Option<Vec<T>> {
    let batch: Vec<T> = list.take(PAGE_SIZE).collect();
    Some(batch).filter(|batch| !batch.is_empty())
}

/// Subject of the audit entry. It contains no complete number.
fn subject_of(changes: &[Suppression]) -> String {
    match changes {
        [one] => format!("suppression of {}", one.address),
        many => format!("{} suppressions", many.len()),
    }
}

fn entry(
    by: &Caller,
    account_sid: &str,
    action: &str,
    subject: &str,
    detail: serde_json::Value,
    now_ms: i64,
) -> AuditEntry {
    by.audit_entry(action, subject.to_owned(), Some(account_sid.to_owned()), &detail, now_ms)
}
