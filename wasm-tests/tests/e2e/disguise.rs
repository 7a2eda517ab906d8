//! Requests that imitate trusted headers or webhooks: forged headers, bytes beyond UTF-8, similar
//! paths. An unproven request never has a trusted header.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use twilio_edge_demo::BACKEND_CLUSTER;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::send_bytes;
use twilio_edge_wasm_tests::http2::{Framing, send_h2};
use twilio_edge_wasm_tests::stack::{
    PASS_THROUGH, Plan, SidecarPlan, Signing, Stack, connection_manager,
};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, INBOUND, Request, fresh_sid};

use crate::expect::{arrived, is_refusal, refused};
use crate::suite::{Scenario, Setting, scenarios};

/// Routes that ask for the filter's word.
const GATED: Plan = Plan::adapted(SidecarPlan::Sqlite, |config| {
    let proven = json!([{ "name": "x-twilio-edge-verified", "present_match": true }]);
    for prefix in ["/app/gated", "/twilio/"] {
        let refused = json!({ "status": 418 });
        let (gate, wall) =
            (json!({ "prefix": prefix, "headers": proven }), json!({ "prefix": prefix }));
        let routes = config.routes()?;
        routes.insert(0, json!({ "match": wall, "direct_response": refused }));
        routes.insert(0, json!({ "match": gate, "route": { "cluster": BACKEND_CLUSTER } }));
    }
    Ok(())
});

/// Path normalizations of other proxies.
const TIDIED: Plan = Plan::adapted(SidecarPlan::Absent, |config| {
    let manager = connection_manager(config)?;
    manager["normalize_path"] = true.into();
    manager["merge_slashes"] = true.into();
    manager["path_with_escaped_slashes_action"] = "UNESCAPE_AND_FORWARD".into();
    Ok(())
});

/// A route of the filter in mode `off`, and one in mode `shadow`.
const OFF: &str = "/app/off";
const SHADOW: &str = "/app/shadow";

/// Routes on which nothing is refused.
const LENIENT: Plan = Plan::adapted(SidecarPlan::Sqlite, |config| {
    let routes = config.plugin["routes"].as_array_mut().context("the filter's routes")?;
    routes.extend([(OFF, "off"), (SHADOW, "shadow")].map(|(path, mode)| {
        json!({ "path": path, "class": "inbound", "mode": mode, "methods": ["GET", "POST"] })
    }));
    Ok(())
});

pub(crate) fn scenarios() -> Vec<Scenario> {
    let shared = scenarios![Setting::Shared;
        header_bytes_beyond_utf8_change_nothing,
        forged_headers_never_reach_the_backend,
        unguarded_request_passes_without_trusted_headers,
        paths_are_matched_as_written,
        headers_that_name_another_path_are_removed,
        headers_that_change_the_signed_content_are_refused,
        headers_of_a_get_are_checked_too,
    ];
    let strict = scenarios![Setting::Own(Plan::adapted(SidecarPlan::Absent, |config| {
            // As shipped: not guarded.
            config.routes()?.remove(0);
            Ok(())
        }));
        shipped_configuration_forwards_guarded_paths_only,
    ];
    let gated = scenarios![Setting::Own(GATED); route_for_proven_webhooks_accepts_no_forgery];
    let lenient = scenarios![Setting::Own(LENIENT); forged_headers_are_removed_in_every_mode];
    let tidied = scenarios![Setting::Own(TIDIED); paths_that_envoy_tidies_up_are_guarded];
    [shared.as_slice(), &strict, &gated, &lenient, &tidied].concat()
}

