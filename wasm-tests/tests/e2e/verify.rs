//! What is Twilio's reaches the backend with its bytes untouched and the trusted headers set; what is not, or is
//! signed but cannot be believed, does not, and the answer says why.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::Response;
use twilio_edge_wasm_tests::recorder::{Answer, Seen};
use twilio_edge_wasm_tests::signers::Sdk;
use twilio_edge_wasm_tests::stack::{NEXT_TOKEN, ORIGIN, ORIGIN_WITH_PORT, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, INBOUND, OTHER, Request, STATUS, fresh_sid};

use crate::suite::{Scenario, Setting, told};

pub(crate) fn scenarios() -> Vec<Scenario> {
    told![Setting::Shared;
        posted_forms_arrive_proven,
        webhooks_sent_as_get_arrive_proven,
        a_body_that_is_no_form_arrives_proven_by_its_hash,
        addresses_of_channels_are_told_without_their_prefix,
        text_arrives_as_it_was_sent,
        odd_urls_are_signed_as_they_are_written,
        the_next_token_proves_too,
        every_configured_origin_counts_with_and_without_its_port,
        what_was_tampered_with_is_rejected,
        what_is_signed_but_not_a_webhook_is_rejected,
        recut_parameters_are_rejected,
        only_the_signature_itself_proves,
        a_rejection_is_counted,
    ]
    .to_vec()
}

const BOTH: [Sdk; 2] = [Sdk::Python, Sdk::Node];

/// Sends `request`; it must arrive once, whole and unchanged, and the backend's answer must come back.
async fn arrives(stack: &Stack, request: &Request) -> Result<Seen> {
    stack.backend.script(&request.case, [Answer::ok("text/xml", "<Response/>")]);
    let response = stack.send(request).await?;
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    assert_eq!(response.text(), "<Response/>");
    let seen = stack.backend.seen(&request.case);
    assert_eq!(seen.len(), 1, "at the backend");
    assert_eq!(seen[0].head.word(0), request.method);
    assert_eq!(seen[0].head.word(1), request.target);
    assert_eq!(seen[0].bytes(), request.body);
    for (name, value) in &request.headers {
        assert_eq!(seen[0].head.all(name), [value], "{name}");
    }
    Ok(seen[0].clone())
}

/// Sends `request`; it must be refused for `reason` and nothing of it may reach the backend.
async fn refused(stack: &Stack, request: &Request, reason: Reason) -> Result<Response> {
    let response = stack.send(request).await?;
    let told = response.header("x-twilio-edge-reason");
    assert_eq!(told.as_deref(), Some(reason.slug()), "{}", response.text());
    assert_eq!(response.status, reason.status());
    assert!(response.text().contains(reason.slug()), "{}", response.text());
    stack.nothing_reached(request).await?;
    Ok(response)
}

/// The trusted headers an app behind the filter may rely on, but for the end of the window, which is a time.
fn trusted(form: &Form, class: &str, sdk_channel: &str, key: &str) -> BTreeMap<String, String> {
    let address = |name| form.get(name).rsplit(':').next().unwrap_or_default().to_owned();
    let mut trusted = BTreeMap::new();
    let mut tell = |name: &str, value: &str| trusted.insert(name.to_owned(), value.to_owned());
    tell("verified", ACCOUNT);
    tell("class", class);
    tell("key", key);
    if class == "other" {
        tell("dedupe", "unknown");
        return trusted;
    }
    tell("message-sid", form.get("MessageSid"));
    tell("from", &address("From"));
    tell("to", &address("To"));
    tell("channel", sdk_channel);
    tell("dedupe", "first");
    tell("attempt", "1");
    if class == "status" {
        tell("status", form.get("MessageStatus"));
    } else {
        tell("suppressed", "false");
    }
    trusted
}

