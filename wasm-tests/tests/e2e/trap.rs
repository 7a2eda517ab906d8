//! A crash of the filter's VM. No request can cause it, so these tests break a callback of the module
//! itself. No unproven request passes, no request hangs, a new VM is started, and interrupted webhooks are delivered again.

use anyhow::{Result, ensure};
use serde_json::json;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::http2::{Connection, Framing, send_h2};
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, Gate};
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack, connection_manager};
use twilio_edge_wasm_tests::webhook::Form;

use crate::expect::{arrives, is_refusal};
use crate::suite::{Scenario, Setting, scenarios};

/// A request with trailers crashes the VM; Envoy and the sidecar end its leases soon.
const FRAGILE: Plan = Plan {
    trap_in: Some("proxy_on_request_trailers"),
    settings: &[("TWILIO_EDGE_LEASES_PERIOD_MS", "2000")],
    ..Plan::adapted(SidecarPlan::Sqlite, |config| {
        connection_manager(config)?["stream_idle_timeout"] = json!("2s");
        Ok(())
    })
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let reason = "it has no VM; `native` has the panics of its hooks";
    let scenarios = scenarios![Setting::Own(FRAGILE); crashed_vm_forwards_nothing_and_is_replaced];
    scenarios.map(|scenario| scenario.wasm_only(reason)).to_vec()
}

async fn crashed_vm_forwards_nothing_and_is_replaced(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    arrives(stack, &stack.post(&Form::inbound("before")).await?).await?;

    // All on one connection, so that one VM handles them.
    let mut connection = Connection::open(edge).await?;
    let (at_backend, deciding) = (Form::inbound("at the backend"), Form::inbound("undecided"));
    let working = stack.post(&at_backend).await?;
    let gate = Gate::default();
    stack.backend.script(&working.case, [gate.then(Answer::status(200))]);
    let first = connection.call(&working, Framing::default()).await?;
    stack.backend.wait(&working.case, 1).await?;
    stack.sidecar()?.pause().await?;
    let paused = stack.post(&deciding).await?;
    let verified = stack.envoy.counter("verified").await?;
    let second = connection.call(&paused, Framing::default()).await?;
    until("the signature check of the second request", async || {
        Ok((stack.envoy.counter("verified").await? > verified).then_some(()))
    })
    .await?;

    let deadly = stack.post(&Form::inbound("with trailers")).await?;
    let framing = Framing { trailers: &[("x-checksum", b"1")], ..Framing::default() };
    let third = connection.call(&deadly, framing).await?;
    assert_eq!(third.begun().await?.status, 503, "the request that crashed the VM");
    gate.open();
    assert_eq!(first.begun().await?.status, 503, "the answer of the backend is not passed on");
    // The VM cannot finish the second request, but a timeout of Envoy ends it.
    assert_eq!(second.begun().await?.status, 503, "the request that waited for its verdict");

    // No request passes before a new VM runs. Afterwards the filter works as before.
    let forged = stack.post(&Form::status("sent")).await?.without_header("x-twilio-signature");
    let mut in_a_row = 0;
    until("a new VM on every worker", async || {
        let response = send_h2(edge, &forged, Framing::default()).await?;
        if response.status == 503 {
            in_a_row = 0;
        } else {
            is_refusal(&response, Reason::MissingSignature)?;
            in_a_row += 1;
        }
        Ok((in_a_row >= 16).then_some(()))
    })
    .await?;
    let reloads = stack.envoy.stats("vm_reload_success").await?.values().sum::<u64>();
    ensure!(reloads >= 1, "Envoy started no new VM");
    ensure!(stack.backend.seen(&forged.case).is_empty(), "a forged request was forwarded");

    // The interrupted webhook was not settled: its lease ends, and the next copy is delivered.
    stack.sidecar()?.resume().await?;
    let ledger = stack.ledger().await?;
    for (form, request, attempts) in [(&at_backend, &working, 2), (&deciding, &paused, 1)] {
        until("the copy to be delivered", async || {
            let response = stack.send(request).await?;
            Ok((response.status == 200).then_some(()))
        })
        .await?;
        assert_eq!(stack.backend.seen(&request.case).len(), attempts);
        // On a busy machine a copy may time out while its claim is on its way, which counts as an attempt.
        ledger.settled(form.get("MessageSid"), "accepted", 1..=4).await?;
    }
    arrives(stack, &stack.post(&Form::inbound("after")).await?).await?;
    stack.nothing_reached(&deadly).await
}
