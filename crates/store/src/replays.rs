//! Replays: webhooks of the ledger, or operational events, that are delivered once more. One transaction finds the next webhooks, inserts their
//! deliveries and records the progress. Any sidecar may continue a replay; of two at once, one finds that the other has
//! advanced it. This module must not know who may request a replay and of what.

mod replay;

use serde::Serialize;

pub use self::replay::Replay;
use self::replay::ReplayedRow;
use super::{event::Event, ledger::each_once, message_history::Range, outbox::insert_deliveries};
use crate::audit_log::{self, AuditEntry};
use crate::{
    database::{Bind, Durability, Transaction},
    error::StoreError,
    outbox::{NewDelivery, Outbox},
};
use twilio_edge_domain::{archive::ArchivePage, webhook::Webhook};

/// Maximum number of webhooks of one message, with a margin.
const OF_MESSAGE: i64 = 1000;

macro_rules! replayed {
    ($rest:literal) => {
        concat!(
            "SELECT dedupe_key, class, account_sid, message_sid, channel, theirs, \
             coalesce(received_at_ms, settled_at_ms, 0) AS at_ms, \
             (form IS NOT NULL AND coalesce(redacted, 0) & 31 = 0) AS whole FROM events WHERE ",
            $rest
        )
    };
}

/// `$1` is the account, `$2` and `$3` the position to continue from, `$4` the end, `$5` the maximum number of rows.
const OF_ACCOUNT: &str = replayed!(
    "account_sid = $1 AND received_at_ms >= $2 AND (received_at_ms > $2 OR dedupe_key > $3) \
     AND received_at_ms < $4 ORDER BY received_at_ms, dedupe_key LIMIT $5"
);

/// The same without an account.
const OF_ALL: &str = replayed!(
    "received_at_ms >= $1 AND (received_at_ms > $1 OR dedupe_key > $2) AND received_at_ms < $3 \
     ORDER BY received_at_ms, dedupe_key LIMIT $4"
);

const OF_KEYS: &str =
    replayed!("dedupe_key BETWEEN $1 AND $2 ORDER BY received_at_ms, dedupe_key LIMIT $3");

/// Operational events: `$1` and `$2` are the position to continue from, `$3` the end, `$4` the maximum number of rows, `$5` the
/// account and `$6` the message; both may be empty for any. The sidecar's own status callbacks are for no other receiver.
const EVENTS: &str = "
    SELECT event_id AS dedupe_key, 'operational' AS class, account_sid, subject AS message_sid,
        nullif(channel, '') AS channel, nullif(contact, '') AS theirs, recorded_at_ms AS at_ms, (data <> '') AS whole
    FROM operational_events
    WHERE event_type <> 'status_callback' AND recorded_at_ms >= $1 AND (recorded_at_ms > $1 OR event_id > $2) AND recorded_at_ms < $3
        AND ($5 = '' OR account_sid = $5)
        AND ($6 = '' OR subject = $6 OR subject IN (SELECT id FROM outbound_messages
            WHERE message_sid = $6 AND message_sid <> '' AND account_sid = $5))
    ORDER BY recorded_at_ms, event_id LIMIT $4";

const ADD: &str = "
    INSERT INTO replays (id, sink, account_sid, message_sid, class, since_ms, until_ms, state, through_ms, through_key,
        found, queued, left_out, created_at_ms, created_by, origin)
    VALUES ($1, $2, NULLIF($3, ''), NULLIF($4, ''), NULLIF($5, ''), $6, $7, 'running', $6, '', 0, 0, 0, $8, $9, $10)";

/// Clears a redacted event so that its parts can be restored while the sink has an open delivery. Retention redacts it
/// again after that.
const EMPTY_REDACTED: &str = "
    UPDATE events SET form = NULL, theirs = NULL, redacted = NULL, redacted_at_ms = NULL
    WHERE dedupe_key = $1 AND coalesce(redacted, 0) & 31 <> 0";

const FETCH: &str = "SELECT * FROM replays WHERE id = $1";

/// `$1` is the account, `$2` and `$3` the position to continue from, `$4` the maximum number of rows.
const LIST_OF_ACCOUNT: &str = "
    SELECT * FROM replays WHERE account_sid = $1 AND created_at_ms <= $2 AND (created_at_ms < $2 OR id < $3)
    ORDER BY created_at_ms DESC, id DESC LIMIT $4";

/// The same without an account.
const LIST: &str = "
    SELECT * FROM replays WHERE created_at_ms <= $1 AND (created_at_ms < $1 OR id < $2)
    ORDER BY created_at_ms DESC, id DESC LIMIT $3";

/// A read-only statement has one parameter, which this one does not need.
const RUNNING: &str = "
    SELECT * FROM replays WHERE state = 'running' AND CAST($1 AS TEXT) IS NOT NULL ORDER BY created_at_ms LIMIT 100";

