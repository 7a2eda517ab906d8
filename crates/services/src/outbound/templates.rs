//! Templates: the catalogue of each account in memory, and the templates that administrators define. A change takes
//! effect soon afterwards in every sidecar. While the database or Twilio is unavailable, the last catalogue stays in
//! effect. Knows neither HTTP nor SQL.

pub mod sync;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde_json::json;

use crate::access::api_keys::{AccessError, Caller};
use twilio_edge_domain::template::{Template, catalogue::Catalogue, locale::Locale};
use twilio_edge_store::{self as store, AuditEntry, CatalogueState, StoreError};

/// Interval between checks for changes by other sidecars and commands.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// Catalogues of all accounts. Copies share them.
#[derive(Clone)]
pub struct Templates {
    store: store::Templates,
    cache: Arc<RwLock<HashMap<String, CachedCatalogue>>>,
}

/// Catalogue of an account, with its revision.
#[derive(Debug, Clone, Default)]
struct CachedCatalogue {
    revision: i64,
    synced_at_ms: i64,
    problem: String,
    catalogue: Arc<Catalogue>,
}

/// Age of an account's catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Age {
    /// Time of the last successful read from Twilio, in milliseconds since 1970; 0 if there was none.
    pub synced_at_ms: i64,
    /// Reason why the last read failed; empty if it succeeded.
    pub problem: String,
}

impl Templates {
    /// Creates the service on this database. Nothing has been read yet.
    pub fn new(store: store::Templates) -> Templates {
        Templates { store, cache: Arc::default() }
    }

    /// Returns the catalogue of an account.
    pub fn of(&self, account_sid: &str) -> Arc<Catalogue> {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        cache.get(account_sid).map(|cached| cached.catalogue.clone()).unwrap_or_default()
    }

    /// Returns the age of that catalogue.
    pub fn age(&self, account_sid: &str) -> Age {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let of = |cached: &CachedCatalogue| Age {
            synced_at_ms: cached.synced_at_ms,
            problem: cached.problem.clone(),
        };
        cache.get(account_sid).map(of).unwrap_or_default()
    }

    /// Defines a template, in place of an earlier definition with the same name and language.
    ///
    /// # Errors
    /// Returns `OtherAccount` if the caller may not see the account, and `Store` if the database fails.
    pub async fn put(
        &self,
        by: &Caller,
        account_sid: &str,
        template: &Template,
        now_ms: i64,
    ) -> Result<(), AccessError> {
        if !by.sees(account_sid) {
            return Err(AccessError::OtherAccount);
        }
        let actor = (by.actor.as_str(), by.source.as_str());
        let mut entry = entry(actor, account_sid, "template.set", &template.subject(), now_ms);
        entry.detail = template.audit_detail().to_string();
        self.store.put(account_sid, template, &entry).await?;
        Ok(self.refresh().await?)
    }

    /// Removes a definition of [`Templates::put`]. Returns false if there is none. Templates from Twilio are not
    /// affected.
    ///
    /// # Errors
    /// Returns `OtherAccount` if the caller may not see the account, and `Store` if the database fails.
    pub async fn remove(
        &self,
        by: &Caller,
        account_sid: &str,
        name: &str,
        locale: &Locale,
        now_ms: i64,
    ) -> Result<bool, AccessError> {
        if !by.sees(account_sid) {
            return Err(AccessError::OtherAccount);
        }
        let reference = format!("{name}/{locale}");
        let actor = (by.actor.as_str(), by.source.as_str());
        let subject = format!("template {reference}");
        let entry = entry(actor, account_sid, "template.unset", &subject, now_ms);
        let removed = self.store.remove(account_sid, &reference, &entry).await?;
        self.refresh().await?;
        Ok(removed)
    }

    /// Reads the catalogues that have changed and puts them into effect.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        for state in self.store.catalogue_states().await? {
            let CatalogueState { account_sid, revision, synced_at_ms, problem } = state;
            let cached = {
                let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
                cache.get(&account_sid).cloned().unwrap_or_default()
            };
            // The revision was read first: a change between the two reads is then read twice rather than missed.
            let catalogue = match cached.revision == revision {
                true => cached.catalogue,
                false => {
                    let found = self.store.list(&account_sid).await?;
                    Arc::new(Catalogue::of(found))
                }
            };
            let now = CachedCatalogue { revision, synced_at_ms, problem, catalogue };
            self.cache.write().unwrap_or_else(PoisonError::into_inner).insert(account_sid, now);
        }
        Ok(())
    }

    /// Refreshes the catalogues once per second, for ever.
    pub async fn run(self) {
        loop {
            if let Err(reason) = self.refresh().await {
                tracing::warn!(event = "templates.reload_failed", %reason, "the sidecar could not read templates from the database again; the earlier ones stay in effect");
            }
            tokio::time::sleep(REFRESH_INTERVAL).await;
        }
    }
}

fn entry(
    (actor, source): (&str, &str),
    account_sid: &str,
    action: &str,
    subject: &str,
    now_ms: i64,
) -> AuditEntry {
    AuditEntry {
        id: 0,
        at_ms: now_ms,
        actor: actor.to_owned(),
        source: source.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        account_sid: Some(account_sid.to_owned()),
        detail: json!({}).to_string(),
    }
}
