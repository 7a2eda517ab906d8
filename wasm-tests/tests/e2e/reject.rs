//! Unsigned requests, and signed requests that are no webhook. They do not reach the backend, and the answer has the reason.

use anyhow::{Context, Result};
use serde_json::json;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::signers::Sdk;
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, INBOUND, Request, STATUS, fresh_sid};

use crate::expect::{arrives, is_refusal, refused};
use crate::suite::{Scenario, Setting, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios![Setting::Shared;
        changed_request_is_rejected,
        signed_request_without_a_webhook_is_rejected,
        recut_parameters_are_rejected,
        bytes_that_are_no_text_are_rejected,
        broken_escapes_are_text,
        signature_is_compared_exactly,
        other_methods_are_refused,
        rejection_is_counted,
        wrong_configuration_is_refused_with_all_its_problems,
    ]
    .to_vec()
}

async fn changed_request_is_rejected(stack: &Stack) -> Result<()> {
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
    refused(stack, &emptied.as_new_case(), Reason::InvalidSignature).await?;
    let unsigned = signed.clone().without_header("x-twilio-signature");
    refused(stack, &unsigned.clone().as_new_case(), Reason::MissingSignature).await?;
    let empty = unsigned.header("X-Twilio-Signature", "");
    refused(stack, &empty.as_new_case(), Reason::MissingSignature).await?;
    // The request itself was fine, and none of the above has used it up.
    arrives(stack, &signed).await?;
    Ok(())
}

async fn signed_request_without_a_webhook_is_rejected(stack: &Stack) -> Result<()> {
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
    // One signature covers both %FF and %FE, because both are U+FFFD in decoded text.
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
        form.clone().without(taken).without(taker).add(taker, &value)
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

/// The signature covers decoded text, in which all broken bytes are the same U+FFFD: it proves none of them.
async fn bytes_that_are_no_text_are_rejected(stack: &Stack) -> Result<()> {
    for broken in [
        &b"%FF"[..],
        b"%fe",
        b"\xff",
        b"%C0%AF",
        b"\xc0\xaf",
        b"%ED%A0%80",
        b"%F5%80%80%80",
        b"%E2%82",
        b"\xc3",
    ] {
        let decoded = percent_decoded(broken);
        let text = String::from_utf8_lossy(&decoded);
        for form in [
            Form::inbound(&text),
            Form::inbound("in a name").add(&text, "1"),
            Form::inbound("in an unused value").add("Zz", &text),
        ] {
            let request = stack.post(&form).await?;
            let mut body = form.encoded().into_bytes();
            let escaped = "%EF%BF%BD".repeat(text.chars().count());
            let at = body.windows(escaped.len()).position(|part| part == escaped.as_bytes());
            let at = at.context("the replacement is in the body")?;
            body.splice(at..at + escaped.len(), broken.iter().copied());
            let request = Request { body, ..request };
            refused(stack, &request, Reason::InvalidUtf8)
                .await
                .with_context(|| format!("{broken:?}"))?;
        }
    }
    Ok(())
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = bytes;
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'%').map(|digits| u8::from_str_radix(digits, 16)) {
            Some(Ok(byte)) => {
                decoded.push(byte);
                rest = &more[2..];
            }
            _ => {
                decoded.push(*first);
                rest = more;
            }
        }
    }
    decoded
}

/// Both SDKs read an escape that is none as it stands, and so does what is signed.
async fn broken_escapes_are_text(stack: &Stack) -> Result<()> {
    for text in ["100%", "%", "%%", "%4", "%zz", "%u00e9", "50% off", "%25%", "a%0"] {
        let form = Form::inbound("").set("Body", text);
        let request = stack.post(&form).await?;
        let escaped = text.replace('%', "%25").replace(' ', "+");
        let body = form.encoded().replacen(
            &format!("&Body={escaped}&"),
            &format!("&Body={}&", text.replace(' ', "+")),
            1,
        );
        assert_ne!(body, form.encoded());
        let request = Request { body: body.into(), ..request };
        if text == "%25%" {
            // Here the first escape is one, so this is another text than was signed.
            refused(stack, &request, Reason::InvalidSignature).await?;
        } else {
            arrives(stack, &request).await.context(text)?;
        }
    }
    Ok(())
}

async fn signature_is_compared_exactly(stack: &Stack) -> Result<()> {
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

async fn other_methods_are_refused(stack: &Stack) -> Result<()> {
    for method in ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "post"] {
        let form = Form::inbound("wrong method");
        let request = Request { method: method.to_owned(), ..stack.post(&form).await? };
        let response = stack.send(&request).await?;
        // Envoy itself refuses some of these words as methods.
        if response.header("x-twilio-edge-reason").is_some() {
            assert_eq!(response.status, 405, "{method}");
            assert_eq!(response.header("allow").as_deref(), Some("GET, POST"));
        } else {
            assert!(
                [400, 403, 404, 405].contains(&response.status),
                "{method}: {}",
                response.status
            );
        }
        stack.nothing_reached(&request).await?;
    }
    let put = Request::new("PUT", INBOUND, "x");
    is_refusal(&stack.send(&put).await?, Reason::MethodNotAllowed)?;
    let body = stack.get_as(&Form::inbound("GET with a body"), Signing::default()).await?;
    let body = Request { body: b"x=1".to_vec(), ..body };
    refused(stack, &body, Reason::UnexpectedBody).await
}

/// By its reason, under one name: so that one alert covers them all.
async fn rejection_is_counted(stack: &Stack) -> Result<()> {
    let forged = Request::new("POST", INBOUND, "AccountSid=forged")
        .header("Content-Type", "application/x-www-form-urlencoded");
    let counter = format!("rejected.{}", Reason::MissingSignature.slug());
    let before = stack.envoy.counter(&counter).await?;
    refused(stack, &forged, Reason::MissingSignature).await?;
    // The filter reports its counts on the tick.
    let counted = async || Ok((stack.envoy.counter(&counter).await? > before).then_some(()));
    until(&format!("{counter} to be more than {before}"), counted).await?;
    let page = stack.envoy.prometheus().await?;
    let line = r#"twilio_edge_rejected{reason="missing-signature"}"#;
    assert!(page.contains(line), "Prometheus has no {line}");
    Ok(())
}

/// Envoy refuses the listener, and the error lists all problems of the configuration.
async fn wrong_configuration_is_refused_with_all_its_problems(stack: &Stack) -> Result<()> {
    let wrong = Plan::adapted(SidecarPlan::Absent, |config| {
        config.plugin["routes"][0]["class"] = "voice".into();
        config.plugin["accounts"][0]["auth_tokens"] = json!([{ "env": "NOT_THERE" }]);
        config.plugin["colour"] = "blue".into();
        Ok(())
    });
    let refused = stack.another(wrong).await.err().context("Envoy took it")?;
    let result = format!("{refused:#}");
    for problem in ["routes[0].class", "accounts[0].auth_tokens[0]: NOT_THERE is not set", "colour"]
    {
        assert!(result.contains(problem), "nothing of {problem} in:\n{result}");
    }
    Ok(())
}
