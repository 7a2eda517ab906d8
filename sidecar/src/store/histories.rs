//! What the ledger tells of messages: one, or those of an account by number, time and status, page by page, the latest
//! first. Reads only, and beside a running sidecar. An index leads to the webhooks of a person, of one of our numbers or
//! of an account; whether a message is what was asked for is decided on the message, all of whose webhooks are one range of the
//! ledger's key. Every question is about one account, and no answer has anything of another.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;
use sqlx::FromRow;

use super::{
    consents::ConsentRow,
    reader::Reader,
    sql::{StoreError, heard_columns},
    suppressions::{SuppressionRow, people},
};
use crate::{
    config,
    domain::{
        address::Address,
        consent::Consent,
        cursor::Cursor,
        message::{Direction, Heard, Message, Number},
        phone,
        suppression::Suppression,
        window::Window,
    },
};

/// Webhooks read at a time.
const STEP: usize = 200;

/// Webhooks looked at for one page: a status that is rare must not make one question read a whole ledger.
const LOOKED_AT: usize = 10_000;

/// The migration that made what is asked for here.
const NEEDED: i64 = 4;

const MIGRATE: &str =
    "to tell: its tables are not up to date; run `twilio-edge migrate`, or start a sidecar on it";

/// The ledger, open for questions; each is given up after a time.
#[derive(Debug, Clone)]
pub struct Histories {
    reader: Reader,
    timeout: Duration,
}

/// Which messages or webhooks are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// The account, whose they all are.
    pub account_sid: String,
    /// Who sent the message.
    pub from: Option<Number>,
    /// Who it was sent to.
    pub to: Option<Number>,
    /// Either of the two.
    pub number: Option<Number>,
    /// Not heard of before, in milliseconds since 1970.
    pub since_ms: i64,
    /// Heard of before, in milliseconds since 1970.
    pub until_ms: i64,
    /// Where a message has got to; of a webhook, what it says.
    pub status: Option<String>,
    /// Messages that came, or those we sent.
    pub direction: Option<Direction>,
    /// Webhooks of this message only.
    pub message_sid: Option<String>,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

/// Everything heard of some messages, by message.
type Stories = BTreeMap<String, Vec<Heard>>;

/// Whose windows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowSearch {
    /// The account, whose they all are.
    pub account_sid: String,
    /// Who wrote.
    pub person: Number,
    /// Whom they wrote to: one of our numbers or senders.
    pub sender: Option<Number>,
    /// Their last message came after this, in milliseconds since 1970.
    pub after_ms: i64,
    /// And then or before.
    pub until_ms: i64,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

/// Some of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The latest first. May be fewer than asked for, though there are more.
    pub found: Vec<T>,
    /// Where to go on; none when there is no more.
    pub next: Option<Cursor>,
}

