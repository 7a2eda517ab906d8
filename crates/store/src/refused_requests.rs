//! Refused requests in the database: groups of one cause with their counts, and the latest requests of each. The number of
//! groups of each kind and the requests of each group are bounded, so a flood of forged requests cannot fill the database,
//! nor displace the groups of genuine webhooks. Nothing here has a value of a parameter.

use sqlx::FromRow;

use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::{
    cursor::Cursor,
    refused_request::{Cause, ExaminedRequest, RefusalKind},
};
use twilio_edge_platform::config;

/// Most groups of one kind; the ones that were seen longest ago are deleted.
const MAX_GROUPS: i64 = 500;
/// Most requests of one group; the oldest are deleted.
const MAX_REQUESTS: i64 = 20;
/// Largest number of rows that one step of retention deletes.
const ALL: i64 = 1_000_000;

const ADD_TO_GROUP: &str = "
    INSERT INTO refused_groups (id, account_sid, kind, cause, route, reason, finding, remedy, requests, skipped,
        first_at_ms, last_at_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, $10, $10)
    ON CONFLICT (id) DO UPDATE SET requests = refused_groups.requests + 1,
        skipped = refused_groups.skipped + excluded.skipped, finding = excluded.finding, remedy = excluded.remedy,
        first_at_ms = CASE WHEN excluded.first_at_ms < refused_groups.first_at_ms THEN excluded.first_at_ms
            ELSE refused_groups.first_at_ms END,
        last_at_ms = CASE WHEN excluded.last_at_ms > refused_groups.last_at_ms THEN excluded.last_at_ms
            ELSE refused_groups.last_at_ms END
    RETURNING requests";

const ADD: &str = "
    INSERT INTO refused_requests (id, group_id, account_sid, at_ms, is_shadow, method, path, authority, parameters,
        body_bytes, request_id, message_sid, explanation)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (id) DO NOTHING";

const TRIM_GROUP: &str = "
    DELETE FROM refused_requests WHERE group_id = $1 AND id NOT IN (SELECT id FROM refused_requests WHERE group_id = $1
        ORDER BY at_ms DESC, id DESC LIMIT $2)";

const TRIM_GROUPS: &str = "
    DELETE FROM refused_groups WHERE id IN (SELECT id FROM refused_groups WHERE kind = $1
        ORDER BY last_at_ms DESC, id DESC LIMIT $3 OFFSET $2)";

const DELETE_ORPHANS: &str = "
    DELETE FROM refused_requests WHERE group_id NOT IN (SELECT id FROM refused_groups)";

/// Deletes groups that were not seen for the retention period.
pub(super) const DELETE_GROUPS: &str = "
    DELETE FROM refused_groups WHERE id IN (SELECT id FROM refused_groups WHERE last_at_ms <= $1 LIMIT $2)";

/// Deletes requests that are older than the retention period.
pub(super) const DELETE_REQUESTS: &str = "
    DELETE FROM refused_requests WHERE id IN (SELECT id FROM refused_requests WHERE at_ms <= $1 LIMIT $2)";

/// Deletes the requests of an erasure. A request has no number of a contact, so an erasure without a message deletes all
/// requests of the account within its period. The groups have only counts, and stay.
const ERASE: &str = "
    DELETE FROM refused_requests WHERE account_sid = $1 AND at_ms >= $2 AND at_ms <= $3 AND ($4 = '' OR message_sid = $4)";

const COUNT_ERASED: &str = "
    SELECT count(*) AS found FROM refused_requests
    WHERE account_sid = $1 AND at_ms >= $2 AND at_ms <= $3 AND ($4 = '' OR message_sid = $4)";

macro_rules! groups {
    ($rest:literal) => {
        concat!(
            "SELECT id, account_sid, cause, route, reason, finding, remedy, requests, skipped, first_at_ms, last_at_ms
             FROM refused_groups WHERE ",
            $rest
        )
    };
}

const LIST_GROUPS: &str = groups!(
    "($1 = '' OR account_sid = $1) AND ($2 = '' OR kind = $2) AND ($3 = '' OR cause = $3)
     AND (last_at_ms < $4 OR (last_at_ms = $4 AND id < $5)) ORDER BY last_at_ms DESC, id DESC LIMIT $6"
);

macro_rules! requests {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.group_id, r.account_sid, r.at_ms, r.is_shadow, r.method, r.path, r.authority, r.parameters,
                r.body_bytes, r.request_id, r.message_sid, r.explanation, g.cause, g.route, g.reason, g.finding, g.remedy
             FROM refused_requests r JOIN refused_groups g ON g.id = r.group_id WHERE ",
            $rest
        )
    };
}

