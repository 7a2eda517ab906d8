//! Requests up to their verdict: refusals, proofs, and the headers for the backend.

use super::*;
use crate::upstream_request::header_safe;

fn link(id: &str) -> MediaLink {
    MediaLink {
        id: id.to_owned(),
        content_type: "image/jpeg".to_owned(),
        url: format!("https://media.example/media/{id}"),
    }
}

#[test]
fn json_event_has_the_links_of_the_verdict() {
    let mut case = Case::awaiting_verdict("/json");
    let claim = case.claims().remove(0);
    let verdict = verdict(&claim.claim_id, Decision::Proceed);
    case.apply(Event::Verdict(Verdict { media: vec![link("mi_1")], ..verdict }));
    let expected = serde_json::json!([{
        "id": "mi_1", "content_type": "image/jpeg", "url": "https://media.example/media/mi_1",
    }]);
    assert_eq!(case.event().unwrap()["media"], expected);
    let mut case = Case::awaiting_verdict("/json");
    case.decide(Decision::Proceed);
    assert_eq!(case.event().unwrap().get("media"), None);
}

#[test]
fn proven_message_is_forwarded_after_the_verdict_with_its_facts() {
    let mut case = Case::awaiting_verdict("/in?tenant=7");
    assert!(!case.was_forwarded(), "not before the verdict");
    let claim = case.claims().remove(0);
    assert_eq!(claim.claim_id, "000000000000000a00000007");
    assert_eq!((claim.route.as_str(), claim.form.as_str()), ("/in", BODY));
    case.apply(Event::Verdict(Verdict {
        opt: Some(Opt::Stop),
        suppressed: true,
        window_expires: Some("2026-11-24T12:00:00Z".to_owned()),
        attempt: Some(2),
        media: vec![link("mi_1"), link("mi_2")],
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
        (headers::MEDIA, "https://media.example/media/mi_1 https://media.example/media/mi_2"),
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
    assert_eq!(case.claims().remove(0).form, BODY);
    let case = Case::of(head, "x=1");
    assert_eq!(case.reason(), Some("unexpected-body"));
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
    assert!(case.claims().is_empty());
    assert_eq!(Case::of(json(&target), "{}").reason(), Some("invalid-body-hash"));
    assert_eq!(Case::of(json("/other"), body).reason(), Some("missing-body-hash"));
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
        assert_eq!(case.reason(), refused);
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
        assert_eq!(forged.reason(), Some("invalid-signature"), "{body:?}");
    }
    for body in ["Body=hi", "From=1&To=2", "MessageSid=SM1"] {
        let forged = Head { signature: signature("/x", body), ..post("/in", body) };
        assert_eq!(Case::of(forged, body).reason(), Some("invalid-signature"), "{body}");
    }
}

#[test]
fn route_accepts_the_methods_and_bodies_that_it_lists() {
    let get = |target: &str| {
        let target = format!("{target}?{BODY}");
        Head { method: b"GET".to_vec(), content_type: None, ..post(&target, "") }
    };
    assert_eq!(Case::of(get("/in"), "").reason(), Some("method-not-enabled"));
    assert_eq!(Case::of(get("/both"), "").claims().len(), 1);
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
    assert_eq!(Case::of(json("/forms?"), body).reason(), Some("body-not-enabled"));
    assert_eq!(Case::of(json("/other?x=1&"), body).reason(), Some("ambiguous-fields"));
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
    assert_eq!((kept.claims().len(), removed(&kept)), (1, 2));
    assert_eq!(removed(&Case::awaiting_verdict("/in")), 0);
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
        assert_eq!(case.reason(), Some(want), "{head:?}");
        assert!(!case.was_forwarded() && case.header(headers::VERIFIED).is_none());
        assert!(case.claims().is_empty() && case.settlements().is_empty());
    }
    let wide = config(|json| json["max_body_bytes"] = 65_536.into());
    let mut case = Case::new(wide);
    case.apply(Event::Head(post("/in", BODY)));
    case.apply(Event::Complete { body: flood.as_bytes() });
    assert_eq!(case.reason(), Some("too-many-parameters"));
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
        assert_eq!(Case::of(head(settings), BODY).reason(), Some(want), "{settings}");
    }
    let mut token = post("/in", BODY);
    token.signature_settings = Some(b"key=webhooks_sharedkey_1,algorithm=HMAC_SHA256".to_vec());
    assert_eq!(Case::of(token, BODY).reason(), Some("invalid-signature"));
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
        let mut case = Case::awaiting_verdict("/shadow");
        case.decide(decision);
        assert!(case.was_forwarded() && case.answer().is_none(), "{decision:?}");
        assert_eq!(case.header(headers::VERIFIED), Some(ACCOUNT), "this was proven");
        let dedupe = if decision == Decision::Unavailable { "unknown" } else { "duplicate" };
        assert_eq!(case.header(headers::DEDUPE), Some(dedupe));
        assert_eq!(case.header(headers::SUPPRESSED), None, "the sidecar was not asked");
    }

    let case = Case::of(Head { forged: vec!["x-twilio-edge-key".into()], ..post("/off", "") }, "");
    assert!(case.was_forwarded() && case.header(headers::VERIFIED).is_none());
    assert_eq!(case.effects[1], Effect::Remove("x-twilio-edge-key".into()));
}

#[test]
fn routes_are_exact_or_folders_and_may_belong_to_some_accounts() {
    assert_eq!(Case::awaiting_verdict("/all/of/these").claims()[0].route, "/all/");
    let mut case = Case::new(config(|_| {}));
    case.apply(Event::Head(post("/all", BODY)));
    assert!(case.was_forwarded(), "no folder, not guarded");
    assert_eq!(Case::of(post("/tenant", BODY), BODY).reason(), Some("unknown-account"));
}

#[test]
fn route_waits_for_a_verdict_until_its_timeout() {
    let mut case = Case::awaiting_verdict("/all/");
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
    assert_eq!(case.reason(), Some("body-too-large"));
}

#[test]
fn missing_body_is_refused_after_ten_seconds() {
    let mut case = Case::new(config(|_| {}));
    case.apply(Event::Head(post("/in", BODY)));
    case.after(MAX_FIRST_PART_MS - 1);
    assert_eq!(case.answer(), None);
    case.after(1);
    assert_eq!(case.reason(), Some("no-body"));

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
fn override_headers_are_removed_where_something_is_guarded_and_nowhere_else() {
    let names = ["x-original-url", "x_http_method_override"];
    let overrides = names.map(|name| (name.to_owned(), b"/other".to_vec())).to_vec();
    let removes = |path: &str| {
        let case = Case::of(Head { overrides: overrides.clone(), ..post(path, BODY) }, BODY);
        let removed = |name: &str| case.effects.contains(&Effect::Remove(name.to_owned()));
        names.into_iter().all(removed)
    };
    assert!(removes("/in") && removes("/shadow") && removes("/other"));
    assert!(!removes("/off") && !removes("/app"));
}

#[test]
fn address_with_characters_outside_of_ascii_is_escaped() {
    assert_eq!(header_safe("+1 415"), "+1 415");
    assert_eq!(header_safe("é\r\n"), "%C3%A9%0D%0A");
    assert_eq!(Class::Other.as_str(), "other");
}