impl Histories {
    /// Opens the ledger for reading: changes nothing, and does not mind the sidecar that has it.
    pub async fn open(settings: &config::Database) -> Result<Histories, StoreError> {
        let reader = Reader::open(settings).await?;
        let timeout = Duration::from_millis(settings.read_timeout_ms);
        match reader.migrated(NEEDED).await {
            Ok(true) => Ok(Histories { reader, timeout }),
            Ok(false) => Err(StoreError::Refused(MIGRATE.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Ends its connections.
    pub async fn close(&self) {
        self.reader.close().await;
    }

    /// One message of an account.
    pub async fn message(
        &self,
        account_sid: &str,
        message_sid: &str,
    ) -> Result<Option<Message>, StoreError> {
        let found = self.bounded(self.read_all(account_sid, [message_sid].into())).await;
        Ok(found?.remove(message_sid).and_then(Message::of))
    }

    /// Messages, by when they were first heard of.
    pub async fn messages(&self, search: &Search) -> Result<Page<Message>, StoreError> {
        self.bounded(self.page(search, true, Search::message_at)).await
    }

    /// Webhooks, by when they were heard.
    pub async fn events(&self, search: &Search) -> Result<Page<Heard>, StoreError> {
        match &search.message_sid {
            Some(message_sid) => self.bounded(self.events_of(search, message_sid)).await,
            None => self.bounded(self.page(search, false, Search::event_at)).await,
        }
    }

    /// One webhook, by what makes it this one and no other; of an account, if that is said.
    pub async fn event(
        &self,
        account_sid: Option<&str>,
        key: &str,
    ) -> Result<Option<Heard>, StoreError> {
        let rows = self.bounded(self.reader.histories(&[Range::just(key)])).await?;
        let theirs = |heard: &Heard| account_sid.is_none_or(|own| own == heard.account_sid);
        Ok(rows.into_iter().map(HeardRow::read).find(theirs))
    }

    /// Why a number must not be written to, or must not have been, on every channel.
    pub async fn suppressions(
        &self,
        account_sid: &str,
        number: &str,
    ) -> Result<Vec<Suppression>, StoreError> {
        let spellings = phone::spellings(number);
        let numbers: Vec<&str> = spellings.iter().map(AsRef::as_ref).collect();
        let asked = people(account_sid, &numbers);
        let found = self.reader.found(|all| all.suppressions.of_people, &asked);
        let rows: Vec<SuppressionRow> = self.bounded(found).await?;
        Ok(rows.into_iter().map(Suppression::from).collect())
    }

    /// What a person agreed to and took back, on every channel.
    pub async fn consents(
        &self,
        account_sid: &str,
        number: &str,
    ) -> Result<Vec<Consent>, StoreError> {
        let spellings = phone::spellings(number);
        let numbers: Vec<&str> = spellings.iter().map(AsRef::as_ref).collect();
        let asked = people(account_sid, &numbers);
        let found = self.reader.found(|all| all.consents.of_people, &asked);
        let rows: Vec<ConsentRow> = self.bounded(found).await?;
        Ok(rows.into_iter().map(Consent::from).collect())
    }

    /// The windows of a person, by our number.
    pub async fn windows(&self, search: &WindowSearch) -> Result<Page<Window>, StoreError> {
        let (after_ours, after_channel) = match &search.after {
            Some(Cursor::Pair { ours, channel }) => (ours.as_str(), channel.as_str()),
            _ => ("", ""),
        };
        let sender = search.sender.as_ref();
        let channel = search.person.channel.as_deref();
        let pairs = Pairs {
            theirs: &search.person.number,
            account_sid: &search.account_sid,
            after_ours,
            after_channel,
            // One more tells whether there is a next page.
            limit: i64::try_from(search.limit).unwrap_or(i64::MAX).saturating_add(1),
            ours: sender.map(|sender| sender.number.as_str()),
            channel: channel.or(sender.and_then(|sender| sender.channel.as_deref())),
            after_ms: search.after_ms,
            until_ms: search.until_ms,
        };
        let rows = self.bounded(self.reader.windows(&pairs)).await?;
        let more = rows.len() > search.limit;
        let found: Vec<Window> = rows.into_iter().take(search.limit).map(WindowRow::read).collect();
        let end = |window: &Window| Cursor::Pair {
            ours: window.ours.clone(),
            channel: window.theirs.channel.clone(),
        };
        Ok(Page { next: found.last().filter(|_| more).map(end), found })
    }

    async fn bounded<T>(
        &self,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, question).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.timeout))),
        }
    }

    /// The webhooks of one message, which are few.
    async fn events_of(
        &self,
        search: &Search,
        message_sid: &str,
    ) -> Result<Page<Heard>, StoreError> {
        let mut told = self.read_all(&search.account_sid, [message_sid].into()).await?;
        let mut told = told.remove(message_sid).unwrap_or_default();
        told.sort_by(|a, b| (b.heard_ms, &b.key).cmp(&(a.heard_ms, &a.key)));
        let (from_ms, from_key) = match &search.after {
            Some(Cursor::Event { heard_ms, key }) => (*heard_ms, key.as_str()),
            _ => (search.until_ms, ""),
        };
        let is_next = |heard: &Heard| {
            heard.heard_ms >= search.since_ms
                && (heard.heard_ms, heard.key.as_str()) < (from_ms, from_key)
        };
        let mut found: Vec<Heard> =
            told.into_iter().filter(is_next).filter_map(|heard| search.listed(heard)).collect();
        let more = found.len() > search.limit;
        found.truncate(search.limit);
        Ok(Page { next: found.last().filter(|_| more).map(place), found })
    }

    /// Walks step by step until a page is full; `list` makes of each webhook what is listed in its place, if anything,
    /// of the stories of the step's messages where these are `told`.
    async fn page<T>(
        &self,
        search: &Search,
        told: bool,
        list: fn(&Search, Heard, &mut Stories) -> Option<T>,
    ) -> Result<Page<T>, StoreError> {
        let start = || Cursor::Event { heard_ms: search.until_ms, key: String::new() };
        let mut page =
            Page { found: Vec::new(), next: Some(search.after.clone().unwrap_or_else(start)) };
        let mut looked_at = 0;
        while let Some(from) = page.next.take() {
            let step = self.walk(search, &from).await?;
            let places: Vec<Cursor> = step.iter().map(place).collect();
            looked_at += places.len();
            let is_last = places.len() < STEP;
            let sids = step.iter().filter(|_| told).map(|heard| heard.message_sid.as_str());
            let mut stories = self.read_all(&search.account_sid, sids.collect()).await?;
            for (place, heard) in places.into_iter().zip(step) {
                if page.found.len() >= search.limit {
                    return Ok(page);
                }
                page.next = Some(place);
                page.found.extend(list(search, heard, &mut stories));
            }
            if is_last {
                page.next = None;
            }
            if looked_at >= LOOKED_AT || page.found.len() >= search.limit {
                break;
            }
        }
        Ok(page)
    }

    /// Webhooks that may be what is asked for, from a place on.
    async fn walk(&self, search: &Search, from: &Cursor) -> Result<Vec<Heard>, StoreError> {
        let number = [&search.to, &search.from, &search.number].into_iter().flatten().next();
        let Cursor::Event { heard_ms, key } = from else { return Ok(Vec::new()) };
        let walk = Walk {
            account_sid: &search.account_sid,
            since_ms: search.since_ms,
            before_ms: *heard_ms,
            before_key: key,
            limit: i64::try_from(STEP).unwrap_or(i64::MAX),
            number: number.map(|number| number.number.as_str()),
        };
        let rows: Vec<HeardRow> = self.reader.walk(&walk).await?;
        Ok(rows.into_iter().map(HeardRow::read).collect())
    }

    /// Everything heard of these messages.
    async fn read_all(
        &self,
        account_sid: &str,
        message_sids: BTreeSet<&str>,
    ) -> Result<Stories, StoreError> {
        // What has the key's own separator in it is nobody's id, and must not reach into another's range; nor is NUL,
        // which PostgreSQL does not take.
        let strange = |sid: &str| sid.contains([':', '\0']);
        let sids = message_sids.into_iter().filter(|sid| !strange(sid));
        let ranges: Vec<Range> = match strange(account_sid) {
            true => Vec::new(),
            false => sids.flat_map(|sid| Range::of(account_sid, sid)).collect(),
        };
        if ranges.is_empty() {
            return Ok(Stories::new());
        }
        let rows: Vec<HeardRow> = self.reader.histories(&ranges).await?;
        let mut found = Stories::new();
        for row in rows {
            let heard = row.read();
            found.entry(heard.message_sid.clone()).or_default().push(heard);
        }
        Ok(found)
    }
}

