//! Archive format of webhooks outside of the ledger: one JSON line each, many lines in one gzip object, an index of the
//! object in its own gzip header, and a name with the account and the first and last time. This module does not know
//! where objects are stored.
//!
//! The index is a subfield `TE` of the header's `extra` field (RFC 1952, 2.3.1.1), which gzip readers ignore: sorted
//! marks of eight bytes, one for each message and each contact. So one request for the first bytes of an object shows
//! whether a message may be in it, no second object can get lost, and `zcat` prints only lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
};

use flate2::{Compression, GzBuilder, read::MultiGzDecoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    period::{DAY_MS, instant},
    trace::Trace,
    window::rfc3339,
};

/// Maximum number of lines in one object: the marks of their messages and contacts then fit into its header.
pub const MAX_LINES: usize = 4000;

/// Beginning of every key, below the prefix of the bucket.
pub const ROOT: &str = "webhooks";

/// Number of first bytes of an object that always contain its whole index.
pub const INDEX_BYTES: u64 = (HEADER + 2 + u16::MAX as usize) as u64;

/// Maximum number of uncompressed bytes read from one object: four times the largest size that can be configured.
const LARGEST: u64 = 256 << 20;

/// Maximum length of a stored header or URL, in bytes.
const MAX_VALUE_BYTES: usize = 2048;

/// Length of a gzip header up to its `extra` field, in bytes.
const HEADER: usize = 10;

/// Magic and method, and the flag for an `extra` field.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
const HAS_EXTRA: u8 = 4;

/// Id of our subfield, and the length of a subfield's header in bytes.
const OURS: [u8; 2] = *b"TE";
const SUBFIELD: usize = 4;

/// Archived webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedWebhook {
    /// Dedupe key: the `event_id` of its deliveries.
    pub event_id: String,
    /// `inbound` or `status`.
    pub class: String,
    /// Account.
    pub account_sid: String,
    /// Message.
    pub message_sid: String,
    /// Status of a callback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Error code of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Time when it was first received, RFC 3339 in UTC.
    pub received_at: String,
    /// Path of its route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Method, URL and headers of its request.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Signed parameters, exactly as they arrived.
    pub form: String,
    /// Contact it is about; used for the index only.
    #[serde(skip)]
    pub contact: Option<String>,
}

/// Stored part of the request around a form: no signature covers it, and it contains no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// `POST` or `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The public URL, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Headers by name in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl Envelope {
    /// Builds the envelope from the filter's. Its values came with the request and end in files of other parties: a
    /// value that is too long, or not plain ASCII, is omitted.
    pub fn of(envelope: &twilio_edge_contract::Envelope, trace: &Trace) -> Envelope {
        let plain = |value: Option<&str>| {
            let is_plain = |value: &&str| {
                value.len() <= MAX_VALUE_BYTES
                    && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
            };
            value.filter(is_plain).map(str::to_owned)
        };
        let headers = [
            ("content-type", plain(envelope.content_type.as_deref())),
            ("i-twilio-idempotency-token", plain(envelope.idempotency_token.as_deref())),
            ("x-request-id", trace.request_id.clone()),
            ("traceparent", trace.parent.as_ref().map(|parent| parent.as_str().to_owned())),
        ];
        let there = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Envelope {
            method: plain(envelope.method.as_deref()),
            url: plain(envelope.url.as_deref()),
            headers: there.collect(),
        }
    }

    /// Returns the JSON of the column, or `None` if the envelope is empty.
    pub fn text(&self) -> Option<String> {
        let is_there = *self != Envelope::default();
        is_there.then(|| serde_json::to_string(self).ok()).flatten()
    }
}

impl ArchivedWebhook {
    /// Returns the time of arrival in milliseconds since 1970.
    pub fn received_at_ms(&self) -> i64 {
        instant(&self.received_at).unwrap_or_default()
    }
}

/// Name of an object: its account, its first and last time, and its batch. Names sort as their keys do: by account,
/// then by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Account.
    pub account_sid: String,
    /// Arrival of the first webhook, in milliseconds since 1970.
    pub first_ms: i64,
    /// Arrival of the last webhook, in milliseconds since 1970.
    pub last_ms: i64,
    /// Unique id of the batch.
    pub batch_id: String,
}

impl ObjectName {
    /// Returns the key:
    /// `webhooks/account=AC../date=2026-11-23/20261123T122817042Z-20261123T123301950Z-<batch>.ndjson.gz`. Account and
    /// date are partitions as Athena and BigQuery read them.
    pub fn key(&self) -> String {
        let ObjectName { account_sid, first_ms, last_ms, batch_id } = self;
        let (day, first, last) = (date(*first_ms), compact(*first_ms), compact(*last_ms));
        format!("{ROOT}/account={account_sid}/date={day}/{first}-{last}-{batch_id}.ndjson.gz")
    }

