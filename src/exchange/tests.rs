//! Tests of one request as the backend, the client and the sidecar see it, path by path; and of the properties that hold
//! for any sequence of events.

use proptest::prelude::*;
use twilio_edge_contract::{Decision, Opt, headers};

use super::*;
use crate::form::Form;
use crate::signature::{self, Algorithm, Key, Payload, sign};
use crate::upstream_request::header_safe;

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
    fn asking(route: &str) -> Self {
        let case = Self::of(post(route, BODY), BODY);
        assert_eq!(case.asked().len(), 1, "{:?}", case.effects);
        case
    }

    fn forwarded(route: &str) -> Self {
        let mut case = Self::asking(route);
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
        let claim_id = self.asked().last().unwrap().claim_id.clone();
        self.apply(Event::Verdict(verdict(&claim_id, decision)));
    }

    fn asked(&self) -> Vec<Rc<Claim>> {
        let claims = self.effects.iter().filter_map(|effect| match effect {
            Effect::Claim(claim) => Some(Rc::clone(claim)),
            _ => None,
        });
        claims.collect()
    }

    fn settled(&self) -> Vec<(&Settlement, bool)> {
        let settlements = self.effects.iter().filter_map(|effect| match effect {
            Effect::Settle { settlement, urgent } => Some((settlement.as_ref(), *urgent)),
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
        upstream?.headers.iter().find(|(set, _)| *set == name).map(|(_, value)| value.as_str())
    }

    fn was_forwarded(&self) -> bool {
        !self.exchange.holds_request()
    }

    fn refused_for(&self) -> Option<&str> {
        let (_, slug) = self.answer()?.headers.iter().find(|(name, _)| *name == headers::REASON)?;
        Some(slug)
    }
}

fn response(status: u16, from_backend: bool) -> Event<'static> {
    Event::Response(ResponseHead { status, from_backend, ..ResponseHead::default() })
}

fn verdict(claim_id: &str, decision: Decision) -> Verdict {
    Verdict {
        claim_id: claim_id.to_owned(),
        decision,
        attempt: Some(1),
        opt: None,
        suppressed: false,
        window_expires: None,
        answer: None,
        step: None,
    }
}

#[test]
fn proven_message_is_forwarded_after_the_verdict_with_its_facts() {
    let mut case = Case::asking("/in?tenant=7");
    assert!(!case.was_forwarded(), "not before the verdict");
    let claim = case.asked().remove(0);
    assert_eq!(claim.claim_id, "000000000000000a00000007");
    assert_eq!((claim.route.as_str(), claim.form.as_str()), ("/in", BODY));
    case.apply(Event::Verdict(Verdict {
        opt: Some(Opt::Stop),
        suppressed: true,
        window_expires: Some("2026-11-24T12:00:00Z".to_owned()),
        attempt: Some(2),
        ..verdict(&claim.claim_id, Decision::Proceed)
    }));
    assert!(case.was_forwarded() && case.effects.contains(&Effect::Forward));
    for (name, want) in [
        (headers::VERIFIED, ACCOUNT),
        (headers::KEY, "next"),
        (headers::CLASS, "inbound"),
        (headers::MESSAGE_SID, "SM00112233445566778899aabbccddeeff"),
        (headers::FROM, "+14155550123"),
        (headers::TO, "+14155238886"),
        (headers::CHANNEL, "whatsapp"),
        (headers::OPT, "stop"),
        (headers::SUPPRESSED, "true"),
        (headers::WINDOW_EXPIRES, "2026-11-24T12:00:00Z"),
        (headers::DEDUPE, "first"),
        (headers::ATTEMPT, "2"),
    ] {
        assert_eq!(case.header(name), Some(want), "{name}");
    }
    assert_eq!(case.header(headers::STATUS), None);
}

#[test]
fn get_has_its_parameters_in_the_query() {
    let target = format!("/both?{BODY}");
    let head = Head { method: b"GET".to_vec(), content_type: None, ..post(&target, "") };
    let case = Case::of(head.clone(), "");
    assert_eq!(case.asked().remove(0).form, BODY);
    let case = Case::of(head, "x=1");
    assert_eq!(case.refused_for(), Some("unexpected-body"));
}