fn place(heard: &Heard) -> Cursor {
    Cursor::Event { heard_ms: heard.heard_ms, key: heard.key.clone() }
}

impl Search {
    /// Everything of an account.
    pub fn of(account_sid: &str, limit: usize) -> Search {
        Search {
            account_sid: account_sid.to_owned(),
            from: None,
            to: None,
            number: None,
            since_ms: i64::MIN,
            until_ms: i64::MAX,
            status: None,
            direction: None,
            message_sid: None,
            after: None,
            limit,
        }
    }

    fn is_about(&self, heard: &Heard) -> bool {
        self.direction.is_none_or(|direction| direction == heard.direction)
            && heard.goes(self.from.as_ref(), self.to.as_ref())
            && self.number.as_ref().is_none_or(|number| heard.concerns(number))
    }

    /// The earliest of a message's webhooks that a walk comes by.
    fn first_of<'a>(&self, story: &'a [Heard]) -> Option<&'a String> {
        let about = story.iter().filter(|heard| heard.route.is_some() && self.is_about(heard));
        about.map(|heard| (heard.heard_ms, &heard.key)).min().map(|(_, key)| key)
    }

    /// The message whose first webhook this is: it is listed there, and not at each of them.
    fn message_at(&self, heard: Heard, stories: &mut Stories) -> Option<Message> {
        let story = stories.get(&heard.message_sid)?;
        let is_first = self.first_of(story) == Some(&heard.key);
        let story = is_first.then(|| stories.remove(&heard.message_sid)).flatten()?;
        Message::of(story).filter(|message| self.wants(&message.status))
    }

    fn event_at(&self, heard: Heard, _: &mut Stories) -> Option<Heard> {
        self.listed(heard)
    }

    fn listed(&self, heard: Heard) -> Option<Heard> {
        Some(heard).filter(|heard| self.is_about(heard) && self.wants(&heard.status))
    }

    fn wants(&self, status: &str) -> bool {
        self.status.as_ref().is_none_or(|wanted| wanted == status)
    }
}