/// `$1` is the id, `$2` and `$3` the previous position; the others are the new progress.
const ADVANCE: &str = "
    UPDATE replays SET through_ms = $4, through_key = $5, found = $6, queued = $7, left_out = $8, state = $9,
        ended_at_ms = CASE WHEN $9 = 'done' THEN $10 END
    WHERE id = $1 AND through_ms = $2 AND through_key = $3 AND state = 'running'";

#[derive(Serialize)]
struct KeyRow<'a> {
    dedupe_key: &'a str,
}

#[derive(Serialize)]
struct Nothing {}

impl Outbox {
    /// Stores a replay and its audit entry. No delivery is queued until the replay is continued.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or refuses the row.
    pub async fn add_replay(&self, replay: &Replay, entry: &AuditEntry) -> Result<(), StoreError> {
        let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
        let (account, message) = (text(&replay.account_sid), text(&replay.message_sid));
        let class = text(&replay.class);
        let binds = [
            Bind::Text(&replay.id),
            Bind::Text(&replay.sink),
            Bind::Text(&account),
            Bind::Text(&message),
            Bind::Text(&class),
            Bind::Whole(replay.since_ms),
            Bind::Whole(replay.until_ms),
            Bind::Whole(replay.created_at_ms),
            Bind::Text(&replay.created_by),
            Bind::Text(&replay.origin),
        ];
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                tx.execute_bound(ADD, &binds).await?;
                audit_log::add(&mut tx, std::slice::from_ref(entry)).await?;
                tx.commit().await
            })
            .await
    }

    /// Returns the replay with this id. With an account, only if it covers that account alone.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn replay(
        &self,
        id: &str,
        account_sid: Option<&str>,
    ) -> Result<Option<Replay>, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let found: Vec<Replay> = tx.fetch_bound(FETCH, &[Bind::Text(id)]).await?;
                let is_theirs = |replay: &Replay| {
                    account_sid.is_none() || replay.account_sid.as_deref() == account_sid
                };
                Ok(found.into_iter().find(is_theirs))
            })
            .await
    }

    /// Returns a page of replays, the latest first: those before the time and id of `after`. With an account, only those of that
    /// account alone.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn replays(
        &self,
        account_sid: Option<&str>,
        after: Option<(i64, &str)>,
        most: i64,
    ) -> Result<Vec<Replay>, StoreError> {
        let (created_at_ms, id) = after.unwrap_or((i64::MAX, ""));
        let position = [Bind::Whole(created_at_ms), Bind::Text(id), Bind::Whole(most)];
        match account_sid {
            Some(account_sid) => {
                let [time, id, most] = position;
                let binds = [Bind::Text(account_sid), time, id, most];
                self.database.read_bound(LIST_OF_ACCOUNT, &binds).await
            }
            None => self.database.read_bound(LIST, &position).await,
        }
    }

    /// Returns the running replays, earliest first, up to 100.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn running_replays(&self) -> Result<Vec<Replay>, StoreError> {
        self.database.read(RUNNING, &[Nothing {}]).await
    }

    /// Continues a replay by up to `most` webhooks. Returns its current progress, also if another sidecar advanced it.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn advance_replay(
        &self,
        replay: &Replay,
        most: i64,
        now_ms: i64,
    ) -> Result<Replay, StoreError> {
        let moved = self.database.within_timeout(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            let (rows, is_last) = next(&mut tx, replay, most).await?;
            let (next, owed) = replay.after(rows, is_last, now_ms);
            self.write_step(tx, replay, next, &owed, now_ms).await
        });
        self.or_current(replay, moved.await?).await
    }

    /// Continues a replay by webhooks found in the archive. Their events are in the ledger again on return, as long as
    /// deliveries are open; complete events stay as they are.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn advance_archive_replay(
        &self,
        replay: &Replay,
        found: ArchivePage,
        now_ms: i64,
    ) -> Result<Replay, StoreError> {
        let mut next = replay.counted(&found);
        next.ended_at_ms = found.is_last.then_some(now_ms);
        let read = found.lines.into_iter().filter_map(|line| {
            let at_ms = line.received_at_ms();
            Webhook::from_archive(line).ok().map(|webhook| (webhook, at_ms))
        });
        let read: Vec<(Webhook, i64)> = read.collect();
        let owed: Vec<NewDelivery> =
            read.iter().map(|(webhook, _)| replay.delivery_of_webhook(webhook, now_ms)).collect();
        next.queued = replay.queued + i64::try_from(owed.len()).unwrap_or(i64::MAX);
        next.left_out = next.found.saturating_sub(next.queued);
        let moved = self.database.within_timeout(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            let events = read.iter().map(|(webhook, at_ms)| Event::came(webhook, *at_ms, *at_ms));
            let events = each_once(events.collect());
            for event in &events {
                tx.execute_bound(EMPTY_REDACTED, &[Bind::Text(event.dedupe_key)]).await?;
            }
            tx.write_events(&events, 0).await?;
            let keys: Vec<KeyRow<'_>> =
                events.iter().map(|event| KeyRow { dedupe_key: event.dedupe_key }).collect();
            // These events come from the archive, so they must not be archived again.
            tx.execute(self.database.statements().retention.unqueue, &keys).await?;
            self.write_step(tx, replay, next, &owed, now_ms).await
        });
        self.or_current(replay, moved.await?).await
    }

    /// Returns the current progress, also if another sidecar advanced the replay.
    async fn or_current(
        &self,
        replay: &Replay,
        moved: Option<Replay>,
    ) -> Result<Replay, StoreError> {
        if let Some(next) = moved {
            return Ok(next);
        }
        let moved = self.replay(&replay.id, None).await?;
        moved.ok_or_else(|| StoreError::Refused("the replay is gone".to_owned()))
    }

    /// Ends a step: inserts the deliveries and stores the progress. Returns `None` if another sidecar advanced the replay.
    async fn write_step(
        &self,
        mut tx: Transaction,
        replay: &Replay,
        next: Replay,
        owed: &[NewDelivery],
        now_ms: i64,
    ) -> Result<Option<Replay>, StoreError> {
        let binds = [
            Bind::Text(&replay.id),
            Bind::Whole(replay.through_ms),
            Bind::Text(&replay.through_key),
            Bind::Whole(next.through_ms),
            Bind::Text(&next.through_key),
            Bind::Whole(next.found),
            Bind::Whole(next.queued),
            Bind::Whole(next.left_out),
            Bind::Text(&next.state),
            Bind::Whole(now_ms),
        ];
        if tx.execute_bound(ADVANCE, &binds).await? == 0 {
            return Ok(None);
        }
        insert_deliveries(&mut tx, &owed.iter().collect::<Vec<_>>()).await?;
        tx.commit().await?;
        Ok(Some(next))
    }

    /// Advances the counts without queuing deliveries.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn count_replay(
        &self,
        replay: &Replay,
        most: i64,
        now_ms: i64,
    ) -> Result<Replay, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                let (rows, is_last) = next(&mut tx, replay, most).await?;
                Ok(replay.after(rows, is_last, now_ms).0)
            })
            .await
    }
}

