//! Tests of one request as the backend, the client and the sidecar see it, path by path; and of the properties that hold
//! for any sequence of events.

mod outcomes;
mod properties;
mod requests;

use twilio_edge_contract::{MediaLink, Opt, Settlement, headers};

use super::saved_answer::MAX_SAVED_BYTES;
use super::settlement::RELEASE_HOLD_MS;
use super::*;
use crate::form::Form;
use crate::signature::{self, Algorithm, Key, Payload, sign};

const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const BODY: &str = "AccountSid=AC00112233445566778899aabbccddeeff&MessageSid=SM00112233445566778899aabbccddeeff&From=whatsapp%3A%2B14155550123&To=whatsapp%3A%2B14155238886&Body=zebra";

fn config(edit: impl FnOnce(&mut serde_json::Value)) -> Rc<Config> {
    let mut json = serde_json::json!({
        "origins": ["https://other.example.com", "https://hooks.example.com"],
        "accounts": [
            {"sid": "AC99999999999999999999999999999999", "auth_tokens": ["another"]},
            {"sid": ACCOUNT, "auth_tokens": ["old", TOKEN], "shared_keys": [
                {"id": "webhooks_sharedkey_1", "secret": "shared"},
            ]},
        ],
        "routes": [
            {"path": "/in", "class": "inbound"},
            {"path": "/json", "class": "inbound", "body": "json"},
            {"path": "/strict", "class": "inbound", "on_unavailable": "reject"},
            {"path": "/status", "class": "status"},
            {"path": "/both", "class": "inbound", "methods": ["GET", "POST"], "forward_signature": false},
            {"path": "/other", "class": "other", "bodies": ["form", "hash"], "methods": ["GET", "POST"]},
            {"path": "/forms", "class": "other"},
            {"path": "/shadow", "class": "inbound", "mode": "shadow", "on_unavailable": "reject"},
            {"path": "/off", "class": "inbound", "mode": "off"},
            {"prefix": "/all/", "class": "inbound", "timeout_ms": 100},
            {"path": "/tenant", "class": "inbound", "accounts": ["AC99999999999999999999999999999999"]},
        ],
        "sidecar": {"cluster": "sidecar", "token": "t", "in_flight_wait_ms": 1000},
        "max_body_bytes": 1024,
    });
    edit(&mut json);
    Rc::new(Config::parse(json.to_string().as_bytes(), &|_| None).unwrap())
}

fn signature(target: &str, body: &str) -> Option<Vec<u8>> {
    let form = Form::parse(body.as_bytes()).unwrap();
    let payload = if body.is_empty() { Payload::Empty } else { Payload::Form(&form) };
    let key = Key::auth_token("", TOKEN).unwrap();
    Some(sign(&format!("https://hooks.example.com{target}"), payload, &key).into_bytes())
}

fn post(target: &str, body: &str) -> Head {
    Head {
        method: b"POST".to_vec(),
        target: target.as_bytes().to_vec(),
        content_type: Some(b"application/x-www-form-urlencoded; charset=utf-8".to_vec()),
        content_length: Some(body.len() as u64),
        signature: signature(target, body),
        ..Head::default()
    }
}

/// An exchange in progress, and the effects it has returned.
struct Case {
    exchange: Exchange,
    effects: Vec<Effect>,
    now_ms: u64,
}

impl Case {
    fn new(config: Rc<Config>) -> Self {
        Self { exchange: Exchange::new(config, 0xa, 7), effects: Vec::new(), now_ms: 1_000_000 }
    }

    fn of(head: Head, body: &str) -> Self {
        let mut case = Self::new(config(|_| {}));
        case.apply(Event::Head(head));
        case.apply(Event::Complete { body: body.as_bytes() });
        case
    }

    /// A proven message that waits for its verdict.
    fn awaiting_verdict(route: &str) -> Self {
        let case = Self::of(post(route, BODY), BODY);
        assert_eq!(case.claims().len(), 1, "{:?}", case.effects);
        case
    }

    fn forwarded(route: &str) -> Self {
        let mut case = Self::awaiting_verdict(route);
        case.decide(Decision::Proceed);
        assert!(case.was_forwarded());
        case
    }

    fn apply(&mut self, event: Event<'_>) {
        let effects = self.exchange.step(event);
        self.effects.extend(effects);
    }

    /// Lets time pass; a wait begins with the tick that first sees it.
    fn after(&mut self, ms: u64) {
        self.apply(Event::Tick { now_ms: self.now_ms });
        self.now_ms += ms;
        self.apply(Event::Tick { now_ms: self.now_ms });
    }

    fn decide(&mut self, decision: Decision) {
        let claim_id = self.claims().last().unwrap().claim_id.clone();
        self.apply(Event::Verdict(verdict(&claim_id, decision)));
    }

    fn claims(&self) -> Vec<Rc<Claim>> {
        let claims = self.effects.iter().filter_map(|effect| match effect {
            Effect::Claim { claim, .. } => Some(Rc::clone(claim)),
            _ => None,
        });
        claims.collect()
    }

    fn settlements(&self) -> Vec<(&Settlement, bool)> {
        let settlements = self.effects.iter().filter_map(|effect| match effect {
            Effect::Settle { settlement, urgent, .. } => Some((settlement.as_ref(), *urgent)),
            _ => None,
        });
        settlements.collect()
    }

    fn answer(&self) -> Option<&Answer> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Answer(answer) => Some(answer),
            _ => None,
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let upstream = self.effects.iter().find_map(|effect| match effect {
            Effect::SetUpstream(upstream_request) => Some(upstream_request),
            _ => None,
        });
        upstream?.headers().find(|(set, _)| *set == name).map(|(_, value)| value)
    }

    fn event(&self) -> Option<serde_json::Value> {
        let body = self.effects.iter().find_map(|effect| match effect {
            Effect::SetUpstream(upstream_request) => upstream_request.body.as_deref(),
            _ => None,
        });
        serde_json::from_str(body?).ok()
    }

    fn was_forwarded(&self) -> bool {
        !self.exchange.holds_request()
    }

    fn reason(&self) -> Option<&str> {
        let (_, slug) = self.answer()?.headers.iter().find(|(name, _)| *name == headers::REASON)?;
        Some(slug)
    }
}

fn response(status: u16, from_backend: bool) -> Event<'static> {
    Event::Response(ResponseHead { status, from_backend, ..ResponseHead::default() })
}

fn verdict(claim_id: &str, decision: Decision) -> Verdict {
    Verdict { attempt: Some(1), ..Verdict::new(claim_id.to_owned(), decision) }
}
