//! Accounts at work: what an administrator may say of them, and that it counts soon after wherever it is asked for: in each
//! sidecar within a second, where it was said at once. Knows neither HTTP nor SQL.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde_json::json;

use crate::{
    access::api_keys::{Caller, Refusal},
    operations::retention::RetentionPolicies,
};
use twilio_edge_domain::{
    policy::Policies,
    tenant::{Fault, Profile, Tenant, Usual},
};
use twilio_edge_platform::config::Config;
use twilio_edge_store::{self as store, AuditEntry, StoreError};

/// How often what other sidecars and commands have changed is looked for.
const REFRESH: Duration = Duration::from_secs(1);

/// Accounts read at a time.
const PAGE: i64 = 500;

/// What is said of accounts, and where it counts.
#[derive(Clone)]
pub struct Tenants {
    store: store::Tenants,
    usual: Arc<Usual>,
    policies: Policies,
    rulebook: RetentionPolicies,
    closed: Arc<RwLock<HashSet<String>>>,
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum Denied {
    /// As for everything else.
    Refused(Refusal),
    /// Nothing is said of this account.
    NoSuchTenant,
    /// It has this revision, and is to be changed by who has seen that.
    Unseen(i64),
    /// It was changed since: it has this revision, or none when nothing is said of it.
    Changed(Option<i64>),
    /// What is to be said cannot be.
    Fault(Fault),
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Denied {
        Denied::Refused(Refusal::Store(error))
    }
}

impl Tenants {
    /// `policies` and `rulebook` are told what is said.
    pub fn new(
        store: store::Tenants,
        policies: Policies,
        rulebook: RetentionPolicies,
        config: &Config,
    ) -> Tenants {
        let usual = Usual {
            policy: config.policy.clone(),
            retention: config.retention.clone(),
            result_ms: config.leases.periods().result_ms,
            hashes: !config.redaction.hash_key.is_empty(),
        };
        let closed = Arc::default();
        Tenants { store, usual: Arc::new(usual), policies, rulebook, closed }
    }

    /// Those after one, in the order of SIDs; of one account only, if that is said.
    pub async fn list(
        &self,
        by: &Caller,
        account_sid: Option<&str>,
        after: &str,
        most: i64,
    ) -> Result<Vec<Tenant>, Refusal> {
        if account_sid.is_some_and(|asked| !by.sees(asked)) {
            return Err(Refusal::OtherAccount);
        }
        let account_sid = account_sid.or(by.account_sid.as_deref());
        Ok(self.store.list(account_sid, after, most).await?)
    }

    /// One account.
    pub async fn get(&self, by: &Caller, account_sid: &str) -> Result<Tenant, Denied> {
        if !by.sees(account_sid) {
            return Err(Denied::Refused(Refusal::OtherAccount));
        }
        self.store.get(account_sid).await?.ok_or(Denied::NoSuchTenant)
    }

    /// Says this of an account, instead of what was said before; whoever does has to have `seen` that.
    pub async fn put(
        &self,
        by: &Caller,
        account_sid: &str,
        profile: Profile,
        seen: Option<i64>,
        now_ms: i64,
    ) -> Result<Tenant, Denied> {
        if !by.sees(account_sid) {
            return Err(Denied::Refused(Refusal::OtherAccount));
        }
        profile.check(account_sid, &self.usual).map_err(Denied::Fault)?;
        let change = |known: Option<Tenant>| {
            is_seen(known.as_ref(), seen)?;
            let tenant = Tenant {
                account_sid: account_sid.to_owned(),
                revision: known.as_ref().map_or(0, |known| known.revision) + 1,
                created_at_ms: known.as_ref().map_or(now_ms, |known| known.created_at_ms),
                updated_at_ms: now_ms,
                closed_at_ms: None,
                profile,
            };
            let entry = entry(by, "tenant.set", &tenant, now_ms);
            Ok::<_, Denied>((tenant, entry))
        };
        let tenant = self.store.change(account_sid, change).await?;
        self.refresh().await?;
        Ok(tenant)
    }

