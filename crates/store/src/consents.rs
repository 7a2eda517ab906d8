//! Consents in the database: recorded, read and listed; and the last inbound message of a contact, which opens a
//! conversation window. Every query is about one account. This module must not know what a consent permits.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::FromRow;

use super::suppressions::{ContactNumber, contact_numbers};
use crate::audit_log::{self, AuditEntry};
use crate::{
    database::{Database, Durability, Transaction},
    error::StoreError,
    operational_events,
    statements::ConsentStatements,
};
use twilio_edge_domain::{
    address::Address,
    consent::{Consent, State},
    cursor::Cursor,
    operational_event::{EventReporting, OperationalEvent, OperationalEventType},
    policy::Category,
};
use twilio_edge_platform::config;

/// The consents of all accounts.
#[derive(Debug, Clone)]
pub struct Consents {
    database: Database,
}

/// Filter and position of a page of consents.
#[derive(Debug, Clone)]
pub struct ConsentsPage<'a> {
    /// Account SID of the tenant.
    pub account_sid: &'a str,
    /// Returns only consents on this channel.
    pub channel: Option<&'a str>,
    /// Returns only consents of this category.
    pub category: Option<Category>,
    /// Returns the whole history instead of the consents in effect.
    pub history: bool,
    /// Position: consents after this one, in list order.
    pub after: Option<&'a Cursor>,
    /// Maximum number of consents.
    pub most: i64,
}

#[derive(Debug, Serialize)]
struct PageQuery<'a> {
    tenant: &'a str,
    on_channel: Option<&'a str>,
    in_category: Option<Category>,
    history: bool,
    number: &'a str,
    channel: &'a str,
    category: &'a str,
    at_ms: i64,
    state: &'a str,
    id: &'a str,
    most: i64,
}

#[derive(Debug, Serialize, FromRow)]
pub(super) struct ConsentRow {
    id: String,
    tenant: String,
    number: String,
    channel: String,
    #[sqlx(try_from = "String")]
    category: Category,
    #[sqlx(try_from = "String")]
    state: State,
    at_ms: i64,
    source: String,
    proof: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
    recorded_at_ms: i64,
    recorded_by: String,
}

impl From<&Consent> for ConsentRow {
    fn from(consent: &Consent) -> ConsentRow {
        let known = consent.clone();
        ConsentRow {
            id: consent.id(),
            tenant: known.account_sid,
            number: known.address.number,
            channel: known.address.channel,
            category: known.category,
            state: known.state,
            at_ms: known.at_ms,
            source: known.source,
            proof: known.proof,
            ip: known.ip,
            user_agent: known.user_agent,
            recorded_at_ms: known.recorded_at_ms,
            recorded_by: known.recorded_by,
        }
    }
}

impl From<ConsentRow> for Consent {
    fn from(row: ConsentRow) -> Consent {
        Consent {
            account_sid: row.tenant,
            address: Address { channel: row.channel, number: row.number },
            category: row.category,
            state: row.state,
            at_ms: row.at_ms,
            source: row.source,
            proof: row.proof,
            ip: row.ip,
            user_agent: row.user_agent,
            recorded_at_ms: row.recorded_at_ms,
            recorded_by: row.recorded_by,
            stored_id: Some(row.id),
        }
    }
}

#[derive(Debug, FromRow)]
struct Recorded {
    id: String,
}

#[derive(Debug, Serialize)]
struct InboundQuery<'a> {
    tenant: &'a str,
    channel: &'a str,
    number: &'a str,
}

#[derive(Debug, FromRow)]
struct InboundRow {
    ours: String,
    last_inbound_ms: i64,
}

