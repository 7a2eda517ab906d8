//! How a forwarded webhook ends, what the sidecar is told of it, and when the client gets its answer.

use anyhow::{Result, ensure};
use twilio_edge_contract::{Decision, Outcome};
use twilio_edge_wasm_tests::webhook::Form;

use super::{Plot, Scenario, told, trusted};
use crate::request::Request;
use crate::sidecar::Does;
use crate::world::{Backend, Step, Story};

pub(super) fn scenarios() -> Vec<(&'static str, Plot)> {
    told![
        a_success_is_committed_without_waiting,
        a_success_without_a_body_is_committed,
        a_redirect_is_released,
        a_refusal_of_the_backend_is_released,
        a_failure_is_held_until_its_release_is_known,
        a_failure_is_not_held_for_long,
        a_failure_in_parts_is_held_whole,
        a_failure_that_ends_with_trailers_is_held_whole,
        a_failure_without_a_body_is_held_too,
        a_refused_release_is_told_again,
        a_release_reply_without_headers_is_no_acknowledgement,
        a_success_that_no_backend_sent_is_released,
        a_backend_that_breaks_off_is_released,
        a_backend_that_breaks_off_in_its_answer_has_accepted,
        a_route_timeout_is_released,
        a_client_that_leaves_before_the_answer_is_released,
        a_client_that_leaves_during_the_hold_changes_nothing,
        a_client_that_leaves_before_the_verdict_is_released,
        a_client_that_leaves_before_the_claim_is_sent_is_released,
        settlements_wait_out_an_outage,
    ]
}

fn answering(backend: Backend, then: fn(&Story) -> Result<()>) -> Result<Scenario> {
    let script = [Step::Send(Request::post(&Form::inbound("hello"))?), Step::Pass(2_000)];
    Ok(Scenario::new(script, then).backend([backend]))
}

/// Released, and the client got all of this answer at this time.
fn released(story: &Story, status: u16, ms: std::ops::Range<u64>) -> Result<()> {
    let client = story.answered(0, status)?;
    ensure!(ms.contains(&client.since.ms), "answered at {} ms", client.since.ms);
    ensure!(client.ended && story.outcomes() == [Outcome::Release], "{:?}", story.outcomes());
    Ok(())
}

fn a_success_is_committed_without_waiting() -> Result<Scenario> {
    let scenario = answering(Backend::twiml("<Response/>"), |story| {
        ensure!(story.answered(0, 200)?.since.ms == 0 && story.outcomes() == [Outcome::Commit]);
        ensure!(story.told[0].at_ms <= 100, "told at {} ms", story.told[0].at_ms);
        let answer = story.told[0].settlement.answer.as_ref();
        ensure!(answer.is_some_and(|answer| answer.body == "<Response/>"));
        ensure!(story.told[0].settlement.unclaimed.is_none(), "the sidecar has the form already");
        Ok(())
    })?;
    Ok(scenario.settlements([Does::Late(400, Box::new(Does::Works))]))
}

fn a_success_without_a_body_is_committed() -> Result<Scenario> {
    answering(Backend::Empty(204), |story| {
        story.answered(0, 204)?;
        ensure!(story.outcomes() == [Outcome::Commit]);
        Ok(())
    })
}

fn a_redirect_is_released() -> Result<Scenario> {
    answering(Backend::says(302), |story| released(story, 302, 0..1))
}

fn a_refusal_of_the_backend_is_released() -> Result<Scenario> {
    answering(Backend::says(404), |story| released(story, 404, 0..1))
}

fn a_failure_is_held_until_its_release_is_known() -> Result<Scenario> {
    let scenario = answering(Backend::says(500), |story| {
        ensure!(story.answered(0, 500)?.body == b"backend says 500");
        released(story, 500, 150..151)
    })?;
    Ok(scenario.settlements([Does::Late(150, Box::new(Does::Works))]))
}

fn held_to_the_limit(backend: Backend) -> Result<Scenario> {
    let scenario = answering(backend, |story| {
        ensure!(story.counted("release_unacknowledged") == 1);
        released(story, 500, 250..300)
    })?;
    Ok(scenario.settlements([Does::Late(400, Box::new(Does::Works))]))
}

fn a_failure_is_not_held_for_long() -> Result<Scenario> {
    held_to_the_limit(Backend::says(500))
}

fn in_parts() -> Backend {
    Backend::Answers { status: 500, kind: "text/plain", body: "far too long".to_owned(), parts: 5 }
}

fn a_failure_in_parts_is_held_whole() -> Result<Scenario> {
    held_to_the_limit(in_parts())
}

fn a_failure_that_ends_with_trailers_is_held_whole() -> Result<Scenario> {
    held_to_the_limit(Backend::WithTrailers(Box::new(in_parts())))
}

fn a_failure_without_a_body_is_held_too() -> Result<Scenario> {
    held_to_the_limit(Backend::Empty(500))
}