/// Returns the next rows, and whether they are the last.
async fn next(
    tx: &mut Transaction,
    replay: &Replay,
    most: i64,
) -> Result<(Vec<ReplayedRow>, bool), StoreError> {
    let place = [Bind::Whole(replay.through_ms), Bind::Text(&replay.through_key)];
    let rest = [Bind::Whole(replay.until_ms), Bind::Whole(most)];
    let is_last = |rows: &[ReplayedRow]| i64::try_from(rows.len()).is_ok_and(|count| count < most);
    if replay.is_of_events() {
        let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
        let (account, message) = (text(&replay.account_sid), text(&replay.message_sid));
        let of = [Bind::Text(&account), Bind::Text(&message)];
        let binds = [&place[..], &rest[..], &of[..]].concat();
        let rows: Vec<ReplayedRow> = tx.fetch_bound(EVENTS, &binds).await?;
        let is_last = is_last(&rows);
        return Ok((rows, is_last));
    }
    let rows: Vec<ReplayedRow> = match (&replay.account_sid, &replay.message_sid) {
        // A message is replayed in one step: it has only a few webhooks.
        (Some(account_sid), Some(message_sid)) => {
            let mut rows: Vec<ReplayedRow> = Vec::new();
            for range in Range::of(account_sid, message_sid) {
                let binds =
                    [Bind::Text(&range.first), Bind::Text(&range.last), Bind::Whole(OF_MESSAGE)];
                rows.extend(tx.fetch_bound::<ReplayedRow>(OF_KEYS, &binds).await?);
            }
            rows.retain(|row| (replay.since_ms..replay.until_ms).contains(&row.at_ms));
            rows.sort_by(|a, b| (a.at_ms, &a.dedupe_key).cmp(&(b.at_ms, &b.dedupe_key)));
            return Ok((rows, true));
        }
        (Some(account_sid), None) => {
            let binds = [&[Bind::Text(account_sid)], &place[..], &rest[..]].concat();
            tx.fetch_bound(OF_ACCOUNT, &binds).await?
        }
        (None, _) => tx.fetch_bound(OF_ALL, &[&place[..], &rest[..]].concat()).await?,
    };
    let is_last = is_last(&rows);
    Ok((rows, is_last))
}