const LIST: &str = requests!(
    "($1 = '' OR r.account_sid = $1) AND ($2 = '' OR g.kind = $2) AND ($3 = '' OR r.group_id = $3)
     AND (r.at_ms < $4 OR (r.at_ms = $4 AND r.id < $5)) ORDER BY r.at_ms DESC, r.id DESC LIMIT $6"
);

const FIND: &str = requests!("r.id = $1 AND ($2 = '' OR r.account_sid = $2)");

/// Requests of one cause.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct RefusedGroup {
    /// Id, `rg_` and 32 hexadecimal digits.
    pub id: String,
    /// Account whose key signed the requests; empty if that is not proven.
    pub account_sid: String,
    /// Cause.
    #[sqlx(try_from = "String")]
    pub cause: Cause,
    /// Path of the route.
    pub route: String,
    /// Reason of the filter.
    pub reason: String,
    /// Predicate of the sentence about the group.
    pub finding: String,
    /// The one change that would make the requests pass.
    pub remedy: String,
    /// Number of requests that filters reported.
    pub requests: i64,
    /// Number of similar requests that filters did not report.
    pub skipped: i64,
    /// Time of the first request, in milliseconds since 1970.
    pub first_at_ms: i64,
    /// Time of the latest request, in milliseconds since 1970.
    pub last_at_ms: i64,
}

/// Stored request.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct StoredRefusedRequest {
    /// Id, `rr_` and 32 hexadecimal digits.
    pub id: String,
    /// Id of its group.
    pub group_id: String,
    /// Account whose key signed; empty if that is not proven.
    pub account_sid: String,
    /// Time of the refusal, in milliseconds since 1970.
    pub at_ms: i64,
    /// 1 if the route is in shadow mode.
    pub is_shadow: i64,
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Host that the client asked for.
    pub authority: String,
    /// Names of the parameters as JSON.
    pub parameters: String,
    /// Length of the body in bytes.
    pub body_bytes: i64,
    /// Id of the request in other logs.
    pub request_id: String,
    /// SID of the message; empty if it is not proven.
    pub message_sid: String,
    /// Report of the diagnosis as JSON; empty without one.
    pub explanation: String,
    /// Cause.
    #[sqlx(try_from = "String")]
    pub cause: Cause,
    /// Path of the route.
    pub route: String,
    /// Reason of the filter.
    pub reason: String,
    /// Predicate of the sentence about the group.
    pub finding: String,
    /// The one change that would make the request pass.
    pub remedy: String,
}

/// Filter and position of a page, the latest first.
#[derive(Debug, Clone, Default)]
pub struct RefusedRequestsPage<'a> {
    /// Only this account.
    pub account_sid: Option<&'a str>,
    /// Only this kind.
    pub kind: Option<RefusalKind>,
    /// Only this cause; for groups.
    pub cause: Option<Cause>,
    /// Only this group; for requests.
    pub group_id: Option<&'a str>,
    /// Position: rows after this one, in list order.
    pub after: Option<&'a Cursor>,
    /// Maximum number of rows.
    pub most: i64,
}

/// Refused requests of one database.
#[derive(Debug, Clone)]
pub struct RefusedRequests {
    database: Database,
}

impl RefusedRequests {
    pub(super) fn of(database: Database) -> RefusedRequests {
        RefusedRequests { database }
    }

