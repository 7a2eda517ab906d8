//! All framings of a request: trailers, chunks, frames, halves, too much, two at once. In each of them nothing reaches
//! the backend before it is proven, and a proven request arrives completely.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::join;
use twilio_edge_contract::headers;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::{Connection, send_bytes};
use twilio_edge_wasm_tests::http2::{Framing, abandon_h2, send_h2};
use twilio_edge_wasm_tests::stack::{
    PASS_THROUGH, Plan, SidecarPlan, Signing, Stack, connection_manager,
};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, INBOUND, OTHER, Request, STATUS};

use crate::disguise::with_forged_headers;
use crate::expect::{arrived, is_refusal, refused};
use crate::suite::{Scenario, Setting, scenarios};

/// An Envoy that lets no filter wait for a body: a common mistake.
const WITHOUT_THE_FLAG: Plan = Plan::adapted(SidecarPlan::Absent, |config| {
    let entry = config.plugin_entry()?.as_object_mut().context("the plugin's entry")?;
    entry.remove("allow_on_headers_stop_iteration").context("the shipped configuration has it")?;
    Ok(())
});

/// A filter in front that buffers whole requests, and a route whose body is rewritten.
const BUFFERED: Plan = Plan::adapted(SidecarPlan::Absent, |config| {
    let filters = connection_manager(config)?["http_filters"].as_array_mut().context("filters")?;
    let kind = "envoy.extensions.filters.http.buffer.v3.Buffer";
    filters.insert(
        0,
        json!({
            "name": "envoy.filters.http.buffer",
            "typed_config": {
                "@type": format!("type.googleapis.com/{kind}"),
                "max_request_bytes": 200_000,
            },
        }),
    );
    config.plugin["routes"][1]["body"] = "json".into();
    Ok(())
});

pub(crate) fn scenarios() -> Vec<Scenario> {
    let buffered =
        scenarios![Setting::Own(BUFFERED); body_that_a_filter_in_front_buffered_arrives_once];
    let forgotten = scenarios![Setting::Own(WITHOUT_THE_FLAG);
        missing_stop_iteration_flag_is_reported_and_nothing_hangs,
    ]
    .map(|scenario| scenario.wasm_only("it needs no flag to wait for a body"));
    let shared = scenarios![Setting::Shared;
        chunks_and_trailers_over_http1,
        frames_and_trailers_over_http2,
        unproven_request_with_trailers_is_refused,
        body_over_the_cap_is_refused_in_every_framing,
        body_at_the_cap_is_accepted,
        empty_body_is_refused,
        incomplete_requests_are_not_forwarded,
        slow_and_pipelined_requests_arrive,
        broken_framing_is_not_forwarded,
        requests_on_one_connection_do_not_mix,
    ];
    [forgotten.as_slice(), &buffered, &shared].concat()
}

/// A body that was counted or read twice would be too large, or have another signature.
async fn body_that_a_filter_in_front_buffered_arrives_once(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for size in [10, 1_000, 40_000] {
        let form = Form::inbound("x").set("Body", &"y".repeat(size));
        for trailers in [None, Some("x-checksum: 1\r\n")] {
            let request = stack.post(&form).await?;
            let answer = match trailers {
                None => stack.send(&request).await?,
                Some(trailers) => {
                    send_bytes(edge, &request.chunked(700, trailers.as_bytes())).await?
                }
            };
            ensure!(
                answer.status == 200,
                "{size} {trailers:?}: {} {}",
                answer.status,
                answer.text()
            );
            arrived(stack, &request).await?;
        }
        let status = Form::status("sent").set("ErrorMessage", &"z".repeat(size));
        let request = stack.post(&status).await?;
        let answer = send_h2(edge, &request, Framing::default()).await?;
        ensure!(answer.status == 200, "{size}: {} {}", answer.status, answer.text());
        let seen = stack.backend.wait(&request.case, 1).await?;
        let event: serde_json::Value = serde_json::from_slice(seen[0].bytes())?;
        assert_eq!(event["raw"]["ErrorMessage"], "z".repeat(size));
        assert_eq!(seen[0].header("content-length"), Some(seen[0].bytes().len().to_string()));
    }
    let large = stack.post(&Form::inbound("x").set("Body", &"y".repeat(70_000))).await?;
    is_refusal(&stack.send(&large).await?, Reason::BodyTooLarge)
}

