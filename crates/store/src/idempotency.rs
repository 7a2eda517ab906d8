//! Requests with an `Idempotency-Key` in the database. One copy at a time executes a request. Its response is stored once,
//! in a transaction of its own or in that of the request's change. The domain decides what a copy gets.

use crate::statements::IdempotencyStatements;
use std::{future::Future, time::Duration};

use serde::Serialize;
use sqlx::FromRow;

use crate::{
    database::{Database, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::idempotency::{
    Headers, Key, RequestState, StoredRequest, StoredResponse, Verdict, decide,
};

/// Deletes expired keys: `$1` is now, `$2` the maximum number of rows.
pub(super) const FORGET_KEYS: &str = "
    DELETE FROM idempotency_keys WHERE (tenant, principal, idempotency_key) IN
        (SELECT tenant, principal, idempotency_key FROM idempotency_keys WHERE expires_at_ms <= $1 LIMIT $2)";

/// Request to execute once, with its caller.
#[derive(Debug, Clone)]
pub struct Once {
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
pub struct Turn {
    row: HeldRow,
    /// Time at which the request takes effect, in milliseconds since 1970. A copy of an interrupted request uses the same
    /// time.
    pub as_of_ms: i64,
}

/// Decision about a request.
#[derive(Debug, Clone)]
pub enum Admission {
    /// The caller executes the request.
    Ours(Turn),
    /// The caller returns the stored response.
    Answered(StoredResponse),
    /// Another copy of the request is running.
    Running,
    /// The key belongs to a different request.
    Other,
}

/// Executed request with its response.
#[derive(Debug, Clone)]
pub struct Done {
    /// The right under which it was executed.
    pub turn: Turn,
    /// Response without the parts that are returned only once.
    pub answer: StoredResponse,
}

/// The idempotency keys of one database.
#[derive(Debug, Clone)]
pub struct Idempotency {
    database: Database,
    timeout: Duration,
    hold_ms: i64,
    keep_ms: i64,
}

/// Name of a row, and its owner.
#[derive(Debug, Clone, Serialize)]
struct HeldRow {
    tenant: String,
    principal: String,
    idempotency_key: String,
    owner: String,
}

#[derive(Debug, Serialize)]
struct TakenRow<'a> {
    #[serde(flatten)]
    held: &'a HeldRow,
    fingerprint: &'a str,
    held_until_ms: i64,
    created_at_ms: i64,
    expires_at_ms: i64,
}

#[derive(Debug, Serialize)]
struct AnswerRow<'a> {
    #[serde(flatten)]
    held: &'a HeldRow,
    status: u16,
    headers: String,
    body: &'a str,
}

#[derive(Debug, FromRow)]
struct KnownRow {
    fingerprint: String,
    held_until_ms: i64,
    status: Option<i64>,
    headers: Option<String>,
    body: Option<String>,
    created_at_ms: i64,
    expires_at_ms: i64,
}

impl From<KnownRow> for StoredRequest {
    fn from(row: KnownRow) -> StoredRequest {
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
struct AnsweredRow {
    idempotency_key: String,
}

impl Idempotency {
    /// Creates the store. `hold` must be longer than any request runs; a response is replayed for `keep`.
    pub(super) fn of(
        database: Database,
        timeout: Duration,
        hold: Duration,
        keep: Duration,
    ) -> Idempotency {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Idempotency { database, timeout, hold_ms: ms(hold), keep_ms: ms(keep) }
    }

    /// Takes a request, unless another copy of it is running or has completed.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn take(&self, once: &Once, now_ms: i64) -> Result<Admission, StoreError> {
        let held = HeldRow {
            tenant: once.tenant.clone().unwrap_or_default(),
            principal: once.principal.clone(),
            idempotency_key: once.key.as_str().to_owned(),
            owner: random()?,
        };
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            // The row may not exist yet, so the key itself is locked.
            let name =
                serde_json::json!([held.tenant, held.principal, held.idempotency_key]).to_string();
            tx.execute(self.database.statements().lock_keys, &[format!("idempotency:{name}")])
                .await?;
            let asked = std::slice::from_ref(&held);
            let known: Vec<KnownRow> = tx.fetch(self.statements().find, asked).await?;
            let known = known.into_iter().next().map(StoredRequest::from);
            let as_of_ms = match decide(known, &once.fingerprint, now_ms) {
                Verdict::Process { as_of_ms } => as_of_ms,
                Verdict::Replay(answer) => return Ok(Admission::Answered(answer)),
                Verdict::Running => return Ok(Admission::Running),
                Verdict::KeyReused => return Ok(Admission::Other),
            };
            let row = TakenRow {
                held: &held,
                fingerprint: &once.fingerprint,
                held_until_ms: now_ms.saturating_add(self.hold_ms),
                created_at_ms: as_of_ms,
                expires_at_ms: now_ms.saturating_add(self.keep_ms),
            };
            tx.execute(self.statements().take, &[row]).await?;
            tx.commit().await?;
            Ok(Admission::Ours(Turn { row: held.clone(), as_of_ms }))
        })
        .await
    }

    /// Stores the response of a request that was not completed in the transaction of its change.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn answer(&self, done: &Done) -> Result<(), StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            finish(&mut tx, self.statements(), done).await?;
            tx.commit().await
        })
        .await
    }

    /// Releases a request that had no effect; its key is free again.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn give_up(&self, turn: &Turn) -> Result<(), StoreError> {
        self.end(self.statements().give_up, turn).await
    }

    /// Releases a request whose effect is unknown; the next copy executes it, as of the same time.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn let_go(&self, turn: &Turn) -> Result<(), StoreError> {
        self.end(self.statements().let_go, turn).await
    }

    async fn end(&self, statement: &'static str, turn: &Turn) -> Result<(), StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            tx.execute(statement, std::slice::from_ref(&turn.row)).await?;
            tx.commit().await
        })
        .await
    }

    fn statements(&self) -> &'static IdempotencyStatements {
        &self.database.statements().idempotency
    }

    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout))),
        }
    }
}

/// Stores the response in the transaction of the request's change: both are committed, or neither. Fails if the caller no
/// longer holds the request; the caller must then not commit.
pub(super) async fn finish(
    tx: &mut Transaction,
    statements: &IdempotencyStatements,
    done: &Done,
) -> Result<(), StoreError> {
    let Done { turn, answer } = done;
    let headers = serde_json::to_string::<Headers>(&answer.headers);
    let row = AnswerRow {
        held: &turn.row,
        status: answer.status,
        headers: headers.map_err(|error| StoreError::Refused(error.to_string()))?,
        body: &answer.body,
    };
    let answered: Vec<AnsweredRow> = tx.fetch(statements.answer, &[row]).await?;
    match answered.first() {
        Some(row) if row.idempotency_key == turn.row.idempotency_key => Ok(()),
        _ => Err(StoreError::Refused("another copy of the request was faster".into())),
    }
}

fn random() -> Result<String, StoreError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| StoreError::Away(format!("no random bytes: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
