//! API keys at work: who calls, what an administrator may change, and that every change is written down. Adds no rule
//! about what a key looks like or permits ([`twilio_edge_domain::api_key`]) and knows neither HTTP nor SQL.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use twilio_edge_domain::{
    api_key::{self, Scope, Shown},
    tenant::is_account_sid,
};
use twilio_edge_store::{AuditEntry, Done, Key, KeysPage, NewKey, Register, StoreError, StoredKey};

/// How long a key that was looked up is believed to be unchanged: a revocation elsewhere counts after that.
const BELIEVED: Duration = Duration::from_secs(1);

/// Most keys that are remembered; only real ones are.
const REMEMBERED: usize = 1024;

/// Ids of keys that are read at a time, and most that are kept.
const IDS_TOGETHER: usize = 500;
const MOST_IDS: usize = 100_000;

/// How exactly the last use of a key is known.
const LAST_USE_MS: i64 = 60_000;

/// Longest name of a key, in characters.
const LONGEST_NAME: usize = 100;

/// Who asks for something, and from where.
#[derive(Debug, Clone)]
pub struct Caller {
    /// As the audit calls them.
    pub actor: String,
    /// An address, or the user of the command line.
    pub source: String,
    /// What they may do.
    pub scope: Scope,
    /// The only tenant they see; all of them without.
    pub account_sid: Option<String>,
    /// The key they showed.
    pub key: Option<Key>,
}

impl Caller {
    /// Who runs a command on a machine that reaches the database.
    pub fn command_line(user: &str) -> Caller {
        Caller {
            actor: "command line".into(),
            source: format!("user {}", user.escape_debug()),
            scope: Scope::Admin,
            account_sid: None,
            key: None,
        }
    }

    /// Whether this account is theirs to see.
    pub fn sees(&self, account_sid: &str) -> bool {
        self.account_sid.as_deref().is_none_or(|own| own == account_sid)
    }
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Neither a key of ours nor the token.
    Unknown,
    /// A good key, of another scope.
    Scope {
        /// What it permits.
        has: Scope,
        /// What is asked for.
        needed: Scope,
    },
    /// The edge token, although there are keys for administrators.
    BootstrapOver,
    /// Another tenant's, for a key that is bound to one.
    OtherAccount,
    /// There is none, or it is another tenant's.
    NoSuchKey,
    /// A key of this scope reads more than the caller may.
    Grant(Scope),
    /// The key to be revoked is the one that was shown: nobody locks themselves out.
    OwnKey,
    /// What is wrong with what was asked for.
    Invalid(String),
    /// The database cannot say.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal::Store(error)
    }
}

/// The keys, and who shows which.
#[derive(Clone)]
pub struct Keys {
    register: Register,
    token: Arc<[u8; 32]>,
    recent: Arc<Mutex<HashMap<String, (Instant, StoredKey)>>>,
    /// Ids of stored keys, revoked ones too, and when they were read.
    ids: Arc<Mutex<HashSet<String>>>,
    ids_read_at: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

impl Keys {
    /// `token` is what filters show; an empty one is nobody's.
    pub fn new(register: Register, token: &str) -> Keys {
        Keys {
            register,
            token: Arc::new(digest(token.as_bytes())),
            recent: Arc::default(),
            ids: Arc::default(),
            ids_read_at: Arc::default(),
        }
    }

    /// Who shows this bearer token, if they may do what takes `needed`.
    pub async fn caller(
        &self,
        shown: &[u8],
        needed: Scope,
        source: String,
        now_ms: i64,
    ) -> Result<Caller, Refusal> {
        if self.is_token(shown) {
            return self.bearer_of_the_token(needed, source).await;
        }
        let shown = Shown::read(shown).ok_or(Refusal::Unknown)?;
        let stored = self.look_up(shown.id).await?.ok_or(Refusal::Unknown)?;
        if !shown.proves(&stored.secret_sha256) || stored.key.revoked_at_ms.is_some() {
            return Err(Refusal::Unknown);
        }
        let key = stored.key;
        if !key.scope.permits(needed) {
            return Err(Refusal::Scope { has: key.scope, needed });
        }
        self.note_use(&key, now_ms);
        Ok(Caller {
            actor: format!("key {}", key.id),
            source,
            scope: key.scope,
            account_sid: key.account_sid.clone(),
            key: Some(key),
        })
    }

