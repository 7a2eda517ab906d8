//! Every way to spell a request: trailers, chunks, half requests, bytes that are no text. Whatever comes, nothing reaches
//! the backend before it is proven, nothing the filter sets can be forged, and the filter's VM stays alive.

use anyhow::{Context, Result, ensure};
use tokio::join;
use twilio_edge_contract::headers;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::{Connection, Framing, Response, send_bytes, send_h2};
use twilio_edge_wasm_tests::recorder::Seen;
use twilio_edge_wasm_tests::stack::{PASS_THROUGH, Plan, SidecarPlan, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, INBOUND, OTHER, Request, STATUS, fresh_sid};

use crate::suite::{Scenario, Setting, told};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let shared = told![Setting::Shared;
        chunks_and_trailers_over_http1,
        frames_and_trailers_over_http2,
        nothing_unproven_passes_with_trailers,
        a_body_over_the_cap_is_refused_however_it_comes,
        a_body_at_the_cap_is_taken,
        an_empty_body_is_no_webhook,
        header_bytes_that_are_no_text_harm_nobody,
        forged_headers_never_reach_the_backend,
        what_is_no_webhook_passes_without_our_headers,
        other_methods_are_refused,
        half_requests_reach_nobody,
        slow_and_pipelined_requests_arrive,
        broken_framing_reaches_nobody,
        paths_are_matched_as_written,
        requests_on_one_connection_do_not_mix,
    ];
    let strict = told![Setting::Own(Plan::adapted(SidecarPlan::Absent, |config| {
            // As shipped: no route of ours.
            config.routes()?.remove(0);
            Ok(())
        }));
        the_shipped_configuration_forwards_nothing_else,
    ];
    [shared.as_slice(), &strict].concat()
}

async fn proven(stack: &Stack, request: &Request) -> Result<Seen> {
    let seen = stack.backend.wait(&request.case, 1).await?;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].bytes(), request.body);
    assert_eq!(seen[0].trusted()["verified"], ACCOUNT);
    Ok(seen[0].clone())
}

fn is(response: &Response, reason: Reason) -> Result<()> {
    let told = response.header(headers::REASON);
    ensure!(
        response.status == reason.status() && told.as_deref() == Some(reason.slug()),
        "{} {told:?} is not {reason:?}: {}",
        response.status,
        response.text()
    );
    Ok(())
}

async fn refused(stack: &Stack, request: &Request, reason: Reason) -> Result<()> {
    is(&stack.send(request).await?, reason)?;
    stack.nothing_reached(request).await
}

async fn chunks_and_trailers_over_http1(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for size in [1, 7, 1000] {
        for trailers in ["", "x-checksum: 1\r\n", "x-one: 1\r\nx-two: 2\r\nx-two: 3\r\n"] {
            for form in [Form::inbound("in chunks"), Form::status("sent"), Form::other()] {
                let request = stack.post(&form).await?;
                let bytes = request.chunked(size, trailers.as_bytes());
                assert_eq!(send_bytes(edge, &bytes).await?.status, 200);
                proven(stack, &request).await?;
            }
        }
    }
    Ok(())
}

async fn frames_and_trailers_over_http2(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let trailers: [(&str, &[u8]); 2] = [("x-checksum", b"1"), ("x-bytes", b"\xff\xfe")];
    for frame in [0, 1, 100] {
        for trailers in [&trailers[..0], &trailers[..1], &trailers] {
            for content_length in [false, true] {
                let framing = Framing { frame, trailers, content_length };
                for form in [Form::inbound("in frames"), Form::status("sent"), Form::other()] {
                    let request = stack.post(&form).await?;
                    assert_eq!(send_h2(edge, &request, framing).await?.status, 200);
                    proven(stack, &request).await?;
                }
            }
        }
    }
    let get = stack.get_as(&Form::inbound("GET over HTTP/2"), Signing::default()).await?;
    assert_eq!(send_h2(edge, &get, Framing::default()).await?.status, 200);
    proven(stack, &get).await?;
    let copy = send_h2(edge, &get, Framing::default()).await?;
    assert_eq!((copy.status, stack.backend.seen(&get.case).len()), (200, 1));
    Ok(())
}

