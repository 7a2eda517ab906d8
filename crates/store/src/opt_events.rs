//! STOP, START and HELP in the ledger: recorded once per message, and applied to the suppressions of the contact in the same
//! transaction, which also queues the reply. The domain decides what they change.

use std::collections::{BTreeSet, HashSet};

use crate::{
    contacts,
    database::Durability,
    error::StoreError,
    ledger::Ledger,
    outbound_messages::{OutboundMessage, replies},
    rows::{OptRow, RecordedOpt},
    suppressions::{self, ContactNumber},
};
use twilio_edge_contract::Opt;
use twilio_edge_domain::suppression::OptEvent;

/// Keyword to record, with its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedOpt {
    /// Keyword of a contact, or opt-out that a callback reported.
    pub event: OptEvent,
    /// Reply to the keyword, if the account wants one.
    pub reply: Option<Box<OutboundMessage>>,
}

/// Effect of a keyword.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OptEffect {
    /// It began or ended a suppression.
    pub has_changed: bool,
    /// Its reply was stored. A copy of a webhook has none, nor has a STOP or START that changes nothing.
    pub is_answered: bool,
}

impl Ledger {
    /// Records each keyword in order of arrival, once per message. Returns the effect of each one. Survives a power loss.
    pub(super) async fn record_opts(
        &self,
        received: &[ReceivedOpt],
        now_ms: i64,
    ) -> Result<Vec<OptEffect>, StoreError> {
        let opts: Vec<&OptEvent> = received.iter().map(|received| &received.event).collect();
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let rows: Vec<OptRow<'_>> =
                    opts.iter().map(|opt| OptRow::of(opt, now_ms)).collect();
                let new: Vec<RecordedOpt> = tx.fetch(tx.statements().record_opts, &rows).await?;
                let mut new: HashSet<RecordedOpt> = new.into_iter().collect();
                let is_new: Vec<bool> =
                    opts.iter().map(|opt| new.remove(&RecordedOpt::of(opt))).collect();
                // A START may end the suppression of any key of the contact.
                let mut keys = Vec::new();
                let changing = opts.iter().zip(&is_new);
                for (opt, _) in changing.filter(|(opt, new)| **new && opt.opt != Opt::Help) {
                    let of = contacts::keys(&mut tx, &opt.account_sid, &opt.address.number).await?;
                    keys.push((opt.account_sid.as_str(), of));
                }
                let contacts: BTreeSet<ContactNumber<'_>> = keys
                    .iter()
                    .flat_map(|(tenant, keys)| {
                        keys.certain_keys()
                            .into_iter()
                            .map(|number| ContactNumber { tenant, number })
                    })
                    .collect();
                let contacts: Vec<ContactNumber<'_>> = contacts.into_iter().collect();
                let mut standing = suppressions::lock(&mut tx, &contacts).await?;
                for (account_sid, keys) in &keys {
                    standing.add_links(account_sid, keys);
                }
                let (mut effects, mut replies) = (Vec::with_capacity(opts.len()), Vec::new());
                for (received, new) in received.iter().zip(is_new) {
                    let ReceivedOpt { event, reply } = received;
                    let has_changed =
                        new && standing.apply(event, &self.policies.of(&event.account_sid), now_ms);
                    let is_due = has_changed || (new && event.opt == Opt::Help);
                    let reply = reply.as_deref().filter(|_| is_due);
                    effects.push(OptEffect { has_changed, is_answered: reply.is_some() });
                    replies.extend(reply);
                }
                let changes = standing.changes();
                let reporting = self.database.reporting();
                suppressions::keep(&mut tx, changes.clone()).await?;
                let events = suppressions::events(reporting, &changes);
                replies::add(&mut tx, reporting, &replies, events).await?;
                tx.commit().await?;
                Ok(effects)
            })
            .await
    }
}
