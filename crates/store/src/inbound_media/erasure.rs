//! Erasure of media of inbound messages on request. `erasure.rs` of the store calls it in its transaction.

use sqlx::FromRow;

use crate::{
    database::{Bind, Transaction},
    error::StoreError,
};

/// `$1` is the account, `$2` and `$3` the period, `$4` the message, `$5` the contact, `$6` the channel; the last three may be
/// empty for any.
macro_rules! erased {
    () => {
        "account_sid = $1 AND received_at_ms >= $2 AND received_at_ms <= $3 AND ($4 = '' OR message_sid = $4) \
         AND ($5 = '' OR contact = $5) AND ($6 = '' OR channel = $6) AND state IN ('pending', 'stored', 'refused')"
    };
}

const COUNT: &str = concat!("SELECT count(*) AS found FROM inbound_media WHERE ", erased!());

/// Expires the bytes immediately, even if a message to another contact uses them.
const EXPIRE: &str = concat!(
    "UPDATE media SET expires_at_ms = 0 WHERE id IN (SELECT id FROM inbound_media WHERE ",
    erased!(),
    ")"
);

const DELETE_USES: &str = concat!(
    "DELETE FROM media_uses WHERE (media_id, message_id) IN (SELECT id, message_sid FROM inbound_media WHERE ",
    erased!(),
    ")"
);

/// A pending medium is not fetched any more. A requested deletion at Twilio is still carried out. `$7` is the time.
const ERASE: &str = concat!(
    "UPDATE inbound_media SET state = 'erased', contact = '', ended_at_ms = $7, held_by = '', \
     is_open = CASE WHEN twilio_state = 'requested' THEN 1 ELSE 0 END WHERE ",
    erased!()
);

#[derive(FromRow)]
struct CountRow {
    found: i64,
}

/// Returns the number of media that an erasure with these values concerns.
pub(crate) async fn count(tx: &mut Transaction, binds: &[Bind<'_>]) -> Result<i64, StoreError> {
    let counted: Vec<CountRow> = tx.fetch_bound(COUNT, binds).await?;
    Ok(counted.first().map_or(0, |counted| counted.found))
}

/// Erases the media that these values select. Returns their number.
pub(crate) async fn erase(
    tx: &mut Transaction,
    binds: &[Bind<'_>],
    now_ms: i64,
) -> Result<u64, StoreError> {
    // The same lock order as in `InboundMedia::complete`: stored media first.
    tx.execute_bound(EXPIRE, binds).await?;
    tx.execute_bound(DELETE_USES, binds).await?;
    let binds: Vec<Bind<'_>> = binds.iter().copied().chain([Bind::Whole(now_ms)]).collect();
    tx.execute_bound(ERASE, &binds).await
}
