//! Ends of a request. In every way of ending, nothing reaches the backend before the request is complete and verified.

use anyhow::{Result, ensure};
use twilio_edge_contract::Outcome;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form};

use super::{MakeScenario, Scenario, named, shadow, trusted, without_sidecar};
use crate::request::{Request, Shape};
use crate::sidecar::Behaviour;
use crate::world::{Record, Step};

pub(super) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        end_arrives_with_the_only_part,
        end_arrives_after_the_body,
        end_arrives_in_small_parts,
        end_arrives_with_trailers,
        get_ends_with_its_headers,
        empty_post_is_refused,
        empty_chunked_post_is_refused,
        trailers_do_not_help_a_forgery,
        trailers_wait_for_the_verdict_too,
        end_alone_forwards_without_a_sidecar,
        missing_body_is_answered,
        body_that_has_begun_may_be_slow,
        shadow_mode_forwards_the_headers_of_a_missing_body,
    ]
}

fn forwarded_once(record: &Record) -> Result<()> {
    let backend = record.forwarded(0)?;
    ensure!(backend.ended, "the backend waits for the end of the request");
    ensure!(trusted(backend, "verified") == ACCOUNT && trusted(backend, "dedupe") == "first");
    let sent = record.stream(0)?.request.as_ref().map(|request| request.body.clone());
    ensure!(Some(&backend.body) == sent.as_ref(), "the body was changed");
    record.answered(0, 200)?;
    record.access_logged(0, "first")?;
    ensure!(record.claims.len() == 1 && record.outcomes() == [Outcome::Commit]);
    Ok(())
}

fn shaped(shape: Shape) -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.shaped(shape);
    Ok(Scenario::new([Step::Send(request)], forwarded_once))
}

fn end_arrives_with_the_only_part() -> Result<Scenario> {
    shaped(Shape::OnePart)
}

fn end_arrives_after_the_body() -> Result<Scenario> {
    shaped(Shape::ThenNothing)
}

fn end_arrives_in_small_parts() -> Result<Scenario> {
    shaped(Shape::Parts(7))
}

fn end_arrives_with_trailers() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.trailers(&[
        ("x-checksum", "1"),
        ("x-twilio-edge-opt", "stop"),
        ("x_twilio_edge_key", "k"),
    ]);
    Ok(Scenario::new([Step::Send(request)], |record| {
        forwarded_once(record)?;
        let trailers = &record.forwarded(0)?.trailers;
        let names: Vec<_> = trailers.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(names == ["x-checksum"], "the backend got the trailers {names:?}");
        Ok(())
    }))
}

fn get_ends_with_its_headers() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(Request::get(&Form::status("delivered"))?)], |record| {
        forwarded_once(record)?;
        ensure!(trusted(record.forwarded(0)?, "status") == "delivered");
        Ok(())
    }))
}

fn empty_post_is_refused() -> Result<Scenario> {
    let request = Request::new("POST", "/twilio/inbound", b"")
        .with("content-type", "application/x-www-form-urlencoded")
        .with("content-length", "0")
        .with("x-twilio-signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    Ok(Scenario::new([Step::Send(request)], |record| {
        ensure!(record.claims.is_empty());
        record.refused(0, Reason::InvalidSignature)
    }))
}

fn empty_chunked_post_is_refused() -> Result<Scenario> {
    let mut scenario = empty_post_is_refused()?;
    if let Some(Step::Send(request)) = scenario.script.first_mut() {
        *request = request.clone().without("content-length").shaped(Shape::OnePart);
    }
    Ok(scenario)
}

fn trailers_do_not_help_a_forgery() -> Result<Scenario> {
    let request = Request::post_with(&Form::inbound("hello"), "not-the-token")?
        .trailers(&[("x-checksum", "1")]);
    Ok(Scenario::new([Step::Send(request)], |record| record.refused(0, Reason::InvalidSignature)))
}

fn trailers_wait_for_the_verdict_too() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.trailers(&[("x-checksum", "1")]);
    Ok(Scenario::new([Step::Send(request)], |record| {
        forwarded_once(record)?;
        ensure!(record.forwarded(0)?.since.ms == 300, "not when the verdict came");
        Ok(())
    })
    .claims([Behaviour::Late(300, Box::new(Behaviour::Works))]))
}

fn end_alone_forwards_without_a_sidecar() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    Ok(Scenario::new([Step::Send(request)], |record| {
        ensure!(trusted(record.forwarded(0)?, "dedupe") == "unknown");
        ensure!(trusted(record.forwarded(0)?, "verified") == ACCOUNT);
        ensure!(record.settlements.is_empty() && record.claims.is_empty());
        record.answered(0, 200).map(|_| ())
    })
    .configured(without_sidecar))
}

fn missing_body_is_answered() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    Ok(Scenario::new([Step::Begin(request), Step::Wait(11_000)], |record| {
        record.refused(0, Reason::NoBody)?;
        let at_ms = record.answered(0, 408)?.since.ms;
        ensure!((10_000..10_100).contains(&at_ms), "answered at {at_ms} ms");
        Ok(())
    }))
}

fn body_that_has_begun_may_be_slow() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    let (first, rest) = request.body.split_at(10);
    let script = [
        Step::Begin(request.clone()),
        Step::Wait(9_000),
        Step::Part(0, first.to_vec().into(), false),
        Step::Wait(20_000),
        Step::Part(0, rest.to_vec().into(), true),
    ];
    Ok(Scenario::new(script, forwarded_once))
}

fn shadow_mode_forwards_the_headers_of_a_missing_body() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    let body = request.body.clone();
    let script = [Step::Begin(request), Step::Wait(11_000), Step::Part(0, body.into(), true)];
    Ok(Scenario::new(script, |record| {
        let backend = record.forwarded(0)?;
        ensure!(backend.ended && trusted(backend, "verified").is_empty());
        ensure!(record.counter("shadowed.no-body") == 1);
        record.answered(0, 200).map(|_| ())
    })
    .configured(shadow))
}
