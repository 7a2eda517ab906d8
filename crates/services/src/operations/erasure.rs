//! Erasure on request (the right to be forgotten): redacts or deletes data in the ledger immediately, with an audit
//! entry. The store decides which data stays ([`twilio_edge_store`]). The callers of this module decide who may request
//! an erasure.

use crate::access::api_keys::{AccessError, Caller};
use twilio_edge_domain::sweep_counts::SweepCounts;
use twilio_edge_domain::{
    message::NumberQuery, redaction::masked_address, tenant::is_account_sid, window::rfc3339,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_store::{AuditEntry, Erasure, Sweeper};

/// Rows per step.
const ROWS_PER_STEP: u32 = 200;

/// Longest message id, in bytes; Twilio's are 34.
const MAX_SID_BYTES: usize = 255;

/// Request for an erasure, as the caller made it. All given filters must match.
#[derive(Debug, Clone, Default)]
pub struct ErasureRequest {
    /// Account of the data; the caller's own account if it is bound to one.
    pub account_sid: Option<String>,
    /// Only data of this message.
    pub message_sid: Option<String>,
    /// Only data of this contact.
    pub number: Option<NumberQuery>,
    /// Only data received at this time or later, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only data received before this time, in milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Redact only the text, and keep sender and recipient.
    pub text_only: bool,
    /// Only count; change nothing.
    pub dry_run: bool,
    /// Delete the rows of webhooks whose duplicates can no longer arrive.
    pub delete: bool,
}

/// Result of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureResult {
    /// Numbers of rows that were found and changed.
    pub swept: SweepCounts,
    /// Time from which rows are left to process, in milliseconds since 1970; `None` if the erasure is complete.
    pub continue_ms: Option<i64>,
}

/// Erases the requested data. Stops after about `most` rows.
///
/// # Errors
/// Returns `OtherAccount` or `Invalid` if the request is not permitted or a field is wrong, and `Store` if the database
/// fails.
pub async fn erase(
    sweeper: &Sweeper,
    by: &Caller,
    request: ErasureRequest,
    most: usize,
) -> Result<ErasureResult, AccessError> {
    let erasure = validate(by, request)?;
    let entry = entry(by, &erasure, now_ms());
    let mut entry = Some(&entry).filter(|_| !erasure.dry_run);
    let mut done = SweepCounts::default();
    let mut reached = None;
    loop {
        let (swept, next) = sweeper
            .erase(&erasure, reached.as_ref(), entry.take(), ROWS_PER_STEP, now_ms())
            .await?;
        done = done.and(swept);
        reached = next;
        if reached.is_none() || done.found >= most {
            let continue_ms = reached.map(|reached| reached.at_ms);
            return Ok(ErasureResult { swept: done, continue_ms });
        }
    }
}

fn validate(by: &Caller, request: ErasureRequest) -> Result<Erasure, AccessError> {
    let invalid = |problem: &str| AccessError::Invalid(problem.to_owned());
    let account_sid = request.account_sid.clone().or_else(|| by.account_sid.clone());
    let Some(account_sid) = account_sid else {
        return Err(invalid("account_sid: missing; this key is bound to no account"));
    };
    if !by.sees(&account_sid) {
        return Err(AccessError::OtherAccount);
    }
    if !is_account_sid(&account_sid) {
        return Err(invalid("account_sid: must be AC and 32 lower-case hexadecimal digits"));
    }
    if request.has_no_filter() {
        return Err(invalid("a filter is missing: specify message_sid, number, since or until"));
    }
    let is_sid = |sid: &String| !sid.is_empty() && sid.len() <= MAX_SID_BYTES && is_plain(sid);
    if !request.message_sid.as_ref().is_none_or(is_sid) {
        return Err(invalid("message_sid: must be visible ASCII without a colon"));
    }
    Ok(Erasure {
        account_sid,
        message_sid: request.message_sid,
        number: request.number,
        since_ms: request.since_ms.unwrap_or_default(),
        until_ms: request.until_ms.map_or(i64::MAX, |until_ms| until_ms.saturating_sub(1)),
        text_only: request.text_only,
        dry_run: request.dry_run,
        delete: request.delete,
    })
}

impl ErasureRequest {
    /// Returns whether the request has no filter. Such a request is refused, because it would erase all data of the
    /// account.
    pub fn has_no_filter(&self) -> bool {
        let times = self.since_ms.is_some() || self.until_ms.is_some();
        !times && self.message_sid.is_none() && self.number.is_none()
    }
}

fn is_plain(sid: &str) -> bool {
    sid.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

/// Builds the audit entry. It masks the number, which is to be forgotten.
fn entry(by: &Caller, erasure: &Erasure, now_ms: i64) -> AuditEntry {
    let number = erasure.number.as_ref().map(|number| {
        let channel = number.channel.as_ref().map(|channel| format!("{channel}:"));
        masked_address(&(channel.unwrap_or_default() + &number.number))
    });
    let subject =
        erasure.message_sid.clone().or(number.clone()).unwrap_or_else(|| "all".to_owned());
    let detail = serde_json::json!({
        "number": number,
        "since": rfc3339(erasure.since_ms),
        "until": rfc3339(erasure.until_ms),
        "text_only": erasure.text_only,
        "delete": erasure.delete,
    });
    by.audit_entry("events.redacted", subject, Some(erasure.account_sid.clone()), &detail, now_ms)
}