/// A request with trailers never says `end_of_stream` with its body: a filter that waits for that lets it through.
async fn nothing_unproven_passes_with_trailers(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let framing = Framing { frame: 50, trailers: &[("x-checksum", b"1")], content_length: false };
    for form in [Form::inbound("forged"), Form::status("sent"), Form::other()] {
        let forged = stack.post(&form.set("AccountSid", ACCOUNT)).await?;
        let forged = forged.without_header("x-twilio-signature");
        let forged = forged.header("X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        is(&send_h2(edge, &forged, framing).await?, Reason::InvalidSignature)?;
        let bytes = forged.chunked(50, b"x-checksum: 1\r\n");
        is(&send_bytes(edge, &bytes).await?, Reason::InvalidSignature)?;
        stack.nothing_reached(&forged).await?;
    }
    // An empty body that ends with trailers, and trailers in our own name.
    let empty = Request::new("POST", INBOUND, "");
    let response = send_h2(edge, &empty, framing).await?;
    assert!(response.status >= 400, "{}", response.status);
    stack.nothing_reached(&empty).await?;
    let request = stack.post(&Form::inbound("with trailers")).await?;
    let ours: [(&str, &[u8]); 2] = [("x-twilio-edge-verified", b"me"), ("x_twilio_edge_key", b"x")];
    let framing = Framing { trailers: &ours, ..Framing::default() };
    assert_eq!(send_h2(edge, &request, framing).await?.status, 200);
    let trailers = proven(stack, &request).await?.body.context("a body")?.trailers;
    ensure!(
        trailers.iter().all(|(name, _)| !headers::is_reserved(name.as_bytes())),
        "{trailers:?}"
    );
    Ok(())
}

const CAP: usize = 65_536;

/// A signed message whose body has this many bytes.
async fn of_size(stack: &Stack, bytes: usize) -> Result<Request> {
    let form = Form::inbound("").set("Padding", "");
    let padding = bytes - form.encoded().len();
    stack.post(&form.set("Padding", &"x".repeat(padding))).await
}

async fn a_body_over_the_cap_is_refused_however_it_comes(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for bytes in [CAP + 1, CAP + 20_000, 900_000] {
        let request = of_size(stack, bytes).await?;
        is(&stack.send(&request).await?, Reason::BodyTooLarge)?;
        is(&send_bytes(edge, &request.chunked(4096, b"")).await?, Reason::BodyTooLarge)?;
        is(&send_bytes(edge, &request.chunked(4096, b"x-t: 1\r\n")).await?, Reason::BodyTooLarge)?;
        for content_length in [true, false] {
            for trailers in [&[][..], &[("x-t", b"1".as_slice())]] {
                let framing = Framing { frame: 16_384, trailers, content_length };
                // Over HTTP/2 a client that is still sending may see its stream reset before the answer.
                if let Ok(response) = send_h2(edge, &request, framing).await {
                    is(&response, Reason::BodyTooLarge)?;
                }
            }
        }
        stack.nothing_reached(&request).await?;
    }
    // Announced, and never sent: refused without waiting for it.
    let announced = Request::new("POST", STATUS, "");
    let head = [announced.head(), b"Content-Length: 99999999\r\n\r\n".to_vec()].concat();
    is(&send_bytes(edge, &head).await?, Reason::BodyTooLarge)?;
    stack.nothing_reached(&announced).await
}

async fn a_body_at_the_cap_is_taken(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let request = of_size(stack, CAP).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    proven(stack, &request).await?;
    let request = of_size(stack, CAP).await?;
    assert_eq!(send_bytes(edge, &request.chunked(1000, b"")).await?.status, 200);
    proven(stack, &request).await?;
    let request = of_size(stack, CAP).await?;
    assert_eq!(send_h2(edge, &request, Framing::default()).await?.status, 200);
    proven(stack, &request).await?;
    Ok(())
}

async fn an_empty_body_is_no_webhook(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let signed = stack.post(&Form::inbound("with a body")).await?;
    let empty = Request { body: Vec::new(), ..signed }.as_new_case();
    refused(stack, &empty, Reason::MissingField).await?;
    for bytes in [
        empty.chunked(1, b""),
        empty.chunked(1, b"x-t: 1\r\n"),
        [empty.head(), b"\r\n".to_vec()].concat(),
    ] {
        is(&send_bytes(edge, &bytes).await?, Reason::MissingField)?;
    }
    is(&send_h2(edge, &empty, Framing::default()).await?, Reason::MissingField)?;
    stack.nothing_reached(&empty).await?;
    // On a route for anything Twilio signs, an empty body signed with the URL alone is a proven one.
    let bare = stack.post(&Form { target: OTHER.to_owned(), params: Vec::new() }).await?;
    let response = stack.send(&bare).await?;
    assert_eq!(response.status, 200, "{}", response.text());
    proven(stack, &bare).await?;
    Ok(())
}

async fn header_bytes_that_are_no_text_harm_nobody(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let odd: [&[u8]; 4] = [b"a\xff\xfe", b"\xc3\x28", b"\x80", b"caf\xe9"];
    for value in odd {
        for name in
            ["x-custom", "user-agent", "x-request-id", "i-twilio-idempotency-token", "traceparent"]
        {
            let request = stack.post(&Form::inbound("odd headers")).await?.header(name, value);
            assert_eq!(stack.send(&request).await?.status, 200, "{name}: {value:?}");
            proven(stack, &request).await?;
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
        // Not a form then: it has no parameters.
        refused(stack, &untyped.header("Content-Type", value), Reason::MissingField).await?;
        let forged = signed.header("X-Twilio-Edge-Verified", value);
        assert_eq!(stack.send(&forged).await?.status, 200);
        proven(stack, &forged).await?;
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

/// Names a backend could take for the filter's, by case, by underscore, or because it reads only the last of several.
const FORGERIES: [&str; 12] = [
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
];

fn with_forgeries(mut request: Request) -> Request {
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
            let request = with_forgeries(plain.clone());
            let response = if over_h2 {
                send_h2(edge, &request, Framing::default()).await?
            } else {
                stack.send(&request).await?
            };
            assert_eq!(response.status, 200);
            let seen = proven(stack, &request).await?;
            let told = seen.trusted();
            ensure!(told.values().all(|value| !value.contains("forged")), "{told:?}");
            ensure!(told.keys().all(|name| !name.starts_with("x_")), "{told:?}");
            assert_eq!(told.get("anything-new"), None);
            assert!(!told.contains_key("opt"), "nobody said stop: {told:?}");
        }
    }
    Ok(())
}

async fn what_is_no_webhook_passes_without_our_headers(stack: &Stack) -> Result<()> {
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
        let request = with_forgeries(request);
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

async fn other_methods_are_refused(stack: &Stack) -> Result<()> {
    for method in ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "post"] {
        let form = Form::inbound("wrong method");
        let request = Request { method: method.to_owned(), ..stack.post(&form).await? };
        let response = stack.send(&request).await?;
        // Some of these words Envoy does not take for methods at all.
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
    is(&stack.send(&put).await?, Reason::MethodNotAllowed)?;
    let body = stack.get_as(&Form::inbound("GET with a body"), Signing::default()).await?;
    let body = Request { body: b"x=1".to_vec(), ..body };
    refused(stack, &body, Reason::UnexpectedBody).await
}

/// A client that stops or leaves in the middle costs nothing, and leaves nothing behind.
async fn half_requests_reach_nobody(stack: &Stack) -> Result<()> {
    let request = stack.post(&Form::inbound("half")).await?;
    let (whole, chunked) = (request.bytes(), request.chunked(50, b"x-t: 1\r\n"));
    for bytes in [&whole, &chunked] {
        for part in [1, 5, 9, 10] {
            let mut client = Connection::open(stack.envoy.address()).await?;
            client.write(&bytes[..(bytes.len() - 1) * part / 10]).await?;
            drop(client);
        }
    }
    stack.nothing_reached(&request).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    proven(stack, &request).await?;
    Ok(())
}

async fn slow_and_pipelined_requests_arrive(stack: &Stack) -> Result<()> {
    let request = stack.post(&Form::inbound("byte by byte")).await?;
    let mut client = Connection::open(stack.envoy.address()).await?;
    for part in request.bytes().chunks(3) {
        client.write(part).await?;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await?.status, 200);
    proven(stack, &request).await?;

    let mut requests = Vec::new();
    for text in ["one", "two", "three"] {
        requests.push(stack.post(&Form::inbound(text)).await?);
    }
    let at_once: Vec<u8> = requests.iter().flat_map(Request::bytes).collect();
    client.write(&at_once).await?;
    for request in &requests {
        assert_eq!(client.response().await?.status, 200);
        proven(stack, request).await?;
    }

    let request = stack.post(&Form::status("sent")).await?.header("Expect", "100-continue");
    assert_eq!(stack.send(&request).await?.status, 200);
    proven(stack, &request).await?;
    Ok(())
}

/// What two parsers could read as two different requests.
async fn broken_framing_reaches_nobody(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let signed = stack.post(&Form::inbound("framing")).await?;
    let length = signed.body.len();
    let line = |text: &str| {
        [signed.head(), text.as_bytes().to_vec(), b"\r\n".to_vec(), signed.body.clone()].concat()
    };
    let same = format!("Content-Length: {length}\r\n");
    for (what, bytes) in [
        ("two lengths", line(&format!("{same}Content-Length: {}\r\n", length - 1))),
        ("two equal lengths", line(&format!("{same}{same}"))),
        ("a list of lengths", line(&format!("Content-Length: {length}, {length}\r\n"))),
        ("length and chunks", line(&format!("{same}Transfer-Encoding: chunked\r\n"))),
        ("a negative length", line("Content-Length: -1\r\n")),
        ("a length with a sign", line(&format!("Content-Length: +{length}\r\n"))),
        ("a length that is none", line("Content-Length: many\r\n")),
        ("an unknown encoding", line("Transfer-Encoding: xchunked\r\n")),
        (
            "an encoding twice",
            line("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ),
        ("a folded header", line(&format!("{same}X-Folded: a\r\n b\r\n"))),
        ("a space before the colon", line(&format!("{same}X-Space : a\r\n"))),
        ("a bare line feed", line(&format!("{same}X-Bare: a\nX-Next: b\r\n"))),
        ("a null byte", line(&format!("{same}X-Null: a\0b\r\n"))),
        (
            "a chunk size that is none",
            [signed.head(), b"Transfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec()].concat(),
        ),
        ("too many headers", line(&format!("{same}{}", "X-More: 1\r\n".repeat(150)))),
        ("a huge header", line(&format!("{same}X-Huge: {}\r\n", "x".repeat(64_000)))),
    ] {
        match send_bytes(edge, &bytes).await {
            // Where Envoy can make sense of it, it must be the same sense for all: then it is a proven webhook, once.
            Ok(response) if response.status == 200 => {
                for seen in stack.backend.seen(&signed.case) {
                    assert_eq!(seen.bytes(), signed.body, "{what}");
                    assert_eq!(seen.trusted()["verified"], ACCOUNT, "{what}");
                }
            }
            Ok(response) => {
                assert!((400..=501).contains(&response.status), "{what}: {}", response.status)
            }
            Err(_closed) => {}
        }
    }
    assert!(stack.backend.seen(&signed.case).len() <= 1, "all of these are one message");
    let twice =
        stack.post(&Form::inbound("types")).await?.header("Content-Type", "application/json");
    // Envoy joins the two into one value.
    refused(stack, &twice, Reason::AmbiguousRequest).await?;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense",
    ] {
        // Only that Envoy and the VM live on matters; what it says to this is its own affair.
        let mut client = Connection::open(edge).await?;
        client.write(bytes).await?;
        drop(client);
    }
    let after = stack.post(&Form::inbound("after all that")).await?;
    assert_eq!(stack.send(&after).await?.status, 200);
    proven(stack, &after).await?;
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
    proven(stack, &absolute).await?;
    let old = stack.post(&Form::inbound("HTTP/1.0")).await?;
    let text = String::from_utf8(old.bytes())?.replacen("HTTP/1.1", "HTTP/1.0", 1);
    let response = send_bytes(edge, text.as_bytes()).await?;
    assert_eq!(response.status, 426, "HTTP/1.0 is off");
    stack.nothing_reached(&old).await
}

/// A webhook, a forgery and a request that is neither take turns on one connection, and on one of HTTP/2 each.
async fn requests_on_one_connection_do_not_mix(stack: &Stack) -> Result<()> {
    let mut client = Connection::open(stack.envoy.address()).await?;
    for round in 0..10 {
        let good = stack.post(&Form::inbound(&format!("round {round}"))).await?;
        let forged = good.clone().as_new_case().without_header("x-twilio-signature");
        let passing = with_forgeries(Request::new("POST", PASS_THROUGH, "x"));
        for (request, status) in
            [(&forged, 403), (&good, 200), (&passing, 200), (&forged, 403), (&good, 200)]
        {
            client.write(&request.bytes()).await?;
            assert_eq!(client.response().await?.status, status, "round {round}");
        }
        proven(stack, &good).await?;
        assert!(stack.backend.wait(&passing.case, 1).await?[0].trusted().is_empty());
        stack.nothing_reached(&forged).await?;
    }
    let (one, two) =
        (stack.post(&Form::inbound("1")).await?, stack.post(&Form::inbound("2")).await?);
    let edge = stack.envoy.address();
    let (first, second) = join!(
        send_h2(edge, &one, Framing { frame: 10, ..Framing::default() }),
        send_h2(edge, &two, Framing { frame: 10, ..Framing::default() })
    );
    assert_eq!((first?.status, second?.status), (200, 200));
    Ok(())
}

async fn the_shipped_configuration_forwards_nothing_else(stack: &Stack) -> Result<()> {
    for target in
        ["/", "/app/orders", "/twilio", "/twilio/inbound/", "/twilio/inboundx", "/twilio/%69nbound"]
    {
        let request = with_forgeries(stack.post(&Form::inbound("elsewhere").to(target)).await?);
        let response = stack.send(&request).await?;
        assert_eq!(response.status, 404, "{target}");
        assert!(stack.backend.seen(&request.case).is_empty(), "{target}");
    }
    let request = stack.post(&Form::inbound("a webhook")).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    proven(stack, &request).await?;
    assert_eq!(stack.backend.all().len(), 1, "and nothing else");
    Ok(())
}