    /// Connects for a command, beside a sidecar that may have the database open.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(settings: &config::Database) -> Result<RefusedRequests, StoreError> {
        Ok(RefusedRequests::of(Database::open_beside(settings).await?))
    }

    /// Closes the connections. Only for an instance from [`RefusedRequests::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Stores a request and counts it in its group. Returns true if it is the first of its group.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn record(&self, id: &str, request: &ExaminedRequest) -> Result<bool, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let group_id = request.group_id();
                let is_first = add_to_group(&mut tx, &group_id, request).await?;
                add(&mut tx, id, &group_id, request).await?;
                tx.execute_bound(TRIM_GROUP, &[Bind::Text(&group_id), Bind::Whole(MAX_REQUESTS)])
                    .await?;
                if is_first {
                    let kind = request.cause.kind().as_str();
                    let binds = [Bind::Text(kind), Bind::Whole(MAX_GROUPS), Bind::Whole(ALL)];
                    if tx.execute_bound(TRIM_GROUPS, &binds).await? > 0 {
                        tx.execute_bound(DELETE_ORPHANS, &[]).await?;
                    }
                }
                tx.commit().await?;
                Ok(is_first)
            })
            .await
    }

    /// Returns a page of groups, the one with the latest request first.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn groups(
        &self,
        page: &RefusedRequestsPage<'_>,
    ) -> Result<Vec<RefusedGroup>, StoreError> {
        let (at_ms, id) = match page.after {
            Some(Cursor::RefusedGroup { at_ms, id }) => (*at_ms, id.as_str()),
            _ => (i64::MAX, ""),
        };
        let binds = [
            Bind::Text(page.account_sid.unwrap_or_default()),
            Bind::Text(page.kind.map_or("", RefusalKind::as_str)),
            Bind::Text(page.cause.map_or("", Cause::as_str)),
            Bind::Whole(at_ms),
            Bind::Text(id),
            Bind::Whole(page.most),
        ];
        self.database.read_bound(LIST_GROUPS, &binds).await
    }

    /// Returns a page of requests, the latest first.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn requests(
        &self,
        page: &RefusedRequestsPage<'_>,
    ) -> Result<Vec<StoredRefusedRequest>, StoreError> {
        let (at_ms, id) = match page.after {
            Some(Cursor::RefusedRequest { at_ms, id }) => (*at_ms, id.as_str()),
            _ => (i64::MAX, ""),
        };
        let binds = [
            Bind::Text(page.account_sid.unwrap_or_default()),
            Bind::Text(page.kind.map_or("", RefusalKind::as_str)),
            Bind::Text(page.group_id.unwrap_or_default()),
            Bind::Whole(at_ms),
            Bind::Text(id),
            Bind::Whole(page.most),
        ];
        self.database.read_bound(LIST, &binds).await
    }

    /// Returns one request, if `account_sid` is its account or none.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn find(
        &self,
        id: &str,
        account_sid: Option<&str>,
    ) -> Result<Option<StoredRefusedRequest>, StoreError> {
        let binds = [Bind::Text(id), Bind::Text(account_sid.unwrap_or_default())];
        let found: Vec<StoredRefusedRequest> = self.database.read_bound(FIND, &binds).await?;
        Ok(found.into_iter().next())
    }
}

async fn add_to_group(
    tx: &mut Transaction,
    group_id: &str,
    request: &ExaminedRequest,
) -> Result<bool, StoreError> {
    let binds = [
        Bind::Text(group_id),
        Bind::Text(&request.account_sid),
        Bind::Text(request.cause.kind().as_str()),
        Bind::Text(request.cause.as_str()),
        Bind::Text(&request.route),
        Bind::Text(&request.reason),
        Bind::Text(&request.finding),
        Bind::Text(&request.remedy),
        Bind::Whole(request.skipped),
        Bind::Whole(request.at_ms),
    ];
    let counted: Vec<(i64,)> = tx.fetch_bound(ADD_TO_GROUP, &binds).await?;
    Ok(counted.first().is_some_and(|(requests,)| *requests == 1))
}

async fn add(
    tx: &mut Transaction,
    id: &str,
    group_id: &str,
    request: &ExaminedRequest,
) -> Result<(), StoreError> {
    let parameters = serde_json::to_string(&request.parameters).unwrap_or_default();
    let binds = [
        Bind::Text(id),
        Bind::Text(group_id),
        Bind::Text(&request.account_sid),
        Bind::Whole(request.at_ms),
        Bind::Whole(request.is_shadow.into()),
        Bind::Text(&request.method),
        Bind::Text(&request.path),
        Bind::Text(&request.authority),
        Bind::Text(&parameters),
        Bind::Whole(request.body_bytes),
        Bind::Text(&request.request_id),
        Bind::Text(&request.message_sid),
        Bind::Text(&request.explanation),
    ];
    tx.execute_bound(ADD, &binds).await.map(|_| ())
}

/// Deletes the requests of an erasure, or counts them. The values are the account, the period and the message.
pub(super) async fn erase(
    tx: &mut Transaction,
    binds: &[Bind<'_>],
    dry_run: bool,
) -> Result<u64, StoreError> {
    if dry_run {
        let counted: Vec<(i64,)> = tx.fetch_bound(COUNT_ERASED, binds).await?;
        return Ok(counted.first().map_or(0, |(found,)| u64::try_from(*found).unwrap_or_default()));
    }
    tx.execute_bound(ERASE, binds).await
}