#[test]
fn request_of_class_other_is_proven_and_forwarded_without_a_claim() {
    let body = r#"{"event":"x"}"#;
    let target = format!("/other?bodySHA256={}", signature::hash_body(body.as_bytes()));
    let json = |target: &str| Head {
        content_type: Some(b"application/json".to_vec()),
        signature: signature(target, ""),
        ..post(target, "")
    };
    let case = Case::of(json(&target), body);
    assert!(case.was_forwarded());
    assert_eq!(case.header(headers::VERIFIED), Some(ACCOUNT));
    assert_eq!(case.header(headers::CLASS), Some("other"));
    assert_eq!(case.header(headers::DEDUPE), Some("unknown"));
    assert!(case.asked().is_empty());
    assert_eq!(Case::of(json(&target), "{}").refused_for(), Some("invalid-body-hash"));
    assert_eq!(Case::of(json("/other"), body).refused_for(), Some("missing-body-hash"));
}

/// A client that can reach a route decides how many requests it sends, so the cost of one request is bounded.
#[test]
fn request_without_account_is_refused_if_too_many_keys_would_be_tried() {
    let body = "{}";
    let target = format!("/other?bodySHA256={}", signature::hash_body(body.as_bytes()));
    let head = Head {
        content_type: Some(b"application/json".to_vec()),
        signature: signature(&target, ""),
        ..post(&target, "")
    };
    for (others, refused) in [(62, None), (63, Some("unnamed-account"))] {
        let mut case = Case::new(config(|json| {
            let accounts = json["accounts"].as_array_mut().unwrap();
            accounts.remove(0);
            accounts.extend((0..others).map(
                |n| serde_json::json!({"sid": format!("AC{n:032x}"), "auth_tokens": ["another"]}),
            ));
            json["routes"].as_array_mut().unwrap().retain(|route| route["path"] != "/tenant");
        }));
        case.apply(Event::Head(head.clone()));
        case.apply(Event::Complete { body: body.as_bytes() });
        assert_eq!(case.refused_for(), refused);
    }
}

#[test]
fn class_other_needs_no_parameter_but_a_signature() {
    for body in ["a=1", "", "interactionAccountSid=AC1&interactionSid=KI1", "AccountSid=mine"] {
        for target in ["/other", "/forms"] {
            let case = Case::of(post(target, body), body);
            assert!(case.was_forwarded(), "{target} {body:?}: {:?}", case.effects);
            assert_eq!(case.header(headers::VERIFIED), Some(ACCOUNT));
        }
        let forged =
            Case::of(Head { signature: signature("/x", body), ..post("/forms", body) }, body);
        assert_eq!(forged.refused_for(), Some("invalid-signature"), "{body:?}");
    }
    for body in ["Body=hi", "From=1&To=2", "MessageSid=SM1"] {
        let forged = Head { signature: signature("/x", body), ..post("/in", body) };
        assert_eq!(Case::of(forged, body).refused_for(), Some("invalid-signature"), "{body}");
    }
}

#[test]
fn route_accepts_the_methods_and_bodies_that_it_lists() {
    let get = |target: &str| {
        let target = format!("{target}?{BODY}");
        Head { method: b"GET".to_vec(), content_type: None, ..post(&target, "") }
    };
    assert_eq!(Case::of(get("/in"), "").refused_for(), Some("method-not-enabled"));
    assert_eq!(Case::of(get("/both"), "").asked().len(), 1);
    let allowed = |case: &Case| {
        case.effects.iter().find_map(|effect| match effect {
            Effect::Answer(answer) => {
                answer.headers.iter().find(|(name, _)| *name == "allow").map(|(_, it)| it.clone())
            }
            _ => None,
        })
    };
    assert_eq!(allowed(&Case::of(get("/in"), "")).as_deref(), Some("POST"));
    let body = r#"{"event":"x"}"#;
    let json = |target: &str| {
        let target = format!("{target}bodySHA256={}", signature::hash_body(body.as_bytes()));
        let content_type = Some(b"application/json".to_vec());
        Head { content_type, signature: signature(&target, ""), ..post(&target, "") }
    };
    assert_eq!(Case::of(json("/forms?"), body).refused_for(), Some("body-not-enabled"));
    assert_eq!(Case::of(json("/other?x=1&"), body).refused_for(), Some("ambiguous-fields"));
    assert!(Case::of(json("/other?"), body).was_forwarded());
}

