//! Requests with an `Idempotency-Key` in the database. One copy at a time executes a request. Its response is stored once,
//! in a transaction of its own or in that of the request's change. The domain decides what a copy gets.

use std::time::Duration;

use serde::Serialize;
use sqlx::FromRow;

use crate::{
    database::{Database, Durability, Transaction},
    error::StoreError,
    statements::IdempotencyStatements,
};
use twilio_edge_domain::idempotency::{
    Headers, Key, RequestState, StoredRequest, StoredResponse, Verdict, decide, fingerprint,
};

/// Deletes expired keys: `$1` is now, `$2` the maximum number of rows.
pub(super) const DELETE_KEYS: &str = "
    DELETE FROM idempotency_keys WHERE (tenant, principal, idempotency_key) IN
        (SELECT tenant, principal, idempotency_key FROM idempotency_keys WHERE expires_at_ms <= $1 LIMIT $2)";

/// Request to execute once, with its caller.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    /// Account that the caller is bound to, if any.
    pub tenant: Option<String>,
    /// Caller.
    pub principal: String,
    /// Idempotency key of the request.
    pub key: Key,
    /// Fingerprint of the request's content ([`twilio_edge_domain::idempotency::fingerprint`]).
    pub fingerprint: String,
}

/// Right to execute a request for a limited time. A caller that has lost it cannot change anything: [`finish`] fails.
#[derive(Debug, Clone)]
pub struct IdempotencyClaim {
    row: OwnerRow,
    /// Time at which the request takes effect, in milliseconds since 1970. A copy of an interrupted request uses the same
    /// time.
    pub as_of_ms: i64,
}

impl IdempotencyClaim {
    /// Returns a digest that copies of the request share, for part `index` of the request.
    pub fn digest(&self, index: usize) -> String {
        let OwnerRow { tenant, principal, idempotency_key, .. } = &self.row;
        fingerprint(tenant, principal, format!("{index} {idempotency_key}").as_bytes())
    }
}

/// Decision about a request.
#[derive(Debug, Clone)]
pub enum Admission {
    /// The caller executes the request.
    Execute(IdempotencyClaim),
    /// The caller returns the stored response.
    Replay(StoredResponse),
    /// Another copy of the request is running.
    InProgress,
    /// The key belongs to a different request.
    KeyReused,
}

/// Executed request with its response.
#[derive(Debug, Clone)]
pub struct CompletedRequest {
    /// The right under which it was executed.
    pub turn: IdempotencyClaim,
    /// Response without the parts that are returned only once.
    pub answer: StoredResponse,
}

/// The idempotency keys of one database.
#[derive(Debug, Clone)]
pub struct Idempotency {
    database: Database,
    hold_ms: i64,
    keep_ms: i64,
}

/// Name of a row, and its owner.
#[derive(Debug, Clone, Serialize)]
struct OwnerRow {
    tenant: String,
    principal: String,
    idempotency_key: String,
    owner: String,
}

#[derive(Debug, Serialize)]
struct ClaimRow<'a> {
    #[serde(flatten)]
    held: &'a OwnerRow,
    fingerprint: &'a str,
    held_until_ms: i64,
    created_at_ms: i64,
    expires_at_ms: i64,
}

#[derive(Debug, Serialize)]
struct AnswerRow<'a> {
    #[serde(flatten)]
    held: &'a OwnerRow,
    status: u16,
    headers: String,
    body: &'a str,
}

#[derive(Debug, FromRow)]
struct StoredRow {
    fingerprint: String,
    held_until_ms: i64,
    status: Option<i64>,
    headers: Option<String>,
    body: Option<String>,
    created_at_ms: i64,
    expires_at_ms: i64,
}

impl From<StoredRow> for StoredRequest {
    fn from(row: StoredRow) -> StoredRequest {
        let status = row.status.and_then(|status| u16::try_from(status).ok());
        let headers = row.headers.and_then(|headers| serde_json::from_str(&headers).ok());
        StoredRequest {
            fingerprint: row.fingerprint,
            state: match status {
                None => RequestState::Running { until_ms: row.held_until_ms },
                Some(status) => RequestState::Done(StoredResponse {
                    status,
                    headers: headers.unwrap_or_default(),
                    body: row.body.unwrap_or_default(),
                }),
            },
            first_at_ms: row.created_at_ms,
            forget_at_ms: row.expires_at_ms,
        }
    }
}

