//! Requests that came with an `Idempotency-Key`, as the database has them: taken by one copy at a time, and answered once, in
//! a transaction of its own or in that of what the request changes. What a copy is to be told is the domain's business.

use crate::statements::IdempotencyStatements;
use std::{future::Future, time::Duration};

use serde::Serialize;
use sqlx::FromRow;

use crate::{
    database::{Database, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::idempotency::{Answer, Headers, Key, Known, State, Verdict, judge};

/// How many rows go at a time once nobody is to be answered from them any more: `$1` now, `$2` how many.
pub(super) const FORGET_KEYS: &str = "
    DELETE FROM idempotency_keys WHERE (tenant, principal, idempotency_key) IN
        (SELECT tenant, principal, idempotency_key FROM idempotency_keys WHERE expires_at_ms <= $1 LIMIT $2)";

/// A request that is to be carried out once, and whose.
#[derive(Debug, Clone)]
pub struct Once {
    /// The account the caller is bound to, if they are.
    pub tenant: Option<String>,
    /// Who calls.
    pub principal: String,
    /// What they call this request.
    pub key: Key,
    /// What it asks for ([`twilio_edge_domain::idempotency::fingerprint`]).
    pub fingerprint: String,
}

/// The right to carry a request out, for a while. Whoever lost it changes nothing: [`finish`] fails then.
#[derive(Debug, Clone)]
pub struct Turn {
    row: HeldRow,
    /// As of when to carry it out, in milliseconds since 1970: a copy of one that was cut short does the same as that.
    pub as_of_ms: i64,
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Admission {
    /// Carry it out.
    Ours(Turn),
    /// Answer what was answered.
    Answered(Answer),
    /// Somebody carries a copy of it out.
    Running,
    /// The key is another request's.
    Other,
}

/// A request that was carried out, and what was answered.
#[derive(Debug, Clone)]
pub struct Done {
    /// The right to have done so.
    pub turn: Turn,
    /// Without what nobody is told twice.
    pub answer: Answer,
}

/// The keys of one database.
#[derive(Debug, Clone)]
pub struct Idempotency {
    database: Database,
    timeout: Duration,
    hold_ms: i64,
    keep_ms: i64,
}

/// The name of a row, and who holds it.
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

impl From<KnownRow> for Known {
    fn from(row: KnownRow) -> Known {
        let status = row.status.and_then(|status| u16::try_from(status).ok());
        let headers = row.headers.and_then(|headers| serde_json::from_str(&headers).ok());
        Known {
            fingerprint: row.fingerprint,
            state: match status {
                None => State::Running { until_ms: row.held_until_ms },
                Some(status) => State::Done(Answer {
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
    /// `hold` is longer than any request is carried out; an answer is told again for `keep`.
    pub(super) fn of(
        database: Database,
        timeout: Duration,
        hold: Duration,
        keep: Duration,
    ) -> Idempotency {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Idempotency { database, timeout, hold_ms: ms(hold), keep_ms: ms(keep) }
    }

    /// Takes a request, unless another copy of it has it or had it.
    pub async fn take(&self, once: &Once, now_ms: i64) -> Result<Admission, StoreError> {
        let held = HeldRow {
            tenant: once.tenant.clone().unwrap_or_default(),
            principal: once.principal.clone(),
            idempotency_key: once.key.as_str().to_owned(),
            owner: random()?,
        };
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Process).await?;
            // There may be no row yet to lock.
            let name =
                serde_json::json!([held.tenant, held.principal, held.idempotency_key]).to_string();
            tx.execute(self.database.statements().lock_keys, &[format!("idempotency:{name}")])
                .await?;
            let asked = std::slice::from_ref(&held);
            let known: Vec<KnownRow> = tx.fetch(self.statements().find, asked).await?;
            let known = known.into_iter().next().map(Known::from);
            let as_of_ms = match judge(known, &once.fingerprint, now_ms) {
                Verdict::CarryOut { as_of_ms } => as_of_ms,
                Verdict::Answer(answer) => return Ok(Admission::Answered(answer)),
                Verdict::Running => return Ok(Admission::Running),
                Verdict::Other => return Ok(Admission::Other),
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

    /// Writes down what was answered, for what was not written in the transaction of its effect.
    pub async fn answer(&self, done: &Done) -> Result<(), StoreError> {
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            finish(&mut tx, self.statements(), done).await?;
            tx.commit().await
        })
        .await
    }

    /// Gives a request back of which nothing was done: its key is as if it had never been used.
    pub async fn give_up(&self, turn: &Turn) -> Result<(), StoreError> {
        self.end(self.statements().give_up, turn).await
    }

    /// Gives a request back of which nobody knows how much was done: its next copy is carried out, as of the same time.
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

/// Writes down, in the transaction of what a request changes, that it is done: both count, or neither. Who does not hold the
/// request any more is refused, and must not commit.
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
