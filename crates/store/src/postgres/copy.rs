//! New events in PostgreSQL, by COPY in its binary format: about a third of the cost of an INSERT that may find a row.

use sqlx::{Postgres, pool::PoolConnection};

use crate::{columns::event_columns, event::Event};

/// Fewest new events for which a statement of their own pays.
pub(super) const FEWEST: usize = 16;

const COPY: &str = concat!("COPY events (", event_columns!(), ") FROM STDIN WITH (FORMAT binary)");

/// Signature of the format, flags, and the length of the header extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Number of columns as the format has it, before each row.
const COLUMNS: [u8; 2] = 19_i16.to_be_bytes();

/// Length of NULL, and the end of all rows.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
const END: [u8; 2] = (-1_i16).to_be_bytes();

/// SQLSTATE of a row that exists.
const UNIQUE_VIOLATION: &str = "23505";

/// Inserts events, which must be in key order and without rows in the ledger. Returns `false`, and inserts none, if one of
/// them has a row. Closes the connection if the caller drops the future: after an interrupted COPY, the server waits for rows
/// and the pool for an answer, both forever.
pub(super) async fn insert(
    connection: &mut PoolConnection<Postgres>,
    events: &[Event<'_>],
) -> Result<bool, sqlx::Error> {
    let mut copying = Copying { connection, is_ended: false };
    let mut copy = copying.connection.copy_in_raw(COPY).await?;
    copy.send(encode(events)).await?;
    let result = copy.finish().await;
    copying.is_ended = true;
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_unique_violation(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Connection that is closed unless its COPY has ended.
struct Copying<'a> {
    connection: &'a mut PoolConnection<Postgres>,
    is_ended: bool,
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.connection.close_on_drop();
        }
    }
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == UNIQUE_VIOLATION)
}

fn encode(events: &[Event<'_>]) -> Vec<u8> {
    // Allocates everything at once: growing would copy some hundred kilobytes several times.
    let lengths = events.iter().flat_map(|event| event.texts()).flatten().map(str::len);
    let bytes = lengths.sum::<usize>().saturating_add(events.len().saturating_mul(160));
    let mut to = Vec::with_capacity(bytes.saturating_add(HEADER.len()));
    to.extend_from_slice(HEADER);
    for event in events {
        to.extend_from_slice(&COLUMNS);
        put_text(Some(event.dedupe_key), &mut to);
        put_text(Some(event.class), &mut to);
        put_text(Some(event.account_sid), &mut to);
        put_text(Some(event.message_sid), &mut to);
        put_text(event.status, &mut to);
        put_text(event.error_code, &mut to);
        put_text(event.route, &mut to);
        put_text(event.form, &mut to);
        put_text(event.channel, &mut to);
        put_text(event.theirs, &mut to);
        put_text(event.ours, &mut to);
        put_number(event.received_at_ms, &mut to);
        put_number(Some(event.attempts), &mut to);
        put_text(event.claim_id, &mut to);
        put_number(event.held_until_ms, &mut to);
        put_text(event.outcome, &mut to);
        put_number(event.settled_at_ms, &mut to);
        put_text(event.answer, &mut to);
        put_text(event.envelope, &mut to);
    }
    to.extend_from_slice(&END);
    to
}

fn put_text(text: Option<&str>, to: &mut Vec<u8>) {
    put(text.map(str::as_bytes), to);
}

fn put_number(number: Option<i64>, to: &mut Vec<u8>) {
    put(number.map(i64::to_be_bytes).as_ref().map(|bytes| bytes.as_slice()), to);
}

/// Appends a value: its length in four bytes, then its bytes.
fn put(value: Option<&[u8]>, to: &mut Vec<u8>) {
    let length = value.map(|value| i32::try_from(value.len()).unwrap_or(i32::MAX).to_be_bytes());
    to.extend_from_slice(&length.unwrap_or(NULL));
    to.extend_from_slice(value.unwrap_or_default());
}