/// What the backend was told, with the end of the window checked and taken out.
fn told_to_backend(seen: &Seen) -> Result<BTreeMap<String, String>> {
    let mut told = seen.trusted();
    if told.get("class").map(String::as_str) == Some("inbound") {
        let ends = told.remove("window-expires").context("no end of the window")?;
        ensure!(ends.len() >= 20 && ends.contains('T') && ends.ends_with('Z'), "RFC 3339: {ends}");
    }
    Ok(told)
}

async fn posted_forms_arrive_proven(stack: &Stack) -> Result<()> {
    for sdk in BOTH {
        let forms = [
            ("inbound", Form::inbound("Hello, is anybody there?")),
            ("status", Form::status("delivered")),
            ("status", Form::status("undelivered").set("ErrorCode", "30003")),
            ("other", Form::other()),
        ];
        for (class, form) in forms {
            let signing = Signing { sdk: Some(sdk), ..Signing::default() };
            let request = stack.post_as(&form, signing).await?;
            let seen = arrives(stack, &request).await?;
            assert_eq!(told_to_backend(&seen)?, trusted(&form, class, "sms", "current"));
        }
    }
    Ok(())
}

async fn webhooks_sent_as_get_arrive_proven(stack: &Stack) -> Result<()> {
    for sdk in BOTH {
        for (class, form) in [("inbound", Form::inbound("GET?")), ("status", Form::status("sent"))]
        {
            let signing = Signing { sdk: Some(sdk), ..Signing::default() };
            let request = stack.get_as(&form, signing).await?;
            let seen = arrives(stack, &request).await?;
            assert_eq!(told_to_backend(&seen)?, trusted(&form, class, "sms", "current"));
        }
    }
    Ok(())
}

