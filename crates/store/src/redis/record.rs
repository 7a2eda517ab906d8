//! Codec of webhook records in Redis: a JSON list, `[[1,1764,1791],{"h":["c1",1771]},[]]`, because field names would be
//! most of its size. A text that cannot be decoded is of another version and counts as no record: the ledger is asked
//! anyway. This module must not know Redis.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use twilio_edge_domain::lease::{ClaimEnd, Lease, LeaseRecord, LeaseState};

/// The lease's attempt, the time of its first arrival and the time at which it is forgotten; its hold; the ends of its
/// claims.
#[derive(Serialize, Deserialize)]
struct RecordText<'a>(
    Option<(u32, i64, i64)>,
    #[serde(borrow)] HolderText<'a>,
    #[serde(borrow)] Vec<EndText<'a>>,
);

/// Encoded [`LeaseState`].
#[derive(Serialize, Deserialize)]
enum HolderText<'a> {
    /// HolderText by no claim.
    #[serde(rename = "f")]
    Free,
    /// HolderText by a claim, until a time.
    #[serde(rename = "h")]
    By(#[serde(borrow)] Cow<'a, str>, i64),
    /// Completed by a claim, with a response.
    #[serde(rename = "d")]
    Done(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Option<Cow<'a, str>>),
}

#[derive(Serialize, Deserialize)]
struct EndText<'a>(#[serde(borrow)] Cow<'a, str>, EndKind);

/// Encoded [`ClaimEnd`].
#[derive(Serialize, Deserialize)]
enum EndKind {
    #[serde(rename = "f")]
    Freed,
    #[serde(rename = "t")]
    Tombstone,
    #[serde(rename = "s")]
    Superseded,
}

/// Encodes a record; empty for the default record.
pub(super) fn text(record: &LeaseRecord) -> Result<String, StoreError> {
    if *record == LeaseRecord::default() {
        return Ok(String::new());
    }
    let lease = record.lease();
    let held = match lease.map(|lease| &lease.state) {
        None | Some(LeaseState::Free) => HolderText::Free,
        Some(LeaseState::Held { claim_id, until_ms }) => HolderText::By(claim_id.into(), *until_ms),
        Some(LeaseState::Done { claim_id, answer }) => {
            HolderText::Done(claim_id.into(), answer.as_deref().map(Cow::Borrowed))
        }
    };
    let ended = record.endings().iter().map(|(claim_id, ending)| {
        let how = match ending {
            ClaimEnd::Freed => EndKind::Freed,
            ClaimEnd::Tombstone => EndKind::Tombstone,
            ClaimEnd::Superseded => EndKind::Superseded,
        };
        EndText(claim_id.into(), how)
    });
    let lease = lease.map(|lease| (lease.attempt, lease.first_seen_ms, lease.forget_at_ms));
    let written = RecordText(lease, held, ended.collect());
    serde_json::to_string(&written).map_err(|error| StoreError::Refused(error.to_string()))
}

/// Decodes a record. Returns `None` for a text of another version.
pub(super) fn read(text: &str) -> Option<LeaseRecord> {
    let RecordText(lease, held, ended) = serde_json::from_str(text).ok()?;
    let state = match held {
        HolderText::Free => LeaseState::Free,
        HolderText::By(claim_id, until_ms) => {
            LeaseState::Held { claim_id: claim_id.into(), until_ms }
        }
        HolderText::Done(claim_id, answer) => {
            LeaseState::Done { claim_id: claim_id.into(), answer: answer.map(Cow::into_owned) }
        }
    };
    let lease = lease.map(|(attempt, first_seen_ms, forget_at_ms)| Lease {
        attempt,
        first_seen_ms,
        state,
        forget_at_ms,
    });
    let endings = ended.into_iter().map(|EndText(claim_id, how)| {
        let ending = match how {
            EndKind::Freed => ClaimEnd::Freed,
            EndKind::Tombstone => ClaimEnd::Tombstone,
            EndKind::Superseded => ClaimEnd::Superseded,
        };
        (claim_id.into_owned(), ending)
    });
    Some(LeaseRecord::new(lease, endings.collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_record()(
            lease in any::<Option<(u32, i64, i64)>>(),
            hold in prop_oneof![
                Just(LeaseState::Free),
                any::<(String, i64)>()
                    .prop_map(|(claim_id, until_ms)| LeaseState::Held { claim_id, until_ms }),
                any::<(String, Option<String>)>()
                    .prop_map(|(claim_id, answer)| LeaseState::Done { claim_id, answer }),
            ],
            endings in prop::collection::vec(
                (any::<String>(), prop::sample::select(vec![ClaimEnd::Freed, ClaimEnd::Tombstone, ClaimEnd::Superseded])),
                0..4,
            ),
        ) -> LeaseRecord {
            let lease = lease.map(|(attempt, first_seen_ms, forget_at_ms)| {
                Lease { attempt, first_seen_ms, state: hold.clone(), forget_at_ms }
            });
            LeaseRecord::new(lease, endings)
        }
    }

    proptest! {
        #[test]
        fn record_survives_encoding(record in any_record()) {
            let text = text(&record).unwrap();
            let expected = if text.is_empty() { None } else { Some(record) };
            prop_assert_eq!(read(&text), expected);
        }

        #[test]
        fn any_text_is_decoded_without_a_panic(text in any::<String>()) {
            read(&text);
        }
    }

    #[test]
    fn text_of_another_version_is_no_record() {
        for text in ["{}", "[]", r#"{"lease":{"attempt":1}}"#, r#"[[1,2,3],{"x":[]},[]]"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
