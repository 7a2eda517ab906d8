//! Suppressions in the database: read, listed, and changed by administrators and applications, each change in one
//! transaction with its audit entry. The ledger records the opt-outs of contacts in the same rows. Every query is about one
//! account. This module must not know what a suppression means.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::FromRow;

use crate::audit_log::{self, AuditEntry};
use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
    operational_events,
    statements::SuppressionStatements,
};
use twilio_edge_domain::{
    address::Address,
    cursor::Cursor,
    operational_event::{EventReporting, OperationalEvent, OperationalEventType},
    suppression::{Source, Suppression, SuppressionSet},
};

/// Finds out without a lock whether a suppression has expired.
const HAS_EXPIRED: &str = "
    SELECT expires_at_ms FROM suppressions WHERE suppressed AND expires_at_ms <= $1 LIMIT 1";

/// The suppressions of all accounts.
#[derive(Debug, Clone)]
pub struct Suppressions {
    database: Database,
}

/// Filter and position of a page of suppressions.
#[derive(Debug, Clone)]
pub struct SuppressionsPage<'a> {
    /// Account SID of the tenant.
    pub account_sid: &'a str,
    /// Returns only suppressions of this source.
    pub source: Option<Source>,
    /// Returns only suppressions on these channels.
    pub channels: Option<Vec<&'a str>>,
    /// Includes suppressions that have ended or expired.
    pub ended: bool,
    /// Time of the query, in milliseconds since 1970, which decides what has expired.
    pub now_ms: i64,
    /// Position: suppressions after this one, in list order.
    pub after: Option<&'a Cursor>,
    /// Maximum number of suppressions.
    pub most: i64,
}

#[derive(Debug, Serialize)]
struct PageQuery<'a> {
    tenant: &'a str,
    source: Option<Source>,
    on_channels: Option<&'a [&'a str]>,
    ended: bool,
    now_ms: i64,
    number: &'a str,
    channel: &'a str,
    error_code: &'a str,
    after_source: &'a str,
    most: i64,
}

/// One number or id of a contact, on any channel.
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ContactNumber<'a> {
    pub(super) tenant: &'a str,
    pub(super) number: &'a str,
}

#[derive(Debug, Serialize, FromRow)]
pub(super) struct SuppressionRow {
    tenant: String,
    number: String,
    channel: String,
    #[sqlx(try_from = "String")]
    source: Source,
    error_code: String,
    suppressed: bool,
    since_ms: i64,
    expires_at_ms: Option<i64>,
    changed_at_ms: i64,
    message_sid: Option<String>,
    route: Option<String>,
    origin_channel: Option<String>,
    sender: Option<String>,
    service_sid: Option<String>,
    changed_by: Option<String>,
}

impl From<Suppression> for SuppressionRow {
    fn from(known: Suppression) -> SuppressionRow {
        SuppressionRow {
            tenant: known.account_sid,
            number: known.address.number,
            channel: known.address.channel,
            source: known.source,
            error_code: known.error_code,
            suppressed: known.is_open,
            since_ms: known.since_ms,
            expires_at_ms: known.expires_at_ms,
            changed_at_ms: known.changed_at_ms,
            message_sid: known.message_sid,
            route: known.route,
            origin_channel: known.origin_channel,
            sender: known.sender,
            service_sid: known.service_sid,
            changed_by: known.changed_by,
        }
    }
}

impl From<SuppressionRow> for Suppression {
    fn from(row: SuppressionRow) -> Suppression {
        Suppression {
            account_sid: row.tenant,
            address: Address { channel: row.channel, number: row.number },
            source: row.source,
            error_code: row.error_code,
            is_open: row.suppressed,
            since_ms: row.since_ms,
            expires_at_ms: row.expires_at_ms,
            changed_at_ms: row.changed_at_ms,
            message_sid: row.message_sid,
            route: row.route,
            origin_channel: row.origin_channel,
            sender: row.sender,
            service_sid: row.service_sid,
            changed_by: row.changed_by,
        }
    }
}

impl Suppressions {
    pub(super) fn of(database: Database) -> Suppressions {
        Suppressions { database }
    }

