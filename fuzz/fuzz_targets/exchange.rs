//! Any events in any order: nothing reaches the backend unproven or before a verdict, at most one answer, at
//! most one resume, a lease is settled exactly once.
#![no_main]

use std::rc::Rc;

use arbitrary::Arbitrary;
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
               {"path": "/other", "class": "other"},
               {"prefix": "/shadow/", "class": "inbound", "mode": "shadow"}],
    "sidecar": {"cluster": "sidecar", "token": "t", "in_flight_wait_ms": 500}}"#;
const FORM: &[u8] = b"AccountSid=AC00112233445566778899aabbccddeeff&MessageSid=SM00112233445566778899aabbccddeeff&From=%2B14155550123&To=12345&Body=hi";
const TARGETS: [&str; 6] = ["/in", "/strict", "/status", "/other", "/shadow/x", "/elsewhere"];
const CLAIM: &str = "00000000000000010000000000000002";

#[derive(Debug, Arbitrary)]
enum Act {
    Signed(u8),
    Head {
        method: Vec<u8>,
        target: Vec<u8>,
        content_type: Option<Vec<u8>>,
        content_length: Option<u64>,
        signature: Option<Vec<u8>>,
        settings: Option<Vec<u8>>,
    },
    Body(usize),
    Whole,
    Complete(Vec<u8>),
    Verdict {
        ours: bool,
        decision: u8,
        answer: Option<(u16, String, String)>,
    },
    NoVerdict,
    Response {
        status: u16,
        from_backend: bool,
        content_type: Option<Vec<u8>>,
        ends: bool,
    },
    ResponseBody(Vec<u8>, bool),
    Settled,
    Tick(u16),
    Gone,
}

fuzz_target!(|acts: Vec<Act>| {
    let config = Rc::new(Config::parse(CONFIG.as_bytes(), &|_| None).unwrap());
    let mut exchange = Exchange::new(config, 1, 2);
    let mut all = Vec::new();
    let mut now_ms = 1_000_000;
    let mut shadowed = false;
    for act in acts.into_iter().chain([Act::Gone]) {
        let effects = match act {
            Act::Signed(which) => {
                let target = TARGETS[usize::from(which) % TARGETS.len()];
                let form = Form::parse(FORM).unwrap();
                let key = Key::auth_token("", "token").unwrap();
                let signature = sign(&format!("https://h{target}"), Payload::Form(&form), &key);
                let head = Head {
                    method: b"POST".to_vec(),
                    target: target.as_bytes().to_vec(),
                    content_type: Some(b"application/x-www-form-urlencoded".to_vec()),
                    signature: Some(signature.into_bytes()),
                    ..Head::default()
                };
                exchange.step(Event::Head(head), now_ms)
            }
            Act::Head { method, target, content_type, content_length, signature, settings } => {
                let signature_settings = settings;
                let head = Head {
                    method,
                    target,
                    content_type,
                    content_length,
                    signature,
                    signature_settings,
                    ..Head::default()
                };
                exchange.step(Event::Head(head), now_ms)
            }
            Act::Body(received) => exchange.step(Event::Body { received }, now_ms),
            Act::Whole => exchange.step(Event::Complete { body: FORM }, now_ms),
            Act::Complete(body) => exchange.step(Event::Complete { body: &body }, now_ms),
            Act::Verdict { ours, decision, answer } => {
                let decision = [
                    Decision::Proceed,
                    Decision::Duplicate,
                    Decision::InFlight,
                    Decision::Released,
                    Decision::Unavailable,
                ][usize::from(decision) % 5];
                let answer = answer.map(|(status, content_type, body)| SavedAnswer {
                    status,
                    content_type,
                    body,
                });
                let claim_id = all.iter().find_map(|effect| match effect {
                    Effect::Ask(claim) if ours => Some(claim.claim_id.clone()),
                    _ => None,
                });
                let claim_id = claim_id.unwrap_or_else(|| CLAIM.to_owned());
                let verdict = Verdict {
                    claim_id,
                    decision,
                    attempt: Some(1),
                    opt: None,
                    suppressed: true,
                    window_expires: None,
                    answer,
                };
                let held = exchange.waits();
                let effects = exchange.step(Event::Verdict(verdict), now_ms);
                shadowed |=
                    held && effects.contains(&Effect::Forward) && decision != Decision::Proceed;
                effects
            }
            Act::NoVerdict => exchange.step(Event::NoVerdict, now_ms),
            Act::Response { status, from_backend, content_type, ends } => exchange.step(
                Event::Response(ResponseHead { status, from_backend, content_type, ends }),
                now_ms,
            ),
            Act::ResponseBody(part, ends) => {
                exchange.step(Event::ResponseBody { part: &part, ends }, now_ms)
            }
            Act::Settled => exchange.step(Event::Settled, now_ms),
            Act::Tick(ms) => {
                now_ms += u64::from(ms);
                exchange.step(Event::Tick, now_ms)
            }
            Act::Gone => exchange.step(Event::Gone, now_ms),
        };
        let verified = |effects: &[Effect]| effects.contains(&Effect::Count(Counter::Verified));
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Set(name, _) if *name == headers::VERIFIED))
        {
            assert!(
                verified(&all) || verified(&effects),
                "a trusted header on what was not proven"
            );
        }
        if effects.contains(&Effect::Forward) {
            let gave_up = effects.contains(&Effect::Count(Counter::Shadowed(Reason::NoBody)));
            shadowed |= gave_up;
            assert!(verified(&all) || gave_up);
        }
        all.extend(effects);
    }
    let count = |wanted: fn(&Effect) -> bool| all.iter().filter(|effect| wanted(effect)).count();
    let answers = count(|effect| matches!(effect, Effect::Answer(_)));
    let forwards = count(|effect| matches!(effect, Effect::Forward));
    let settlements = count(|effect| matches!(effect, Effect::Settle { .. }));
    assert!(answers + forwards <= 1);
    assert!(count(|effect| matches!(effect, Effect::Respond)) <= 1);
    assert!(settlements <= 1);
    assert!(forwards == 0 || settlements == 1 || shadowed, "a forwarded claim is settled");
    assert!(!exchange.waits() && !exchange.holds_response());
});
