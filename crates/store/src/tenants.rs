//! What is said of accounts, as the database has it: listed, and changed in one transaction with the entry in the audit, if
//! it is still as whoever changes it has seen it. What it means is not known here.

use std::{future::Future, time::Duration};

use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;

use crate::api_keys::AuditEntry;
use crate::{
    database::{Database, Durability},
    error::StoreError,
    statements::TenantStatements,
};
use twilio_edge_domain::tenant::{Profile, Tenant};
use twilio_edge_platform::config;

/// The accounts something is said of.
#[derive(Debug, Clone)]
pub struct Tenants {
    database: Database,
    timeout: Duration,
}

#[derive(Debug, Serialize)]
struct Asked<'a> {
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
    /// Reaches the database for a short while, beside a sidecar that serves from it.
    pub async fn open(settings: &config::Database) -> Result<Tenants, StoreError> {
        let timeout = Duration::from_millis(settings.connect_timeout_ms.max(settings.timeout_ms));
        Ok(Tenants::of(Database::open_beside(settings).await?, timeout))
    }

    pub(super) fn of(database: Database, timeout: Duration) -> Tenants {
        Tenants { database, timeout }
    }

    /// Ends the connections of one that was opened by itself.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// One account, if something is said of it.
    pub async fn get(&self, account_sid: &str) -> Result<Option<Tenant>, StoreError> {
        Ok(self.list(Some(account_sid), "", 1).await?.into_iter().next())
    }

    /// Those after one, in the order of SIDs; of one account only, if that is said.
    pub async fn list(
        &self,
        account_sid: Option<&str>,
        after: &str,
        most: i64,
    ) -> Result<Vec<Tenant>, StoreError> {
        let asked = [Asked { account_sid, after, most }];
        self.bounded(async {
            let rows: Vec<TenantRow> = self.database.read(self.statements().list, &asked).await?;
            Ok(rows.into_iter().map(Tenant::from).collect())
        })
        .await
    }

    /// How often something was said of any account: more after each time.
    pub async fn changes(&self) -> Result<i64, StoreError> {
        self.bounded(async {
            let rows: Vec<Changes> = self.database.read(self.statements().changes, &[()]).await?;
            Ok(rows.first().map_or(0, |row| row.changes))
        })
        .await
    }

    /// Makes of what is known of an account what `change` makes of it, and writes that down. `change` sees it as nobody
    /// else changes it meanwhile, and may refuse.
    pub async fn change<E: From<StoreError>>(
        &self,
        account_sid: &str,
        change: impl FnOnce(Option<Tenant>) -> Result<(Tenant, AuditEntry), E> + Send,
    ) -> Result<Tenant, E> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            // There may be no row yet to lock.
            tx.execute(self.database.statements().lock_keys, &[format!("tenant:{account_sid}")])
                .await?;
            let asked = [Asked { account_sid: Some(account_sid), after: "", most: 1 }];
            let known: Vec<TenantRow> = tx.fetch(self.statements().list, &asked).await?;
            let (tenant, entry) = change(known.into_iter().next().map(Tenant::from))?;
            tx.execute(self.statements().keep, &[TenantRow::from(tenant.clone())]).await?;
            tx.execute(self.database.statements().register.add_entry, &[entry]).await?;
            tx.commit().await?;
            Ok(tenant)
        })
        .await
    }

    fn statements(&self) -> &'static TenantStatements {
        &self.database.statements().tenants
    }

    async fn bounded<T, E: From<StoreError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout)).into()),
        }
    }
}
