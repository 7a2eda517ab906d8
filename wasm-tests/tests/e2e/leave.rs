//! Clients that disconnect, at every stage of a request and in every way. A webhook that the backend accepted stays
//! accepted, any other one is delivered with the next copy, and a copy that disconnects releases only its own claim.

use anyhow::{Result, ensure};
use twilio_edge_wasm_tests::caller::{Caller, Leaving};
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, CLAIMS, Gate, SETTLEMENTS};
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack};
use twilio_edge_wasm_tests::webhook::Form;

use crate::expect::{sent, willing};
use crate::suite::{Scenario, Setting, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let real = scenarios![Setting::Own(Plan::new(SidecarPlan::Sqlite));
        while_it_waits_for_a_copy_in_flight,
        while_the_backend_works,
        client_that_disconnects_during_the_answer_is_committed,
    ];
    let scripted = scenarios![Setting::Own(Plan::new(SidecarPlan::Scripted));
        while_the_sidecar_thinks,
        while_a_release_holds_the_answer,
    ];
    [real.as_slice(), &scripted].concat()
}

/// Waits until Envoy works on so many requests.
async fn active(stack: &Stack, count: u64) -> Result<()> {
    until(&format!("Envoy to have {count} requests"), async || {
        let active = stack.envoy.stats("http.edge.downstream_rq_active").await?;
        Ok((active.values().sum::<u64>() == count).then_some(()))
    })
    .await
}

async fn while_the_sidecar_thinks(stack: &Stack) -> Result<()> {
    let scripted = stack.scripted()?;
    for (round, leaving) in Leaving::ALL.into_iter().enumerate() {
        let gate = Gate::default();
        scripted.script(CLAIMS, [gate.then(Answer::By(willing))]);
        scripted.script(SETTLEMENTS, [Answer::By(willing)]);
        let stop = Form::inbound("STOP");
        let request = stack.post(&stop).await?;
        let caller = Caller::call(stack.envoy.address(), &request, leaving).await?;
        let claim = sent(&scripted.wait(CLAIMS, round + 1).await?[round], "claims")?;
        caller.leave().await?;
        let settled = scripted.wait(SETTLEMENTS, round + 1).await?;
        let release = sent(&settled[round], "settlements")?;
        assert_eq!(release["claim_id"], claim["claim_id"], "{leaving:?}");
        assert_eq!(release["outcome"], "release", "{leaving:?}");
        assert_eq!(release["unclaimed"]["form"], stop.encoded(), "{leaving:?}: a STOP is not lost");
        active(stack, 0).await?;
        // The verdict arrives after the client has disconnected.
        gate.open();
        stack.nothing_reached(&request).await?;
    }
    Ok(())
}

async fn while_it_waits_for_a_copy_in_flight(stack: &Stack) -> Result<()> {
    for leaving in Leaving::ALL {
        for form in [Form::inbound("twice"), Form::status("delivered")] {
            let request = stack.post(&form).await?;
            let gate = Gate::default();
            stack.backend.script(&request.case, [gate.then(Answer::status(200))]);
            let first = Caller::call(stack.envoy.address(), &request, leaving).await?;
            stack.backend.wait(&request.case, 1).await?;
            let in_flight_before = stack.envoy.counter("verdict.in_flight").await?;
            let copy = Caller::call(stack.envoy.address(), &request, leaving).await?;
            until("the verdict in flight of the copy", async || {
                let in_flight = stack.envoy.counter("verdict.in_flight").await?;
                Ok((in_flight > in_flight_before).then_some(()))
            })
            .await?;
            copy.leave().await?;
            active(stack, 1).await?;
            // It did not release the first claim: another copy has to wait as well.
            let in_flight_before = stack.envoy.counter("verdict.in_flight").await?;
            let third = Caller::call(stack.envoy.address(), &request, leaving).await?;
            until("the verdict in flight of the next copy", async || {
                let in_flight = stack.envoy.counter("verdict.in_flight").await?;
                Ok((in_flight > in_flight_before).then_some(()))
            })
            .await?;
            gate.open();
            assert_eq!(first.answered().await?.0, 200, "{leaving:?}");
            let (status, _third) = third.answered().await?;
            ensure!((200..300).contains(&status), "{leaving:?}: {status}");
            assert_eq!(stack.backend.seen(&request.case).len(), 1, "{leaving:?}");
            let ledger = stack.ledger().await?;
            ledger.settled(form.get("MessageSid"), "accepted", 1).await?;
        }
    }
    Ok(())
}

