//! The load: webhooks as Twilio sends them, signed, as bytes of a request. Number `n` of a sequence is always the same
//! webhook, so a repeat is an earlier number again. Does not know the sender or the destination.

use anyhow::{Context, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use twilio_edge_contract::{Claim, Class, Identity};
use twilio_edge_demo::{ACCOUNT_SID, AUTH_TOKEN};
use twilio_edge_filter::form::Form;
use twilio_edge_filter::signature::{Key, Payload, sign};

/// Origin that Twilio calls; the filter is configured with the same.
pub(crate) const ORIGIN: &str = "https://hooks.example.com";
/// Distance of a repeat from its original, which was answered long ago even with requests in flight.
const REPEAT_DISTANCE: u64 = 500;

/// One of so many webhooks is a close repeat.
const CLOSE_REPEAT: u64 = 11;

const INBOUND: &str = "/twilio/inbound";
const STATUS: &str = "/twilio/status";

/// Kind of a webhook for the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Signed and new: the backend must get it.
    Fresh,
    /// Signed and already sent: the backend must not get it again if the target recognizes duplicates.
    Repeat,
    /// Signed with another key.
    Forged,
}

/// A whole HTTP/1.1 request.
pub(crate) struct Webhook {
    /// Its kind, which determines the expected answer.
    pub(crate) kind: Kind,
    /// Head and body.
    pub(crate) request: Vec<u8>,
}

/// An endless sequence of webhooks that no other sequence shares: of a hundred, 70 are status callbacks and 30 inbound
/// messages, 5 repeats, 1 forged.
pub(crate) struct Sequence {
    name: u64,
    key: Key,
    wrong_key: Key,
}

impl Sequence {
    /// Creates the sequence of this name; another name has other messages.
    pub(crate) fn new(name: u64) -> Result<Self> {
        let key = |token| Key::auth_token("bench", token).context("a key of any length will do");
        Ok(Self {
            name,
            key: key(AUTH_TOKEN)?,
            wrong_key: key("not-the-token-of-this-account-00")?,
        })
    }

    /// Returns the first `count` webhooks.
    pub(crate) fn first(&self, count: u64) -> Result<Vec<Webhook>> {
        (0..count).map(|n| self.webhook(n)).collect()
    }

    /// Returns `count` webhooks, of which each eleventh repeats the webhook `distance` places before it.
    pub(crate) fn with_close_repeats(&self, count: u64, distance: u64) -> Result<Vec<Webhook>> {
        // The original is never a repeat itself.
        let distance = if distance.is_multiple_of(CLOSE_REPEAT) { distance + 1 } else { distance };
        let webhook = |n| match n % CLOSE_REPEAT == CLOSE_REPEAT - 1 && n >= distance {
            true => self.request(n - distance, n, Kind::Repeat),
            false => self.request(n, n, Kind::Fresh),
        };
        (0..count).map(webhook).collect()
    }

    /// Returns number `n` as the filter claims it, regardless of its signature.
    pub(crate) fn claim(&self, n: u64) -> Result<Claim> {
        let (path, form) = self.content(n);
        let value = |expected| {
            let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find_map(|(name, value)| (name == expected).then(|| value.to_owned()))
        };
        let identity = Identity {
            class: if path == INBOUND { Class::Inbound } else { Class::Status },
            account_sid: ACCOUNT_SID.to_owned(),
            message_sid: value("MessageSid").context("no MessageSid")?,
            status: value("MessageStatus"),
            error_code: None,
        };
        Ok(Claim::new(sid("", self.name, n), identity, path.to_owned(), form))
    }

    fn webhook(&self, n: u64) -> Result<Webhook> {
        let kind = match n % 100 {
            99 => Kind::Forged,
            // Their originals, one after a number with the same ending, are neither forged nor repeats.
            13 | 33 | 53 | 73 | 93 if n >= REPEAT_DISTANCE => Kind::Repeat,
            _ => Kind::Fresh,
        };
        let original = if kind == Kind::Repeat { n - REPEAT_DISTANCE + 1 } else { n };
        self.request(original, n, kind)
    }