async fn a_body_that_is_no_form_arrives_proven_by_its_hash(stack: &Stack) -> Result<()> {
    for sdk in BOTH {
        for (target, body) in [
            (OTHER, r#"{"event":"done","text":"päivää 👋"}"#),
            ("/twilio/other?tenant=7", "[1, 2,  3]\r\n"),
        ] {
            let signing = Signing { sdk: Some(sdk), ..Signing::default() };
            let request = stack.json_as(target, body, signing).await?;
            let seen = arrives(stack, &request).await?;
            assert_eq!(told_to_backend(&seen)?, trusted(&Form::other(), "other", "", "current"));

            let mut tampered = request.as_new_case();
            tampered.body[0] = b'(';
            refused(stack, &tampered, Reason::InvalidBodyHash).await?;
        }
    }
    let bare = Request::new("POST", OTHER, "{}")
        .header("Content-Type", "application/json")
        .header("X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    refused(stack, &bare, Reason::MissingBodyHash).await?;
    Ok(())
}

async fn addresses_of_channels_are_told_without_their_prefix(stack: &Stack) -> Result<()> {
    for channel in ["whatsapp", "messenger", "rcs"] {
        let form = Form::inbound("hi");
        let (from, to) = (form.get("From").to_owned(), form.get("To").to_owned());
        let form = form
            .set("From", &format!("{channel}:{from}"))
            .set("To", &format!("{channel}:{to}"))
            .set("ProfileName", "Zoë");
        let seen = arrives(stack, &stack.post(&form).await?).await?;
        assert_eq!(told_to_backend(&seen)?, trusted(&form, "inbound", channel, "current"));
    }
    Ok(())
}

async fn text_arrives_as_it_was_sent(stack: &Stack) -> Result<()> {
    let long = "ß".repeat(1600);
    for text in [
        "",
        " leading, trailing and  double ",
        "a+b=c&d=e%20f;g",
        "päivää 👋🏽 \u{202e}txet",
        "line one\nline two\r\nline three\ttab",
        "'single' \"double\" <angle> `back` {brace} |pipe| \\back\\ ^caret~",
        "\u{fffd} really typed, and a \u{0} too",
        &long,
    ] {
        let form = Form::inbound(text).set("FromCity", "").set("ZzLast", text).set("aaa", text);
        for sdk in BOTH {
            let form = form.clone().set("MessageSid", &fresh_sid("SM"));
            let signing = Signing { sdk: Some(sdk), ..Signing::default() };
            arrives(stack, &stack.post_as(&form, signing).await?).await?;
        }
    }
    // The SDKs sort emoji and the last characters of the basic plane differently in names; in values of one name too.
    let repeated =
        Form::inbound("twice").add("MediaNote", "b").add("MediaNote", "a").add("MediaNote", "b");
    arrives(stack, &stack.post(&repeated).await?).await?;
    Ok(())
}

async fn odd_urls_are_signed_as_they_are_written(stack: &Stack) -> Result<()> {
    for query in [
        "?",
        "?tenant=7&tenant=8",
        "?path=a%2Fb%2fc&space=%20+",
        "?quote='single'&tilde=~&star=*&paren=()",
        "?&&=&a=&=b",
        "?colon=:&at=@&question=?&slash=//",
        "?escape=%&broken=%zz",
        "?From=%2B15550000000",
    ] {
        let form = Form::inbound("odd").to(&format!("{INBOUND}{query}"));
        arrives(stack, &stack.post(&form).await?).await?;
        let form = Form::status("sent").to(&format!("{STATUS}{query}"));
        arrives(stack, &stack.post(&form).await?).await?;
    }
    Ok(())
}

async fn the_next_token_proves_too(stack: &Stack) -> Result<()> {
    for sdk in BOTH {
        let form = Form::inbound("while the token is being rotated");
        let signing = Signing { sdk: Some(sdk), token: NEXT_TOKEN, ..Signing::default() };
        let seen = arrives(stack, &stack.post_as(&form, signing).await?).await?;
        assert_eq!(told_to_backend(&seen)?, trusted(&form, "inbound", "sms", "next"));
    }
    Ok(())
}

async fn every_configured_origin_counts_with_and_without_its_port(stack: &Stack) -> Result<()> {
    let with_default_port = format!("{ORIGIN}:443");
    for origin in [ORIGIN, &with_default_port, ORIGIN_WITH_PORT] {
        let signing = Signing { origin, ..Signing::default() };
        arrives(stack, &stack.post_as(&Form::inbound("port"), signing).await?).await?;
        arrives(stack, &stack.json_as(OTHER, "{}", signing).await?).await?;
    }
    for origin in [
        "http://hooks.example.com",
        "https://hooks.example.com:80",
        "https://hooks.example.com:9443",
        "https://HOOKS.example.com",
        "https://hooks.example.com.evil.example",
    ] {
        let signing = Signing { origin, ..Signing::default() };
        let request = stack.post_as(&Form::inbound("port"), signing).await?;
        refused(stack, &request, Reason::InvalidSignature).await?;
        // What the client says about its origin is no configuration.
        let (scheme, host) = origin.split_once("://").unwrap_or_default();
        let claiming = request
            .as_new_case()
            .header("X-Forwarded-Proto", scheme)
            .header("X-Forwarded-Host", host)
            .header("X-Original-Host", host)
            .header("Forwarded", format!("proto={scheme};host={host}"));
        refused(stack, &claiming, Reason::InvalidSignature).await?;
    }
    Ok(())
}

async fn what_was_tampered_with_is_rejected(stack: &Stack) -> Result<()> {
    let form = Form::inbound("pay 10 to Bob");
    let signed = stack.post(&form).await?;
    let with_body = |form: Form| Request { body: form.encoded().into(), ..signed.clone() };
    let with_target = |target: &str| Request { target: target.to_owned(), ..signed.clone() };
    let wrong_token = Signing { token: "00000000000000000000000000000000", ..Signing::default() };
    for (what, request) in [
        ("a value", with_body(form.clone().set("Body", "pay 99 to Bob"))),
        ("a value's case", with_body(form.clone().set("Body", "Pay 10 to Bob"))),
        ("a parameter more", with_body(form.clone().add("Extra", "1"))),
        ("a parameter less", with_body(form.clone().without("NumMedia"))),
        ("an empty parameter less", with_body(form.clone().without("ToCity"))),
        ("a second value", with_body(form.clone().add("FromState", "NV"))),
        ("another message", with_body(form.clone().set("MessageSid", &fresh_sid("SM")))),
        ("a query", with_target("/twilio/inbound?x=1")),
        ("a bare question mark", with_target("/twilio/inbound?")),
        ("another route", with_target(STATUS)),
        ("the wrong token", stack.post_as(&form, wrong_token).await?),
    ] {
        let response = refused(stack, &request.as_new_case(), Reason::InvalidSignature).await;
        response.with_context(|| what.to_owned())?;
    }
    let emptied = Request { body: Vec::new(), ..signed.clone() };
    refused(stack, &emptied.as_new_case(), Reason::MissingField).await?;
    let unsigned = signed.clone().without_header("x-twilio-signature");
    refused(stack, &unsigned.clone().as_new_case(), Reason::MissingSignature).await?;
    let empty = unsigned.header("X-Twilio-Signature", "");
    refused(stack, &empty.as_new_case(), Reason::MissingSignature).await?;
    // The request itself was fine, and none of the above has used it up.
    arrives(stack, &signed).await?;
    Ok(())
}

async fn what_is_signed_but_not_a_webhook_is_rejected(stack: &Stack) -> Result<()> {
    let inbound = || Form::inbound("shape");
    let status = || Form::status("delivered");
    let unknown = "ACffffffffffffffffffffffffffffffff";
    let cases = [
        ("unknown account", Reason::UnknownAccount, inbound().set("AccountSid", unknown)),
        (
            "account in lower case",
            Reason::UnknownAccount,
            inbound().set("AccountSid", &ACCOUNT.to_lowercase()),
        ),
        ("no account", Reason::MissingField, inbound().without("AccountSid")),
        ("no MessageSid", Reason::MissingField, inbound().without("MessageSid")),
        ("empty MessageSid", Reason::MissingField, inbound().set("MessageSid", "")),
        ("no From", Reason::MissingField, inbound().without("From")),
        ("no To", Reason::MissingField, status().without("To")),
        ("no status", Reason::WrongClass, status().without("MessageStatus")),
        ("empty status", Reason::MissingField, status().set("MessageStatus", "")),
        ("short SID", Reason::MalformedField, inbound().set("MessageSid", "SM123")),
        (
            "long SID",
            Reason::MalformedField,
            inbound().set("MessageSid", &format!("{}0", fresh_sid("SM"))),
        ),
        ("SID of a call", Reason::MalformedField, inbound().set("MessageSid", &fresh_sid("CA"))),
        (
            "SID with a colon",
            Reason::MalformedField,
            status().set("MessageSid", "SM:0112233445566778899aabbccddeeff"),
        ),
        (
            "status with a colon",
            Reason::MalformedField,
            status().set("MessageStatus", "sent:30003"),
        ),
        ("line break in From", Reason::MalformedField, inbound().set("From", "+1555\r\nX-Evil: 1")),
        ("From twice", Reason::RepeatedField, inbound().add("From", "+15550001111")),
        ("MessageSid twice", Reason::RepeatedField, inbound().add("MessageSid", &fresh_sid("SM"))),
        ("Body twice", Reason::RepeatedField, inbound().add("Body", "another")),
        ("status on the route of messages", Reason::WrongClass, status().to(INBOUND)),
        ("message on the route of statuses", Reason::WrongClass, inbound().to(STATUS)),
    ];
    for (what, reason, form) in cases {
        let request = stack.post(&form).await?;
        refused(stack, &request, reason).await.with_context(|| what.to_owned())?;
    }
    let flood = (0..1200).fold(inbound(), |form, n| form.add(&format!("N{n}"), "1"));
    refused(stack, &stack.post(&flood).await?, Reason::TooManyParameters).await?;
    // One signature covers %FF and %FE alike: both are U+FFFD to whoever signs decoded text.
    let mut request = stack.post(&inbound().set("Body", "\u{fffd}")).await?;
    let body = String::from_utf8(request.body)?.replace("%EF%BF%BD", "%FF");
    request.body = body.into();
    refused(stack, &request, Reason::InvalidUtf8).await?;
    Ok(())
}

/// Twilio signs names and values run together, so one signature fits every way to cut the same text into parameters.
async fn recut_parameters_are_rejected(stack: &Stack) -> Result<()> {
    let form = Form::inbound("hello");
    // `taker` comes right before `taken` in the order of names, so the signed text stays the same.
    let swallow = |taker: &str, taken: &str| {
        let value = format!("{}{taken}{}", form.get(taker), form.get(taken));
        form.clone().without(taken).set(taker, &value)
    };
    let sid = form.get("MessageSid").to_owned();
    let mut params = form.params.clone();
    params.sort();
    let text: String = params.iter().map(|(name, value)| format!("{name}{value}")).collect();
    let all_in_one = Form { params: vec![("A".into(), text.split_at(1).1.into())], ..form.clone() };
    let moved = form.clone().without("MessageSid").add(&format!("MessageSid{sid}"), "");
    for (what, reason, recut) in [
        ("all in one", Reason::MissingField, all_in_one),
        ("a value moves into its name", Reason::MissingField, moved),
        ("the text takes in the sender", Reason::MissingField, swallow("Body", "From")),
        (
            "the account takes in the version",
            Reason::UnknownAccount,
            swallow("AccountSid", "ApiVersion"),
        ),
        ("the SID takes in the media", Reason::MalformedField, swallow("MessageSid", "NumMedia")),
        ("the sender takes in the city", Reason::MalformedField, swallow("From", "FromCity")),
        ("the recipient takes in the city", Reason::MalformedField, swallow("To", "ToCity")),
    ] {
        let signed =
            stack.post_as(&form, Signing { sdk: Some(Sdk::Python), ..Signing::default() }).await?;
        let request =
            stack.post_as(&recut, Signing { sdk: Some(Sdk::Node), ..Signing::default() }).await?;
        assert_eq!(request.headers, signed.headers, "{what}: has the same signature");
        refused(stack, &request, reason).await.with_context(|| what.to_owned())?;
    }
    Ok(())
}

async fn only_the_signature_itself_proves(stack: &Stack) -> Result<()> {
    let form = Form::inbound("signature");
    let good = stack.post(&form).await?;
    let signature = good.headers.iter().find(|(name, _)| name == "X-Twilio-Signature");
    let signature = String::from_utf8(signature.context("unsigned")?.1.clone())?;
    let unsigned = good.clone().without_header("x-twilio-signature");
    for other in [
        signature.trim_end_matches('=').to_owned(),
        format!("{signature}="),
        signature.to_lowercase(),
        signature.replace(['+', '/'], "-"),
        format!("{signature},{signature}"),
        format!("sha1={signature}"),
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=".to_owned(),
        "=".repeat(28),
        "A".repeat(8000),
    ] {
        if other == signature {
            continue;
        }
        let request = unsigned.clone().as_new_case().header("X-Twilio-Signature", &other);
        refused(stack, &request, Reason::InvalidSignature).await.context(other)?;
    }
    let twice =
        good.clone().as_new_case().header("x-twilio-signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    refused(stack, &twice, Reason::AmbiguousRequest).await?;
    arrives(stack, &good).await?;
    Ok(())
}

async fn a_rejection_is_counted(stack: &Stack) -> Result<()> {
    let forged = Request::new("POST", INBOUND, "Body=forged")
        .header("Content-Type", "application/x-www-form-urlencoded");
    let counter = format!("rejected.{}", Reason::MissingSignature.slug());
    let before = stack.envoy.counter(&counter).await?;
    refused(stack, &forged, Reason::MissingSignature).await?;
    let after = stack.envoy.counter(&counter).await?;
    assert!(after > before, "{counter} was {before}, is {after}");
    Ok(())
}