    /// Parses a key. Returns `None` if it is not the key of an archive object.
    pub fn parse(key: &str) -> Option<ObjectName> {
        let rest = key.strip_prefix(ROOT)?.strip_prefix("/account=")?;
        let (account_sid, rest) = rest.split_once("/date=")?;
        let (_, rest) = rest.split_once('/')?;
        let mut parts = rest.strip_suffix(".ndjson.gz")?.splitn(3, '-');
        let (first, last, batch_id) = (parts.next()?, parts.next()?, parts.next()?);
        let name = ObjectName {
            account_sid: account_sid.to_owned(),
            first_ms: from_compact(first)?,
            last_ms: from_compact(last)?,
            batch_id: batch_id.to_owned(),
        };
        (name.key() == key).then_some(name)
    }

    /// Returns whether the object may contain a webhook received at `since_ms` or later and before `until_ms`.
    pub fn overlaps(&self, since_ms: i64, until_ms: i64) -> bool {
        self.last_ms >= since_ms && self.first_ms < until_ms
    }
}

/// Page of lines that matched a search.
#[derive(Debug, Clone, Default)]
pub struct ArchivePage {
    /// Lines in the order of arrival, one object after the other.
    pub lines: Vec<ArchivedWebhook>,
    /// Object and line after which the search continues.
    pub place: String,
    /// True if the search is complete.
    pub is_last: bool,
}

/// Returns the folder of an account.
pub fn folder(account_sid: &str) -> String {
    format!("{ROOT}/account={account_sid}")
}

/// Returns the folder of one day of an account. It sorts before all keys of that day and of later days.
pub fn folder_of_day(account_sid: &str, ms: i64) -> String {
    format!("{}/date={}", folder(account_sid), date(ms))
}

/// Returns the start of the UTC day that contains `ms`, and the start of the next one.
pub fn day_of(ms: i64) -> (i64, i64) {
    let start = ms.saturating_sub(ms.rem_euclid(DAY_MS));
    (start, start.saturating_add(DAY_MS))
}

fn date(ms: i64) -> String {
    let text = rfc3339(ms).unwrap_or_default();
    text.split('T').next().unwrap_or_default().to_owned()
}

fn compact(ms: i64) -> String {
    rfc3339(ms).unwrap_or_default().replace(['-', ':', '.'], "")
}

/// Parses `20261123T122817042Z`.
fn from_compact(text: &str) -> Option<i64> {
    let part = |from: usize, to: usize| text.get(from..to);
    let (day, time) = text.split_once('T')?;
    if !(day.len() == 8 && time.len() == 10 && text.is_ascii()) {
        return None;
    }
    let (year, month, of_month) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second, ms) = (part(9, 11)?, part(11, 13)?, part(13, 15)?, part(15, 18)?);
    instant(&format!("{year}-{month}-{of_month}T{hour}:{minute}:{second}.{ms}Z")).ok()
}

/// Index entry of a message or a contact. A collision costs one unnecessary read and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexMark([u8; 8]);

impl IndexMark {
    /// Computes the mark of a message from its SID, or of a contact from their number as the ledger stores it.
    pub fn of(text: &str) -> IndexMark {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        IndexMark([a, b, c, d, e, f, g, h])
    }
}

/// Returns whether an object with these first bytes may contain the marked message or contact. True when it has no
/// index.
pub fn may_contain(start: &[u8], mark: IndexMark) -> bool {
    marks(start).is_none_or(|marks| marks.binary_search(&mark).is_ok())
}

fn marks(start: &[u8]) -> Option<Vec<IndexMark>> {
    let (header, rest) = start.split_at_checked(HEADER)?;
    let flags = header.strip_prefix(&GZIP)?.first()?;
    if flags & HAS_EXTRA == 0 {
        return None;
    }
    let (length, rest) = rest.split_first_chunk()?;
    let mut extra = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
    while let Some((subfield, rest)) = extra.split_first_chunk::<SUBFIELD>() {
        let [one, other, length @ ..] = *subfield;
        let (data, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(length)))?;
        if [one, other] == OURS {
            let (marks, _) = data.as_chunks();
            return Some(marks.iter().copied().map(IndexMark).collect());
        }
        extra = rest;
    }
    None
}

/// Packs at most [`MAX_LINES`] lines into an object. The same lines always give the same bytes.
pub fn pack(lines: &[ArchivedWebhook]) -> std::io::Result<Vec<u8>> {
    let sids = lines.iter().map(|line| line.message_sid.as_str());
    let contacts = lines.iter().filter_map(|line| line.contact.as_deref());
    let marks: BTreeSet<IndexMark> = sids.chain(contacts).map(IndexMark::of).collect();
    let data: Vec<u8> = marks.into_iter().flat_map(|IndexMark(bytes)| bytes).collect();
    let too_many = |_| std::io::Error::other("the object would have too many lines");
    let length = u16::try_from(data.len()).map_err(too_many)?;
    let extra = [&OURS[..], &length.to_le_bytes(), &data].concat();
    let mut gzip = GzBuilder::new().extra(extra).write(Vec::new(), Compression::default());
    for line in lines {
        serde_json::to_writer(&mut gzip, line)?;
        gzip.write_all(b"\n")?;
    }
    gzip.finish()
}