async fn missing_stop_iteration_flag_is_reported_and_nothing_hangs(stack: &Stack) -> Result<()> {
    let request = stack.post(&Form::inbound("hello?")).await?;
    let response = stack.send(&request).await?;
    assert_eq!(response.status, Reason::NoBody.status());
    assert!(response.text().contains("allow_on_headers_stop_iteration"), "{}", response.text());
    assert_eq!(stack.backend.seen(&request.case).len(), 0);
    // Requests without a body are not affected.
    let request = stack.get_as(&Form::inbound("by GET"), Signing::default()).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    Ok(())
}

async fn chunks_and_trailers_over_http1(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for size in [1, 7, 1000] {
        for trailers in ["", "x-checksum: 1\r\n", "x-one: 1\r\nx-two: 2\r\nx-two: 3\r\n"] {
            for form in [Form::inbound("in chunks"), Form::status("sent"), Form::other()] {
                let request = stack.post(&form).await?;
                let bytes = request.chunked(size, trailers.as_bytes());
                assert_eq!(send_bytes(edge, &bytes).await?.status, 200);
                arrived(stack, &request).await?;
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
                    arrived(stack, &request).await?;
                }
            }
        }
    }
    let get = stack.get_as(&Form::inbound("GET over HTTP/2"), Signing::default()).await?;
    assert_eq!(send_h2(edge, &get, Framing::default()).await?.status, 200);
    arrived(stack, &get).await?;
    let copy = send_h2(edge, &get, Framing::default()).await?;
    assert_eq!((copy.status, stack.backend.seen(&get.case).len()), (200, 1));
    Ok(())
}