    /// Closes an account: its applications are not answered any more, until something is said of it again. Doing it again
    /// changes nothing.
    pub async fn close(
        &self,
        by: &Caller,
        account_sid: &str,
        seen: Option<i64>,
        now_ms: i64,
    ) -> Result<Tenant, Denied> {
        if !by.sees(account_sid) {
            return Err(Denied::Refused(Refusal::OtherAccount));
        }
        let known = self.get(by, account_sid).await?;
        if known.closed_at_ms.is_some() {
            return Ok(known);
        }
        let change = |known: Option<Tenant>| {
            let known = known.ok_or(Denied::NoSuchTenant)?;
            if seen.is_some() {
                is_seen(Some(&known), seen)?;
            }
            let closed_at_ms = Some(known.closed_at_ms.unwrap_or(now_ms));
            let revision = known.revision + 1;
            let tenant = Tenant { closed_at_ms, updated_at_ms: now_ms, revision, ..known };
            let entry = entry(by, "tenant.closed", &tenant, now_ms);
            Ok::<_, Denied>((tenant, entry))
        };
        let tenant = self.store.change(account_sid, change).await?;
        self.refresh().await?;
        Ok(tenant)
    }

    /// Whether an account's applications are not answered any more.
    pub fn is_closed(&self, account_sid: &str) -> bool {
        self.closed.read().unwrap_or_else(PoisonError::into_inner).contains(account_sid)
    }

    /// Lets count what is said now.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let (mut policies, mut retentions) = (HashMap::new(), HashMap::new());
        let (mut closed, mut last) = (HashSet::new(), String::new());
        loop {
            let page = self.store.list(None, &last, PAGE).await?;
            let Some(end) = page.last() else { break };
            last = end.account_sid.clone();
            for tenant in page {
                let sid = tenant.account_sid;
                // What could be said once may not be possible under the settings of today.
                match tenant.profile.rules(&self.usual) {
                    Ok((policy, retention)) => {
                        policies.insert(sid.clone(), policy);
                        retentions.insert(sid.clone(), retention);
                    }
                    Err(fault) => {
                        tracing::error!(
                            event = "tenant.unusable",
                            ?fault,
                            account.sid = sid,
                            "what is said of an account cannot count; it is as all others"
                        );
                    }
                }
                if tenant.closed_at_ms.is_some() {
                    closed.insert(sid);
                }
            }
        }
        self.policies.replace(policies);
        self.rulebook.replace(retentions);
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = closed;
        Ok(())
    }

    /// Does that for ever, whenever something was said. What was said last counts while the database is away.
    pub async fn keep_fresh(self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(REFRESH).await;
            match self.refresh_since(seen).await {
                Ok(changes) => seen = Some(changes),
                Err(reason) => {
                    tracing::warn!(event = "tenants.unread", %reason, "what is said of accounts could not be read again");
                }
            }
        }
    }

    /// Lets count what is said now, if that changed; how often it has.
    async fn refresh_since(&self, seen: Option<i64>) -> Result<i64, StoreError> {
        // Counted first: what is said between the two is read twice rather than never.
        let changes = self.store.changes().await?;
        if seen != Some(changes) {
            self.refresh().await?;
        }
        Ok(changes)
    }
}

/// Nobody overwrites what they have not seen.
fn is_seen(known: Option<&Tenant>, seen: Option<i64>) -> Result<(), Denied> {
    match (known.map(|known| known.revision), seen) {
        (None, None) => Ok(()),
        (Some(revision), None) => Err(Denied::Unseen(revision)),
        (revision, Some(_)) if revision == seen => Ok(()),
        (revision, Some(_)) => Err(Denied::Changed(revision)),
    }
}

fn entry(by: &Caller, action: &str, tenant: &Tenant, now_ms: i64) -> AuditEntry {
    let Profile { parent_sid, friendly_name, senders, services, policy, retention } =
        &tenant.profile;
    let detail = json!({
        "revision": tenant.revision, "parent_sid": parent_sid, "friendly_name": friendly_name,
        "senders": senders, "services": services, "policy": policy, "retention": retention,
    });
    AuditEntry {
        id: 0,
        at_ms: now_ms,
        actor: by.actor.clone(),
        source: by.source.clone(),
        action: action.to_owned(),
        subject: format!("tenant {}", tenant.account_sid),
        account_sid: Some(tenant.account_sid.clone()),
        detail: detail.to_string(),
    }
}
