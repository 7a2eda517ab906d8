//! Erasure on request, immediate and complete: a message, a period, or all data of a contact. Two things remain because
//! they keep a promise: suppressions, and the dedupe keys that recognize a copy of a webhook.

use serde::Serialize;
use sqlx::FromRow;

use super::{
    archive_queue::ADD_ERASURE,
    contacts,
    inbound_media::erasure as inbound_media,
    message_history::Range,
    operational_events, refused_requests,
    retention::{FoundRow, OF_ACCOUNT, Sweeper, forward, found},
};
use crate::audit_log::{self, AuditEntry};
use crate::{
    database::{Bind, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::sweep_counts::SweepCounts;
use twilio_edge_domain::{
    message::NumberQuery,
    part::Part,
    redaction::{RedactionMethod, RedactionPlan},
};

/// Maximum number of webhooks of one message.
const OF_MESSAGE: i64 = 1000;

/// `$6` is the number.
pub(super) const OF_NUMBER: &str = forward!("theirs = $6 AND ");
/// `$6` is the number, `$7` its channel.
pub(super) const OF_ADDRESS: &str = forward!("theirs = $6 AND channel = $7 AND ");
/// `$1` is the first key, `$2` the last, `$3` the maximum number of rows.
pub(super) const OF_KEYS: &str =
    found!("dedupe_key BETWEEN $1 AND $2 ORDER BY dedupe_key LIMIT $3");

/// Request to erase data of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Account SID of all erased data.
    pub account_sid: String,
    /// Erases only this message.
    pub message_sid: Option<String>,
    /// Erases only the data of this contact.
    pub number: Option<NumberQuery>,
    /// Erases only data received at this time or later, in milliseconds since 1970.
    pub since_ms: i64,
    /// Erases only data received at this time or earlier, in milliseconds since 1970.
    pub until_ms: i64,
    /// Erases the texts and keeps sender and recipient.
    pub text_only: bool,
    /// Only counts the data.
    pub dry_run: bool,
    /// Deletes rows of which no copy can arrive any more.
    pub delete: bool,
}

/// Progress of an [`Erasure`]: it continues after this row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasurePosition {
    /// Time at which the row's event was received, in milliseconds since 1970.
    pub at_ms: i64,
    key: String,
}

/// Condition for messages whose fallback has the contact `$5` among its recipients, which blanks separate.
macro_rules! has_fallback_to {
    () => {
        "replace(' ' || fallback_to || ' ', ' ' || $5 || ' ', '') <> ' ' || fallback_to || ' '"
    };
}

/// Condition for outbound messages: `$4` is the id or SID, `$5` the contact, `$6` the channel; each may be empty for any. `$7` is 1 if
/// the contact is erased too, and not only the text. A message on another channel may have the contact's e-mail as its fallback.
macro_rules! messages_of {
    () => {
        concat!(
            "account_sid = $1 AND (form <> '' OR fallback <> '' OR metadata <> '' OR ($7 = 1 AND contact <> '')) AND created_at_ms >= $2 AND created_at_ms <= $3 \
             AND ($4 = '' OR id = $4 OR message_sid = $4) AND ($5 = '' OR recipient = $5 OR contact = $5 OR ",
            has_fallback_to!(),
            ") AND ($6 = '' OR channel = $6 OR ($6 = 'email' AND $5 <> '' AND ",
            has_fallback_to!(),
            "))"
        )
    };
}

const COUNT_MESSAGES: &str =
    concat!("SELECT count(*) AS found FROM outbound_messages WHERE ", messages_of!());

/// A queued message is not sent. A message in progress or `unknown` keeps its state until its answer or status arrives.
const ERASE_MESSAGES: &str = concat!(
    "UPDATE outbound_messages SET fallback = '', fallback_to = '', form = '', metadata = '', \
     lookup_due_at_ms = CASE WHEN form = '' THEN lookup_due_at_ms ELSE 0 END, \
     contact = CASE WHEN $7 = 1 THEN '' ELSE contact END, \
     recipient = CASE WHEN form = '' THEN recipient ELSE channel || ':..' || substr(recipient, length(recipient) - 1) END, \
     code = CASE WHEN state = 'queued' THEN 'erased' ELSE code END, \
     reason = CASE WHEN state = 'queued' THEN 'its text was erased' ELSE reason END, \
     state = CASE WHEN state = 'queued' THEN 'refused' ELSE state END, changed_at_ms = $8 WHERE ",
    messages_of!()
);

/// Condition for the uses of a medium in messages, with the parameters of `messages_of!`.
macro_rules! uses_of {
    () => {
        "u.account_sid = $1 AND u.at_ms >= $2 AND u.at_ms <= $3 \
         AND ($4 = '' OR u.message_id = $4 OR u.message_id IN (SELECT id FROM outbound_messages WHERE message_sid = $4 AND message_sid <> '')) \
         AND ($5 = '' OR u.recipient = $5) AND ($6 = '' OR u.channel = $6)"
    };
}

