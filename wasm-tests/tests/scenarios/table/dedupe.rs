//! Webhooks that come more than once.

use anyhow::{Result, ensure};
use twilio_edge_contract::{Decision, Outcome, SavedAnswer};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::Form;

use super::{MakeScenario, Scenario, named, shadow, trusted};
use crate::request::Request;
use crate::sidecar::Behaviour;
use crate::world::{Backend, Step};

pub(super) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        duplicate_gets_the_answer_of_the_first,
        redirect_is_repeated_by_the_sidecar_alone,
        webhook_that_was_settled_long_ago_is_claimed,
        answer_that_is_too_large_is_not_saved,
        answer_that_ends_with_trailers_is_saved,
        duplicate_status_gets_no_content,
        unsuccessful_answer_is_not_repeated,
        duplicate_during_the_first_waits_for_it,
        duplicate_of_a_failure_goes_to_the_backend,
        copy_that_stays_in_flight_is_refused_after_the_wait,
        shadow_mode_forwards_duplicates,
        other_webhooks_are_never_deduplicated,
    ]
}

/// The same webhook twice, the second when so much time has passed.
fn twice(form: &Form, after_ms: u64) -> Result<[Step; 4]> {
    let request = Request::post(form)?;
    Ok([Step::Send(request.clone()), Step::Wait(after_ms), Step::Send(request), Step::Wait(5_000)])
}

const TWIML: &str = "<Response><Message>welcome</Message></Response>";

fn duplicate_gets_the_answer_of_the_first() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 500)?, |record| {
        let copy = record.answered(1, 200)?;
        ensure!(copy.body == TWIML.as_bytes(), "{:?}", String::from_utf8_lossy(&copy.body));
        ensure!(copy.header("content-type").as_deref() == Some("text/xml"));
        record.access_logged(1, "duplicate")?;
        ensure!(record.outcomes() == [Outcome::Commit]);
        ensure!(record.counter("repeats_answered") == 1, "the worker knows the verdict");
        record.not_forwarded(1)
    })
    .backend([Backend::twiml(TWIML)]))
}

/// The sidecar limits how often a redirect is repeated, so a worker may not repeat it by itself.
fn redirect_is_repeated_by_the_sidecar_alone() -> Result<Scenario> {
    const REDIRECT: &str = "<Response><Redirect>/twilio/inbound</Redirect></Response>";
    Ok(Scenario::new(twice(&Form::inbound("hello"), 500)?, |record| {
        ensure!(record.answered(1, 200)?.body == REDIRECT.as_bytes());
        ensure!(record.counter("repeats_answered") == 0);
        record.not_forwarded(1)
    })
    .backend([Backend::twiml(REDIRECT)]))
}

fn webhook_that_was_settled_long_ago_is_claimed() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::status("delivered"), 121_000)?, |record| {
        ensure!(record.answered(1, 204)?.body.is_empty());
        ensure!(record.counter("verdict.duplicate") == 1);
        ensure!(record.counter("repeats_answered") == 0);
        record.not_forwarded(1)
    }))
}

fn answer_that_is_too_large_is_not_saved() -> Result<Scenario> {
    let large = "<Response>".repeat(1_000);
    Ok(Scenario::new(twice(&Form::inbound("hello"), 500)?, |record| {
        ensure!(record.answered(0, 200)?.body.len() == 10_000, "the first one gets all of it");
        ensure!(record.answered(1, 200)?.body.ends_with(b"<Response/>"));
        record.not_forwarded(1)
    })
    .backend([Backend::twiml(&large)]))
}

fn answer_that_ends_with_trailers_is_saved() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 500)?, |record| {
        ensure!(record.answered(0, 200)?.trailers.len() == 1);
        ensure!(record.answered(1, 200)?.body == TWIML.as_bytes());
        record.not_forwarded(1)
    })
    .backend([Backend::WithTrailers(Box::new(Backend::twiml(TWIML)))]))
}

fn duplicate_status_gets_no_content() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::status("delivered"), 500)?, |record| {
        ensure!(record.answered(1, 204)?.body.is_empty());
        record.not_forwarded(1)
    }))
}

fn unsuccessful_answer_is_not_repeated() -> Result<Scenario> {
    let answer =
        SavedAnswer { status: 500, content_type: "text/xml".to_owned(), body: TWIML.to_owned() };
    Ok(Scenario::new([Step::Send(Request::post(&Form::inbound("hello"))?)], |record| {
        ensure!(record.answered(0, 200)?.body.ends_with(b"<Response/>"));
        record.not_forwarded(0)
    })
    .claims([Behaviour::AnswersDuplicate(answer)]))
}

fn duplicate_during_the_first_waits_for_it() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 100)?, |record| {
        let (first, copy) = (record.answered(0, 200)?, record.answered(1, 200)?);
        ensure!(copy.since > first.since, "the copy was answered before anything was known");
        ensure!(copy.body == TWIML.as_bytes());
        ensure!(record.counter("verdict.in_flight") > 1, "it asks again");
        record.not_forwarded(1)
    })
    .backend([Backend::twiml(TWIML).after(2_000)]))
}

fn duplicate_of_a_failure_goes_to_the_backend() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 100)?, |record| {
        record.answered(0, 500)?;
        record.answered(1, 200)?;
        ensure!(trusted(record.forwarded(1)?, "dedupe") == "first");
        ensure!(record.outcomes() == [Outcome::Release, Outcome::Commit]);
        Ok(())
    })
    .backend([Backend::status(500).after(1_000)]))
}

fn copy_that_stays_in_flight_is_refused_after_the_wait() -> Result<Scenario> {
    let script = [Step::Send(Request::post(&Form::inbound("hello"))?), Step::Wait(10_000)];
    Ok(Scenario::new(script, |record| {
        record.refused(0, Reason::StillInFlight)?;
        let at_ms = record.answered(0, 503)?.since.ms;
        ensure!((8_000..8_600).contains(&at_ms), "answered at {at_ms} ms");
        ensure!(record.settlements.is_empty(), "it never held the lease");
        Ok(())
    })
    .claims(vec![Behaviour::Decides(Decision::InFlight); 100]))
}

fn shadow_mode_forwards_duplicates() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::inbound("hello"), 500)?, |record| {
        ensure!(trusted(record.forwarded(0)?, "dedupe") == "first");
        ensure!(trusted(record.forwarded(1)?, "dedupe") == "duplicate");
        record.answered(1, 200)?;
        ensure!(record.outcomes() == [Outcome::Commit], "only the first one held a lease");
        Ok(())
    })
    .configured(shadow))
}

fn other_webhooks_are_never_deduplicated() -> Result<Scenario> {
    Ok(Scenario::new(twice(&Form::other(), 500)?, |record| {
        record.forwarded(0)?;
        record.forwarded(1)?;
        ensure!(record.claims.is_empty() && record.settlements.is_empty());
        Ok(())
    }))
}