    /// Returns the request with the content of number `original`; `n` makes its idempotency token unique.
    fn request(&self, original: u64, n: u64, kind: Kind) -> Result<Webhook> {
        let (path, body) = self.content(original);
        let key = if kind == Kind::Forged { &self.wrong_key } else { &self.key };
        let form = Form::parse(body.as_bytes()).ok().context("too many parameters")?;
        let signature = sign(&format!("{ORIGIN}{path}"), Payload::Form(&form), key);
        let token = sid("", self.name, n);
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: hooks.example.com\r\nUser-Agent: TwilioProxy/1.1\r\nAccept: */*\r\n\
             Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\nContent-Length: {}\r\n\
             I-Twilio-Idempotency-Token: {token}\r\nX-Home-Region: us1\r\nX-Twilio-Signature: {signature}\r\n\r\n{body}",
            body.len(),
        );
        Ok(Webhook { kind, request: request.into_bytes() })
    }

    /// Returns the path and body of message number `n`.
    fn content(&self, n: u64) -> (&'static str, String) {
        let message = sid("SM", self.name, n);
        let messaging = sid("MG", 0, 7);
        let phone = format!("+1{:03}{:07}", 200 + self.name % 800, n % 10_000_000);
        // Spread over the hundred, so that phases of any length have the same mix.
        if n % 10 < 3 {
            let text = format!(
                "Hello, is order #{n} on its way? We are at home until 6 pm & the bell works. Grüße"
            );
            let body = encoded(&[
                ("ToCountry", "US"),
                ("ToState", "CA"),
                ("SmsMessageSid", &message),
                ("NumMedia", "0"),
                ("ToCity", "SAN FRANCISCO"),
                ("FromZip", "94109"),
                ("SmsSid", &message),
                ("FromState", "CA"),
                ("SmsStatus", "received"),
                ("FromCity", "SAN FRANCISCO"),
                ("Body", &text),
                ("FromCountry", "US"),
                ("To", "+15005550006"),
                ("MessagingServiceSid", &messaging),
                ("NumSegments", "1"),
                ("MessageSid", &message),
                ("AccountSid", ACCOUNT_SID),
                ("From", &phone),
                ("ApiVersion", "2010-04-01"),
            ]);
            return (INBOUND, body);
        }
        let status = if n.is_multiple_of(2) { "sent" } else { "delivered" };
        let body = encoded(&[
            ("ChannelPrefix", "whatsapp"),
            ("ApiVersion", "2010-04-01"),
            ("MessagingServiceSid", &messaging),
            ("SmsSid", &message),
            ("SmsStatus", status),
            ("MessageStatus", status),
            ("ChannelInstallSid", "XE5f1d2b3c4a5968778695a4b3c2d1e0f0"),
            ("To", &format!("whatsapp:{phone}")),
            ("From", "whatsapp:+15005550006"),
            ("MessageSid", &message),
            ("AccountSid", ACCOUNT_SID),
            ("StructuredMessage", "false"),
            ("ChannelToAddress", &phone),
            ("RawDlrDoneDate", "2611231452"),
        ]);
        (STATUS, body)
    }
}

fn sid(kind: &str, sequence: u64, n: u64) -> String {
    format!("{kind}{sequence:016x}{n:016x}")
}

fn encoded(parameters: &[(&str, &str)]) -> String {
    const ESCAPED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b' ');
    let pair = |(name, value): &(&str, &str)| {
        format!("{name}={}", utf8_percent_encode(value, ESCAPED).to_string().replace(' ', "+"))
    };
    parameters.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_of_webhooks_matches_the_report() {
        let all = Sequence::new(1).unwrap().first(10_500).unwrap();
        let (_, later) = all.split_at(500);
        let of = |kind| later.iter().filter(|webhook| webhook.kind == kind).count();
        assert_eq!((of(Kind::Fresh), of(Kind::Repeat), of(Kind::Forged)), (9_400, 500, 100));
        let inbound =
            later.iter().filter(|w| w.request.starts_with(b"POST /twilio/inbound")).count();
        assert!((2_800..3_200).contains(&inbound), "{inbound}");
        let bytes = later.iter().map(|webhook| webhook.request.len()).sum::<usize>() / later.len();
        assert!((800..1_300).contains(&bytes), "{bytes} bytes");
    }

    #[test]
    fn repeated_webhook_was_sent_before() {
        let sequence = Sequence::new(1).unwrap();
        let far = sequence.first(2_000).unwrap();
        for all in [far, sequence.with_close_repeats(2_000, 150).unwrap()] {
            assert_repeats_follow_their_originals(&all);
        }
        let close = sequence.with_close_repeats(11_000, 154).unwrap();
        let repeats = close.iter().filter(|webhook| webhook.kind == Kind::Repeat).count();
        assert_eq!(repeats, 986, "one of eleven, after the first 155");
    }

    fn assert_repeats_follow_their_originals(all: &[Webhook]) {
        let body = |webhook: &Webhook| {
            let text = String::from_utf8(webhook.request.clone()).unwrap();
            text.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        let mut fresh = std::collections::HashSet::new();
        for webhook in all {
            match webhook.kind {
                Kind::Fresh => assert!(fresh.insert(body(webhook)), "not new"),
                Kind::Repeat => assert!(fresh.contains(&body(webhook)), "never seen"),
                Kind::Forged => {}
            }
        }
    }
}
