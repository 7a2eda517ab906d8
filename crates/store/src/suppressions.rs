//! Suppressions in the database: read, listed, and changed by administrators and applications, each change in one
//! transaction with its audit entry. The ledger records the opt-outs of contacts in the same rows. Every query is about one
//! account. This module must not know what a suppression means.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::FromRow;

use crate::audit_log::{self, AuditEntry};
use crate::{
    database::{Database, Durability, Transaction},
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
    /// Includes suppressions that have ended.
    pub ended: bool,
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
            suppressed: known.in_force,
            since_ms: known.since_ms,
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
            in_force: row.suppressed,
            since_ms: row.since_ms,
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
                report(&mut tx, self.database.reporting(), &changes).await?;
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

/// Reports changed suppressions to sinks.
pub(super) async fn report(
    tx: &mut Transaction,
    reporting: &EventReporting,
    changes: &[Suppression],
) -> Result<(), StoreError> {
    if !reporting.has(OperationalEventType::SuppressionChanged) {
        return Ok(());
    }
    let events: Vec<OperationalEvent> =
        changes.iter().map(OperationalEvent::suppression_changed).collect();
    operational_events::record(tx, reporting, &events).await
}
