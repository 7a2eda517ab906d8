//! STOP and START in the ledger: recorded once per message, and applied to the suppressions of the contact in the same
//! transaction. The domain decides what they change.

use std::collections::{BTreeSet, HashSet};

use crate::{
    contacts,
    database::Durability,
    error::StoreError,
    ledger::Ledger,
    rows::{OptRow, RecordedOpt},
    suppressions::{self, ContactNumber},
};
use twilio_edge_domain::suppression::OptEvent;

impl Ledger {
    /// Records each STOP and START in order of arrival, once per message. Returns for each one whether it changed the
    /// suppressions. Survives a power loss.
    pub(super) async fn record_opts(
        &self,
        opts: &[OptEvent],
        now_ms: i64,
    ) -> Result<Vec<bool>, StoreError> {
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
                for (opt, _) in opts.iter().zip(&is_new).filter(|(_, new)| **new) {
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
                let changed = opts.iter().zip(is_new).map(|(opt, new)| {
                    new && standing.apply(opt, &self.policies.of(&opt.account_sid), now_ms)
                });
                let changed = changed.collect();
                let changes = standing.changes();
                suppressions::keep(&mut tx, changes.clone()).await?;
                suppressions::report(&mut tx, self.database.reporting(), &changes).await?;
                tx.commit().await?;
                Ok(changed)
            })
            .await
    }
}
