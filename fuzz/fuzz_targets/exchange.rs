//! Any events in any order. Checks that nothing is forwarded unproven or before a verdict, that there is at most one answer
//! and one resume, that a lease is settled exactly once, and that a replaced body has its length in the headers.
//!
//! An input is a script with one event per line: a letter, and its arguments, separated by tabs. Other lines are skipped.
//!
//! ```text
//! s 2                                              headers of a signed POST to the path of that number
//! h METHOD TARGET TYPE LENGTH SIGNATURE SETTINGS   any headers; missing or empty ones are not sent
//! b 100                                            part of the body: bytes received so far
//! w                                                the end: the signed body
//! c BODY                                           the end: another body
//! v p | d | i | r | u | a  STATUS TYPE BODY        proceed, duplicate (with the answer), in flight, released, unavailable, accepted
//! V ..                                             the same, for another claim
//! n                                                no verdict will come
//! r STATUS FLAGS TYPE                              response headers; flags: b from the backend, e no body
//! p PART / q PART                                  part of the response's body / the last one
//! k                                                the settlement is acknowledged
//! t 25                                             milliseconds that have passed
//! g                                                the stream is over
//! ```
#![no_main]

use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use twilio_edge_contract::{Decision, SavedAnswer, Verdict, headers};
use twilio_edge_filter::config::Config;
use twilio_edge_filter::exchange::{Effect, Event, Exchange, Head, ResponseHead};
use twilio_edge_filter::form::Form;
use twilio_edge_filter::metrics::Counter;
use twilio_edge_filter::reply::Reason;
use twilio_edge_filter::signature::{Key, Payload, sign};

const CONFIG: &str = r#"{"origins": ["https://h"], "max_body_bytes": 4096,
    "accounts": [{"sid": "AC00112233445566778899aabbccddeeff", "auth_tokens": ["token"]}],
    "routes": [{"path": "/in", "class": "inbound"},
               {"path": "/strict", "class": "inbound", "on_unavailable": "reject"},
               {"path": "/status", "class": "status"},
               {"path": "/other", "class": "other", "body": "json"},
               {"prefix": "/shadow/", "class": "inbound", "mode": "shadow"},
               {"path": "/json", "class": "inbound", "body": "json"},
               {"path": "/accept", "class": "inbound", "delivery": "accept"}],
    "sidecar": {"cluster": "sidecar", "token": "t", "in_flight_wait_ms": 500}}"#;
const FORM: &[u8] = b"AccountSid=AC00112233445566778899aabbccddeeff&MessageSid=SM00112233445566778899aabbccddeeff&From=%2B14155550123&To=12345&Body=hi";
const TARGETS: [&str; 8] =
    ["/in", "/strict", "/status", "/other", "/shadow/x", "/elsewhere", "/json", "/accept"];
thread_local! {
    static PARSED: Rc<Config> = Rc::new(Config::parse(CONFIG.as_bytes(), &|_| None).unwrap());
}
const OTHER_CLAIM: &str = "000000000000000100000003";

/// Line of the script.
struct Line<'a> {
    letter: u8,
    fields: Vec<&'a [u8]>,
}

impl<'a> Line<'a> {
    fn read(line: &'a [u8]) -> Self {
        let (letter, rest) = line.split_first().unwrap_or((&b' ', b""));
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        Self { letter: *letter, fields: rest.split(|byte| *byte == b'\t').collect() }
    }