/// Unpacks the lines of an object, also of one packed by another program. The error says what is wrong with it.
pub fn unpack(object: &[u8]) -> Result<Vec<ArchivedWebhook>, String> {
    let text = BufReader::new(MultiGzDecoder::new(object).take(LARGEST));
    let mut lines = Vec::new();
    for (nth, line) in text.lines().enumerate() {
        let line =
            line.map_err(|error| format!("the object is not a complete gzip file: {error}"))?;
        let read = serde_json::from_str(&line);
        lines.push(read.map_err(|_| format!("line {} is not a webhook", nth + 1))?);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(sid: &str, contact: Option<&str>) -> ArchivedWebhook {
        ArchivedWebhook {
            event_id: format!("inbound:AC1:{sid}"),
            class: "inbound".into(),
            account_sid: "AC1".into(),
            message_sid: sid.into(),
            status: None,
            error_code: None,
            received_at: "2026-11-23T12:28:17.042Z".into(),
            route: Some("/in".into()),
            envelope: Envelope {
                method: Some("POST".into()),
                url: Some("https://hooks.example.com/in".into()),
                headers: [("content-type".to_owned(), "text/plain".to_owned())].into(),
            },
            form: "Body=caf%C3%A9&Body=%22%0A%22".into(),
            contact: contact.map(str::to_owned),
        }
    }

    #[test]
    fn object_name_round_trips_and_sorts_by_time() {
        let first_ms = 1_795_436_897_042; // 2026-11-23T12:28:17.042Z
        let name = ObjectName {
            account_sid: "AC1".into(),
            first_ms,
            last_ms: first_ms + 284_908,
            batch_id: "0f3a".into(),
        };
        let key = "webhooks/account=AC1/date=2026-11-23/20261123T122817042Z-20261123T123301950Z-0f3a.ndjson.gz";
        assert_eq!(name.key(), key);
        assert_eq!(ObjectName::parse(key), Some(name.clone()));
        assert!(key > folder_of_day("AC1", first_ms).as_str());
        let later =
            ObjectName { first_ms: first_ms + DAY_MS, last_ms: first_ms + DAY_MS, ..name.clone() };
        assert!(later.key() > name.key() && later > name);
        assert!(name.overlaps(name.last_ms, i64::MAX) && name.overlaps(0, first_ms + 1));
        assert!(!name.overlaps(name.last_ms + 1, i64::MAX) && !name.overlaps(0, first_ms));
        assert_eq!(day_of(first_ms), day_of(first_ms + 1000));
        for other in
            ["", "webhooks/account=AC1/date=2026-11-23/x.ndjson.gz", &key.replace("23/", "24/")]
        {
            assert_eq!(ObjectName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn object_index_lists_its_messages_and_contacts() {
        let lines = [line("SM1", Some("+14155550123")), line("SM2", None), line("SM1", None)];
        let object = pack(&lines).unwrap();
        assert_eq!(object, pack(&lines).unwrap());
        let start = &object[..object.len().min(INDEX_BYTES as usize)];
        for (text, there) in [("SM1", true), ("SM2", true), ("+14155550123", true), ("SM3", false)]
        {
            assert_eq!(may_contain(start, IndexMark::of(text)), there, "{text}");
        }
        let read = unpack(&object).unwrap();
        assert_eq!(read[1], line("SM2", None));
        assert_eq!(read[0].received_at_ms(), 1_795_436_897_042);
        assert!(may_contain(b"not gzip", IndexMark::of("SM3")), "what has no index is looked into");
        assert!(unpack(b"not gzip").is_err());
        assert!(unpack(&object[..object.len() - 9]).is_err(), "half an object is no shorter one");
    }

    #[test]
    fn largest_object_has_an_index() {
        let lines: Vec<ArchivedWebhook> = (0..MAX_LINES)
            .map(|nth| line(&format!("SM{nth}"), Some(&format!("+1{nth}"))))
            .collect();
        let object = pack(&lines).unwrap();
        let start = &object[..INDEX_BYTES as usize];
        assert!(lines.iter().all(|line| may_contain(start, IndexMark::of(&line.message_sid))));
        assert!(!may_contain(start, IndexMark::of("SMx")));
    }

    proptest! {
        #[test]
        fn object_of_any_bytes_is_read_without_panic(bytes in any::<Vec<u8>>()) {
            let _ = unpack(&bytes);
            let _ = marks(&[&GZIP[..], &[HAS_EXTRA, 0, 0, 0, 0, 0, 0], &bytes].concat());
        }
    }
}