async fn header_bytes_beyond_utf8_change_nothing(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let odd: [&[u8]; 4] = [b"a\xff\xfe", b"\xc3\x28", b"\x80", b"caf\xe9"];
    for value in odd {
        for name in
            ["x-custom", "user-agent", "x-request-id", "i-twilio-idempotency-token", "traceparent"]
        {
            let request = stack.post(&Form::inbound("odd headers")).await?.header(name, value);
            assert_eq!(stack.send(&request).await?.status, 200, "{name}: {value:?}");
            arrived(stack, &request).await?;
            let request = request.as_new_case();
            let copy = send_h2(edge, &request, Framing::default()).await?;
            assert_eq!(copy.status, 200, "{name}: {value:?}, a copy over HTTP/2");
            let passing = Request::new("POST", PASS_THROUGH, "x").header(name, value);
            assert_eq!(stack.send(&passing).await?.status, 200);
        }
        let signed = stack.post(&Form::inbound("odd headers")).await?;
        let unsigned = signed.clone().without_header("x-twilio-signature");
        refused(
            stack,
            &unsigned.clone().header("X-Twilio-Signature", value),
            Reason::InvalidSignature,
        )
        .await?;
        let untyped = signed.clone().as_new_case().without_header("content-type");
        // It is not a form then, and the route accepts only forms.
        refused(stack, &untyped.header("Content-Type", value), Reason::BodyNotEnabled).await?;
        let forged = signed.header("X-Twilio-Edge-Verified", value);
        assert_eq!(stack.send(&forged).await?.status, 200);
        arrived(stack, &forged).await?;
    }
    // Names with bytes no name has are the proxy's to refuse; that it does is all that matters.
    for name in [&b"x-\xff\xfe"[..], b"x twilio edge key", b"x-twilio-edge-\xe9", b"(x)", b""] {
        let request = stack.post(&Form::inbound("odd names")).await?;
        let length = format!("Content-Length: {}\r\n\r\n", request.body.len());
        let line = [name, b": 1\r\n"].concat();
        let bytes = [request.head(), line, length.into_bytes(), request.body.clone()].concat();
        let response = send_bytes(edge, &bytes).await?;
        assert!([200, 400].contains(&response.status), "{name:?}: {}", response.status);
        for seen in stack.backend.seen(&request.case) {
            assert_eq!(seen.trusted()["verified"], ACCOUNT);
        }
    }
    Ok(())
}

/// Names that a backend could mistake for the filter's, by case, by separators, or because it reads only the last of several.
const FORGERIES: [&str; 17] = [
    "x-twilio-edge-verified",
    "X-Twilio-Edge-Verified",
    "X-TWILIO-EDGE-KEY",
    "x_twilio_edge_verified",
    "X_Twilio_Edge_Class",
    "x-twilio_edge-from",
    "x_twilio-edge_dedupe",
    "x-twilio-edge-opt",
    "x-twilio-edge-suppressed",
    "x-twilio-edge-anything-new",
    "x-twilio-edge-",
    "x_twilio_edge_",
    "x.twilio.edge.verified",
    "x~twilio~edge~opt",
    "X--Twilio__Edge..From",
    "XTwilioEdgeVerified",
    "x-twilioedge-class",
];

/// `request` with all of [`FORGERIES`], twice.
pub(crate) fn with_forged_headers(mut request: Request) -> Request {
    for name in FORGERIES {
        request = request.header(name, "forged").header(name, "forged again");
    }
    request
}

async fn forged_headers_never_reach_the_backend(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for form in [Form::inbound("hi"), Form::status("sent"), Form::other()] {
        for over_h2 in [false, true] {
            let form = form.clone().set("MessageSid", &fresh_sid("SM"));
            let plain = stack.post(&form).await?;
            let request = with_forged_headers(plain.clone());
            let response = if over_h2 {
                send_h2(edge, &request, Framing::default()).await?
            } else {
                stack.send(&request).await?
            };
            assert_eq!(response.status, 200);
            let seen = arrived(stack, &request).await?;
            let trusted = seen.trusted();
            ensure!(trusted.values().all(|value| !value.contains("forged")), "{trusted:?}");
            ensure!(trusted.keys().all(|name| !name.starts_with("x_")), "{trusted:?}");
            assert_eq!(trusted.get("anything-new"), None);
            assert!(!trusted.contains_key("opt"), "the message is no opt-out: {trusted:?}");
        }
    }
    Ok(())
}