/// Without a message or contact: the uploads of the period. Otherwise: the uploads that only the requested messages use.
/// `inbound_media/erasure.rs` erases the media of inbound messages.
macro_rules! media_of {
    () => {
        concat!(
            "account_sid = $1 AND created_by <> 'twilio' AND expires_at_ms > 0 AND (($4 = '' AND $5 = '' AND created_at_ms >= $2 AND created_at_ms <= $3) \
             OR (($4 <> '' OR $5 <> '') AND EXISTS (SELECT 1 FROM media_uses u WHERE u.media_id = media.id AND ",
            uses_of!(),
            ") AND NOT EXISTS (SELECT 1 FROM media_uses u WHERE u.media_id = media.id AND NOT (",
            uses_of!(),
            "))))"
        )
    };
}

const COUNT_MEDIA: &str = concat!("SELECT count(*) AS found FROM media WHERE ", media_of!());

/// Expires the media immediately; the task that manages the bucket deletes the bytes.
const ERASE_MEDIA: &str = concat!("UPDATE media SET expires_at_ms = 0 WHERE ", media_of!());

/// Deletes the recipients of the other media. The uses of outbound messages have our message ids.
const ERASE_USES: &str = concat!(
    "DELETE FROM media_uses WHERE (media_id, message_id) IN (SELECT u.media_id, u.message_id FROM media_uses u \
     WHERE u.message_id LIKE 'ms%' AND ",
    uses_of!(),
    ")"
);

#[derive(Debug, FromRow)]
struct CountRow {
    found: i64,
}

#[derive(Debug, Serialize)]
struct KeyRow<'a> {
    dedupe_key: &'a str,
}

#[derive(Debug, Serialize)]
struct WithdrawalRow {
    dedupe_key: String,
    now_ms: i64,
}

impl Sweeper {
    /// Erases the next rows of the request, and deletes those of which no copy can arrive any more, if requested. The first
    /// step also erases outbound messages and queues the erasure of the archive. `entry` is added to the audit log. Returns
    /// the counts, and the position of the next step if there is one.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn erase(
        &self,
        erasure: &Erasure,
        after: Option<&ErasurePosition>,
        entry: Option<&AuditEntry>,
        most: u32,
        now_ms: i64,
    ) -> Result<(SweepCounts, Option<ErasurePosition>), StoreError> {
        self.database
            .within_timeout(async {
                let statements = self.database.statements();
                let mut tx = self.database.begin(Durability::Power).await?;
                // A request by one spelling, or by one of two ids, covers the contact.
                let numbers = numbers(&mut tx, erasure).await?;
                let found = find_each(&mut tx, erasure, &numbers, after, most).await?;
                // A message is erased in one step: it has only a few webhooks.
                let more = erasure.message_sid.is_none()
                    && found.len() >= usize::try_from(most).unwrap_or(usize::MAX);
                let reached = found.last().filter(|_| more);
                let reached = reached.map(|last| ErasurePosition {
                    at_ms: last.at_ms,
                    key: last.dedupe_key.clone(),
                });
                let mut swept = SweepCounts {
                    found: found.len(),
                    more: reached.is_some(),
                    ..SweepCounts::default()
                };
                // A delivery worker completes a delivery that it already holds; all other deliveries are withdrawn.
                let mut owed: Vec<WithdrawalRow> = found
                    .iter()
                    .filter(|row| row.owed && !erasure.text_only)
                    .map(|row| WithdrawalRow { dedupe_key: row.dedupe_key.clone(), now_ms })
                    .collect();
                owed.sort_unstable_by(|a, b| a.dedupe_key.cmp(&b.dedupe_key));
                let mut answered: Vec<WithdrawalRow> = found
                    .iter()
                    .map(|row| WithdrawalRow { dedupe_key: row.dedupe_key.clone(), now_ms })
                    .collect();
                answered.sort_unstable_by(|a, b| a.dedupe_key.cmp(&b.dedupe_key));
                let is_over = |row: &FoundRow| row.last_ms <= now_ms.saturating_sub(self.result_ms);
                let (gone, rest): (Vec<_>, Vec<_>) =
                    found.into_iter().partition(|row| erasure.delete && is_over(row));
                swept.deleted = gone.len();
                let plan = if erasure.text_only { texts() } else { everything() };
                let rows = self.plan(rest, &plan, None, now_ms, &mut swept);
                // Outbound messages are erased all at once, with the first step.
                if after.is_none() {
                    let mut messages = 0;
                    for number in &numbers {
                        messages +=
                            erase_messages(&mut tx, erasure, number.as_ref(), now_ms).await?;
                    }
                    if !erasure.text_only {
                        let binds = binds_of(erasure, None);
                        let binds = binds.get(..4).unwrap_or_default();
                        let refused =
                            refused_requests::erase(&mut tx, binds, erasure.dry_run).await?;
                        messages += usize::try_from(refused).unwrap_or_default();
                    }
                    (swept.found, swept.rows) = (swept.found + messages, swept.rows + messages);
                }
                if erasure.dry_run {
                    return Ok((swept, reached));
                }
                let mut gone: Vec<KeyRow<'_>> =
                    gone.iter().map(|row| KeyRow { dedupe_key: &row.dedupe_key }).collect();
                gone.sort_unstable_by_key(|key| key.dedupe_key);
                tx.execute(statements.retention.delete_events, &gone).await?;
                tx.execute(statements.retention.redact_events, &rows).await?;
                tx.execute(statements.retention.unqueue, &owed).await?;
                if after.is_none() && !erasure.text_only {
                    for number in &numbers {
                        let binds = binds_of(erasure, number.as_ref());
                        let erased = operational_events::erase(&mut tx, &binds).await?;
                        let erased = erased.into_iter();
                        owed.extend(erased.map(|dedupe_key| WithdrawalRow { dedupe_key, now_ms }));
                    }
                }
                tx.execute(statements.outbox.withdraw, &owed).await?;
                tx.execute(statements.outbox.forget_attempts, &answered).await?;
                if after.is_none() {
                    for number in &numbers {
                        of_archive(&mut tx, erasure, number.as_ref(), now_ms).await?;
                    }
                }
                // The contact's links are deleted in the last step, because the steps before find the contact by them.
                if reached.is_none() && erasure.is_of_whole_contact() {
                    for number in numbers.iter().flatten() {
                        contacts::delete_links(&mut tx, &erasure.account_sid, &number.number)
                            .await?;
                    }
                }
                if let Some(entry) = entry {
                    audit_log::add(&mut tx, std::slice::from_ref(entry)).await?;
                }
                tx.commit().await?;
                Ok((swept, reached))
            })
            .await
    }
}

