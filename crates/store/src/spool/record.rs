//! Codec of spool records: one event row as bytes. The length and a checksum come first, so that a reader detects where a
//! file was cut off, at any byte. This module must not know about files.

use twilio_edge_contract::Class;

use crate::event::{ACCEPTED, Event, EventRow, REFUSED};

/// File header of the current layout. Each layout has its own number.
pub(super) const HEADER: &[u8; 20] = b"twilio-edge spool 2\n";

/// Header of the previous layout, which has no envelope. An older sidecar may have left such a file.
const HEADER_1: &[u8; 20] = b"twilio-edge spool 1\n";

/// Bytes of the length and the checksum, four each.
const FRAME: usize = 8;

/// Appends an encoded event.
pub(super) fn encode(event: &Event<'_>, to: &mut Vec<u8>) {
    let start = to.len();
    to.extend_from_slice(&[0; FRAME]);
    let texts = [
        Some(event.dedupe_key),
        Some(event.class),
        Some(event.account_sid),
        Some(event.message_sid),
        event.status,
        event.error_code,
        event.route,
        event.form,
        event.channel,
        event.theirs,
        event.ours,
        event.claim_id,
        event.outcome,
        event.answer,
        event.envelope,
    ];
    texts.into_iter().for_each(|text| put_text(text, to));
    let numbers = [
        event.received_at_ms,
        Some(event.attempts),
        event.held_until_ms,
        event.settled_at_ms,
        Some(event.noted_at_ms),
    ];
    numbers.into_iter().for_each(|number| put_number(number, to));
    let Some((frame, payload)) =
        to.get_mut(start..).and_then(|record| record.split_first_chunk_mut::<FRAME>())
    else {
        return;
    };
    let (length, checksum) = frame.split_at_mut(FRAME / 2);
    length.copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    checksum.copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
}

/// Returns whether the file begins with a known header, or with a part of one.
pub(super) fn is_ours(file: &[u8]) -> bool {
    [HEADER, HEADER_1].iter().any(|header| file.starts_with(*header) || header.starts_with(file))
}

/// Decodes a file. Returns its rows and the number of bytes at its end that are not a record.
pub(super) fn decode(file: &[u8]) -> (Vec<EventRow>, usize) {
    let mut rows = Vec::new();
    let (records, has_envelope) = match (file.strip_prefix(HEADER), file.strip_prefix(HEADER_1)) {
        (Some(records), _) => (records, true),
        (_, Some(records)) => (records, false),
        (None, None) => return (rows, file.len()),
    };
    let mut rest = Bytes(records);
    loop {
        let before = rest.0.len();
        match rest.record(has_envelope) {
            Some(row) => rows.push(row),
            None => return (rows, before),
        }
    }
}

fn put_text(text: Option<&str>, to: &mut Vec<u8>) {
    // The length plus one; 0 encodes `None`.
    let length =
        text.map_or(0, |text| u32::try_from(text.len()).unwrap_or(u32::MAX).wrapping_add(1));
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(text.unwrap_or_default().as_bytes());
}

fn put_number(number: Option<i64>, to: &mut Vec<u8>) {
    to.push(number.is_some().into());
    to.extend_from_slice(&number.unwrap_or_default().to_le_bytes());
}