async fn unguarded_request_passes_without_trusted_headers(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let large = "x".repeat(300_000);
    for (method, body) in
        [("GET", ""), ("POST", "anything"), ("PUT", large.as_str()), ("DELETE", "")]
    {
        let request = Request::new(method, "/app/orders?id=7&x=%2F", body)
            .header("X-Own", "kept")
            .header("X-Own", "twice")
            .header("x-twilio-edged", "kept, it only looks alike")
            .header("x-twilio-signature", "kept too");
        let request = with_forged_headers(request);
        for (count, over_h2) in [(1, false), (2, true)] {
            let response = if over_h2 {
                send_h2(edge, &request, Framing::default()).await?
            } else {
                stack.send(&request).await?
            };
            assert_eq!(response.status, 200);
            let seen = stack.backend.wait(&request.case, count).await?[count - 1].clone();
            assert_eq!((seen.head.word(0), seen.head.word(1)), (method, "/app/orders?id=7&x=%2F"));
            assert_eq!(seen.bytes(), body.as_bytes());
            assert!(seen.trusted().is_empty(), "{:?}", seen.trusted());
            assert_eq!(seen.head.all("x-own"), [b"kept".as_slice(), b"twice"]);
            assert!(
                seen.header("x-twilio-edged").is_some()
                    && seen.header("x-twilio-signature").is_some()
            );
        }
    }
    Ok(())
}

/// A path that only looks like a webhook's is none: it must not arrive with trusted headers.
async fn paths_are_matched_as_written(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for target in [
        "/twilio/inbound/",
        "/twilio//inbound",
        "/twilio/./inbound",
        "/app/../twilio/inbound",
        "/app/%2e%2e/twilio/inbound",
        "/twilio/%69nbound",
        "/TWILIO/inbound",
        "/twilio/inbound;x=1",
        "/twilio/inbound%3F",
        "/twilio/inbound\u{e9}",
        "/twilio/inbound#x",
        "//twilio/inbound",
    ] {
        let request = stack.post(&Form::inbound("path").to(target)).await?;
        if let Ok(response) = stack.send(&request).await {
            ensure!((200..500).contains(&response.status), "{target}: {}", response.status);
        }
        for seen in stack.backend.seen(&request.case) {
            ensure!(target.starts_with("/app/"), "{target} was forwarded");
            ensure!(seen.trusted().is_empty(), "{target}: {:?}", seen.trusted());
        }
    }
    // An absolute target is the same request with another host, and the host proves nothing.
    let form = Form::inbound("absolute");
    let request = stack.post(&form).await?;
    let absolute = Request { target: format!("http://evil.example{INBOUND}"), ..request };
    assert_eq!(stack.send(&absolute).await?.status, 200);
    arrived(stack, &absolute).await?;
    let old = stack.post(&Form::inbound("HTTP/1.0")).await?;
    let text = String::from_utf8(old.bytes())?.replacen("HTTP/1.1", "HTTP/1.0", 1);
    let response = send_bytes(edge, text.as_bytes()).await?;
    assert_eq!(response.status, 426, "HTTP/1.0 is off");
    stack.nothing_reached(&old).await
}

/// Proxies set these headers, but so can every client. Neither the route nor the signed URL comes from them.
async fn headers_that_name_another_path_are_removed(stack: &Stack) -> Result<()> {
    let names = ["x-envoy-original-path", "x-original-url", "x-rewrite-url", "x-forwarded-uri"];
    let signed = stack.post(&Form::inbound("elsewhere")).await?;
    for name in names {
        let elsewhere = Request { target: "/twilio/status".to_owned(), ..signed.clone() };
        let elsewhere = elsewhere.as_new_case().header(name, INBOUND);
        refused(stack, &elsewhere, Reason::InvalidSignature).await?;
        let passing = Request { target: PASS_THROUGH.to_owned(), ..signed.clone() };
        let passing = passing.as_new_case().header(name, INBOUND);
        assert_eq!(stack.send(&passing).await?.status, 200);
        let seen = stack.backend.wait(&passing.case, 1).await?;
        assert!(seen[0].trusted().is_empty(), "{name}: {:?}", seen[0].trusted());
        let unsigned = signed.clone().as_new_case().without_header("x-twilio-signature");
        refused(stack, &unsigned.header(name, PASS_THROUGH), Reason::MissingSignature).await?;
    }
    let claiming = names.iter().fold(signed, |request, name| request.header(name, "/nowhere"));
    assert_eq!(stack.send(&claiming).await?.status, 200);
    arrived(stack, &claiming).await?;
    Ok(())
}