    /// Returns all suppressions of these numbers on every channel, ended ones included.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn of_numbers(
        &self,
        account_sid: &str,
        numbers: &[impl AsRef<str>],
    ) -> Result<Vec<Suppression>, StoreError> {
        let query = contact_numbers(account_sid, numbers);
        let rows: Vec<SuppressionRow> =
            self.database.read(self.statements().of_contacts, &query).await?;
        Ok(rows.into_iter().map(Suppression::from).collect())
    }

    /// Returns a page of an account's suppressions, ordered by number.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list(&self, page: &SuppressionsPage<'_>) -> Result<Vec<Suppression>, StoreError> {
        let [number, channel, error_code, after_source] = match page.after {
            Some(Cursor::Suppression { number, channel, error_code, source }) => {
                [number.as_str(), channel, error_code, source]
            }
            _ => [""; 4],
        };
        let query = PageQuery {
            tenant: page.account_sid,
            source: page.source,
            on_channels: page.channels.as_deref(),
            ended: page.ended,
            now_ms: page.now_ms,
            number,
            channel,
            error_code,
            after_source,
            most: page.most,
        };
        let statement = match page.source {
            Some(_) => self.statements().list_of_source,
            None => self.statements().list,
        };
        let rows: Vec<SuppressionRow> = self.database.read(statement, &[query]).await?;
        Ok(rows.into_iter().map(Suppression::from).collect())
    }

    /// Changes the suppressions of some numbers of an account with `change`, and adds its audit entries. Survives a power
    /// loss. Returns the suppressions that became different.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn change(
        &self,
        account_sid: &str,
        numbers: &[impl AsRef<str>],
        change: impl FnOnce(&mut SuppressionSet) + Send,
        entry: impl FnOnce(&[Suppression]) -> AuditEntry + Send,
    ) -> Result<Vec<Suppression>, StoreError> {
        let query = contact_numbers(account_sid, numbers);
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let mut standing = lock(&mut tx, &query).await?;
                change(&mut standing);
                let changes = standing.changes();
                if changes.is_empty() {
                    return Ok(changes);
                }
                keep(&mut tx, changes.clone()).await?;
                audit_log::add(&mut tx, &[entry(&changes)]).await?;
                let reporting = self.database.reporting();
                let events = events(reporting, &changes);
                operational_events::record(&mut tx, reporting, &events).await?;
                tx.commit().await?;
                Ok(changes)
            })
            .await
    }

    /// Ends suppressions whose time to live is over, at most `most`, and reports them to sinks. They have been without effect
    /// since their expiry; only the stored state follows. Returns those that this call ended.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn expire(&self, most: i64, now_ms: i64) -> Result<Vec<Suppression>, StoreError> {
        let found: Vec<(i64,)> =
            self.database.read_bound(HAS_EXPIRED, &[Bind::Whole(now_ms)]).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let binds = [Bind::Whole(now_ms), Bind::Whole(most)];
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let rows: Vec<SuppressionRow> =
                    tx.fetch_bound(self.statements().lock_expired, &binds).await?;
                if rows.is_empty() {
                    return Ok(Vec::new());
                }
                let mut expired = SuppressionSet::new(rows.into_iter().map(Suppression::from));
                expired.expire(now_ms);
                let changes = expired.changes();
                keep(&mut tx, changes.clone()).await?;
                let reporting = self.database.reporting();
                let events = events(reporting, &changes);
                operational_events::record(&mut tx, reporting, &events).await?;
                tx.commit().await?;
                Ok(changes)
            })
            .await
    }

    fn statements(&self) -> &'static SuppressionStatements {
        &self.database.statements().suppressions
    }
}

pub(super) fn contact_numbers<'a>(
    account_sid: &'a str,
    numbers: &'a [impl AsRef<str>],
) -> Vec<ContactNumber<'a>> {
    let numbers: BTreeSet<&str> = numbers.iter().map(AsRef::as_ref).collect();
    numbers.into_iter().map(|number| ContactNumber { tenant: account_sid, number }).collect()
}

/// Returns the suppressions of these contacts, locked until the transaction ends.
pub(super) async fn lock(
    tx: &mut Transaction,
    contact_numbers: &[ContactNumber<'_>],
) -> Result<SuppressionSet, StoreError> {
    let rows: Vec<SuppressionRow> =
        tx.fetch(tx.statements().suppressions.lock, contact_numbers).await?;
    Ok(SuppressionSet::new(rows.into_iter().map(Suppression::from)))
}

pub(super) async fn keep(
    tx: &mut Transaction,
    changes: Vec<Suppression>,
) -> Result<(), StoreError> {
    let rows: Vec<SuppressionRow> = changes.into_iter().map(SuppressionRow::from).collect();
    tx.execute(tx.statements().suppressions.keep, &rows).await
}

/// Returns the events of changed suppressions; none if no sink takes them.
pub(super) fn events(reporting: &EventReporting, changes: &[Suppression]) -> Vec<OperationalEvent> {
    match reporting.has(OperationalEventType::SuppressionChanged) {
        true => changes.iter().map(OperationalEvent::suppression_changed).collect(),
        false => Vec::new(),
    }
}
