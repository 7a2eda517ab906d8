//! What somebody asked to have taken out of the ledger at once, all of it: a message, a time, everything of a person. What
//! keeps a promise stays: that they are not written to again, and that no copy of a webhook is taken for a new one.

use serde::Serialize;
use sqlx::FromRow;

use super::{
    archiving::ADD_ERASURE,
    contacts,
    histories::Range,
    retention::{FoundRow, OF_ACCOUNT, Sweeper, forward, found},
};
use crate::api_keys::AuditEntry;
use crate::{
    database::{Bind, Durability, Transaction},
    error::StoreError,
};
use twilio_edge_domain::sweep_counts::Swept;
use twilio_edge_domain::{
    message::Number,
    part::Part,
    redaction::{Means, Plan},
};

/// Webhooks of one message, at most.
const OF_MESSAGE: i64 = 1000;

/// And `$6` the number.
pub(super) const OF_NUMBER: &str = forward!("theirs = $6 AND ");
/// And `$7` its channel.
pub(super) const OF_ADDRESS: &str = forward!("theirs = $6 AND channel = $7 AND ");
/// `$1` the first key, `$2` the last, `$3` how many.
pub(super) const OF_KEYS: &str =
    found!("dedupe_key BETWEEN $1 AND $2 ORDER BY dedupe_key LIMIT $3");

/// What somebody asked to have taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// The account, whose they all are.
    pub account_sid: String,
    /// Only of this message.
    pub message_sid: Option<String>,
    /// Only of this person.
    pub number: Option<Number>,
    /// Only what was heard then or later, in milliseconds since 1970.
    pub since_ms: i64,
    /// Only what was heard then or before, in milliseconds since 1970.
    pub until_ms: i64,
    /// Take out what was written, and leave who wrote it to whom.
    pub text_only: bool,
    /// Only count.
    pub dry_run: bool,
    /// Delete what no copy can come of any more.
    pub delete: bool,
}

/// How far an [`Erasure`] has got: after this row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// When it was heard, in milliseconds since 1970.
    pub at_ms: i64,
    key: String,
}

/// What is asked for of messages that are to be sent: `$4` its id or SID, `$5` the person and `$6` the channel, each empty if any.
macro_rules! sends_of {
    () => {
        "account_sid = $1 AND (form <> '' OR fallback <> '') AND created_at_ms >= $2 AND created_at_ms <= $3 \
         AND ($4 = '' OR id = $4 OR message_sid = $4) AND ($5 = '' OR recipient = $5 OR fallback_to = $5) AND ($6 = '' OR channel = $6)"
    };
}

const COUNT_SENDS: &str = concat!("SELECT count(*) AS found FROM sends WHERE ", sends_of!());

/// What waits is not sent; what is on its way or unknown stays so, for its answer or its status to tell.
const ERASE_SENDS: &str = concat!(
    "UPDATE sends SET fallback = '', fallback_to = '', form = '', look_at_ms = 0, \
     recipient = CASE WHEN form = '' THEN recipient ELSE channel || ':..' || substr(recipient, length(recipient) - 1) END, \
     code = CASE WHEN state = 'queued' THEN 'erased' ELSE code END, \
     reason = CASE WHEN state = 'queued' THEN 'what it says was taken out' ELSE reason END, \
     state = CASE WHEN state = 'queued' THEN 'refused' ELSE state END, changed_at_ms = $7 WHERE ",
    sends_of!()
);

/// In which messages a medium is that are asked for, as in `sends_of!`.
macro_rules! uses_of {
    () => {
        "u.account_sid = $1 AND u.at_ms >= $2 AND u.at_ms <= $3 \
         AND ($4 = '' OR u.send_id = $4 OR u.send_id IN (SELECT id FROM sends WHERE message_sid = $4 AND message_sid <> '')) \
         AND ($5 = '' OR u.recipient = $5) AND ($6 = '' OR u.channel = $6)"
    };
}

/// Media that came in that time, where nobody is named; otherwise those that are in the messages and in no others.
macro_rules! media_of {
    () => {
        concat!(
            "account_sid = $1 AND expires_at_ms > 0 AND (($4 = '' AND $5 = '' AND created_at_ms >= $2 AND created_at_ms <= $3) \
             OR (($4 <> '' OR $5 <> '') AND EXISTS (SELECT 1 FROM media_uses u WHERE u.media_id = media.id AND ",
            uses_of!(),
            ") AND NOT EXISTS (SELECT 1 FROM media_uses u WHERE u.media_id = media.id AND NOT (",
            uses_of!(),
            "))))"
        )
    };
}