/// A request with trailers has no `end_of_stream` with its body: a filter that waits for that would forward it.
async fn unproven_request_with_trailers_is_refused(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let framing = Framing { frame: 50, trailers: &[("x-checksum", b"1")], content_length: false };
    for form in [Form::inbound("forged"), Form::status("sent"), Form::other()] {
        let forged = stack.post(&form.set("AccountSid", ACCOUNT)).await?;
        let forged = forged.without_header("x-twilio-signature");
        let forged = forged.header("X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        is_refusal(&send_h2(edge, &forged, framing).await?, Reason::InvalidSignature)?;
        let bytes = forged.chunked(50, b"x-checksum: 1\r\n");
        is_refusal(&send_bytes(edge, &bytes).await?, Reason::InvalidSignature)?;
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
    let trailers = arrived(stack, &request).await?.body.context("a body")?.trailers;
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

async fn body_over_the_cap_is_refused_in_every_framing(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    for bytes in [CAP + 1, CAP + 20_000, 900_000] {
        let request = of_size(stack, bytes).await?;
        is_refusal(&stack.send(&request).await?, Reason::BodyTooLarge)?;
        is_refusal(&send_bytes(edge, &request.chunked(4096, b"")).await?, Reason::BodyTooLarge)?;
        is_refusal(
            &send_bytes(edge, &request.chunked(4096, b"x-t: 1\r\n")).await?,
            Reason::BodyTooLarge,
        )?;
        for content_length in [true, false] {
            for trailers in [&[][..], &[("x-t", b"1".as_slice())]] {
                let framing = Framing { frame: 16_384, trailers, content_length };
                // Over HTTP/2 a client that is still sending may see its stream reset before the answer.
                if let Ok(response) = send_h2(edge, &request, framing).await {
                    is_refusal(&response, Reason::BodyTooLarge)?;
                }
            }
        }
        stack.nothing_reached(&request).await?;
    }
    // Announced, and never sent: refused without waiting for it.
    let announced = Request::new("POST", STATUS, "");
    let head = [announced.head(), b"Content-Length: 99999999\r\n\r\n".to_vec()].concat();
    is_refusal(&send_bytes(edge, &head).await?, Reason::BodyTooLarge)?;
    stack.nothing_reached(&announced).await
}

async fn body_at_the_cap_is_accepted(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let request = of_size(stack, CAP).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    arrived(stack, &request).await?;
    let request = of_size(stack, CAP).await?;
    assert_eq!(send_bytes(edge, &request.chunked(1000, b"")).await?.status, 200);
    arrived(stack, &request).await?;
    let request = of_size(stack, CAP).await?;
    assert_eq!(send_h2(edge, &request, Framing::default()).await?.status, 200);
    arrived(stack, &request).await?;
    Ok(())
}

async fn empty_body_is_refused(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    let signed = stack.post(&Form::inbound("with a body")).await?;
    let empty = Request { body: Vec::new(), ..signed }.as_new_case();
    refused(stack, &empty, Reason::InvalidSignature).await?;
    for bytes in [
        empty.chunked(1, b""),
        empty.chunked(1, b"x-t: 1\r\n"),
        [empty.head(), b"\r\n".to_vec()].concat(),
    ] {
        is_refusal(&send_bytes(edge, &bytes).await?, Reason::InvalidSignature)?;
    }
    is_refusal(&send_h2(edge, &empty, Framing::default()).await?, Reason::InvalidSignature)?;
    stack.nothing_reached(&empty).await?;
    // On a route for anything Twilio signs, an empty body signed with the URL alone is a proven one.
    let bare = stack.post(&Form { target: OTHER.to_owned(), params: Vec::new() }).await?;
    let response = stack.send(&bare).await?;
    assert_eq!(response.status, 200, "{}", response.text());
    arrived(stack, &bare).await?;
    Ok(())
}

/// A client that stops or leaves in the middle costs nothing, and leaves nothing behind.
async fn incomplete_requests_are_not_forwarded(stack: &Stack) -> Result<()> {
    let request = stack.post(&Form::inbound("half")).await?;
    let (whole, chunked) = (request.bytes(), request.chunked(50, b"x-t: 1\r\n"));
    for bytes in [&whole, &chunked] {
        for part in [1, 5, 9, 10] {
            let mut client = Connection::open(stack.envoy.address()).await?;
            client.write(&bytes[..(bytes.len() - 1) * part / 10]).await?;
            drop(client);
        }
    }
    for bytes in [0, 1, request.body.len()] {
        abandon_h2(stack.envoy.address(), &request, bytes).await?;
    }
    stack.nothing_reached(&request).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    arrived(stack, &request).await?;
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
    arrived(stack, &request).await?;

    let mut requests = Vec::new();
    for text in ["one", "two", "three"] {
        requests.push(stack.post(&Form::inbound(text)).await?);
    }
    let at_once: Vec<u8> = requests.iter().flat_map(Request::bytes).collect();
    client.write(&at_once).await?;
    for request in &requests {
        assert_eq!(client.response().await?.status, 200);
        arrived(stack, request).await?;
    }

    let request = stack.post(&Form::status("sent")).await?.header("Expect", "100-continue");
    assert_eq!(stack.send(&request).await?.status, 200);
    arrived(stack, &request).await?;
    Ok(())
}

/// Requests that two parsers could read differently.
async fn broken_framing_is_not_forwarded(stack: &Stack) -> Result<()> {
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
            // If Envoy accepts it, all parsers must read the same request: one proven webhook.
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
        // Only Envoy and the VM must survive; the answer does not matter.
        let mut client = Connection::open(edge).await?;
        client.write(bytes).await?;
        drop(client);
    }
    let after = stack.post(&Form::inbound("after all that")).await?;
    assert_eq!(stack.send(&after).await?.status, 200);
    arrived(stack, &after).await?;
    Ok(())
}

/// A webhook, a forgery and an unguarded request alternate on one connection, and on one connection of HTTP/2 each.
async fn requests_on_one_connection_do_not_mix(stack: &Stack) -> Result<()> {
    let mut client = Connection::open(stack.envoy.address()).await?;
    for round in 0..10 {
        let good = stack.post(&Form::inbound(&format!("round {round}"))).await?;
        let forged = good.clone().as_new_case().without_header("x-twilio-signature");
        let passing = with_forged_headers(Request::new("POST", PASS_THROUGH, "x"));
        for (request, status) in
            [(&forged, 403), (&good, 200), (&passing, 200), (&forged, 403), (&good, 200)]
        {
            client.write(&request.bytes()).await?;
            assert_eq!(client.response().await?.status, status, "round {round}");
        }
        arrived(stack, &good).await?;
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