    /// Whether this may be good: the token, or a key with the id of a stored one. Costs the database one question a second
    /// at most, however many are shown: the ids are in memory. The secret is not looked at.
    pub async fn may_be_good(&self, shown: &[u8]) -> bool {
        if self.is_token(shown) {
            return true;
        }
        let Some(shown) = Shown::read(shown) else { return false };
        if self.remembered().contains_key(shown.id) || self.stored_ids().contains(shown.id) {
            return true;
        }
        self.read_ids().await;
        self.stored_ids().contains(shown.id)
    }

    /// Reads the ids of keys that were added since the last time, unless that was a moment ago.
    async fn read_ids(&self) {
        let mut read_at = self.ids_read_at.lock().await;
        if read_at.is_some_and(|at| at.elapsed() < BELIEVED) {
            return;
        }
        *read_at = Some(Instant::now());
        let (mut before_ms, mut before_id) = (i64::MAX, String::new());
        loop {
            let page = KeysPage {
                account_sid: None,
                before_ms,
                before_id: &before_id,
                most: i64::try_from(IDS_TOGETHER).unwrap_or(i64::MAX),
            };
            let Ok(keys) = self.register.list_keys(page).await else { return };
            let mut ids = self.stored_ids();
            let count = keys.len();
            let Some(last) = keys.last() else { return };
            (before_ms, before_id) = (last.created_at_ms, last.id.clone());
            // The newest come first: where all of a page are known, so are those before them.
            let added = keys.into_iter().filter(|key| ids.insert(key.id.clone())).count();
            if added == 0 || ids.len() >= MOST_IDS || count < IDS_TOGETHER {
                return;
            }
        }
    }