const COUNT_MEDIA: &str = concat!("SELECT count(*) AS found FROM media WHERE ", media_of!());

/// Shown to nobody from now on; the bytes are deleted by who keeps the bucket.
const ERASE_MEDIA: &str = concat!("UPDATE media SET expires_at_ms = 0 WHERE ", media_of!());

/// And to whom the others went.
const ERASE_USES: &str = concat!(
    "DELETE FROM media_uses WHERE (media_id, send_id) IN (SELECT u.media_id, u.send_id FROM media_uses u WHERE ",
    uses_of!(),
    ")"
);

#[derive(Debug, FromRow)]
struct Counted {
    found: i64,
}

#[derive(Debug, Serialize)]
struct Key<'a> {
    dedupe_key: &'a str,
}

#[derive(Debug, Serialize)]
struct Withdrawn {
    dedupe_key: String,
    now_ms: i64,
}

impl Sweeper {
    /// Takes everything out of the next rows of what was asked for, and deletes those no copy can come of any more where
    /// that was asked for. With the first step the entry in the audit. Where to go on, if there is more.
    pub async fn erase(
        &self,
        erasure: &Erasure,
        after: Option<&Reached>,
        entry: Option<&AuditEntry>,
        most: u32,
        now_ms: i64,
    ) -> Result<(Swept, Option<Reached>), StoreError> {
        self.bounded(async {
            let statements = self.database.statements();
            let mut tx = self.database.begin(Durability::Power).await?;
            // Whoever asks by one spelling, or by one of two ids, means the person.
            let numbers = numbers(&mut tx, erasure).await?;
            let found = find_each(&mut tx, erasure, &numbers, after, most).await?;
            // A message is done in one step: it has a handful of webhooks.
            let more = erasure.message_sid.is_none()
                && found.len() >= usize::try_from(most).unwrap_or(usize::MAX);
            let reached = found.last().filter(|_| more);
            let reached =
                reached.map(|last| Reached { at_ms: last.at_ms, key: last.dedupe_key.clone() });
            let mut swept =
                Swept { found: found.len(), more: reached.is_some(), ..Swept::default() };
            // A courier that has one of these in its hands brings it to an end; all others are withdrawn.
            let mut owed: Vec<Withdrawn> = found
                .iter()
                .filter(|row| row.owed && !erasure.text_only)
                .map(|row| Withdrawn { dedupe_key: row.dedupe_key.clone(), now_ms })
                .collect();
            owed.sort_unstable_by(|a, b| a.dedupe_key.cmp(&b.dedupe_key));
            let is_over = |row: &FoundRow| row.last_ms <= now_ms.saturating_sub(self.result_ms);
            let (gone, rest): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|row| erasure.delete && is_over(row));
            swept.deleted = gone.len();
            let plan = if erasure.text_only { texts() } else { everything() };
            let rows = self.plan(rest, &plan, None, now_ms, &mut swept);
            // All of them at once, with the first step.
            if after.is_none() {
                let mut sends = 0;
                for number in &numbers {
                    sends += of_sends(&mut tx, erasure, number.as_ref(), now_ms).await?;
                }
                (swept.found, swept.rows) = (swept.found + sends, swept.rows + sends);
            }
            if erasure.dry_run {
                return Ok((swept, reached));
            }
            let mut gone: Vec<Key<'_>> =
                gone.iter().map(|row| Key { dedupe_key: &row.dedupe_key }).collect();
            gone.sort_unstable_by_key(|key| key.dedupe_key);
            tx.execute(statements.retention.delete_events, &gone).await?;
            tx.execute(statements.retention.redact_events, &rows).await?;
            tx.execute(statements.outbox.withdraw, &owed).await?;
            tx.execute(statements.retention.unqueue, &owed).await?;
            if after.is_none() {
                for number in &numbers {
                    of_archive(&mut tx, erasure, number.as_ref(), now_ms).await?;
                }
            }
            // The last step: those before it find the person by their links.
            if reached.is_none() && erasure.is_of_whole_person() {
                for number in numbers.iter().flatten() {
                    contacts::forget(&mut tx, &erasure.account_sid, &number.number).await?;
                }
            }
            if let Some(entry) = entry {
                tx.execute(statements.register.add_entry, std::slice::from_ref(entry)).await?;
            }
            tx.commit().await?;
            Ok((swept, reached))
        })
        .await
    }
}

