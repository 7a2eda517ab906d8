//! Uploads that are too slow, too large for Envoy, or unexpected. They end, and no part of
//! them reaches the backend or the sidecar.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::sleep;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::{Connection, Response, send_bytes};
use twilio_edge_wasm_tests::http2::{self, Framing, send_h2};
use twilio_edge_wasm_tests::recorder::Answer;
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Signing, Stack, connection_manager};
use twilio_edge_wasm_tests::webhook::Form;

use crate::expect::{arrived, arrives, claimed, is_refusal, willing};
use crate::suite::{Scenario, Setting, scenarios};

/// The shipped configuration with a shorter time limit for uploads.
const HURRIED: Plan = Plan::adapted(SidecarPlan::Scripted, |config| {
    connection_manager(config)?["request_timeout"] = json!("1s");
    Ok(())
});

/// An Envoy whose own limit comes before the filter's.
const NARROW: Plan = Plan::adapted(SidecarPlan::Scripted, |config| {
    let listener = config.bootstrap.pointer_mut("/static_resources/listeners/0");
    listener.context("a listener")?["per_connection_buffer_limit_bytes"] = json!(8192);
    Ok(())
});

pub(crate) fn scenarios() -> Vec<Scenario> {
    let hurried = scenarios![Setting::Own(HURRIED); slow_upload_ends_and_is_not_forwarded];
    let narrow = scenarios![Setting::Own(NARROW); request_refused_by_envoy_is_not_forwarded];
    let shipped = scenarios![Setting::Own(Plan::new(SidecarPlan::Scripted));
        get_with_a_body_is_refused_in_every_framing,
    ];
    [hurried, narrow, shipped].concat()
}

/// Over HTTP/2 a client may see its stream reset before the answer.
fn is_408(response: Result<Response>, over_h2: bool) -> Result<()> {
    match response {
        Ok(response) => ensure!(response.status == 408, "{} {}", response.status, response.text()),
        Err(error) => ensure!(over_h2, "{error:#}"),
    }
    Ok(())
}

async fn slow_upload_ends_and_is_not_forwarded(stack: &Stack) -> Result<()> {
    stack.scripted()?.usually(Answer::By(willing));
    let edge = stack.envoy.address();
    let request = stack.post(&Form::inbound("slow")).await?;
    // Half of it, and then nothing.
    for bytes in [request.bytes(), request.chunked(50, b""), request.chunked(50, b"x-t: 1\r\n")] {
        let mut client = Connection::open(edge).await?;
        client.write(&bytes[..bytes.len() - 40]).await?;
        is_408(client.response().await, false)?;
    }
    let mut connection = http2::Connection::open(edge).await?;
    let mut stream = connection.start(&request, Framing::default())?;
    stream.send_part(&request.body[..100])?;
    is_408(async { stream.begun().await?.whole().await }.await, true)?;
    // Bytes that arrive one by one do not extend the time limit.
    let mut client = Connection::open(edge).await?;
    client.write(&request.head()).await?;
    client.write(format!("Content-Length: {}\r\n\r\n", request.body.len()).as_bytes()).await?;
    let mut given = 0;
    for byte in request.body.chunks(1) {
        if client.write(byte).await.is_err() {
            break;
        }
        given += 1;
        sleep(Duration::from_millis(20)).await;
    }
    ensure!(given < request.body.len(), "Envoy accepted the whole body, however slow");
    stack.nothing_reached(&request).await?;
    ensure!(claimed(stack)?.is_empty(), "the filter claimed an incomplete webhook");
    arrives(stack, &request).await?;
    Ok(())
}

async fn request_refused_by_envoy_is_not_forwarded(stack: &Stack) -> Result<()> {
    stack.scripted()?.usually(Answer::By(willing));
    let edge = stack.envoy.address();
    let large = Form::inbound("large").set("Padding", &"x".repeat(40_000));
    let request = stack.post(&large).await?;
    for bytes in [request.bytes(), request.chunked(1000, b""), request.chunked(1000, b"x-t: 1\r\n")]
    {
        let response = send_bytes(edge, &bytes).await?;
        assert_eq!((response.status, response.header("x-twilio-edge-reason")), (413, None));
    }
    stack.nothing_reached(&request).await?;
    ensure!(claimed(stack)?.is_empty());
    // Its limit is one of HTTP/1: over HTTP/2 the filter's counts.
    assert_eq!(send_h2(edge, &request, Framing::default()).await?.status, 200);
    arrived(stack, &request).await?;
    arrives(stack, &stack.post(&Form::inbound("small")).await?).await?;
    Ok(())
}

async fn get_with_a_body_is_refused_in_every_framing(stack: &Stack) -> Result<()> {
    stack.scripted()?.usually(Answer::By(willing));
    let edge = stack.envoy.address();
    let mut request = stack.get_as(&Form::inbound("GET"), Signing::default()).await?;
    request.body = b"Body=another".to_vec();
    for typed in [false, true] {
        if typed {
            request = request.header("Content-Type", "application/x-www-form-urlencoded");
        }
        for bytes in
            [request.bytes(), request.chunked(5, b""), request.chunked(5, b"Body: a third\r\n")]
        {
            is_refusal(&send_bytes(edge, &bytes).await?, Reason::UnexpectedBody)?;
        }
        for trailers in [&[][..], &[("body", b"a third".as_slice())]] {
            let framing = Framing { frame: 5, trailers, content_length: false };
            is_refusal(&send_h2(edge, &request, framing).await?, Reason::UnexpectedBody)?;
        }
    }
    stack.nothing_reached(&request).await?;
    ensure!(claimed(stack)?.is_empty());
    // No body but the frame of one is none.
    request.body.clear();
    let response = send_bytes(edge, &request.chunked(1, b"")).await?;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(stack.backend.wait(&request.case, 1).await?[0].bytes(), b"");
    Ok(())
}