impl Consents {
    /// Connects for a command, beside a sidecar that may have the database open. Changes are reported to sinks by `reporting`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(
        settings: &config::Database,
        reporting: EventReporting,
    ) -> Result<Consents, StoreError> {
        Ok(Consents::of(Database::open_beside(settings).await?.reporting_to(reporting)))
    }

    pub(super) fn of(database: Database) -> Consents {
        Consents { database }
    }

    /// Returns the suppressions, in the same database.
    pub fn suppressions(&self) -> crate::suppressions::Suppressions {
        crate::suppressions::Suppressions::of(self.database.clone())
    }

    /// Returns the contacts, in the same database.
    pub fn contacts(&self) -> crate::contacts::Contacts {
        crate::contacts::Contacts::of(self.database.clone())
    }

    /// Closes the connections. Only for an instance from [`Consents::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Records consents, each once, and adds `entry` to the audit log. Survives a power loss. Returns the number of new
    /// consents.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn record(
        &self,
        consents: &[Consent],
        entry: AuditEntry,
    ) -> Result<usize, StoreError> {
        let rows: Vec<ConsentRow> = consents.iter().map(ConsentRow::from).collect();
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                let recorded: Vec<Recorded> = tx.fetch(self.statements().record, &rows).await?;
                let new = recorded.iter().filter(|recorded| !recorded.id.is_empty()).count();
                if new > 0 {
                    audit_log::add(&mut tx, &[entry]).await?;
                    self.report(&mut tx, consents, &recorded).await?;
                }
                tx.commit().await?;
                Ok(new)
            })
            .await
    }

    /// Reports the consents that were new to sinks.
    async fn report(
        &self,
        tx: &mut Transaction,
        consents: &[Consent],
        recorded: &[Recorded],
    ) -> Result<(), StoreError> {
        let reporting = self.database.reporting();
        if !reporting.has(OperationalEventType::ConsentChanged) {
            return Ok(());
        }
        let new: BTreeSet<&str> = recorded.iter().map(|recorded| recorded.id.as_str()).collect();
        let new = consents.iter().filter(|consent| new.contains(consent.id().as_str()));
        let events: Vec<OperationalEvent> = new.map(OperationalEvent::consent_changed).collect();
        operational_events::record(tx, reporting, &events).await
    }

    /// Returns all consents of these numbers on every channel, up to a maximum.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn of_numbers(
        &self,
        account_sid: &str,
        numbers: &[impl AsRef<str>],
    ) -> Result<Vec<Consent>, StoreError> {
        let query: Vec<ContactNumber<'_>> = contact_numbers(account_sid, numbers);
        let rows: Vec<ConsentRow> =
            self.database.read(self.statements().of_contacts, &query).await?;
        Ok(rows.into_iter().map(Consent::from).collect())
    }

    /// Returns a page of an account's consents, ordered by number, the earliest of each number first.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list(&self, page: &ConsentsPage<'_>) -> Result<Vec<Consent>, StoreError> {
        let ([number, channel, category, state, id], at_ms) = match page.after {
            Some(Cursor::Consent { number, channel, category, at_ms, state, id }) => {
                ([number.as_str(), channel, category, state, id], *at_ms)
            }
            _ => ([""; 5], i64::MIN),
        };
        let query = PageQuery {
            tenant: page.account_sid,
            on_channel: page.channel,
            in_category: page.category,
            history: page.history,
            number,
            channel,
            category,
            at_ms,
            state,
            id,
            most: page.most,
        };
        let rows: Vec<ConsentRow> = self.database.read(self.statements().list, &[query]).await?;
        Ok(rows.into_iter().map(Consent::from).collect())
    }

    /// Returns for each of our numbers the time, in milliseconds, at which a contact with these numbers last wrote to it on
    /// a channel. Pending events are not included.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn last_inbound(
        &self,
        account_sid: &str,
        channel: &str,
        numbers: &[impl AsRef<str>],
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let query: Vec<InboundQuery<'_>> = numbers
            .iter()
            .map(|number| InboundQuery { tenant: account_sid, channel, number: number.as_ref() })
            .collect();
        let rows: Vec<InboundRow> =
            self.database.read(self.statements().last_inbound, &query).await?;
        Ok(rows.into_iter().map(|row| (row.ours, row.last_inbound_ms)).collect())
    }

    fn statements(&self) -> &'static ConsentStatements {
        &self.database.statements().consents
    }
}