impl Erasure {
    /// Whether everything of a person is asked for, and not only some of it.
    fn is_of_whole_person(&self) -> bool {
        self.number.is_some() && self.message_sid.is_none() && self.until_ms == i64::MAX
    }
}

/// The numbers that are asked for: every spelling and user id that is the person's for certain; one `None` if nobody is named.
async fn numbers(
    tx: &mut Transaction,
    erasure: &Erasure,
) -> Result<Vec<Option<Number>>, StoreError> {
    let Some(Number { channel, number, .. }) = &erasure.number else { return Ok(vec![None]) };
    let keys = contacts::keys(tx, &erasure.account_sid, number).await?;
    let named = |number: &str| {
        Some(Number { channel: channel.clone(), number: number.to_owned(), also: Vec::new() })
    };
    Ok(keys.sure().into_iter().map(named).collect())
}

/// The next rows of all these numbers, in their order.
async fn find_each(
    tx: &mut Transaction,
    erasure: &Erasure,
    numbers: &[Option<Number>],
    after: Option<&Reached>,
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

/// Has it taken out of the archive as well, all of it, by whoever works on that.
async fn of_archive(
    tx: &mut Transaction,
    erasure: &Erasure,
    number: Option<&Number>,
    now_ms: i64,
) -> Result<(), StoreError> {
    let dice = getrandom::u64()
        .map_err(|_| StoreError::Away("the system has no randomness for an id".to_owned()))?;
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

/// Takes out what messages say that are not sent yet, and media that were given to be sent; how many these are.
async fn of_sends(
    tx: &mut Transaction,
    erasure: &Erasure,
    number: Option<&Number>,
    now_ms: i64,
) -> Result<usize, StoreError> {
    let channel = number.and_then(|number| number.channel.as_deref());
    let mut binds = vec![
        Bind::Text(&erasure.account_sid),
        Bind::Whole(erasure.since_ms),
        Bind::Whole(erasure.until_ms),
        Bind::Text(erasure.message_sid.as_deref().unwrap_or_default()),
        Bind::Text(number.map_or("", |number| &number.number)),
        Bind::Text(channel.unwrap_or_default()),
    ];
    if erasure.dry_run {
        let mut found = 0;
        for statement in [COUNT_SENDS, COUNT_MEDIA] {
            let counted: Vec<Counted> = tx.fetch_bound(statement, &binds).await?;
            found += counted.first().map_or(0, |counted| counted.found);
        }
        return Ok(usize::try_from(found).unwrap_or_default());
    }
    let asked = binds.clone();
    binds.push(Bind::Whole(now_ms));
    let rows = tx.execute_bound(ERASE_SENDS, &binds).await?;
    // After these, as whoever writes messages does.
    let media = tx.execute_bound(ERASE_MEDIA, &asked).await?;
    tx.execute_bound(ERASE_USES, &asked).await?;
    Ok(usize::try_from(media + rows).unwrap_or(usize::MAX))
}

/// Everything, and nothing of it left to recognize.
fn everything() -> Plan {
    let mut plan = Plan::default();
    Part::ALL.into_iter().for_each(|part| plan.add(part, Means::Remove));
    plan
}

/// What was written, as Twilio's redaction of a message has it.
fn texts() -> Plan {
    let mut plan = Plan::default();
    plan.add(Part::Body, Means::Remove);
    plan
}

async fn find(
    tx: &mut Transaction,
    erasure: &Erasure,
    number: Option<&Number>,
    after: Option<&Reached>,
    most: u32,
) -> Result<Vec<FoundRow>, StoreError> {
    let account_sid = erasure.account_sid.as_str();
    if let Some(message_sid) = &erasure.message_sid {
        let mut found = Vec::new();
        // What has the key's own separator in it is nobody's id, and must not reach into another's range.
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
        Some(Number { channel: None, number, .. }) => {
            binds.push(Bind::Text(number));
            OF_NUMBER
        }
        Some(Number { channel: Some(channel), number, .. }) => {
            binds.extend([Bind::Text(number), Bind::Text(channel)]);
            OF_ADDRESS
        }
    };
    tx.fetch_bound(statement, &binds).await
}