#[test]
fn signature_is_removed_if_the_route_disables_forwarding_it() {
    let removed = |case: &Case| {
        ["x-twilio-signature", "x-twilio-webhooks-signature-settings"]
            .iter()
            .filter(|name| case.effects.contains(&Effect::Remove((**name).to_owned())))
            .count()
    };
    let kept = Case::of(post("/both", BODY), BODY);
    assert_eq!((kept.asked().len(), removed(&kept)), (1, 2));
    assert_eq!(removed(&Case::asking("/in")), 0);
}

#[test]
fn unguarded_route_passes_without_forged_headers() {
    let mut case = Case::new(config(|_| {}));
    let forged = vec!["x-twilio-edge-verified".to_owned(), "x_twilio_edge_key".to_owned()];
    case.apply(Event::Head(Head { forged: forged.clone(), ..post("/in/", BODY) }));
    assert!(case.was_forwarded());
    let removed: Vec<_> = forged.into_iter().map(Effect::Remove).collect();
    assert!(removed.iter().all(|effect| case.effects.contains(effect)));
    assert_eq!(case.header(headers::VERIFIED), None);
}

#[test]
fn every_refusal_has_its_reason() {
    let unsigned = Head { signature: None, ..post("/in", BODY) };
    let other_sid = BODY.replace("AC0011", "AC1111");
    let no_sid = BODY.replace("AccountSid", "Account");
    let status = format!("{BODY}&MessageStatus=sent");
    let long = format!("{BODY}&Body2={}", "x".repeat(1024));
    let flood = "a&".repeat(1001);
    let cases = [
        (Head { method: b"PUT".to_vec(), ..post("/in", BODY) }, BODY, "method-not-allowed"),
        (Head { method: b"HEAD".to_vec(), ..post("/in", "") }, "", "method-not-allowed"),
        (Head { ambiguous: true, ..post("/in", BODY) }, BODY, "ambiguous-request"),
        (Head { target: b"/in?\xff".to_vec(), ..post("/in", BODY) }, BODY, "ambiguous-request"),
        (post("/in", &long), &long, "body-too-large"),
        (Head { content_length: None, ..post("/in", &long) }, &long, "body-too-large"),
        (unsigned, BODY, "missing-signature"),
        (post("/in", "Body=other"), BODY, "invalid-signature"),
        (Head { content_type: None, ..post("/in", BODY) }, BODY, "body-not-enabled"),
        (
            Head { content_encoding: Some(b"gzip".to_vec()), ..post("/in", BODY) },
            BODY,
            "unsupported-encoding",
        ),
        (post("/in", &other_sid), &other_sid, "unknown-account"),
        (post("/in", &no_sid), &no_sid, "missing-field"),
        (post("/in", &status), &status, "wrong-class"),
        (post("/status", BODY), BODY, "wrong-class"),
    ];
    for (head, body, want) in cases {
        let case = Case::of(head.clone(), body);
        assert_eq!(case.refused_for(), Some(want), "{head:?}");
        assert!(!case.was_forwarded() && case.header(headers::VERIFIED).is_none());
        assert!(case.asked().is_empty() && case.settled().is_empty());
    }
    let wide = config(|json| json["max_body_bytes"] = 65_536.into());
    let mut case = Case::new(wide);
    case.apply(Event::Head(post("/in", BODY)));
    case.apply(Event::Complete { body: flood.as_bytes() });
    assert_eq!(case.refused_for(), Some("too-many-parameters"));
}

#[test]
fn shared_key_proves_only_requests_that_name_it() {
    let form = Form::parse(BODY.as_bytes()).unwrap();
    let shared = Key::shared("", "shared", Algorithm::HmacSha256).unwrap();
    let signed = sign("https://hooks.example.com/in", Payload::Form(&form), &shared).into_bytes();
    let head = |settings: &str| Head {
        signature: Some(signed.clone()),
        signature_settings: Some(settings.as_bytes().to_vec()),
        ..post("/in", BODY)
    };
    let mut case = Case::of(head("key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"), BODY);
    case.decide(Decision::Proceed);
    assert_eq!(case.header(headers::KEY), Some("webhooks_sharedkey_1"));
    for (settings, want) in [
        ("", "invalid-signature"),
        ("key=webhooks_sharedkey_2,algorithm=HMAC_SHA256", "unknown-key"),
        ("key=webhooks_sharedkey_1,algorithm=HMAC_SHA1", "unknown-key"),
        ("algorithm=HMAC_SHA256", "unknown-key"),
        ("key=webhooks_sharedkey_1,algorithm=none", "unknown-key"),
    ] {
        assert_eq!(Case::of(head(settings), BODY).refused_for(), Some(want), "{settings}");
    }
    let mut token = post("/in", BODY);
    token.signature_settings = Some(b"key=webhooks_sharedkey_1,algorithm=HMAC_SHA256".to_vec());
    assert_eq!(Case::of(token, BODY).refused_for(), Some("invalid-signature"));
}

