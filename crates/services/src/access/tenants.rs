//! Tenants: the profiles of accounts that administrators store. A profile takes effect immediately in the sidecar that
//! stored it, and within a second in all others. Knows neither HTTP nor SQL.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde_json::json;

use crate::{
    access::api_keys::{AccessError, Caller},
    operations::retention::RetentionPolicies,
};
use twilio_edge_domain::{
    policy::Policies,
    tenant::{GeneralRules, Profile, ProfileError, Tenant},
};
use twilio_edge_platform::config::Config;
use twilio_edge_store::{self as store, AuditEntry, StoreError};

/// Interval between checks for changes by other sidecars and commands.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// Number of accounts per read.
const PAGE_SIZE: i64 = 500;

/// Profiles of accounts, and the settings derived from them. Copies share the derived settings.
#[derive(Clone)]
pub struct Tenants {
    store: store::Tenants,
    defaults: Arc<GeneralRules>,
    policies: Policies,
    retention_policies: RetentionPolicies,
    closed: Arc<RwLock<HashSet<String>>>,
}

/// Reason why an operation was refused.
#[derive(Debug)]
pub enum TenantError {
    /// The caller may not do this, or the database failed.
    Refused(AccessError),
    /// The account has no profile.
    NotFound,
    /// The profile exists with this revision, and the request names none: the caller must have read the profile first.
    RevisionRequired(i64),
    /// The profile has changed since the caller read it. Holds its revision; `None` if the account has no profile.
    RevisionMismatch(Option<i64>),
    /// The profile is invalid.
    ProfileError(ProfileError),
}

impl From<StoreError> for TenantError {
    fn from(error: StoreError) -> TenantError {
        TenantError::Refused(AccessError::Store(error))
    }
}

impl Tenants {
    /// Creates the service. `policies` and `retention_policies` receive the settings of the profiles.
    pub fn new(
        store: store::Tenants,
        policies: Policies,
        retention_policies: RetentionPolicies,
        config: &Config,
    ) -> Tenants {
        let defaults = GeneralRules {
            policy: config.policy.clone(),
            retention: config.retention.clone(),
            result_ms: config.leases.periods().result_ms,
            hashes: !config.redaction.hash_key.is_empty(),
            links_media: config.media.store.inbound_links().is_some(),
        };
        let closed = Arc::default();
        Tenants { store, defaults: Arc::new(defaults), policies, retention_policies, closed }
    }

    /// Lists profiles after the SID `after`, ordered by SID; only that of `account_sid`, if given.
    ///
    /// # Errors
    /// Returns `OtherAccount` if the caller may not see the account, and `Store` if the database fails.
    pub async fn list(
        &self,
        by: &Caller,
        account_sid: Option<&str>,
        after: &str,
        most: i64,
    ) -> Result<Vec<Tenant>, AccessError> {
        if account_sid.is_some_and(|sid| !by.sees(sid)) {
            return Err(AccessError::OtherAccount);
        }
        let account_sid = account_sid.or(by.account_sid.as_deref());
        Ok(self.store.list(account_sid, after, most).await?)
    }

    /// Returns the profile of one account.
    ///
    /// # Errors
    /// Returns [`TenantError`] if the caller may not see the account, it has no profile, or the database fails.
    pub async fn get(&self, by: &Caller, account_sid: &str) -> Result<Tenant, TenantError> {
        if !by.sees(account_sid) {
            return Err(TenantError::Refused(AccessError::OtherAccount));
        }
        self.store.get(account_sid).await?.ok_or(TenantError::NotFound)
    }

    /// Stores the profile of an account in place of an earlier one. `revision` is the revision that the caller has read.
    ///
    /// # Errors
    /// Returns [`TenantError`] if the caller may not see the account, the profile is invalid or has changed, or the database
    /// fails.
    pub async fn put(
        &self,
        by: &Caller,
        account_sid: &str,
        profile: Profile,
        revision: Option<i64>,
        now_ms: i64,
    ) -> Result<Tenant, TenantError> {
        if !by.sees(account_sid) {
            return Err(TenantError::Refused(AccessError::OtherAccount));
        }
        profile.check(account_sid, &self.defaults).map_err(TenantError::ProfileError)?;
        let change = |stored: Option<Tenant>| {
            check_revision(stored.as_ref(), revision)?;
            let tenant = Tenant {
                account_sid: account_sid.to_owned(),
                revision: stored.as_ref().map_or(0, |stored| stored.revision) + 1,
                created_at_ms: stored.as_ref().map_or(now_ms, |stored| stored.created_at_ms),
                updated_at_ms: now_ms,
                closed_at_ms: None,
                profile,
            };
            let entry = entry(by, "tenant.set", &tenant, now_ms);
            Ok::<_, TenantError>((tenant, entry))
        };
        let tenant = self.store.change(account_sid, change).await?;
        self.refresh().await?;
        Ok(tenant)
    }