impl Erasure {
    /// Returns whether the request covers the data of a contact without a message and without an end.
    fn is_of_whole_contact(&self) -> bool {
        self.number.is_some() && self.message_sid.is_none() && self.until_ms == i64::MAX
    }
}

/// Returns the numbers of the request: every spelling and user id that certainly belongs to the contact. Without a contact,
/// returns one `None`.
async fn numbers(
    tx: &mut Transaction,
    erasure: &Erasure,
) -> Result<Vec<Option<NumberQuery>>, StoreError> {
    let Some(NumberQuery { channel, number, .. }) = &erasure.number else { return Ok(vec![None]) };
    let keys = contacts::keys(tx, &erasure.account_sid, number).await?;
    let named = |number: &str| {
        Some(NumberQuery {
            channel: channel.clone(),
            number: number.to_owned(),
            other_ids: Vec::new(),
        })
    };
    Ok(keys.certain_keys().into_iter().map(named).collect())
}

/// Returns the next rows of all these numbers, in order.
async fn find_each(
    tx: &mut Transaction,
    erasure: &Erasure,
    numbers: &[Option<NumberQuery>],
    after: Option<&ErasurePosition>,
    most: u32,
) -> Result<Vec<FoundRow>, StoreError> {
    let mut found: Vec<FoundRow> = Vec::new();
    for number in numbers {
        found.extend(find(tx, erasure, number.as_ref(), after, most).await?);
    }
    if numbers.len() > 1 {
        found.sort_by(|a, b| (a.at_ms, &a.dedupe_key).cmp(&(b.at_ms, &b.dedupe_key)));
        found.dedup_by(|a, b| a.dedupe_key == b.dedupe_key);
        if erasure.message_sid.is_none() {
            found.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        }
    }
    Ok(found)
}

/// Queues the erasure of the archive, which the archive task performs.
async fn of_archive(
    tx: &mut Transaction,
    erasure: &Erasure,
    number: Option<&NumberQuery>,
    now_ms: i64,
) -> Result<(), StoreError> {
    let dice = getrandom::u64().map_err(|_| {
        StoreError::Unavailable("the system has no randomness for an id".to_owned())
    })?;
    let id = format!("ER{dice:016x}");
    let binds = [
        Bind::Text(&id),
        Bind::Text(&erasure.account_sid),
        Bind::Text(erasure.message_sid.as_deref().unwrap_or_default()),
        Bind::Text(number.map_or("", |number| &number.number)),
        Bind::Text(number.and_then(|number| number.channel.as_deref()).unwrap_or_default()),
        Bind::Whole(erasure.since_ms),
        Bind::Whole(erasure.until_ms),
        Bind::Whole(now_ms),
    ];
    tx.execute_bound(ADD_ERASURE, &binds).await.map(|_| ())
}