#[test]
fn shadow_mode_decides_and_forwards_every_request() {
    let case = Case::of(Head { signature: None, ..post("/shadow", BODY) }, BODY);
    assert!(case.was_forwarded() && case.answer().is_none());
    assert_eq!(case.header(headers::VERIFIED), None, "nothing was proven");
    assert!(case.effects.contains(&Effect::Count(Counter::Shadowed(Reason::MissingSignature))));

    let case = Case::of(Head { content_length: Some(9999), ..post("/shadow", BODY) }, BODY);
    assert!(case.was_forwarded() && case.answer().is_none());

    for decision in [Decision::Duplicate, Decision::InFlight, Decision::Unavailable] {
        let mut case = Case::asking("/shadow");
        case.decide(decision);
        assert!(case.was_forwarded() && case.answer().is_none(), "{decision:?}");
        assert_eq!(case.header(headers::VERIFIED), Some(ACCOUNT), "this was proven");
        let dedupe = if decision == Decision::Unavailable { "unknown" } else { "duplicate" };
        assert_eq!(case.header(headers::DEDUPE), Some(dedupe));
        assert_eq!(case.header(headers::SUPPRESSED), None, "this was not asked");
    }

    let case = Case::of(Head { forged: vec!["x-twilio-edge-key".into()], ..post("/off", "") }, "");
    assert!(case.was_forwarded() && case.header(headers::VERIFIED).is_none());
    assert_eq!(case.effects[1], Effect::Remove("x-twilio-edge-key".into()));
}

#[test]
fn routes_are_exact_or_folders_and_may_belong_to_some_accounts() {
    assert_eq!(Case::asking("/all/of/these").asked()[0].route, "/all/");
    let mut case = Case::new(config(|_| {}));
    case.apply(Event::Head(post("/all", BODY)));
    assert!(case.was_forwarded(), "no folder, not guarded");
    assert_eq!(Case::of(post("/tenant", BODY), BODY).refused_for(), Some("unknown-account"));
}

#[test]
fn route_waits_for_a_verdict_until_its_timeout() {
    let mut case = Case::asking("/all/");
    case.after(99);
    assert!(!case.was_forwarded());
    case.after(1);
    assert!(case.was_forwarded() && case.effects.contains(&Effect::Withdraw));
    assert_eq!(case.header(headers::DEDUPE), Some("unknown"));
}

#[test]
fn body_over_the_cap_is_refused_before_it_ends() {
    let mut case = Case::new(config(|_| {}));
    case.apply(Event::Head(Head { content_length: None, ..post("/in", BODY) }));
    case.apply(Event::Body { received: 1024 });
    assert_eq!(case.answer(), None);
    case.apply(Event::Body { received: 1025 });
    assert_eq!(case.refused_for(), Some("body-too-large"));
}

#[test]
fn missing_body_is_refused_after_ten_seconds() {
    let mut case = Case::new(config(|_| {}));
    case.apply(Event::Head(post("/in", BODY)));
    case.after(MAX_FIRST_PART_MS - 1);
    assert_eq!(case.answer(), None);
    case.after(1);
    assert_eq!(case.refused_for(), Some("no-body"));

    let mut case = Case::new(config(|_| {}));
    case.apply(Event::Head(post("/in", BODY)));
    case.apply(Event::Body { received: 1 });
    case.after(MAX_FIRST_PART_MS);
    assert_eq!(case.answer(), None, "a slow upload is Envoy's to bound");

    let mut case = Case::new(config(|_| {}));
    case.apply(Event::Head(post("/shadow", BODY)));
    case.after(MAX_FIRST_PART_MS);
    assert!(case.was_forwarded() && case.effects.contains(&Effect::Forward));
}