#[derive(Debug, FromRow)]
struct UpdatedRow {
    idempotency_key: String,
}

impl Idempotency {
    /// Creates the store. `hold` must be longer than any request runs; a response is replayed for `keep`.
    pub(super) fn of(database: Database, hold: Duration, keep: Duration) -> Idempotency {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Idempotency { database, hold_ms: ms(hold), keep_ms: ms(keep) }
    }

    /// Takes a request, unless another copy of it is running or has completed.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn claim(
        &self,
        once: &IdempotentRequest,
        now_ms: i64,
    ) -> Result<Admission, StoreError> {
        let held = OwnerRow {
            tenant: once.tenant.clone().unwrap_or_default(),
            principal: once.principal.clone(),
            idempotency_key: once.key.as_str().to_owned(),
            owner: random()?,
        };
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                // The row may not exist yet, so the key itself is locked.
                let name = serde_json::json!([held.tenant, held.principal, held.idempotency_key])
                    .to_string();
                tx.execute(self.database.statements().lock_keys, &[format!("idempotency:{name}")])
                    .await?;
                let query = std::slice::from_ref(&held);
                let known: Vec<StoredRow> = tx.fetch(self.statements().find, query).await?;
                let known = known.into_iter().next().map(StoredRequest::from);
                let as_of_ms = match decide(known, &once.fingerprint, now_ms) {
                    Verdict::Process { as_of_ms } => as_of_ms,
                    Verdict::Replay(answer) => return Ok(Admission::Replay(answer)),
                    Verdict::Running => return Ok(Admission::InProgress),
                    Verdict::KeyReused => return Ok(Admission::KeyReused),
                };
                let row = ClaimRow {
                    held: &held,
                    fingerprint: &once.fingerprint,
                    held_until_ms: now_ms.saturating_add(self.hold_ms),
                    created_at_ms: as_of_ms,
                    expires_at_ms: now_ms.saturating_add(self.keep_ms),
                };
                tx.execute(self.statements().take, &[row]).await?;
                tx.commit().await?;
                Ok(Admission::Execute(IdempotencyClaim { row: held.clone(), as_of_ms }))
            })
            .await
    }

    /// Stores the response of a request that was not completed in the transaction of its change.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn store_response(&self, done: &CompletedRequest) -> Result<(), StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                finish(&mut tx, done).await?;
                tx.commit().await
            })
            .await
    }

    /// Releases a request that had no effect; its key is free again.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn release(&self, turn: &IdempotencyClaim) -> Result<(), StoreError> {
        self.database
            .execute(
                Durability::Process,
                self.statements().give_up,
                std::slice::from_ref(&turn.row),
            )
            .await
    }

    /// Releases a request whose effect is unknown; the next copy executes it, as of the same time.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn abandon(&self, turn: &IdempotencyClaim) -> Result<(), StoreError> {
        self.database
            .execute(Durability::Process, self.statements().let_go, std::slice::from_ref(&turn.row))
            .await
    }

    fn statements(&self) -> &'static IdempotencyStatements {
        &self.database.statements().idempotency
    }
}

/// Stores the response in the transaction of the request's change: both are committed, or neither. Fails if the caller no
/// longer holds the request; the caller must then not commit.
pub(super) async fn finish(
    tx: &mut Transaction,
    done: &CompletedRequest,
) -> Result<(), StoreError> {
    let CompletedRequest { turn, answer } = done;
    let headers = serde_json::to_string::<Headers>(&answer.headers);
    let row = AnswerRow {
        held: &turn.row,
        status: answer.status,
        headers: headers.map_err(|error| StoreError::Refused(error.to_string()))?,
        body: &answer.body,
    };
    let answered: Vec<UpdatedRow> = tx.fetch(tx.statements().idempotency.answer, &[row]).await?;
    match answered.first() {
        Some(row) if row.idempotency_key == turn.row.idempotency_key => Ok(()),
        _ => Err(StoreError::Refused("another copy of the request was faster".into())),
    }
}

fn random() -> Result<String, StoreError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| StoreError::Unavailable(format!("no random bytes: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
