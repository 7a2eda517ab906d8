//! Webhooks of Twilio's reach the backend with unchanged bytes and trusted headers, for every way in which Twilio signs
//! and sends them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::recorder::Seen;
use twilio_edge_wasm_tests::signers::Sdk;
use twilio_edge_wasm_tests::stack::{NEXT_TOKEN, ORIGIN, ORIGIN_WITH_PORT, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, INBOUND, OTHER, Request, STATUS, fresh_sid};

use crate::expect::{arrives, refused};
use crate::suite::{Scenario, Setting, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios![Setting::Shared;
        posted_forms_arrive_proven,
        webhooks_sent_as_get_arrive_proven,
        body_other_than_a_form_is_proven_by_its_hash,
        addresses_of_channels_are_forwarded_without_prefix,
        text_arrives_as_it_was_sent,
        odd_urls_are_signed_as_they_are_written,
        next_token_proves_a_webhook,
        every_configured_origin_is_tried_with_and_without_its_port,
    ]
    .to_vec()
}

const BOTH: [Sdk; 2] = [Sdk::Python, Sdk::Node];

/// Returns the trusted headers that the backend must receive, without the end of the window, which is a time.
fn trusted(form: &Form, class: &str, channel: &str, key: &str) -> BTreeMap<String, String> {
    let address = |name| form.get(name).rsplit(':').next().unwrap_or_default().to_owned();
    let mut trusted = BTreeMap::new();
    let mut insert = |name: &str, value: &str| trusted.insert(name.to_owned(), value.to_owned());
    insert("verified", ACCOUNT);
    insert("class", class);
    insert("key", key);
    if class == "other" {
        insert("dedupe", "unknown");
        return trusted;
    }
    insert("message-sid", form.get("MessageSid"));
    insert("from", &address("From"));
    insert("to", &address("To"));
    insert("channel", channel);
    insert("dedupe", "first");
    insert("attempt", "1");
    if class == "status" {
        insert("status", form.get("MessageStatus"));
    } else {
        insert("suppressed", "false");
    }
    trusted
}

/// Returns the trusted headers of a request without the end of the window, which it checks.
fn trusted_headers(seen: &Seen) -> Result<BTreeMap<String, String>> {
    let mut facts = seen.trusted();
    if facts.get("class").map(String::as_str) == Some("inbound") {
        let ends = facts.remove("window-expires").context("no end of the window")?;
        ensure!(ends.len() >= 20 && ends.contains('T') && ends.ends_with('Z'), "RFC 3339: {ends}");
    }
    Ok(facts)
}

async fn posted_forms_arrive_proven(stack: &Stack) -> Result<()> {
    for sdk in BOTH {
        let forms = [
            ("inbound", Form::inbound("Hello, are you open today?")),
            ("status", Form::status("delivered")),
            ("status", Form::status("undelivered").set("ErrorCode", "30003")),
            ("other", Form::other()),
        ];
        for (class, form) in forms {
            let signing = Signing { sdk: Some(sdk), ..Signing::default() };
            let request = stack.post_as(&form, signing).await?;
            let seen = arrives(stack, &request).await?;
            assert_eq!(trusted_headers(&seen)?, trusted(&form, class, "sms", "current"));
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
            assert_eq!(trusted_headers(&seen)?, trusted(&form, class, "sms", "current"));
        }
    }
    Ok(())
}

async fn body_other_than_a_form_is_proven_by_its_hash(stack: &Stack) -> Result<()> {
    for sdk in BOTH {
        for (target, body) in
            [(OTHER, r#"{"event":"done","text":"päivää 👋"}"#), (OTHER, "[1, 2,  3]\r\n")]
        {
            let signing = Signing { sdk: Some(sdk), ..Signing::default() };
            let request = stack.json_as(target, body, signing).await?;
            let seen = arrives(stack, &request).await?;
            assert_eq!(trusted_headers(&seen)?, trusted(&Form::other(), "other", "", "current"));

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

async fn addresses_of_channels_are_forwarded_without_prefix(stack: &Stack) -> Result<()> {
    for channel in ["whatsapp", "messenger", "rcs"] {
        let form = Form::inbound("hi");
        let (from, to) = (form.get("From").to_owned(), form.get("To").to_owned());
        let form = form
            .set("From", &format!("{channel}:{from}"))
            .set("To", &format!("{channel}:{to}"))
            .set("ProfileName", "Zoë");
        let seen = arrives(stack, &stack.post(&form).await?).await?;
        assert_eq!(trusted_headers(&seen)?, trusted(&form, "inbound", channel, "current"));
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
    // Parameters that are not single-valued may be repeated: each different value is signed once.
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

async fn next_token_proves_a_webhook(stack: &Stack) -> Result<()> {
    for sdk in BOTH {
        let form = Form::inbound("while the token is being rotated");
        let signing = Signing { sdk: Some(sdk), token: NEXT_TOKEN, ..Signing::default() };
        let seen = arrives(stack, &stack.post_as(&form, signing).await?).await?;
        assert_eq!(trusted_headers(&seen)?, trusted(&form, "inbound", "sms", "next"));
    }
    Ok(())
}

async fn every_configured_origin_is_tried_with_and_without_its_port(stack: &Stack) -> Result<()> {
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
        // Headers of the client do not change the configured origins.
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
