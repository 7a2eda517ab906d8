//! Sessions of API keys: start, end, and the key for which a session stands.

use std::time::Duration;

use serde_json::json;

use super::{AccessError, Caller, Keys};
use twilio_edge_domain::{
    session::{self, MOST_PER_KEY, SessionToken},
    window::rfc3339,
};
use twilio_edge_store::{AuditEntry, Key, Session, StoreError, StoredKey};

/// Session that has just started: the only value that contains the token.
pub struct StartedSession {
    /// Token of the session.
    pub token: String,
    /// Key for which the session stands.
    pub key: Key,
    /// Time of its end, in milliseconds since 1970.
    pub expires_at_ms: i64,
}

impl Keys {
    /// Starts a session of the caller's key. If the caller presented a session, the new one replaces it: a session token can
    /// be exchanged once.
    ///
    /// # Errors
    /// Returns `Unknown` if another request has exchanged the caller's session, `NoSuchKey` if the caller has no key, and
    /// `Store` if the database fails.
    pub async fn start_session(
        &self,
        by: &Caller,
        lifetime: Duration,
        now_ms: i64,
    ) -> Result<StartedSession, AccessError> {
        let key = by.key.clone().ok_or(AccessError::NoSuchKey)?;
        let mut random = [0; session::RANDOM_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| StoreError::Unavailable(format!("no random bytes: {error}")))?;
        let minted = session::mint(&key.id, random);
        let lifetime_ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        let expires_at_ms = now_ms.saturating_add(lifetime_ms);
        let new = Session {
            secret_sha256: minted.secret_sha256,
            key_id: key.id.clone(),
            created_at_ms: now_ms,
            expires_at_ms,
        };
        let entry = by.session_entry("session.started", &key, expires_at_ms, now_ms);
        let replaced = by.session.as_ref().map(|session| session.secret_sha256.as_str());
        if !self.sessions.start(&new, replaced, MOST_PER_KEY, &entry).await? {
            return Err(AccessError::Unknown);
        }
        tracing::info!(
            event = "session.started",
            key.id = key.id,
            "the owner of an API key started a session"
        );
        Ok(StartedSession { token: minted.token, key, expires_at_ms })
    }

    /// Ends the session that the caller presented. A caller that presented a key has none.
    ///
    /// # Errors
    /// Returns `Store` if the database fails.
    pub async fn end_session(&self, by: &Caller, now_ms: i64) -> Result<(), AccessError> {
        let (Some(session), Some(key)) = (&by.session, &by.key) else { return Ok(()) };
        let entry = by.session_entry("session.ended", key, session.expires_at_ms, now_ms);
        self.sessions.end(&session.secret_sha256, &entry).await?;
        tracing::info!(
            event = "session.ended",
            key.id = key.id,
            "the owner of an API key ended a session"
        );
        Ok(())
    }

    /// Returns the session and its key, if the session has not ended and the key is not revoked.
    pub(super) async fn find_session(
        &self,
        presented: &SessionToken<'_>,
        now_ms: i64,
    ) -> Result<(Session, StoredKey), AccessError> {
        let found = self.sessions.find(&presented.secret_sha256()).await?;
        let session = found
            .filter(|session| session.key_id == presented.key_id && session.expires_at_ms > now_ms)
            .ok_or(AccessError::Unknown)?;
        let stored = self.cache.find(presented.key_id).await?.ok_or(AccessError::Unknown)?;
        Ok((session, stored))
    }
}

impl Caller {
    fn session_entry(
        &self,
        action: &str,
        key: &Key,
        expires_at_ms: i64,
        now_ms: i64,
    ) -> AuditEntry {
        self.audit_entry(
            action,
            format!("key {}", key.id),
            key.account_sid.clone(),
            &json!({"expires_at": rfc3339(expires_at_ms)}),
            now_ms,
        )
    }
}