#[test]
fn log_line_contains_no_body_and_no_phone_number() {
    let request_id = Some(b"id\r\n-7".to_vec());
    let case = Case::of(Head { request_id, ..post("/in", "Body=other") }, BODY);
    let warning = case.effects.iter().find_map(|effect| match effect {
        Effect::Warn(line) => Some(line.clone()),
        _ => None,
    });
    let warning = warning.unwrap();
    assert!(warning.contains("reason=invalid-signature route=/in account.sid=AC0011"), "{warning}");
    assert!(warning.contains("request_id=id-7:"), "{warning}");
    for private in ["4155550123", "zebra", TOKEN] {
        assert!(!warning.contains(private), "{private} in {warning}");
    }
}

#[test]
fn duplicate_is_answered_with_success_and_not_forwarded() {
    let mut case = Case::asking("/in");
    case.decide(Decision::Duplicate);
    let answer = case.answer().unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains(&("content-type", "text/xml".to_owned())));
    assert!(answer.body.ends_with("<Response/>"));
    assert!(!case.was_forwarded() && case.settled().is_empty());
}

#[test]
fn copy_in_flight_is_claimed_again_until_it_is_settled() {
    let mut case = Case::asking("/in");
    case.decide(Decision::InFlight);
    case.after(0);
    assert_eq!(case.asked().len(), 1, "not at once");
    case.after(25);
    case.after(0);
    assert_eq!(case.asked().len(), 2, "once per pause");
    case.decide(Decision::Duplicate);
    assert_eq!(case.answer().unwrap().status, 200);

    let mut case = Case::asking("/in");
    case.decide(Decision::InFlight);
    case.after(1000);
    case.decide(Decision::InFlight);
    assert_eq!(case.refused_for(), Some("still-in-flight"), "but not for ever");
}

#[test]
fn policy_decides_without_a_verdict() {
    for fail in [
        |case: &mut Case| case.apply(Event::NoVerdict),
        |case: &mut Case| case.decide(Decision::Unavailable),
        |case: &mut Case| case.decide(Decision::Released),
    ] {
        let mut case = Case::asking("/in");
        fail(&mut case);
        assert!(case.was_forwarded());
        assert_eq!(case.header(headers::DEDUPE), Some("unknown"));
        case.apply(response(200, true));
        let (settlement, _) = case.settled()[0];
        assert_eq!(settlement.outcome, Outcome::Commit);
        assert_eq!(settlement.unclaimed.as_ref().unwrap().form, BODY, "upstream when it is back");

        let mut case = Case::asking("/strict");
        fail(&mut case);
        assert_eq!(case.refused_for(), Some("sidecar-unavailable"));
        let (settlement, _) = case.settled()[0];
        assert_eq!(settlement.outcome, Outcome::Release, "the claim may have arrived");
        assert!(settlement.unclaimed.is_some(), "a STOP counts although it was not delivered");
    }
}

#[test]
fn webhooks_are_verified_and_forwarded_without_a_sidecar() {
    let mut case = Case::new(config(|json| json["sidecar"] = serde_json::Value::Null));
    case.apply(Event::Head(post("/strict", BODY)));
    case.apply(Event::Complete { body: BODY.as_bytes() });
    assert!(case.was_forwarded());
    assert_eq!(case.header(headers::VERIFIED), Some(ACCOUNT));
    assert_eq!(case.header(headers::DEDUPE), Some("unknown"));
    case.apply(response(500, true));
    assert!(!case.exchange.holds_response());
}

#[test]
fn commit_requires_a_2xx_of_the_backend() {
    for status in [200, 204, 299] {
        let mut case = Case::forwarded("/in");
        case.apply(response(status, true));
        let settled = case.settled();
        assert_eq!((settled[0].0.outcome, settled[0].1), (Outcome::Commit, false), "{status}");
        assert!(!case.exchange.holds_response(), "a commit costs no latency");
        assert!(settled[0].0.unclaimed.is_none());
    }
    let others = [301, 307, 400, 404, 408, 425, 429, 500, 503, 504];
    for (status, from_backend) in others.map(|s| (s, true)).into_iter().chain([(200, false)]) {
        let mut case = Case::forwarded("/in");
        case.apply(response(status, from_backend));
        let settled = case.settled();
        assert_eq!((settled[0].0.outcome, settled[0].1), (Outcome::Release, true), "{status}");
        assert!(case.exchange.holds_response(), "a retry must not overtake the release");
        case.apply(Event::Settled);
        assert!(!case.exchange.holds_response() && case.effects.contains(&Effect::Respond));
    }
}

