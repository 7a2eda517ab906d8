//! Operational events in the database. An event is written in the transaction of the change that it reports, with one delivery
//! for each sink that takes its type, so that neither exists without the other. Nothing is written if no sink takes it. The
//! id of an event makes a repeated report of one change a single event. An event is deleted with its last delivery.

pub(super) mod callbacks;
pub(super) mod windows;

use serde::Serialize;
use sqlx::FromRow;

use self::callbacks::NewCallback;
use crate::{
    database::{Bind, Transaction},
    error::StoreError,
    outbox::{NewDelivery, insert_deliveries},
};
use twilio_edge_domain::operational_event::{EventReporting, OperationalEvent};

/// Deletes events without open deliveries whose last delivery ended before `$1`: those of the next `$2` deliveries that
/// `DELETE_DELIVERIES` deletes.
pub(super) const DELETE_DELIVERED: &str = "
    DELETE FROM operational_events WHERE event_id IN (SELECT dedupe_key FROM deliveries
            WHERE state IN ('done', 'discarded') AND ended_at_ms <= $1 ORDER BY ended_at_ms LIMIT $2)
        AND NOT EXISTS (SELECT 1 FROM deliveries WHERE dedupe_key = event_id
            AND (state NOT IN ('done', 'discarded') OR ended_at_ms > $1))";

/// Deletes events of an erasure, with the parameters of `messages_of!` in `erasure.rs`.
const ERASE: &str = "
    DELETE FROM operational_events WHERE account_sid = $1 AND recorded_at_ms >= $2 AND recorded_at_ms <= $3
        AND ($4 = '' OR subject = $4 OR subject IN (SELECT id FROM outbound_messages
            WHERE message_sid = $4 AND message_sid <> '' AND account_sid = $1))
        AND ($5 = '' OR contact = $5) AND ($6 = '' OR channel = $6)
    RETURNING event_id";

/// Event as a row.
#[derive(Debug, Serialize)]
struct Row<'a> {
    event_id: &'a str,
    event_type: &'static str,
    account_sid: &'a str,
    channel: &'a str,
    contact: &'a str,
    subject: &'a str,
    data: String,
    recorded_at_ms: i64,
}

#[derive(Debug, FromRow)]
struct ErasedRow {
    event_id: String,
}

impl<'a> Row<'a> {
    fn of(event: &'a OperationalEvent) -> Row<'a> {
        let contact = event.contact.as_ref();
        Row {
            event_id: &event.event_id,
            event_type: event.event_type.as_str(),
            account_sid: &event.account_sid,
            channel: contact.map_or("", |contact| &contact.channel),
            contact: contact.map_or("", |contact| &contact.number),
            subject: &event.subject,
            data: event.data.to_string(),
            recorded_at_ms: event.recorded_at_ms,
        }
    }
}

/// Returns the deliveries of events: one for each sink that takes the type, except `except`.
pub(super) fn deliveries_of<'a>(
    reporting: &'a EventReporting,
    events: &'a [OperationalEvent],
    except: Option<&'a str>,
) -> impl Iterator<Item = NewDelivery> + 'a {
    events.iter().flat_map(move |event| {
        let sinks = reporting.sinks_of(event).filter(move |sink| Some(*sink) != except);
        sinks.map(move |sink| NewDelivery {
            sink: sink.to_owned(),
            delivery_id: event.event_id.clone(),
            dedupe_key: event.event_id.clone(),
            replay_id: None,
            account_sid: event.account_sid.clone(),
            lane: event.ordering_key(),
            recorded_at_ms: event.recorded_at_ms,
            facts: String::new(),
        })
    })
}

/// Records events with their deliveries. Call it once in a transaction, after its other rows: it locks the lanes of the
/// deliveries in their order, and two transactions that lock lanes twice could wait for each other.
pub(super) async fn record(
    tx: &mut Transaction,
    reporting: &EventReporting,
    events: &[OperationalEvent],
) -> Result<(), StoreError> {
    record_with_callbacks(tx, reporting, events, &[]).await
}

/// Records events like [`record`], and with them status callbacks.
pub(super) async fn record_with_callbacks(
    tx: &mut Transaction,
    reporting: &EventReporting,
    events: &[OperationalEvent],
    callbacks: &[NewCallback],
) -> Result<(), StoreError> {
    callbacks::record_sids(tx, callbacks).await?;
    let own = callbacks.iter().map(NewCallback::delivery);
    let deliveries: Vec<NewDelivery> = deliveries_of(reporting, events, None).chain(own).collect();
    let deliveries: Vec<&NewDelivery> = deliveries.iter().collect();
    let rows = rows_of(events, &deliveries);
    insert(tx, rows.chain(callbacks.iter().map(NewCallback::row)).collect(), &deliveries).await
}

/// Records events with these deliveries, which may include those of webhooks.
pub(super) async fn record_with(
    tx: &mut Transaction,
    events: &[OperationalEvent],
    deliveries: &[&NewDelivery],
) -> Result<(), StoreError> {
    insert(tx, rows_of(events, deliveries).collect(), deliveries).await
}

/// Returns the rows of the events that have a delivery: without one, an event would never be deleted.
fn rows_of<'a>(
    events: &'a [OperationalEvent],
    deliveries: &'a [&NewDelivery],
) -> impl Iterator<Item = Row<'a>> {
    let has_delivery = |event: &&OperationalEvent| {
        deliveries.iter().any(|delivery| delivery.dedupe_key == event.event_id)
    };
    events.iter().filter(has_delivery).map(Row::of)
}

async fn insert(
    tx: &mut Transaction,
    mut rows: Vec<Row<'_>>,
    deliveries: &[&NewDelivery],
) -> Result<(), StoreError> {
    rows.sort_by(|one, other| one.event_id.cmp(other.event_id));
    rows.dedup_by(|one, other| one.event_id == other.event_id);
    tx.execute(tx.statements().outbox.insert_events, &rows).await?;
    insert_deliveries(tx, deliveries).await
}

/// Deletes the events of an erasure. Returns their ids.
pub(super) async fn erase(
    tx: &mut Transaction,
    binds: &[Bind<'_>],
) -> Result<Vec<String>, StoreError> {
    let erased: Vec<ErasedRow> = tx.fetch_bound(ERASE, binds).await?;
    Ok(erased.into_iter().map(|row| row.event_id).collect())
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn events_are_erased_and_deleted_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        for statement in [ERASE, DELETE_DELIVERED] {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
            let is_scan = |step: &str| step.starts_with("SCAN");
            assert!(!plan.iter().any(|(.., step)| is_scan(step)), "{plan:#?}");
        }
    }
}