    /// Closes an account: requests of its applications are refused until a profile is stored again. Closing it again
    /// changes nothing.
    ///
    /// # Errors
    /// Returns [`TenantError`] if the caller may not see the account, it has no profile or that has changed, or the database
    /// fails.
    pub async fn close(
        &self,
        by: &Caller,
        account_sid: &str,
        revision: Option<i64>,
        now_ms: i64,
    ) -> Result<Tenant, TenantError> {
        if !by.sees(account_sid) {
            return Err(TenantError::Refused(AccessError::OtherAccount));
        }
        let stored = self.get(by, account_sid).await?;
        if stored.closed_at_ms.is_some() {
            return Ok(stored);
        }
        let change = |stored: Option<Tenant>| {
            let stored = stored.ok_or(TenantError::NotFound)?;
            if revision.is_some() {
                check_revision(Some(&stored), revision)?;
            }
            let closed_at_ms = Some(stored.closed_at_ms.unwrap_or(now_ms));
            let revision = stored.revision + 1;
            let tenant = Tenant { closed_at_ms, updated_at_ms: now_ms, revision, ..stored };
            let entry = entry(by, "tenant.closed", &tenant, now_ms);
            Ok::<_, TenantError>((tenant, entry))
        };
        let tenant = self.store.change(account_sid, change).await?;
        self.refresh().await?;
        Ok(tenant)
    }

    /// Returns whether an account is closed.
    pub fn is_closed(&self, account_sid: &str) -> bool {
        self.closed.read().unwrap_or_else(PoisonError::into_inner).contains(account_sid)
    }

    /// Reads all profiles and puts them into effect.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let (mut policies, mut retentions) = (HashMap::new(), HashMap::new());
        let (mut closed, mut last) = (HashSet::new(), String::new());
        loop {
            let page = self.store.list(None, &last, PAGE_SIZE).await?;
            let Some(end) = page.last() else { break };
            last = end.account_sid.clone();
            for tenant in page {
                let sid = tenant.account_sid;
                // A stored profile may be invalid under the current settings.
                match tenant.profile.rules(&self.defaults) {
                    Ok((policy, retention)) => {
                        policies.insert(sid.clone(), policy);
                        retentions.insert(sid.clone(), retention);
                    }
                    Err(fault) => {
                        tracing::error!(
                            event = "tenant.invalid",
                            ?fault,
                            account.sid = sid,
                            "the profile of an account was invalid under the current configuration; the defaults apply"
                        );
                    }
                }
                if tenant.closed_at_ms.is_some() {
                    closed.insert(sid);
                }
            }
        }
        self.policies.replace(policies);
        self.retention_policies.replace(retentions);
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = closed;
        Ok(())
    }

    /// Puts changed profiles into effect, once per second, for ever. While the database is unavailable, the last
    /// profiles stay in effect.
    pub async fn run(self) {
        let mut known_changes = None;
        loop {
            tokio::time::sleep(REFRESH_INTERVAL).await;
            match self.refresh_since(known_changes).await {
                Ok(changes) => known_changes = Some(changes),
                Err(reason) => {
                    tracing::warn!(event = "tenants.reload_failed", %reason, "the sidecar could not read the profiles of accounts again");
                }
            }
        }
    }

    /// Puts the profiles into effect unless `known_changes` is the number of changes so far. Returns that number.
    async fn refresh_since(&self, known_changes: Option<i64>) -> Result<i64, StoreError> {
        // The changes are counted first: a change between the two reads is then read twice rather than missed.
        let changes = self.store.changes().await?;
        if known_changes != Some(changes) {
            self.refresh().await?;
        }
        Ok(changes)
    }
}

/// Checks that the caller has read the current revision, so that it overwrites no change that it has not read.
fn check_revision(stored: Option<&Tenant>, expected: Option<i64>) -> Result<(), TenantError> {
    match (stored.map(|stored| stored.revision), expected) {
        (None, None) => Ok(()),
        (Some(revision), None) => Err(TenantError::RevisionRequired(revision)),
        (revision, Some(_)) if revision == expected => Ok(()),
        (revision, Some(_)) => Err(TenantError::RevisionMismatch(revision)),
    }
}

fn entry(by: &Caller, action: &str, tenant: &Tenant, now_ms: i64) -> AuditEntry {
    let Profile { parent_sid, friendly_name, senders, services, policy, retention } =
        &tenant.profile;
    let detail = json!({
        "revision": tenant.revision, "parent_sid": parent_sid, "friendly_name": friendly_name,
        "senders": senders, "services": services, "policy": policy, "retention": retention,
    });
    by.audit_entry(
        action,
        format!("tenant {}", tenant.account_sid),
        Some(tenant.account_sid.clone()),
        &detail,
        now_ms,
    )
}