#[test]
fn unacknowledged_release_delays_the_response_by_250_ms() {
    let mut case = Case::forwarded("/in");
    case.apply(response(500, true));
    case.after(RELEASE_HOLD_MS - 1);
    assert!(case.exchange.holds_response());
    case.after(1);
    assert!(!case.exchange.holds_response() && case.effects.contains(&Effect::Respond));
}

#[test]
fn disconnected_client_releases_its_claim() {
    let mut case = Case::asking("/in");
    case.apply(Event::Ended);
    assert!(case.effects.contains(&Effect::Withdraw));
    assert_eq!(case.settled()[0].0.outcome, Outcome::Release);
    assert!(case.settled()[0].0.unclaimed.is_some());

    let mut case = Case::forwarded("/in");
    case.apply(Event::Ended);
    assert_eq!(case.settled()[0].0.outcome, Outcome::Release);

    let mut case = Case::forwarded("/in");
    case.apply(response(200, true));
    case.apply(Event::Ended);
    assert_eq!(case.settled().len(), 1, "the backend had answered: it stays committed");
}

#[test]
fn first_answer_is_saved_for_duplicates() {
    let twiml = b"<Response><Message>hi</Message></Response>";
    let answered = |content_type: &[u8], parts: &[&[u8]]| {
        let mut case = Case::forwarded("/in");
        case.apply(Event::Response(ResponseHead {
            status: 200,
            from_backend: true,
            content_type: Some(content_type.to_vec()),
            is_last: false,
        }));
        for (index, part) in parts.iter().enumerate() {
            case.apply(Event::ResponseBody { part, is_last: index + 1 == parts.len() });
        }
        assert!(!case.exchange.holds_response());
        case.apply(Event::Ended);
        let settled = case.settled();
        assert_eq!(settled.len(), 1);
        assert_eq!(settled[0].0.outcome, Outcome::Commit);
        settled[0].0.answer.clone()
    };
    let saved = answered(b"text/xml; charset=utf-8", &[&twiml[..9], &twiml[9..], b""]).unwrap();
    assert_eq!((saved.status, saved.body.as_bytes()), (200, &twiml[..]));
    assert_eq!(saved.content_type, "text/xml; charset=utf-8");
    for (content_type, parts) in [
        (&b"application/json"[..], &[&b"{}"[..]][..]),
        (b"text/xml", &[&[b'x'; MAX_SAVED_BYTES][..], b"x"]),
        (b"text/html", &[b"<!doctype html><html>Hello</html>"]),
        (b"text/html", &[b"<!-- a <Response> --><html/>"]),
        (b"text/html", &[b"<Responses/>"]),
        (b"text/xml", &[b"\xff\xfe"]),
        (b"text/xml\r\nx: y", &[b"<Response/>"]),
    ] {
        assert_eq!(answered(content_type, parts), None, "{content_type:?}");
    }

    for content_type in [
        "text/html; charset=UTF-8",
        "Text/HTML",
        "application/twiml+xml",
        "Application/TwiML+XML;charset=utf-8",
        "application/xml",
    ] {
        let saved = answered(content_type.as_bytes(), &[twiml, b""]).unwrap();
        assert_eq!(
            (saved.content_type.as_str(), saved.body.as_bytes()),
            (content_type, &twiml[..])
        );
    }
    let dressed = b"\xef\xbb\xbf\n<?xml version=\"1.0\"?>\n<!-- hi -->\n<Response/>";
    assert!(answered(b"text/html", &[dressed, b""]).is_some());

    let mut case = Case::asking("/in");
    let claim_id = case.asked()[0].claim_id.clone();
    case.apply(Event::Verdict(Verdict {
        answer: Some(saved.clone()),
        ..verdict(&claim_id, Decision::Duplicate)
    }));
    assert_eq!(case.answer().unwrap().body, saved.body);
}

