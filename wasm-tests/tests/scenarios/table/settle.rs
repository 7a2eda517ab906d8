//! Settlements of forwarded webhooks, and the time at which the client gets its answer.

use anyhow::{Result, ensure};
use twilio_edge_contract::{Decision, Outcome};
use twilio_edge_wasm_tests::webhook::Form;

use super::{MakeScenario, Scenario, named, trusted};
use crate::request::Request;
use crate::sidecar::Behaviour;
use crate::world::{Backend, Record, Step};

pub(super) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        success_is_committed_without_waiting,
        success_without_a_body_is_committed,
        redirect_is_released,
        refusal_of_the_backend_is_released,
        failure_is_held_until_its_release_is_acknowledged,
        failure_is_held_for_a_bounded_time,
        failure_in_parts_is_held_completely,
        failure_that_ends_with_trailers_is_held_completely,
        failure_without_a_body_is_held_too,
        refused_release_is_retried,
        release_reply_without_headers_is_no_acknowledgement,
        success_that_no_backend_sent_is_released,
        backend_that_disconnects_is_released,
        backend_that_disconnects_during_its_answer_has_accepted,
        route_timeout_is_released,
        client_that_disconnects_before_the_answer_is_released,
        client_that_disconnects_during_the_hold_changes_nothing,
        client_that_disconnects_before_the_verdict_is_released,
        client_that_disconnects_before_the_claim_is_sent_is_released,
        settlements_wait_out_an_outage,
    ]
}

fn answering(backend: Backend, check: fn(&Record) -> Result<()>) -> Result<Scenario> {
    let script = [Step::Send(Request::post(&Form::inbound("hello"))?), Step::Wait(2_000)];
    Ok(Scenario::new(script, check).backend([backend]))
}

/// Checks that the claim was released, and that the client got the complete answer at this time.
fn released(record: &Record, status: u16, ms: std::ops::Range<u64>) -> Result<()> {
    let client = record.answered(0, status)?;
    ensure!(ms.contains(&client.since.ms), "answered at {} ms", client.since.ms);
    ensure!(client.ended && record.outcomes() == [Outcome::Release], "{:?}", record.outcomes());
    Ok(())
}

fn success_is_committed_without_waiting() -> Result<Scenario> {
    let scenario = answering(Backend::twiml("<Response/>"), |record| {
        ensure!(record.answered(0, 200)?.since.ms == 0 && record.outcomes() == [Outcome::Commit]);
        ensure!(
            record.settlements[0].at_ms <= 100,
            "settled at {} ms",
            record.settlements[0].at_ms
        );
        let answer = record.settlements[0].settlement.answer.as_ref();
        ensure!(answer.is_some_and(|answer| answer.body == "<Response/>"));
        ensure!(
            record.settlements[0].settlement.unclaimed.is_none(),
            "the sidecar has the form already"
        );
        Ok(())
    })?;
    Ok(scenario.settlements([Behaviour::Late(400, Box::new(Behaviour::Works))]))
}

fn success_without_a_body_is_committed() -> Result<Scenario> {
    answering(Backend::Empty(204), |record| {
        record.answered(0, 204)?;
        ensure!(record.outcomes() == [Outcome::Commit]);
        Ok(())
    })
}

fn redirect_is_released() -> Result<Scenario> {
    answering(Backend::status(302), |record| released(record, 302, 0..1))
}

fn refusal_of_the_backend_is_released() -> Result<Scenario> {
    answering(Backend::status(404), |record| released(record, 404, 0..1))
}

fn failure_is_held_until_its_release_is_acknowledged() -> Result<Scenario> {
    let scenario = answering(Backend::status(500), |record| {
        ensure!(record.answered(0, 500)?.body == b"backend says 500");
        released(record, 500, 150..151)
    })?;
    Ok(scenario.settlements([Behaviour::Late(150, Box::new(Behaviour::Works))]))
}

fn held_to_the_limit(backend: Backend) -> Result<Scenario> {
    let scenario = answering(backend, |record| {
        ensure!(record.counter("release_unacknowledged") == 1);
        released(record, 500, 250..300)
    })?;
    Ok(scenario.settlements([Behaviour::Late(400, Box::new(Behaviour::Works))]))
}

fn failure_is_held_for_a_bounded_time() -> Result<Scenario> {
    held_to_the_limit(Backend::status(500))
}

fn in_parts() -> Backend {
    Backend::Answers { status: 500, kind: "text/plain", body: "far too long".to_owned(), parts: 5 }
}

fn failure_in_parts_is_held_completely() -> Result<Scenario> {
    held_to_the_limit(in_parts())
}

fn failure_that_ends_with_trailers_is_held_completely() -> Result<Scenario> {
    held_to_the_limit(Backend::WithTrailers(Box::new(in_parts())))
}

fn failure_without_a_body_is_held_too() -> Result<Scenario> {
    held_to_the_limit(Backend::Empty(500))
}

