//! Tenant profiles in the database: listed, and changed in one transaction with the audit entry, if the profile is
//! unchanged since the caller read it. This module must not know what a profile means.

use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;

use crate::audit_log::{self, AuditEntry};
use crate::{
    database::{Database, Durability, within},
    error::StoreError,
    operational_events,
    statements::TenantStatements,
};
use twilio_edge_domain::{
    operational_event::{EventReporting, OperationalEvent, OperationalEventType},
    tenant::{Profile, Tenant},
};
use twilio_edge_platform::config;

/// The tenant profiles of one database.
#[derive(Debug, Clone)]
pub struct Tenants {
    database: Database,
}

#[derive(Debug, Serialize)]
struct ProfileQuery<'a> {
    account_sid: Option<&'a str>,
    after: &'a str,
    most: i64,
}

#[derive(Debug, FromRow)]
struct Changes {
    changes: i64,
}

#[derive(Debug, Serialize, FromRow)]
struct TenantRow {
    account_sid: String,
    parent_sid: Option<String>,
    friendly_name: String,
    senders: String,
    services: String,
    policy: String,
    retention: String,
    revision: i64,
    created_at_ms: i64,
    updated_at_ms: i64,
    closed_at_ms: Option<i64>,
}

impl From<Tenant> for TenantRow {
    fn from(tenant: Tenant) -> TenantRow {
        let Profile { parent_sid, friendly_name, senders, services, policy, retention } =
            tenant.profile;
        TenantRow {
            account_sid: tenant.account_sid,
            parent_sid,
            friendly_name,
            senders: Value::from(senders).to_string(),
            services: Value::from(services).to_string(),
            policy: policy.to_string(),
            retention: retention.to_string(),
            revision: tenant.revision,
            created_at_ms: tenant.created_at_ms,
            updated_at_ms: tenant.updated_at_ms,
            closed_at_ms: tenant.closed_at_ms,
        }
    }
}

impl From<TenantRow> for Tenant {
    fn from(row: TenantRow) -> Tenant {
        Tenant {
            account_sid: row.account_sid,
            profile: Profile {
                parent_sid: row.parent_sid,
                friendly_name: row.friendly_name,
                senders: serde_json::from_str(&row.senders).unwrap_or_default(),
                services: serde_json::from_str(&row.services).unwrap_or_default(),
                policy: serde_json::from_str(&row.policy).unwrap_or_default(),
                retention: serde_json::from_str(&row.retention).unwrap_or_default(),
            },
            revision: row.revision,
            created_at_ms: row.created_at_ms,
            updated_at_ms: row.updated_at_ms,
            closed_at_ms: row.closed_at_ms,
        }
    }
}

impl Tenants {
    /// Connects for a command, beside a sidecar that may have the database open. Changes are reported to sinks by `reporting`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(
        settings: &config::Database,
        reporting: EventReporting,
    ) -> Result<Tenants, StoreError> {
        Ok(Tenants::of(Database::open_beside(settings).await?.reporting_to(reporting)))
    }

    pub(super) fn of(database: Database) -> Tenants {
        Tenants { database }
    }

    /// Closes the connections. Only for an instance from [`Tenants::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Returns the profile of one account, if it has one.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn get(&self, account_sid: &str) -> Result<Option<Tenant>, StoreError> {
        Ok(self.list(Some(account_sid), "", 1).await?.into_iter().next())
    }

    /// Returns the profiles after a SID, ordered by SID; optionally that of one account only.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list(
        &self,
        account_sid: Option<&str>,
        after: &str,
        most: i64,
    ) -> Result<Vec<Tenant>, StoreError> {
        let query = [ProfileQuery { account_sid, after, most }];
        let rows: Vec<TenantRow> = self.database.read(self.statements().list, &query).await?;
        Ok(rows.into_iter().map(Tenant::from).collect())
    }

    /// Returns a number that increases with each change of a profile.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn changes(&self) -> Result<i64, StoreError> {
        let rows: Vec<Changes> = self.database.read(self.statements().changes, &[()]).await?;
        Ok(rows.first().map_or(0, |row| row.changes))
    }

    /// Changes the profile of an account with `change`, which may refuse. The profile is locked, so no other transaction
    /// changes it meanwhile.
    ///
    /// # Errors
    /// The error of `change`, or `StoreError` when the database is unavailable or the transaction fails.
    pub async fn change<E: From<StoreError>>(
        &self,
        account_sid: &str,
        change: impl FnOnce(Option<Tenant>) -> Result<(Tenant, AuditEntry), E> + Send,
    ) -> Result<Tenant, E> {
        within(self.database.timeout(), async {
            let mut tx = self.database.begin(Durability::Power).await?;
            // The row may not exist yet, so the SID itself is locked.
            tx.execute(self.database.statements().lock_keys, &[format!("tenant:{account_sid}")])
                .await?;
            let query = [ProfileQuery { account_sid: Some(account_sid), after: "", most: 1 }];
            let known: Vec<TenantRow> = tx.fetch(self.statements().list, &query).await?;
            let (tenant, entry) = change(known.into_iter().next().map(Tenant::from))?;
            tx.execute(self.statements().keep, &[TenantRow::from(tenant.clone())]).await?;
            audit_log::add(&mut tx, &[entry]).await?;
            let reporting = self.database.reporting();
            if reporting.has(OperationalEventType::AccountChanged) {
                let event = OperationalEvent::account_changed(&tenant);
                operational_events::record(&mut tx, reporting, &[event]).await?;
            }
            tx.commit().await?;
            Ok(tenant)
        })
        .await
    }

    fn statements(&self) -> &'static TenantStatements {
        &self.database.statements().tenants
    }
}
