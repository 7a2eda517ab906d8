//! Authenticated caller, whichever way it presented itself, and its entries in the audit log.

use serde_json::Value;

use twilio_edge_domain::api_key::Scope;
use twilio_edge_store::{AuditEntry, Key, Session};

/// Authenticated caller of an operation, and the origin of the call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name of the caller in the audit log.
    pub actor: String,
    /// Client address, or the user of the command line.
    pub source: String,
    /// Scope of the caller.
    pub scope: Scope,
    /// The only tenant that the caller can see; `None` for all tenants.
    pub account_sid: Option<String>,
    /// API key of the caller, if it presented one.
    pub key: Option<Key>,
    /// Session of the caller, if it presented one instead of its key.
    pub session: Option<Session>,
}

impl Caller {
    /// Caller for a command on a machine that can reach the database.
    pub fn command_line(user: &str) -> Caller {
        Caller {
            actor: "command line".into(),
            source: format!("user {}", user.escape_debug()),
            scope: Scope::Admin,
            account_sid: None,
            key: None,
            session: None,
        }
    }

    /// Builds the audit entry of a change by this caller, at `now_ms` milliseconds since 1970. Without an
    /// `account_sid`, only callers that see all accounts see the entry.
    pub(crate) fn audit_entry(
        &self,
        action: &str,
        subject: String,
        account_sid: Option<String>,
        detail: &Value,
        now_ms: i64,
    ) -> AuditEntry {
        AuditEntry {
            id: 0,
            at_ms: now_ms,
            actor: self.actor.clone(),
            source: self.source.clone(),
            action: action.to_owned(),
            subject,
            account_sid,
            detail: detail.to_string(),
        }
    }

    /// Returns whether the caller may see this account.
    pub fn sees(&self, account_sid: &str) -> bool {
        self.account_sid.as_deref().is_none_or(|own| own == account_sid)
    }
}