#[test]
fn claim_and_settlement_name_the_url_of_the_step() {
    let mut case = Case::asking("/in?step=2");
    let claim = case.asked().remove(0);
    let digest = claim.url_digest.clone().unwrap();
    assert_ne!(Some(&digest), Case::asking("/in").asked()[0].url_digest.as_ref());
    case.apply(Event::Verdict(Verdict {
        step: Some(digest.clone()),
        ..verdict(&claim.claim_id, Decision::Proceed)
    }));
    case.apply(response(200, true));
    case.apply(Event::Ended);
    let settled = case.settled();
    assert_eq!(settled[0].0.step, Some(digest.clone()));
    assert_eq!(settled[0].0.url_digest, Some(digest));
}

#[test]
fn answer_of_the_proxy_is_not_the_backends_answer() {
    let mut case = Case::new(config(|_| {}));
    case.apply(Event::Head(post("/in", BODY)));
    case.apply(response(408, false));
    case.apply(Event::Complete { body: BODY.as_bytes() });
    assert!(case.asked().is_empty() && case.answer().is_none() && !case.was_forwarded());

    let mut case = Case::asking("/in");
    case.apply(response(504, false));
    case.decide(Decision::Proceed);
    assert!(!case.was_forwarded(), "a late verdict forwards nothing");
    assert_eq!(case.settled()[0].0.outcome, Outcome::Release);
}