fn refused_release_is_retried() -> Result<Scenario> {
    let scenario = answering(Backend::status(500), |record| {
        ensure!(record.settlements.len() > 1 && record.outcomes() == [Outcome::Release]);
        ensure!(
            record.answered(0, 500)?.since.ms >= 100,
            "answered before the release was retried"
        );
        Ok(())
    })?;
    Ok(scenario.settlements([Behaviour::Decides(Decision::Unavailable)]))
}

fn release_reply_without_headers_is_no_acknowledgement() -> Result<Scenario> {
    let scenario = answering(Backend::status(500), |record| {
        ensure!(
            record.answered(0, 500)?.since.ms >= 100,
            "answered before the release was retried"
        );
        ensure!(record.outcomes() == [Outcome::Release] && record.settlements.len() == 2);
        Ok(())
    })?;
    Ok(scenario.settlements([Behaviour::OmitsHeaders]))
}

fn success_that_no_backend_sent_is_released() -> Result<Scenario> {
    answering(Backend::EnvoyAnswers(200, "direct_response"), |record| released(record, 200, 0..1))
}

fn backend_that_disconnects_is_released() -> Result<Scenario> {
    answering(Backend::Resets, |record| released(record, 503, 0..1))
}

fn backend_that_disconnects_during_its_answer_has_accepted() -> Result<Scenario> {
    let mut scenario = answering(Backend::ResetsInBody, |record| {
        ensure!(record.outcomes() == [Outcome::Commit], "{:?}", record.outcomes());
        ensure!(record.settlements[0].settlement.answer.is_none(), "half an answer is kept");
        Ok(())
    })?;
    scenario.script.push(Step::Disconnect(0));
    Ok(scenario)
}

fn route_timeout_is_released() -> Result<Scenario> {
    let timeout = Backend::EnvoyAnswers(504, "response_timeout").after(1_000);
    answering(timeout, |record| released(record, 504, 1_000..1_001))
}

fn client_that_disconnects_before_the_answer_is_released() -> Result<Scenario> {
    let mut scenario = answering(Backend::status(200).after(1_000), |record| {
        record.forwarded(0)?;
        ensure!(record.stream(0)?.client.is_none() && record.outcomes() == [Outcome::Release]);
        Ok(())
    })?;
    scenario.script = vec![scenario.script.swap_remove(0), Step::Wait(500), Step::Disconnect(0)];
    Ok(scenario)
}

fn client_that_disconnects_during_the_hold_changes_nothing() -> Result<Scenario> {
    let mut scenario = held_to_the_limit(Backend::status(500))?;
    scenario.script = vec![scenario.script.swap_remove(0), Step::Wait(100), Step::Disconnect(0)];
    scenario.check = |record| {
        ensure!(record.stream(0)?.client.is_none() && record.outcomes() == [Outcome::Release]);
        Ok(())
    };
    Ok(scenario)
}

/// The verdict arrives after the end of the stream: the release was sent before, and is the tombstone of the claim.
fn client_that_disconnects_before_the_verdict_is_released() -> Result<Scenario> {
    let script = [
        Step::Send(Request::post(&Form::inbound("STOP"))?),
        Step::Wait(100),
        Step::Disconnect(0),
        Step::Wait(1_000),
    ];
    Ok(Scenario::new(script, |record| {
        ensure!(record.granted.len() == 1 && record.outcomes() == [Outcome::Release]);
        ensure!(record.settlements[0].at_ms < 300, "released only after the verdict");
        ensure!(record.settlements[0].settlement.unclaimed.is_some(), "a STOP that is lost");
        record.not_forwarded(0)
    })
    .claims([Behaviour::Late(300, Box::new(Behaviour::Works))]))
}

fn client_that_disconnects_before_the_claim_is_sent_is_released() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("STOP"))?;
    let script = [
        Step::Together(vec![Step::Send(request.clone()), Step::Disconnect(0)]),
        Step::Send(request),
    ];
    Ok(Scenario::new(script, |record| {
        let first = record
            .settlements
            .iter()
            .find(|settlement| settlement.settlement.outcome == Outcome::Release);
        let unclaimed = first.and_then(|settlement| settlement.settlement.unclaimed.as_ref());
        ensure!(unclaimed.is_some_and(|it| it.form.contains("STOP")), "a STOP that is lost");
        record.not_forwarded(0)?;
        record.forwarded(1).map(|_| ())
    }))
}

fn settlements_wait_out_an_outage() -> Result<Scenario> {
    let forms = ["one", "two", "three"].map(Form::inbound);
    let mut script = Vec::new();
    for form in &forms {
        script.extend([Step::Send(Request::post(form)?), Step::Wait(50)]);
    }
    script.push(Step::Wait(3_000));
    Ok(Scenario::new(script, |record| {
        for stream in 0..3 {
            ensure!(trusted(record.forwarded(stream)?, "dedupe") == "first");
            record.answered(stream, 200)?;
        }
        ensure!(record.outcomes() == [Outcome::Commit; 3], "{:?}", record.outcomes());
        ensure!(record.counter("callout_failed.settlements") >= 3);
        Ok(())
    })
    .settlements([Behaviour::Fails(503), Behaviour::Silent, Behaviour::Truncates]))
}
