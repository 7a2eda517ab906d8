//! Contacts in the database: the numbers and user ids that belong to one contact. They are linked when a webhook names both,
//! and read for every query about a contact. [`twilio_edge_domain::contact`] decides what a link proves.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::FromRow;

use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::{
    contact::{ContactKeys, Link, MAX_LINKS, StoredLink},
    phone,
};

/// Number of links that are cached as already written, and milliseconds for which they are: other sidecars may erase them.
const MOST_KNOWN: usize = 50_000;
const KNOWN_FOR_MS: i64 = 60_000;

pub(super) const OF: &str = "SELECT number, other, is_certain FROM contact_links WHERE tenant = $1 AND number = $2 LIMIT 64";

const ADD: &str = "
    INSERT INTO contact_links (tenant, number, other, is_certain, linked_at_ms) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant, number, other) DO NOTHING";

/// A link remains while one of its ids is suppressed, because the suppression covers both.
const DELETE_LINKS: &str = "
    DELETE FROM contact_links WHERE tenant = $1 AND (number = $2 OR other = $2)
        AND NOT EXISTS (SELECT 1 FROM suppressions WHERE suppressions.tenant = $1 AND suppressed
            AND suppressions.number IN (contact_links.number, contact_links.other))";

/// The contacts of all accounts.
#[derive(Debug, Clone)]
pub struct Contacts {
    database: Database,
    known: Arc<Mutex<LinkCache>>,
}

#[derive(Debug, Default)]
struct LinkCache {
    links: BTreeSet<Link>,
    since_ms: i64,
}

/// One direction of a stored link.
#[derive(Debug, FromRow)]
pub(super) struct Row {
    number: String,
    other: String,
    is_certain: i64,
}

impl From<Row> for StoredLink {
    fn from(row: Row) -> StoredLink {
        StoredLink { number: row.number, other: row.other, is_certain: row.is_certain != 0 }
    }
}

impl Contacts {
    pub(super) fn of(database: Database) -> Contacts {
        Contacts { database, known: Arc::default() }
    }

    /// Records links. They survive a power loss when the call returns; a known link costs nothing.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails; it may have recorded no link.
    pub async fn link(&self, links: Vec<Link>, now_ms: i64) -> Result<(), StoreError> {
        let new: Vec<Link> = links.into_iter().filter(|link| !self.knows(link, now_ms)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                for link in &new {
                    self.add(&mut tx, link, now_ms).await?;
                }
                tx.commit().await
            })
            .await?;
        self.known().links.extend(new);
        Ok(())
    }

    async fn add(&self, tx: &mut Transaction, link: &Link, now_ms: i64) -> Result<(), StoreError> {
        let of_id = ties(tx, &link.account_sid, &link.user_id).await?;
        let of_number = ties(tx, &link.account_sid, &link.number).await?;
        let numbers: BTreeSet<String> =
            of_id.iter().map(|tie| phone::identity(&tie.other).into_owned()).collect();
        let own = phone::identity(&link.number);
        if numbers.contains(&*own) {
            return Ok(());
        }
        if numbers.len() >= MAX_LINKS || of_number.len() >= MAX_LINKS {
            tracing::warn!(event = "contact.too_many_links", account.sid = %link.account_sid, "the sidecar did not record a link, because the number or user id has too many links");
            return Ok(());
        }
        let is_certain = i64::from(link.is_certain && numbers.is_empty());
        for number in phone::spellings(&link.number) {
            for (one, other) in
                [(&*number, link.user_id.as_str()), (link.user_id.as_str(), &*number)]
            {
                let binds = [
                    Bind::Text(&link.account_sid),
                    Bind::Text(one),
                    Bind::Text(other),
                    Bind::Whole(is_certain),
                    Bind::Whole(now_ms),
                ];
                tx.execute_bound(ADD, &binds).await?;
            }
        }
        Ok(())
    }

    /// Returns every number and id under which a contact may be known.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn keys(&self, account_sid: &str, number: &str) -> Result<ContactKeys, StoreError> {
        self.database
            .within_timeout(async {
                let own = phone::spellings(number);
                let mut ties = Vec::new();
                for number in &own {
                    ties.extend(self.ties(account_sid, number).await?);
                }
                let others: BTreeSet<String> = ties.iter().map(|tie| tie.other.clone()).collect();
                for other in &others {
                    ties.extend(self.ties(account_sid, other).await?);
                }
                Ok(ContactKeys::of(number, &ties))
            })
            .await
    }

    async fn ties(&self, account_sid: &str, number: &str) -> Result<Vec<StoredLink>, StoreError> {
        let binds = [Bind::Text(account_sid), Bind::Text(number)];
        let rows: Vec<Row> = self.database.read_bound(OF, &binds).await?;
        Ok(rows.into_iter().map(StoredLink::from).collect())
    }

    fn knows(&self, link: &Link, now_ms: i64) -> bool {
        let mut known = self.known();
        let is_old = now_ms.saturating_sub(known.since_ms) > KNOWN_FOR_MS;
        if is_old || known.links.len() >= MOST_KNOWN {
            *known = LinkCache { links: BTreeSet::new(), since_ms: now_ms };
        }
        known.links.contains(link)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, LinkCache> {
        // No code panics while it holds this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the same as [`Contacts::keys`], within a transaction.
pub(super) async fn keys(
    tx: &mut Transaction,
    account_sid: &str,
    number: &str,
) -> Result<ContactKeys, StoreError> {
    let mut all = Vec::new();
    for own in phone::spellings(number) {
        all.extend(ties(tx, account_sid, &own).await?);
    }
    let others: BTreeSet<String> = all.iter().map(|tie| tie.other.clone()).collect();
    for other in &others {
        all.extend(ties(tx, account_sid, other).await?);
    }
    Ok(ContactKeys::of(number, &all))
}

async fn ties(
    tx: &mut Transaction,
    account_sid: &str,
    number: &str,
) -> Result<Vec<StoredLink>, StoreError> {
    let rows: Vec<Row> = tx.fetch_bound(OF, &[Bind::Text(account_sid), Bind::Text(number)]).await?;
    Ok(rows.into_iter().map(StoredLink::from).collect())
}

/// Removes the links of a contact whose data is erased.
pub(super) async fn delete_links(
    tx: &mut Transaction,
    account_sid: &str,
    number: &str,
) -> Result<(), StoreError> {
    tx.execute_bound(DELETE_LINKS, &[Bind::Text(account_sid), Bind::Text(number)]).await.map(|_| ())
}