/// One step through an index, as both databases bind it.
pub(super) struct Walk<'a> {
    pub(super) account_sid: &'a str,
    pub(super) since_ms: i64,
    pub(super) before_ms: i64,
    pub(super) before_key: &'a str,
    pub(super) limit: i64,
    pub(super) number: Option<&'a str>,
}

/// `$1` account, `$2` since, `$3` and `$4` the place to go on from, `$5` how many. The same in both databases.
macro_rules! walk {
    ($which:literal) => {
        concat!(
            "SELECT ",
            heard_columns!(),
            " FROM events WHERE ",
            $which,
            " AND account_sid = $1 AND received_at_ms >= $2 AND received_at_ms <= $3 \
             AND (received_at_ms < $3 OR dedupe_key < $4) \
             ORDER BY received_at_ms DESC, dedupe_key DESC LIMIT $5"
        )
    };
}

/// Of an account.
pub(super) const WALK: &str = walk!("received_at_ms IS NOT NULL");

/// Of a number `$6`, theirs or ours.
pub(super) const WALK_NUMBER: &str = concat!(
    "SELECT * FROM (SELECT * FROM (",
    walk!("theirs = $6"),
    ") AS of_theirs UNION ALL SELECT * FROM (",
    walk!("ours = $6 AND (theirs IS NULL OR theirs <> $6)"),
    ") AS of_ours) AS both_ends ORDER BY heard_ms DESC, dedupe_key DESC LIMIT $5"
);

/// Whose last messages, as both databases bind it.
pub(super) struct Pairs<'a> {
    pub(super) theirs: &'a str,
    pub(super) account_sid: &'a str,
    pub(super) after_ours: &'a str,
    pub(super) after_channel: &'a str,
    pub(super) limit: i64,
    pub(super) ours: Option<&'a str>,
    pub(super) channel: Option<&'a str>,
    pub(super) after_ms: i64,
    pub(super) until_ms: i64,
}

/// The last message of a person `$1` to each of our numbers: one range of the index that has nothing else. Both
/// databases have to be told the type of what may be NULL.
pub(super) const WINDOWS: &str = "
    SELECT channel, theirs, ours, max(received_at_ms) AS last_inbound_ms FROM events
    WHERE class = 'inbound' AND theirs = $1 AND account_sid = $2 AND received_at_ms IS NOT NULL
        AND (ours, channel) > ($3, $4)
        AND (CAST($6 AS TEXT) IS NULL OR ours = $6) AND (CAST($7 AS TEXT) IS NULL OR channel = $7)
    GROUP BY theirs, ours, channel
    HAVING max(received_at_ms) > $8 AND max(received_at_ms) <= $9
    ORDER BY ours, channel LIMIT $5";