/// The bytes left to decode, which are untrusted.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn record(&mut self, has_envelope: bool) -> Option<EventRow> {
        let length = self.length()?;
        let checksum = self.length()?;
        let payload = self.take(length.try_into().ok()?)?;
        let read = || Bytes(payload).event(has_envelope);
        let event = (crc32fast::hash(payload) == checksum).then(read)??;
        Some(EventRow::of(event))
    }

    fn event(mut self, has_envelope: bool) -> Option<Event<'a>> {
        let dedupe_key = self.text()??;
        let class = self.text()??;
        let event = Event {
            dedupe_key,
            class: [Class::Inbound, Class::Status, Class::Other]
                .into_iter()
                .map(Class::as_str)
                .find(|known| *known == class)?,
            account_sid: self.text()??,
            message_sid: self.text()??,
            status: self.text()?,
            error_code: self.text()?,
            route: self.text()?,
            form: self.text()?,
            channel: self.text()?,
            theirs: self.text()?,
            ours: self.text()?,
            claim_id: self.text()?,
            outcome: match self.text()? {
                None => None,
                Some(word) => Some([ACCEPTED, REFUSED].into_iter().find(|known| *known == word)?),
            },
            answer: self.text()?,
            envelope: if has_envelope { self.text()? } else { None },
            received_at_ms: self.number()?,
            attempts: self.number()??,
            held_until_ms: self.number()?,
            settled_at_ms: self.number()?,
            noted_at_ms: self.number()??,
            // The file may be recovered after SQL has the row.
            is_first: false,
        };
        self.0.is_empty().then_some(event)
    }

    fn text(&mut self) -> Option<Option<&'a str>> {
        match self.length()?.checked_sub(1) {
            None => Some(None),
            Some(length) => {
                let bytes = self.take(length.try_into().ok()?)?;
                str::from_utf8(bytes).ok().map(Some)
            }
        }
    }

    fn number(&mut self) -> Option<Option<i64>> {
        let (is_there, rest) = self.0.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        self.0 = rest;
        Some((*is_there == 1).then(|| i64::from_le_bytes(*number)))
    }

    fn length(&mut self) -> Option<u32> {
        let (length, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*length))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(rows: &[EventRow]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        rows.iter().for_each(|row| encode(&row.event(), &mut bytes));
        bytes
    }

    prop_compose! {
        pub fn any_row()(
            must in any::<[String; 3]>(),
            may in any::<[Option<String>; 10]>(),
            class in prop::sample::select(vec!["inbound", "status", "other"]),
            outcome in prop::option::of(prop::sample::select(vec![ACCEPTED, REFUSED])),
            numbers in any::<(Option<i64>, i64, Option<i64>, Option<i64>, i64)>(),
        ) -> EventRow {
            let [dedupe_key, account_sid, message_sid] = must.each_ref().map(String::as_str);
            let [status, error_code, route, form, channel, theirs, ours, claim_id, answer, envelope] =
                may.each_ref().map(Option::as_deref);
            let (received_at_ms, attempts, held_until_ms, settled_at_ms, noted_at_ms) = numbers;
            EventRow::of(Event {
                dedupe_key, class, account_sid, message_sid, status, error_code, route, form, channel,
                theirs, ours, received_at_ms, attempts, claim_id, held_until_ms, outcome,
                settled_at_ms, answer, envelope, noted_at_ms, is_first: false,
            })
        }
    }

    proptest! {
        #[test]
        fn rows_survive_encoding(rows in prop::collection::vec(any_row(), 0..8)) {
            prop_assert_eq!(decode(&file(&rows)), (rows, 0));
        }

        /// A file cut off at any byte yields exactly the complete records before it.
        #[test]
        fn torn_file_has_all_complete_records(
            rows in prop::collection::vec(any_row(), 1..4)
        ) {
            let whole = file(&rows);
            let mut ends = vec![HEADER.len()];
            ends.extend((1..=rows.len()).map(|count| file(&rows[..count]).len()));
            for length in 0..=whole.len() {
                let complete = ends.iter().filter(|end| **end <= length).count().saturating_sub(1);
                let torn = length - if length < HEADER.len() { 0 } else { ends[complete] };
                prop_assert_eq!(decode(&whole[..length]), (rows[..complete].to_vec(), torn));
            }
        }

        /// A changed byte ends the decoding there; a record that was not written is never returned.
        #[test]
        fn changed_byte_is_detected(
            rows in prop::collection::vec(any_row(), 1..4),
            place in any::<prop::sample::Index>(),
            change in 1..=u8::MAX,
        ) {
            let mut bytes = file(&rows);
            let place = place.index(bytes.len());
            bytes[place] ^= change;
            let (read, torn) = decode(&bytes);
            prop_assert!(torn > 0);
            prop_assert!(read.len() < rows.len() && read == rows[..read.len()]);
        }

        #[test]
        fn any_bytes_are_decoded_without_a_panic(mut bytes in any::<Vec<u8>>()) {
            let mut behind_header = HEADER.to_vec();
            behind_header.append(&mut bytes);
            decode(&behind_header);
        }
    }

    /// A file of the previous layout decodes.
    #[test]
    fn file_of_version_1_is_read() {
        let text = |text: &str| [&(text.len() as u32 + 1).to_le_bytes(), text.as_bytes()].concat();
        let number = |number: i64| [&[1][..], &number.to_le_bytes()].concat();
        let none = [0; 4];
        let mut payload = ["inbound:AC1:SM1", "inbound", "AC1", "SM1"].map(text).concat();
        payload.extend([none, none].concat());
        payload.extend(["/in", "Body=hi"].map(text).concat());
        payload.extend([none; 6].concat());
        payload.extend([7, 1, 0, 0, 9].map(number).concat());
        let length = (payload.len() as u32).to_le_bytes();
        let checksum = crc32fast::hash(&payload).to_le_bytes();
        let file = [&HEADER_1[..], &length, &checksum, &payload].concat();
        assert!(is_ours(&file));
        let (rows, torn) = decode(&file);
        assert_eq!((rows.len(), torn), (1, 0));
        let event = rows[0].event();
        assert_eq!((event.form, event.noted_at_ms, event.envelope), (Some("Body=hi"), 9, None));
    }

    #[test]
    fn zeros_at_the_end_are_no_record() {
        assert_eq!(decode(&[&HEADER[..], &[0; 64]].concat()), (Vec::new(), 64));
    }
}
