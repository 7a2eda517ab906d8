//! Lookup of webhooks and contacts in the ledger: the query, and what its rows say.

use std::collections::{BTreeSet, HashMap};

use crate::rows::{ContactKey, ContactQuery, LookupItem, LookupRow};
use twilio_edge_domain::{
    lease::Lease,
    policy::Policies,
    suppression::covers,
    webhook::{InboundMessage, Participants, Webhook},
};

/// Leases and suppressions that SQL holds for the webhooks and contacts of a batch.
#[derive(Debug, Default)]
pub(crate) struct LookupResult {
    pub(crate) leases: HashMap<String, Lease>,
    /// Channels on which a contact is suppressed at the time of the lookup.
    suppressed: HashMap<ContactKey, Vec<String>>,
    /// Milliseconds for which a sidecar remains cut off from Redis; 0 if none is.
    pub(crate) partition_ms: i64,
}

impl LookupResult {
    /// Reads the rows of a lookup at `now_ms`. A lease is forgotten `result_ms` milliseconds after its end.
    pub(super) fn of(rows: Vec<LookupRow>, result_ms: i64, now_ms: i64) -> LookupResult {
        let mut known = LookupResult::default();
        for row in rows {
            match row.read(result_ms) {
                LookupItem::Webhook(key, lease) => {
                    known.leases.insert(key, lease);
                }
                LookupItem::Suppressed(.., Some(expires_at_ms)) if expires_at_ms <= now_ms => {}
                LookupItem::Suppressed(person, channel, _) => {
                    known.suppressed.entry(person).or_default().push(channel);
                }
                LookupItem::Partition(ms) => known.partition_ms = known.partition_ms.max(ms),
                LookupItem::Nothing => {}
            }
        }
        known
    }

    /// Returns whether a key of the sender is suppressed on the sender's channel, or on a channel that shares opt-outs with
    /// it.
    pub(crate) fn is_suppressed(&self, inbound: &InboundMessage, policies: &Policies) -> bool {
        if self.suppressed.is_empty() {
            return false;
        }
        let Participants { account_sid, theirs, .. } = &inbound.participants;
        let policy = policies.of(account_sid);
        inbound.keys().any(|key| {
            let channels = self.suppressed.get(&(account_sid.clone(), key.into_owned()));
            channels.into_iter().flatten().any(|on| covers(on, &theirs.channel, &policy))
        })
    }
}

/// Returns each dedupe key once and each contact once.
pub(super) fn lookup_query<'a>(webhooks: &[&'a Webhook]) -> (Vec<&'a str>, Vec<ContactQuery<'a>>) {
    let keys: BTreeSet<&str> = webhooks.iter().map(|webhook| webhook.key.as_str()).collect();
    let inbound = webhooks.iter().filter_map(|webhook| webhook.inbound.as_ref());
    let contacts: BTreeSet<ContactQuery<'a>> = inbound
        .flat_map(|inbound| {
            let tenant = inbound.participants.account_sid.as_str();
            inbound.keys().map(move |number| ContactQuery { tenant, number })
        })
        .collect();
    (keys.into_iter().collect(), contacts.into_iter().collect())
}