/// A captured webhook with an additional header either reaches the application unchanged or is refused.
async fn headers_that_change_the_signed_content_are_refused(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let removed = [
        "X-HTTP-Method-Override",
        "x_http_method_override",
        "X-HTTP-Method",
        "X-Method-Override",
        "x.original.method",
        "X-Original-URL",
        "XOriginalURL",
        "X-Rewrite-URL",
        "X-Forwarded-Prefix",
        "X-Forwarded-Uri",
        "Content_Length",
        "Content_Type",
        "transfer_encoding",
        "Content-Transfer-Encoding",
    ];
    let kept = ["X-Forwarded-Host", "X-Forwarded-Port", "Via", "X-Real-Ip"];
    for form in [Form::inbound("same"), Form::status("sent"), Form::other()] {
        for over_h2 in [false, true] {
            let form = form.clone().set("MessageSid", &fresh_sid("SM"));
            let mut request = stack.post(&form).await?;
            for name in removed.iter().chain(&kept) {
                request = request.header(name, "DELETE");
            }
            let response = match over_h2 {
                true => send_h2(edge, &request, Framing::default()).await?,
                false => stack.send(&request).await?,
            };
            assert_eq!(response.status, 200, "{}", response.text());
            let seen = arrived(stack, &request).await?;
            for name in removed {
                ensure!(seen.header(&name.to_lowercase()).is_none(), "{name} reached the backend");
            }
            for name in kept {
                ensure!(seen.header(&name.to_lowercase()).is_some(), "{name} was removed");
            }
        }
    }
    let passing = Request::new("POST", PASS_THROUGH, "x").header("X-HTTP-Method-Override", "PUT");
    assert_eq!(stack.send(&passing).await?.status, 200);
    let seen = stack.backend.wait(&passing.case, 1).await?;
    ensure!(
        seen[0].header("x-http-method-override").is_some(),
        "the filter does not guard this route"
    );
    let signed = stack.post(&Form::inbound("encoded")).await?;
    for coding in ["gzip", "br", "identity, deflate"] {
        let request = signed.clone().as_new_case().header("Content-Encoding", coding);
        refused(stack, &request, Reason::UnsupportedEncoding).await?;
        is_refusal(
            &send_h2(edge, &request, Framing::default()).await?,
            Reason::UnsupportedEncoding,
        )?;
    }
    for charset in ["utf-7", "UTF-16", "iso-8859-1; charset=utf-8"] {
        let kind = format!("application/x-www-form-urlencoded; charset={charset}");
        let request = signed.clone().as_new_case().without_header("content-type");
        let request = request.header("Content-Type", kind.as_str());
        refused(stack, &request, Reason::UnsupportedEncoding).await?;
    }
    let typed_twice = signed.clone().as_new_case().header("Content-Type", "application/json");
    refused(stack, &typed_twice, Reason::AmbiguousRequest).await?;
    let plain = signed.as_new_case().header("Content-Encoding", "identity");
    assert_eq!(stack.send(&plain).await?.status, 200);
    arrived(stack, &plain).await?;
    Ok(())
}

/// Headers in our name are removed also where nothing is proven. Headers that override the request are removed on routes that
/// decide, be it in mode `shadow`.
async fn forged_headers_are_removed_in_every_mode(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for (target, method) in [(OFF, "POST"), (OFF, "GET"), (SHADOW, "POST"), (SHADOW, "GET")] {
        for over_h2 in [false, true] {
            let body = if method == "POST" { "Body=hi" } else { "" };
            let request = with_forged_headers(Request::new(method, target, body))
                .header("Content-Type", "application/x-www-form-urlencoded")
                .header("X-HTTP-Method-Override", "DELETE")
                .header("x_original_url", "/admin")
                .header("Content-Encoding", "gzip");
            let response = match over_h2 {
                true => send_h2(edge, &request, Framing::default()).await?,
                false => stack.send(&request).await?,
            };
            assert_eq!(response.status, 200, "{method} {target}: {}", response.text());
            let seen = stack.backend.wait(&request.case, 1).await?[0].clone();
            ensure!(seen.trusted().is_empty(), "{method} {target}: {:?}", seen.trusted());
            for name in FORGERIES {
                let lines = seen.head.all(&name.to_lowercase());
                ensure!(lines.is_empty(), "{method} {target}: {name}");
            }
            for name in ["x-http-method-override", "x_original_url"] {
                assert_eq!(seen.header(name).is_some(), target == OFF, "{method} {target}: {name}");
            }
            assert_eq!(seen.header("content-encoding").as_deref(), Some("gzip"));
        }
    }
    Ok(())
}