async fn while_the_backend_works(stack: &Stack) -> Result<()> {
    let ledger = stack.ledger().await?;
    for leaving in Leaving::ALL {
        for form in [Form::inbound("impatient"), Form::status("delivered")] {
            let request = stack.post(&form).await?;
            stack.backend.script(&request.case, [Answer::Never, Answer::status(200)]);
            let caller = Caller::call(stack.envoy.address(), &request, leaving).await?;
            stack.backend.wait(&request.case, 1).await?;
            caller.leave().await?;
            until("the request to reach the backend", async || {
                Ok(stack.backend.seen(&request.case)[0].abandoned.then_some(()))
            })
            .await?;
            ledger.settled(form.get("MessageSid"), "refused", 1).await?;
            assert_eq!(stack.send(&request).await?.status, 200, "{leaving:?}");
            let seen = stack.backend.wait(&request.case, 2).await?;
            assert_eq!(seen[1].trusted()["attempt"], "2", "{leaving:?}");
            ledger.settled(form.get("MessageSid"), "accepted", 2).await?;
        }
    }
    Ok(())
}

/// The backend had answered 2xx, so it has the webhook although no client read the answer.
async fn client_that_disconnects_during_the_answer_is_committed(stack: &Stack) -> Result<()> {
    let ledger = stack.ledger().await?;
    for leaving in Leaving::ALL {
        for form in [Form::inbound("cut off"), Form::status("delivered")] {
            let request = stack.post(&form).await?;
            let gate = Gate::default();
            stack.backend.script(&request.case, [Answer::Halves(gate.clone(), "text/xml")]);
            let caller = Caller::call(stack.envoy.address(), &request, leaving).await?;
            let (status, caller) = caller.answered().await?;
            assert_eq!(status, 200);
            caller.leave().await?;
            active(stack, 0).await?;
            gate.open();
            ledger.settled(form.get("MessageSid"), "accepted", 1).await?;
            let copy = stack.send(&request).await?;
            ensure!((200..300).contains(&copy.status), "{leaving:?}: {}", copy.status);
            let answered = copy.text();
            ensure!(!answered.ends_with("<Response>"), "half an answer is none: {answered}");
            assert_eq!(stack.backend.seen(&request.case).len(), 1, "{leaving:?}");
        }
    }
    Ok(())
}

async fn while_a_release_holds_the_answer(stack: &Stack) -> Result<()> {
    let scripted = stack.scripted()?;
    for leaving in Leaving::ALL {
        // The hold is short: on a busy machine it may be over before the client has left. Then again.
        until(&format!("{leaving:?} within the hold"), async || {
            let (before, over) = (
                scripted.seen(SETTLEMENTS).len(),
                stack.envoy.counter("release_unacknowledged").await?,
            );
            let gate = Gate::default();
            scripted.script(CLAIMS, [Answer::By(willing)]);
            scripted.script(SETTLEMENTS, [gate.then(Answer::By(willing))]);
            let request = stack.post(&Form::inbound("fails")).await?;
            stack.backend.script(&request.case, [Answer::status(500)]);
            let caller = Caller::call(stack.envoy.address(), &request, leaving).await?;
            let settled = scripted.wait(SETTLEMENTS, before + 1).await?;
            assert_eq!(sent(&settled[before], "settlements")?["outcome"], "release");
            caller.leave().await?;
            active(stack, 0).await?;
            let within = stack.envoy.counter("release_unacknowledged").await? == over;
            gate.open();
            // Acknowledged without a waiting client; sent once.
            let next = stack.post(&Form::other()).await?;
            assert_eq!(stack.send(&next).await?.status, 200);
            assert_eq!(scripted.seen(SETTLEMENTS).len(), before + 1, "{leaving:?}");
            Ok(within.then_some(()))
        })
        .await?;
    }
    Ok(())
}