/// Returns the parameters of `messages_of!`.
fn binds_of<'a>(erasure: &'a Erasure, number: Option<&'a NumberQuery>) -> Vec<Bind<'a>> {
    let channel = number.and_then(|number| number.channel.as_deref());
    vec![
        Bind::Text(&erasure.account_sid),
        Bind::Whole(erasure.since_ms),
        Bind::Whole(erasure.until_ms),
        Bind::Text(erasure.message_sid.as_deref().unwrap_or_default()),
        Bind::Text(number.map_or("", |number| &number.number)),
        Bind::Text(channel.unwrap_or_default()),
    ]
}

/// Erases the texts of outbound messages, the media stored for them, and media of inbound messages. Returns their number.
async fn erase_messages(
    tx: &mut Transaction,
    erasure: &Erasure,
    number: Option<&NumberQuery>,
    now_ms: i64,
) -> Result<usize, StoreError> {
    let asked = binds_of(erasure, number);
    let mut binds = asked.clone();
    binds.push(Bind::Whole(i64::from(!erasure.text_only)));
    if erasure.dry_run {
        let mut found = 0;
        for (statement, binds) in [(COUNT_MESSAGES, &binds), (COUNT_MEDIA, &asked)] {
            let counted: Vec<CountRow> = tx.fetch_bound(statement, binds).await?;
            found += counted.first().map_or(0, |counted| counted.found);
        }
        if !erasure.text_only {
            found += inbound_media::count(tx, &asked).await?;
        }
        return Ok(usize::try_from(found).unwrap_or_default());
    }
    binds.push(Bind::Whole(now_ms));
    let rows = tx.execute_bound(ERASE_MESSAGES, &binds).await?;
    // The same lock order as in writes of messages: messages first, then media.
    let media = tx.execute_bound(ERASE_MEDIA, &asked).await?;
    tx.execute_bound(ERASE_USES, &asked).await?;
    let inbound = match erasure.text_only {
        true => 0,
        false => inbound_media::erase(tx, &asked, now_ms).await?,
    };
    Ok(usize::try_from(media + rows + inbound).unwrap_or(usize::MAX))
}

/// Returns the plan that erases every part.
fn everything() -> RedactionPlan {
    let mut plan = RedactionPlan::default();
    Part::ALL.into_iter().for_each(|part| plan.add(part, RedactionMethod::Remove));
    plan
}

/// Returns the plan that erases the texts, like Twilio's redaction of a message.
fn texts() -> RedactionPlan {
    let mut plan = RedactionPlan::default();
    plan.add(Part::Body, RedactionMethod::Remove);
    plan
}

async fn find(
    tx: &mut Transaction,
    erasure: &Erasure,
    number: Option<&NumberQuery>,
    after: Option<&ErasurePosition>,
    most: u32,
) -> Result<Vec<FoundRow>, StoreError> {
    let account_sid = erasure.account_sid.as_str();
    if let Some(message_sid) = &erasure.message_sid {
        let mut found = Vec::new();
        // An id with the key's separator in it does not exist, and must not reach into the range of another id.
        if [account_sid, message_sid].iter().any(|part| part.contains(':')) {
            return Ok(found);
        }
        let steps = Range::of_steps(account_sid, message_sid);
        for range in Range::of(account_sid, message_sid).into_iter().chain([steps]) {
            let binds =
                [Bind::Text(&range.first), Bind::Text(&range.last), Bind::Whole(OF_MESSAGE)];
            found.extend(tx.fetch_bound::<FoundRow>(OF_KEYS, &binds).await?);
        }
        let period = erasure.since_ms..=erasure.until_ms;
        found.retain(|row| period.contains(&row.at_ms) && number.is_none_or(|n| row.is_of(n)));
        return Ok(found);
    }
    let (from_ms, from_key) =
        after.map_or((erasure.since_ms, ""), |after| (after.at_ms, after.key.as_str()));
    let mut binds = vec![
        Bind::Text(account_sid),
        Bind::Whole(from_ms),
        Bind::Text(from_key),
        Bind::Whole(erasure.until_ms),
        Bind::Whole(most.into()),
    ];
    let statement = match number {
        None => OF_ACCOUNT,
        Some(NumberQuery { channel: None, number, .. }) => {
            binds.push(Bind::Text(number));
            OF_NUMBER
        }
        Some(NumberQuery { channel: Some(channel), number, .. }) => {
            binds.extend([Bind::Text(number), Bind::Text(channel)]);
            OF_ADDRESS
        }
    };
    tx.fetch_bound(statement, &binds).await
}
