//! Webhooks that come more than once.

use anyhow::{Result, ensure};
use twilio_edge_contract::{Decision, Outcome, SavedAnswer};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::Form;

use super::{Plot, Scenario, shadow, told, trusted};
use crate::request::Request;
use crate::sidecar::Does;
use crate::world::{Backend, Step};

pub(super) fn scenarios() -> Vec<(&'static str, Plot)> {
    told![
        a_duplicate_gets_the_first_ones_answer,
        an_answer_that_is_too_large_is_not_kept,
        an_answer_that_ends_with_trailers_is_kept,
        a_duplicate_status_gets_no_content,
        an_answer_that_was_no_success_is_not_repeated,
        a_duplicate_during_the_first_waits_for_it,
        a_duplicate_of_a_failure_goes_to_the_backend,
        a_copy_that_stays_in_flight_is_refused_in_the_end,
        shadow_mode_forwards_duplicates,
        other_webhooks_are_never_deduplicated,
    ]
}

/// The same webhook twice, the second when so much time has passed.
fn twice(form: &Form, after_ms: u64) -> Result<[Step; 4]> {
    let request = Request::post(form)?;
    Ok([Step::Send(request.clone()), Step::Pass(after_ms), Step::Send(request), Step::Pass(5_000)])
}

const TWIML: &str = "<Response><Message>welcome</Message></Response>";

fn a_duplicate_gets_the_first_ones_answer() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 500)?, |story| {
        let copy = story.answered(1, 200)?;
        ensure!(copy.body == TWIML.as_bytes(), "{:?}", String::from_utf8_lossy(&copy.body));
        ensure!(copy.header("content-type").as_deref() == Some("text/xml"));
        story.noted(1, "duplicate")?;
        ensure!(story.outcomes() == [Outcome::Commit]);
        story.nothing_reached(1)
    })
    .backend([Backend::twiml(TWIML)]))
}

fn an_answer_that_is_too_large_is_not_kept() -> Result<Scenario> {
    let large = "<Response>".repeat(1_000);
    Ok(Scenario::new(twice(&Form::inbound("hello"), 500)?, |story| {
        ensure!(story.answered(0, 200)?.body.len() == 10_000, "the first one gets all of it");
        ensure!(story.answered(1, 200)?.body.ends_with(b"<Response/>"));
        story.nothing_reached(1)
    })
    .backend([Backend::twiml(&large)]))
}

fn an_answer_that_ends_with_trailers_is_kept() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 500)?, |story| {
        ensure!(story.answered(0, 200)?.trailers.len() == 1);
        ensure!(story.answered(1, 200)?.body == TWIML.as_bytes());
        story.nothing_reached(1)
    })
    .backend([Backend::WithTrailers(Box::new(Backend::twiml(TWIML)))]))
}

fn a_duplicate_status_gets_no_content() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::status("delivered"), 500)?, |story| {
        ensure!(story.answered(1, 204)?.body.is_empty());
        story.nothing_reached(1)
    }))
}

fn an_answer_that_was_no_success_is_not_repeated() -> Result<Scenario> {
    let answer =
        SavedAnswer { status: 500, content_type: "text/xml".to_owned(), body: TWIML.to_owned() };
    Ok(Scenario::new([Step::Send(Request::post(&Form::inbound("hello"))?)], |story| {
        ensure!(story.answered(0, 200)?.body.ends_with(b"<Response/>"));
        story.nothing_reached(0)
    })
    .claims([Does::Knows(answer)]))
}

fn a_duplicate_during_the_first_waits_for_it() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 100)?, |story| {
        let (first, copy) = (story.answered(0, 200)?, story.answered(1, 200)?);
        ensure!(copy.since > first.since, "the copy was answered before anything was known");
        ensure!(copy.body == TWIML.as_bytes());
        ensure!(story.counted("verdict.in_flight") > 1, "it asks again");
        story.nothing_reached(1)
    })
    .backend([Backend::twiml(TWIML).after(2_000)]))
}

fn a_duplicate_of_a_failure_goes_to_the_backend() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 100)?, |story| {
        story.answered(0, 500)?;
        story.answered(1, 200)?;
        ensure!(trusted(story.forwarded(1)?, "dedupe") == "first");
        ensure!(story.outcomes() == [Outcome::Release, Outcome::Commit]);
        Ok(())
    })
    .backend([Backend::says(500).after(1_000)]))
}

fn a_copy_that_stays_in_flight_is_refused_in_the_end() -> Result<Scenario> {
    let script = [Step::Send(Request::post(&Form::inbound("hello"))?), Step::Pass(10_000)];
    Ok(Scenario::new(script, |story| {
        story.refused(0, Reason::StillInFlight)?;
        let at_ms = story.answered(0, 503)?.since.ms;
        ensure!((8_000..8_600).contains(&at_ms), "answered at {at_ms} ms");
        ensure!(story.told.is_empty(), "it never held the lease");
        Ok(())
    })
    .claims(vec![Does::Says(Decision::InFlight); 100]))
}

fn shadow_mode_forwards_duplicates() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 500)?, |story| {
        ensure!(trusted(story.forwarded(0)?, "dedupe") == "first");
        ensure!(trusted(story.forwarded(1)?, "dedupe") == "duplicate");
        story.answered(1, 200)?;
        ensure!(story.outcomes() == [Outcome::Commit], "only the first one held a lease");
        Ok(())
    })
    .configured(shadow))
}

fn other_webhooks_are_never_deduplicated() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::other(), 500)?, |story| {
        story.forwarded(0)?;
        story.forwarded(1)?;
        ensure!(story.asked.is_empty() && story.told.is_empty());
        Ok(())
    }))
}