#[derive(Debug, FromRow)]
pub(super) struct WindowRow {
    channel: String,
    theirs: String,
    ours: String,
    last_inbound_ms: i64,
}

impl WindowRow {
    fn read(self) -> Window {
        let WindowRow { channel, theirs, ours, last_inbound_ms } = self;
        Window { theirs: Address { channel, number: theirs }, ours, last_inbound_ms }
    }
}

/// Keys, from the first to the last.
#[derive(Debug, Serialize)]
pub(super) struct Range {
    pub(super) first: String,
    pub(super) last: String,
}

impl Range {
    fn just(key: &str) -> Range {
        Range { first: key.to_owned(), last: key.to_owned() }
    }

    /// All keys a message can have (`Identity::dedupe_key`). `;` comes right after `:`.
    pub(super) fn of(account_sid: &str, message_sid: &str) -> [Range; 2] {
        let inbound = format!("inbound:{account_sid}:{message_sid}");
        let status = format!("status:{account_sid}:{message_sid}");
        [
            Range { first: inbound.clone(), last: inbound },
            Range { first: format!("{status}:"), last: format!("{status};") },
        ]
    }
}

#[derive(Debug, FromRow)]
pub(super) struct HeardRow {
    dedupe_key: String,
    class: String,
    account_sid: String,
    message_sid: String,
    status: Option<String>,
    error_code: Option<String>,
    route: Option<String>,
    form: Option<String>,
    channel: Option<String>,
    theirs: Option<String>,
    ours: Option<String>,
    heard_ms: i64,
    attempts: i64,
    outcome: Option<String>,
    settled_at_ms: Option<i64>,
}

impl HeardRow {
    fn read(self) -> Heard {
        let (direction, default) = match self.class.as_str() {
            "inbound" => (Direction::Inbound, "received"),
            _ => (Direction::Outbound, "unknown"),
        };
        let theirs = self.channel.zip(self.theirs);
        Heard {
            key: self.dedupe_key,
            direction,
            account_sid: self.account_sid,
            message_sid: self.message_sid,
            status: self.status.unwrap_or_else(|| default.to_owned()),
            error_code: self.error_code,
            route: self.route,
            form: self.form,
            theirs: theirs.map(|(channel, number)| Address { channel, number }),
            ours: self.ours.filter(|ours| !ours.is_empty()),
            heard_ms: self.heard_ms,
            attempts: self.attempts,
            outcome: self.outcome,
            settled_ms: self.settled_at_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::store::sqlite;

    /// A server answers on whichever thread is free.
    #[expect(dead_code, reason = "it only has to compile")]
    fn questions_may_change_threads(histories: &Histories, search: &Search) {
        fn may_change_threads(_: impl Send) {}
        may_change_threads(histories.message("AC1", "SM1"));
        may_change_threads(histories.messages(search));
        may_change_threads(histories.events(search));
    }

    #[tokio::test]
    async fn sqlite_finds_everything_by_an_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        for (statement, index) in [
            (WALK, "events_account (account_sid=? AND received_at_ms>? AND received_at_ms<?)"),
            (WALK_NUMBER, "events_theirs (theirs=? AND received_at_ms>? AND received_at_ms<?)"),
            (WALK_NUMBER, "events_ours (ours=? AND received_at_ms>? AND received_at_ms<?)"),
            (WINDOWS, "USING COVERING INDEX events_pair (theirs=? AND ours>?)"),
            (sqlite::STATEMENTS.histories, "(dedupe_key>? AND dedupe_key<?)"),
            (
                sqlite::STATEMENTS.last_inbound,
                "events_pair (theirs=? AND ours=? AND account_sid=? AND channel=?)",
            ),
        ] {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(plan).fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = plan.into_iter().map(|(.., detail)| detail).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{index}: {plan:#?}");
            assert!(!plan.iter().any(|step| step.contains("SCAN events")), "{plan:#?}");
        }
    }
}