/// A message may come as GET on routes that accept it; its headers are checked alike.
async fn headers_of_a_get_are_checked_too(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let signed = stack.get_as(&Form::inbound("checked"), Signing::default()).await?;
    for (name, value) in [
        ("Content-Encoding", "gzip"),
        ("Content-Encoding", "x-gzip"),
        ("Content-Type", "text/plain; charset=utf-16"),
    ] {
        let request = signed.clone().as_new_case().header(name, value);
        refused(stack, &request, Reason::UnsupportedEncoding).await?;
        let response = send_h2(edge, &request, Framing::default()).await?;
        is_refusal(&response, Reason::UnsupportedEncoding)?;
    }
    let names = ["X-HTTP-Method-Override", "X_Original_URL", "Content_Encoding", "content.type"];
    let request = with_forged_headers(signed);
    let request = names.iter().fold(request, |request, name| request.header(name, "PUT"));
    assert_eq!(stack.send(&request).await?.status, 200);
    let seen = arrived(stack, &request).await?;
    ensure!(seen.trusted().values().all(|value| !value.contains("forged")), "{:?}", seen.trusted());
    for name in names {
        ensure!(seen.header(&name.to_lowercase()).is_none(), "{name} reached the backend");
    }
    Ok(())
}

/// Envoy chooses the route before the filter has removed what a client forged, and again after.
async fn route_for_proven_webhooks_accepts_no_forgery(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for request in [
        Request::new("GET", "/app/gated", ""),
        with_forged_headers(Request::new("GET", "/app/gated", "")),
        with_forged_headers(Request::new("POST", "/app/gated/by/body", "x")),
    ] {
        assert_eq!(stack.send(&request).await?.status, 418);
        assert_eq!(send_h2(edge, &request, Framing::default()).await?.status, 418);
        stack.nothing_reached(&request).await?;
    }
    for form in [Form::inbound("gated"), Form::status("sent"), Form::other()] {
        let request = with_forged_headers(stack.post(&form).await?);
        let unsigned = request.clone().as_new_case().without_header("x-twilio-signature");
        refused(stack, &unsigned, Reason::MissingSignature).await?;
        assert_eq!(stack.send(&request).await?.status, 200, "what is proven goes through");
        arrived(stack, &request).await?;
    }
    Ok(())
}

async fn paths_that_envoy_tidies_up_are_guarded(stack: &Stack) -> Result<()> {
    for target in [
        "/app/../twilio/inbound",
        "/app/%2e%2e/twilio/inbound",
        "/twilio//inbound",
        "/twilio/./inbound",
        "/twilio/%69nbound",
        "/twilio%2Finbound",
        "/app%2F..%2Ftwilio%2Finbound",
        "//twilio/inbound?x=/../",
    ] {
        let signed = stack.post(&Form::inbound("tidied").to(target)).await?;
        for request in [signed.clone().without_header("x-twilio-signature"), signed] {
            // Twilio signed another path, so the request is refused.
            let response = stack.send(&request).await?;
            let refused = response.header("x-twilio-edge-reason").is_some();
            for seen in stack.backend.seen(&request.case) {
                let path = seen.head.word(1);
                ensure!(!refused && path.starts_with("/app/"), "{target} was forwarded as {path}");
                ensure!(seen.trusted().is_empty(), "{target}: {:?}", seen.trusted());
            }
        }
    }
    let plain = stack.post(&Form::inbound("plain").to("/twilio/inbound?a=%2F&b=//")).await?;
    assert_eq!(stack.send(&plain).await?.status, 200);
    arrived(stack, &plain).await?;
    Ok(())
}

async fn shipped_configuration_forwards_guarded_paths_only(stack: &Stack) -> Result<()> {
    for target in
        ["/", "/app/orders", "/twilio", "/twilio/inbound/", "/twilio/inboundx", "/twilio/%69nbound"]
    {
        let request =
            with_forged_headers(stack.post(&Form::inbound("elsewhere").to(target)).await?);
        let response = stack.send(&request).await?;
        assert_eq!(response.status, 404, "{target}");
        assert!(stack.backend.seen(&request.case).is_empty(), "{target}");
    }
    let request = stack.post(&Form::inbound("a webhook")).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    arrived(stack, &request).await?;
    assert_eq!(stack.backend.all().len(), 1, "and nothing else");
    Ok(())
}