    fn stored_ids(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_token(&self, shown: &[u8]) -> bool {
        // Digests are compared, not tokens: in constant time, and without telling the length.
        !shown.is_empty() && bool::from(digest(shown).ct_eq(&*self.token))
    }

    /// The token is for filters; until the first administrator has a key, it also makes that one.
    async fn bearer_of_the_token(&self, needed: Scope, source: String) -> Result<Caller, Refusal> {
        match needed {
            Scope::Edge => {}
            Scope::App => return Err(Refusal::Scope { has: Scope::Edge, needed }),
            Scope::Admin if self.register.has_any(Scope::Admin).await? => {
                return Err(Refusal::BootstrapOver);
            }
            Scope::Admin => {}
        }
        let actor = "TWILIO_EDGE_TOKEN".into();
        Ok(Caller { actor, source, scope: needed, account_sid: None, key: None })
    }

    /// Makes a key; it and what its owner has to send, which nobody can tell again. `once` is what to write down with it
    /// where it was asked for once.
    pub async fn create(
        &self,
        by: &Caller,
        scope: Scope,
        account_sid: Option<String>,
        name: &str,
        now_ms: i64,
        once: impl FnOnce(&Key) -> Option<Done>,
    ) -> Result<(Key, String), Refusal> {
        let is_long = name.chars().count() > LONGEST_NAME;
        let name = name.trim();
        if name.is_empty() || is_long || name.chars().any(char::is_control) {
            return Err(Refusal::Invalid(format!(
                "name: must be 1 to {LONGEST_NAME} characters, none of them a control character"
            )));
        }
        if let Some(sid) = account_sid.as_deref().filter(|sid| !is_account_sid(sid)) {
            return Err(Refusal::Invalid(format!(
                "account_sid: {sid:?} is not AC and 32 lower-case hexadecimal digits"
            )));
        }
        // A key makes keys that may no more than itself; whoever has the edge token, or the database, may all of it.
        if by.key.as_ref().is_some_and(|own| !own.scope.permits(scope)) {
            return Err(Refusal::Grant(scope));
        }
        // Who is bound to an account makes keys of that account, said or not.
        let account_sid = account_sid.or_else(|| by.account_sid.clone());
        if by.account_sid.is_some() && by.account_sid != account_sid {
            return Err(Refusal::OtherAccount);
        }
        let mut random = [0; api_key::RANDOM_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| StoreError::Away(format!("no random bytes: {error}")))?;
        let minted = api_key::mint(random);
        let new = NewKey {
            id: minted.id,
            name: name.to_owned(),
            scope,
            account_sid,
            secret_sha256: minted.secret_sha256,
            created_at_ms: now_ms,
            created_by: by.actor.clone(),
        };
        let key = Key {
            id: new.id.clone(),
            name: new.name.clone(),
            scope,
            account_sid: new.account_sid.clone(),
            created_at_ms: now_ms,
            created_by: new.created_by.clone(),
            last_used_at_ms: None,
            revoked_at_ms: None,
        };
        let (entry, done) = (entry(by, "key.created", &key, now_ms), once(&key));
        self.register.add_key(&new, &entry, done.as_ref()).await?;
        tracing::info!(event = "key.created", key.id = key.id, key.scope = %scope, by = by.actor, "API key created");
        Ok((key, minted.token))
    }

    /// Makes a key no key any more; doing it again changes nothing.
    pub async fn revoke(&self, by: &Caller, id: &str, now_ms: i64) -> Result<Key, Refusal> {
        if !api_key::is_id(id) {
            return Err(Refusal::NoSuchKey);
        }
        if by.key.as_ref().is_some_and(|own| own.id == id) {
            return Err(Refusal::OwnKey);
        }
        let account_sid = by.account_sid.as_deref();
        let wording = |key: &Key| entry(by, "key.revoked", key, now_ms);
        let revoked = self.register.revoke_key(id, account_sid, now_ms, wording).await?;
        self.remembered().remove(id);
        match revoked {
            Some(key) => {
                tracing::info!(
                    event = "key.revoked",
                    key.id = key.id,
                    by = by.actor,
                    "API key revoked"
                );
                Ok(key)
            }
            None => self.get(by, id).await,
        }
    }

    /// One key.
    pub async fn get(&self, by: &Caller, id: &str) -> Result<Key, Refusal> {
        if !api_key::is_id(id) {
            return Err(Refusal::NoSuchKey);
        }
        let found = self.register.find_key(id, by.account_sid.as_deref()).await?;
        found.map(|stored| stored.key).ok_or(Refusal::NoSuchKey)
    }

    /// The newest keys, of one account if `account_sid` says so; with `before`, those older than that one.
    pub async fn list(
        &self,
        by: &Caller,
        account_sid: Option<&str>,
        before: Option<(i64, &str)>,
        most: i64,
    ) -> Result<Vec<Key>, Refusal> {
        let account_sid = of_account(by, account_sid)?;
        let (before_ms, before_id) = before.unwrap_or((i64::MAX, ""));
        let page = KeysPage { account_sid, before_ms, before_id, most };
        Ok(self.register.list_keys(page).await?)
    }

    /// The newest entries of the audit, of one account if `account_sid` says so; with `before`, those older than that.
    pub async fn audit(
        &self,
        by: &Caller,
        account_sid: Option<&str>,
        before: Option<i64>,
        most: i64,
    ) -> Result<Vec<AuditEntry>, Refusal> {
        let account_sid = of_account(by, account_sid)?;
        Ok(self.register.list_entries(account_sid, before.unwrap_or(i64::MAX), most).await?)
    }

    /// The key of this id: as the database has it, or had it a moment ago.
    async fn look_up(&self, id: &str) -> Result<Option<StoredKey>, StoreError> {
        let recent = self.remembered().get(id).cloned();
        if let Some((at, stored)) = recent
            && at.elapsed() < BELIEVED
        {
            return Ok(Some(stored));
        }
        let asked = Instant::now();
        let found = self.register.find_key(id, None).await?;
        if let Some(stored) = &found {
            let mut remembered = self.remembered();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(id.to_owned(), (asked, stored.clone()));
        }
        Ok(found)
    }

    /// Written behind the answer: nobody waits for it, and nothing is lost with it but a minute.
    fn note_use(&self, key: &Key, now_ms: i64) {
        if key.last_used_at_ms.is_some_and(|last| now_ms.saturating_sub(last) < LAST_USE_MS) {
            return;
        }
        if let Some((_, stored)) = self.remembered().get_mut(&key.id) {
            stored.key.last_used_at_ms = Some(now_ms);
        }
        let (register, id) = (self.register.clone(), key.id.clone());
        tokio::spawn(async move {
            if let Err(reason) = register.touch_key(&id, now_ms).await {
                tracing::warn!(event = "key.use_not_noted", %reason, key.id = id, "the last use of a key could not be noted");
            }
        });
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, StoredKey)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose rows to show: what was asked for, within what the caller sees.
fn of_account<'a>(by: &'a Caller, asked: Option<&'a str>) -> Result<Option<&'a str>, Refusal> {
    match asked {
        Some(asked) if !by.sees(asked) => Err(Refusal::OtherAccount),
        asked => Ok(asked.or(by.account_sid.as_deref())),
    }
}

fn entry(by: &Caller, action: &str, key: &Key, now_ms: i64) -> AuditEntry {
    AuditEntry {
        id: 0,
        at_ms: now_ms,
        actor: by.actor.clone(),
        source: by.source.clone(),
        action: action.to_owned(),
        subject: format!("key {}", key.id),
        account_sid: key.account_sid.clone(),
        detail: serde_json::json!({"name": key.name, "scope": key.scope}).to_string(),
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}