    fn bytes(&self, field: usize) -> &'a [u8] {
        self.fields.get(field).copied().unwrap_or_default()
    }

    fn optional(&self, field: usize) -> Option<Vec<u8>> {
        Some(self.bytes(field).to_vec()).filter(|value| !value.is_empty())
    }

    fn text(&self, field: usize) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }

    fn number(&self, field: usize) -> Option<u64> {
        self.text(field).trim().parse().ok()
    }

    fn event(&'a self, now_ms: &mut u64, claim_id: Option<String>) -> Option<Event<'a>> {
        Some(match self.letter {
            b's' => Event::Head(signed(self.number(0)?)),
            b'h' => Event::Head(Head {
                method: self.bytes(0).to_vec(),
                target: self.bytes(1).to_vec(),
                content_type: self.optional(2),
                content_length: self.number(3),
                signature: self.optional(4),
                signature_settings: self.optional(5),
                ..Head::default()
            }),
            b'b' => Event::Body { received: usize::try_from(self.number(0)?).ok()? },
            b'w' => Event::Complete { body: FORM },
            b'c' => Event::Complete { body: self.bytes(0) },
            b'v' => Event::Verdict(self.verdict(claim_id?)?),
            b'V' => Event::Verdict(self.verdict(OTHER_CLAIM.to_owned())?),
            b'n' => Event::NoVerdict,
            b'r' => Event::Response(ResponseHead {
                status: u16::try_from(self.number(0)?).ok()?,
                from_backend: self.bytes(1).contains(&b'b'),
                content_type: self.optional(2),
                is_last: self.bytes(1).contains(&b'e'),
            }),
            b'p' | b'q' => {
                Event::ResponseBody { part: self.bytes(0), is_last: self.letter == b'q' }
            }
            b'k' => Event::Settled,
            b't' => {
                *now_ms += self.number(0)?.min(60_000);
                Event::Tick { now_ms: *now_ms }
            }
            b'g' => Event::Ended,
            _ => return None,
        })
    }

    fn verdict(&self, claim_id: String) -> Option<Verdict> {
        let decision = match self.bytes(0) {
            b"p" => Decision::Proceed,
            b"d" => Decision::Duplicate,
            b"i" => Decision::InFlight,
            b"r" => Decision::Released,
            b"u" => Decision::Unavailable,
            b"a" => Decision::Accepted,
            _ => return None,
        };
        let answer = self
            .number(1)
            .and_then(|status| u16::try_from(status).ok())
            .map(|status| SavedAnswer { status, content_type: self.text(2), body: self.text(3) });
        let verdict = Verdict::new(claim_id, decision);
        Some(Verdict { attempt: Some(1), suppressed: true, answer, ..verdict })
    }
}

fn signed(which: u64) -> Head {
    let target = TARGETS[which as usize % TARGETS.len()];
    let form = Form::parse(FORM).unwrap();
    let key = Key::auth_token("", "token").unwrap();
    let signature = sign(&format!("https://h{target}"), Payload::Form(&form), &key);
    Head {
        method: b"POST".to_vec(),
        target: target.as_bytes().to_vec(),
        content_type: Some(b"application/x-www-form-urlencoded".to_vec()),
        signature: Some(signature.into_bytes()),
        ..Head::default()
    }
}

fuzz_target!(|script: &[u8]| {
    let mut exchange = Exchange::new(PARSED.with(Rc::clone), 1, 2);
    let mut all = Vec::new();
    let mut now_ms = 1_000_000;
    let mut shadowed = false;
    for line in script.split(|byte| *byte == b'\n').chain([&b"g"[..]]).map(Line::read) {
        let claim_id = all.iter().find_map(|effect| match effect {
            Effect::Claim { claim, .. } => Some(claim.claim_id.clone()),
            _ => None,
        });
        let Some(event) = line.event(&mut now_ms, claim_id) else { continue };
        let copy = [Decision::Duplicate, Decision::InFlight];
        let copy = matches!(&event, Event::Verdict(verdict) if copy.contains(&verdict.decision));
        let effects = exchange.step(event);
        // Shadow mode forwards a copy, which holds no lease.
        shadowed |= copy && effects.contains(&Effect::Forward);
        let verified = |effects: &[Effect]| effects.contains(&Effect::Count(Counter::Verified));
        for effect in &effects {
            let Effect::SetUpstream(upstream) = effect else { continue };
            assert!(verified(&all) || verified(&effects), "facts of an unproven request");
            let values = |header| upstream.headers().filter(move |(name, _)| *name == header);
            assert_eq!(values(headers::VERIFIED).count(), 1);
            let lengths: Vec<_> =
                values("content-length").map(|(_, value)| value.to_owned()).collect();
            let body = upstream.body.iter().map(|body| body.len().to_string());
            assert_eq!(lengths, body.collect::<Vec<_>>(), "content-length of the body");
        }
        if effects.contains(&Effect::Forward) {
            let gave_up = effects.contains(&Effect::Count(Counter::Shadowed(Reason::NoBody)));
            shadowed |= gave_up;
            assert!(verified(&all) || gave_up);
        }
        all.extend(effects);
    }
    let count = |matches: fn(&Effect) -> bool| all.iter().filter(|effect| matches(effect)).count();
    let answers = count(|effect| matches!(effect, Effect::Answer(_)));
    let forwards = count(|effect| matches!(effect, Effect::Forward));
    let settlements = count(|effect| matches!(effect, Effect::Settle { .. }));
    assert!(answers + forwards <= 1);
    assert!(count(|effect| matches!(effect, Effect::Respond)) <= 1);
    assert!(settlements <= 1);
    assert!(forwards == 0 || settlements == 1 || shadowed, "a forwarded claim is settled");
    assert!(!exchange.waits() && !exchange.holds_response());
});