#[derive(Debug, Clone)]
enum Act {
    Head(u8),
    Body(usize),
    Complete(bool),
    Decide(u8, bool),
    NoVerdict,
    Response(u16, bool),
    ResponseBody(usize, bool),
    Settled,
    Tick(u64),
    Gone,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (0u8..7).prop_map(Act::Head),
        1 => (0usize..3000).prop_map(Act::Body),
        3 => any::<bool>().prop_map(Act::Complete),
        3 => (0u8..6, any::<bool>()).prop_map(|(decision, ours)| Act::Decide(decision, ours)),
        1 => Just(Act::NoVerdict),
        2 => (prop_oneof![Just(200u16), Just(500), 100u16..600], any::<bool>())
            .prop_map(|(status, backend)| Act::Response(status, backend)),
        2 => (0usize..5000, any::<bool>()).prop_map(|(bytes, is_last)| Act::ResponseBody(bytes, is_last)),
        1 => Just(Act::Settled),
        2 => (0u64..6000).prop_map(Act::Tick),
        1 => Just(Act::Gone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Properties of every sequence of events: nothing reaches the backend unproven or before a verdict, the client gets at
    /// most one answer of the filter, nothing is resumed twice, and a lease is settled exactly once by the end.
    #[test]
    fn sequence_of_any_events_keeps_the_laws(acts in proptest::collection::vec(act(), 0..24)) {
        let mut case = Case::new(config(|_| {}));
        let (mut proceeded, mut shadowed) = (false, false);
        let (mut unclaimed_forward, mut guarded, mut complete) = (false, false, false);
        for act in acts.into_iter().chain([Act::Gone, Act::Gone]) {
            let before = case.effects.len();
            match &act {
                Act::Head(kind) => {
                    let target = ["/in", "/strict", "/status", "/elsewhere", "/other", "/shadow", "/off"][usize::from(*kind)];
                    case.apply(Event::Head(post(target, BODY)));
                }
                Act::Body(received) => case.apply(Event::Body { received: *received }),
                Act::Complete(whole) => {
                    case.apply(Event::Complete { body: if *whole { BODY.as_bytes() } else { b"x" } });
                }
                Act::Decide(which, ours) => {
                    let decision = [
                        Decision::Proceed, Decision::Duplicate, Decision::InFlight,
                        Decision::Released, Decision::Unavailable, Decision::Accepted,
                    ][usize::from(*which)];
                    let claim_id = if *ours { "000000000000000a00000007" } else { "another" };
                    case.apply(Event::Verdict(verdict(claim_id, decision)));
                    let is_shadow = case.asked().last().is_some_and(|claim| claim.route == "/shadow");
                    let copy = matches!(decision, Decision::Duplicate | Decision::InFlight);
                    proceeded |= *ours && decision == Decision::Proceed;
                    shadowed |= *ours && copy && is_shadow;
                }
                Act::NoVerdict => case.apply(Event::NoVerdict),
                Act::Response(status, from_backend) => {
                    let content_type = (status % 2 == 0).then(|| b"text/xml".to_vec());
                    case.apply(Event::Response(ResponseHead {
                        status: *status,
                        from_backend: *from_backend,
                        content_type,
                        is_last: status % 3 == 0,
                    }));
                }
                Act::ResponseBody(bytes, is_last) => {
                    case.apply(Event::ResponseBody { part: &vec![b'x'; *bytes], is_last: *is_last });
                }
                Act::Settled => case.apply(Event::Settled),
                Act::Tick(ms) => {
                    case.after(*ms);
                }
                Act::Gone => case.apply(Event::Ended),
            }
            guarded |= case.effects.contains(&Effect::Count(Counter::Webhook));
            complete |= case.effects.contains(&Effect::Count(Counter::Verified));
            unclaimed_forward |= case.effects.contains(&Effect::Count(Counter::NoVerdict));
            let new = &case.effects[before..];
            if new.contains(&Effect::Forward) {
                let gave_up = case.effects.contains(&Effect::Count(Counter::Shadowed(Reason::NoBody)));
                shadowed |= gave_up;
                prop_assert!(gave_up || complete && (proceeded || shadowed || unclaimed_forward), "{act:?} {:?}", case.effects);
            }
            if guarded && !complete {
                prop_assert!(case.header(headers::VERIFIED).is_none());
            }
        }
        let count = |wanted: fn(&Effect) -> bool| case.effects.iter().filter(|e| wanted(e)).count();
        let answers = count(|effect| matches!(effect, Effect::Answer(_)));
        let forwards = count(|effect| matches!(effect, Effect::Forward));
        prop_assert!(answers + forwards <= 1, "{:?}", case.effects);
        prop_assert!(count(|effect| matches!(effect, Effect::Respond)) <= 1);
        prop_assert!(case.settled().len() <= 1);
        if forwards == 1 && !shadowed {
            prop_assert_eq!(case.settled().len(), 1, "a forwarded claim is settled: {:?}", case.effects);
        }
        prop_assert!(!case.exchange.waits() && !case.exchange.holds_response());
    }
}

#[test]
fn override_headers_are_removed_where_something_is_guarded_and_nowhere_else() {
    let overrides = vec!["x-original-url".to_owned(), "x_http_method_override".to_owned()];
    let removes = |path: &str| {
        let case = Case::of(Head { overrides: overrides.clone(), ..post(path, BODY) }, BODY);
        let removed = |name: &String| case.effects.contains(&Effect::Remove(name.clone()));
        overrides.iter().all(removed)
    };
    assert!(removes("/in") && removes("/shadow") && removes("/other"));
    assert!(!removes("/off") && !removes("/app"));
}

#[test]
fn possible_opt_out_that_nobody_was_asked_about_is_held_until_it_is_acknowledged() {
    let stop = BODY.replace("zebra", "STOP");
    let unclaimed = |body: &str| {
        let mut case = Case::of(post("/in", body), body);
        case.apply(Event::NoVerdict);
        case.apply(Event::Response(ResponseHead {
            status: 200,
            from_backend: true,
            ..ResponseHead::default()
        }));
        case
    };
    let mut case = unclaimed(&stop);
    assert!(case.exchange.holds_response() && !case.effects.contains(&Effect::Respond));
    assert!(
        case.effects.iter().any(|effect| matches!(effect, Effect::Settle { urgent: true, .. }))
    );
    case.apply(Event::Settled);
    assert_eq!(case.effects.last(), Some(&Effect::Respond));
    let mut case = unclaimed(&stop);
    case.after(999);
    assert!(case.exchange.holds_response());
    case.after(1);
    assert!(!case.exchange.holds_response());
    assert!(case.effects.contains(&Effect::Count(Counter::OptOutUnacknowledged)));
    let question = BODY.replace("zebra", "Where+is+my+order");
    assert!(!unclaimed(&question).exchange.holds_response());
    let mut claimed = Case::of(post("/in", &stop), &stop);
    claimed.decide(Decision::Proceed);
    claimed.apply(Event::Response(ResponseHead {
        status: 200,
        from_backend: true,
        ..ResponseHead::default()
    }));
    assert!(!claimed.exchange.holds_response(), "the sidecar knows of it");
}

#[test]
fn address_with_characters_outside_of_ascii_is_escaped() {
    assert_eq!(header_safe("+1 415"), "+1 415");
    assert_eq!(header_safe("é\r\n"), "%C3%A9%0D%0A");
    assert_eq!(Class::Other.as_str(), "other");
}