fn a_refused_release_is_told_again() -> Result<Scenario> {
    let scenario = answering(Backend::says(500), |story| {
        ensure!(story.told.len() > 1 && story.outcomes() == [Outcome::Release]);
        ensure!(story.answered(0, 500)?.since.ms >= 100, "answered before anybody had taken it");
        Ok(())
    })?;
    Ok(scenario.settlements([Does::Says(Decision::Unavailable)]))
}

fn a_release_reply_without_headers_is_no_acknowledgement() -> Result<Scenario> {
    let scenario = answering(Backend::says(500), |story| {
        ensure!(story.answered(0, 500)?.since.ms >= 100, "answered before anybody had taken it");
        ensure!(story.outcomes() == [Outcome::Release] && story.told.len() == 2);
        Ok(())
    })?;
    Ok(scenario.settlements([Does::Breaks]))
}

fn a_success_that_no_backend_sent_is_released() -> Result<Scenario> {
    answering(Backend::Instead(200, "direct_response"), |story| released(story, 200, 0..1))
}

fn a_backend_that_breaks_off_is_released() -> Result<Scenario> {
    answering(Backend::Resets, |story| released(story, 503, 0..1))
}

fn a_backend_that_breaks_off_in_its_answer_has_accepted() -> Result<Scenario> {
    let mut scenario = answering(Backend::ResetsInBody, |story| {
        ensure!(story.outcomes() == [Outcome::Commit], "{:?}", story.outcomes());
        ensure!(story.told[0].settlement.answer.is_none(), "half an answer is kept");
        Ok(())
    })?;
    scenario.script.push(Step::Gone(0));
    Ok(scenario)
}

fn a_route_timeout_is_released() -> Result<Scenario> {
    let timeout = Backend::Instead(504, "response_timeout").after(1_000);
    answering(timeout, |story| released(story, 504, 1_000..1_001))
}

fn a_client_that_leaves_before_the_answer_is_released() -> Result<Scenario> {
    let mut scenario = answering(Backend::says(200).after(1_000), |story| {
        story.forwarded(0)?;
        ensure!(story.stream(0)?.client.is_none() && story.outcomes() == [Outcome::Release]);
        Ok(())
    })?;
    scenario.script = vec![scenario.script.swap_remove(0), Step::Pass(500), Step::Gone(0)];
    Ok(scenario)
}

fn a_client_that_leaves_during_the_hold_changes_nothing() -> Result<Scenario> {
    let mut scenario = held_to_the_limit(Backend::says(500))?;
    scenario.script = vec![scenario.script.swap_remove(0), Step::Pass(100), Step::Gone(0)];
    scenario.then = |story| {
        ensure!(story.stream(0)?.client.is_none() && story.outcomes() == [Outcome::Release]);
        Ok(())
    };
    Ok(scenario)
}

/// The verdict comes for a stream that is gone: its release was told before, and is the claim's tombstone.
fn a_client_that_leaves_before_the_verdict_is_released() -> Result<Scenario> {
    let script = [
        Step::Send(Request::post(&Form::inbound("STOP"))?),
        Step::Pass(100),
        Step::Gone(0),
        Step::Pass(1_000),
    ];
    Ok(Scenario::new(script, |story| {
        ensure!(story.granted.len() == 1 && story.outcomes() == [Outcome::Release]);
        ensure!(story.told[0].at_ms < 300, "told only after the verdict");
        ensure!(story.told[0].settlement.unclaimed.is_some(), "a STOP that is lost");
        story.nothing_reached(0)
    })
    .claims([Does::Late(300, Box::new(Does::Works))]))
}

fn a_client_that_leaves_before_the_claim_is_sent_is_released() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("STOP"))?;
    let script =
        [Step::AtOnce(vec![Step::Send(request.clone()), Step::Gone(0)]), Step::Send(request)];
    Ok(Scenario::new(script, |story| {
        let first = story.told.iter().find(|told| told.settlement.outcome == Outcome::Release);
        let unclaimed = first.and_then(|told| told.settlement.unclaimed.as_ref());
        ensure!(unclaimed.is_some_and(|it| it.form.contains("STOP")), "a STOP that is lost");
        story.nothing_reached(0)?;
        story.forwarded(1).map(|_| ())
    }))
}

fn settlements_wait_out_an_outage() -> Result<Scenario> {
    let forms = ["one", "two", "three"].map(Form::inbound);
    let mut script = Vec::new();
    for form in &forms {
        script.extend([Step::Send(Request::post(form)?), Step::Pass(50)]);
    }
    script.push(Step::Pass(3_000));
    Ok(Scenario::new(script, |story| {
        for stream in 0..3 {
            ensure!(trusted(story.forwarded(stream)?, "dedupe") == "first");
            story.answered(stream, 200)?;
        }
        ensure!(story.outcomes() == [Outcome::Commit; 3], "{:?}", story.outcomes());
        ensure!(story.counted("callout_failed.settlements") >= 3);
        Ok(())
    })
    .settlements([Does::Fails(503), Does::Silent, Does::Half]))
}
