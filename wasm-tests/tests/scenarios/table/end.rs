//! Nothing reaches the backend before the request has ended and been judged, in whichever way it ends.

use anyhow::{Result, ensure};
use twilio_edge_contract::Outcome;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form};

use super::{Plot, Scenario, alone, shadow, told, trusted};
use crate::request::{Request, Shape};
use crate::sidecar::Does;
use crate::world::{Step, Story};

pub(super) fn scenarios() -> Vec<(&'static str, Plot)> {
    told![
        the_end_comes_with_the_only_part,
        the_end_comes_after_the_body,
        the_end_comes_in_small_parts,
        the_end_comes_with_trailers,
        a_get_ends_with_its_headers,
        an_empty_post_is_refused,
        an_empty_chunked_post_is_refused,
        trailers_open_no_door_for_a_forgery,
        trailers_wait_for_the_verdict_too,
        without_a_sidecar_the_end_is_enough,
        a_body_that_never_comes_is_answered,
        a_body_that_has_begun_may_take_its_time,
        in_shadow_mode_a_body_that_never_comes_lets_the_headers_go,
    ]
}

fn forwarded_once(story: &Story) -> Result<()> {
    let backend = story.forwarded(0)?;
    ensure!(backend.ended, "the backend waits for the end of the request");
    ensure!(trusted(backend, "verified") == ACCOUNT && trusted(backend, "dedupe") == "first");
    let sent = story.stream(0)?.request.as_ref().map(|request| request.body.clone());
    ensure!(Some(&backend.body) == sent.as_ref(), "the body was changed");
    story.answered(0, 200)?;
    story.noted(0, "first")?;
    ensure!(story.asked.len() == 1 && story.outcomes() == [Outcome::Commit]);
    Ok(())
}

fn shaped(shape: Shape) -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.shaped(shape);
    Ok(Scenario::new([Step::Send(request)], forwarded_once))
}

fn the_end_comes_with_the_only_part() -> Result<Scenario> {
    shaped(Shape::OnePart)
}

fn the_end_comes_after_the_body() -> Result<Scenario> {
    shaped(Shape::ThenNothing)
}

fn the_end_comes_in_small_parts() -> Result<Scenario> {
    shaped(Shape::Parts(7))
}

fn the_end_comes_with_trailers() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.trailers(&[
        ("x-checksum", "1"),
        ("x-twilio-edge-opt", "stop"),
        ("x_twilio_edge_key", "k"),
    ]);
    Ok(Scenario::new([Step::Send(request)], |story| {
        forwarded_once(story)?;
        let trailers = &story.forwarded(0)?.trailers;
        let names: Vec<_> = trailers.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(names == ["x-checksum"], "the backend got the trailers {names:?}");
        Ok(())
    }))
}

fn a_get_ends_with_its_headers() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(Request::get(&Form::status("delivered"))?)], |story| {
        forwarded_once(story)?;
        ensure!(trusted(story.forwarded(0)?, "status") == "delivered");
        Ok(())
    }))
}

fn an_empty_post_is_refused() -> Result<Scenario> {
    let request = Request::new("POST", "/twilio/inbound", b"")
        .with("content-type", "application/x-www-form-urlencoded")
        .with("content-length", "0")
        .with("x-twilio-signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    Ok(Scenario::new([Step::Send(request)], |story| {
        ensure!(story.asked.is_empty());
        story.refused(0, Reason::InvalidSignature)
    }))
}

fn an_empty_chunked_post_is_refused() -> Result<Scenario> {
    let mut scenario = an_empty_post_is_refused()?;
    if let Some(Step::Send(request)) = scenario.script.first_mut() {
        *request = request.clone().without("content-length").shaped(Shape::OnePart);
    }
    Ok(scenario)
}

fn trailers_open_no_door_for_a_forgery() -> Result<Scenario> {
    let request = Request::post_with(&Form::inbound("hello"), "not-the-token")?
        .trailers(&[("x-checksum", "1")]);
    Ok(Scenario::new([Step::Send(request)], |story| story.refused(0, Reason::InvalidSignature)))
}

fn trailers_wait_for_the_verdict_too() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.trailers(&[("x-checksum", "1")]);
    Ok(Scenario::new([Step::Send(request)], |story| {
        forwarded_once(story)?;
        ensure!(story.forwarded(0)?.since.ms == 300, "not when the verdict came");
        Ok(())
    })
    .claims([Does::Late(300, Box::new(Does::Works))]))
}

fn without_a_sidecar_the_end_is_enough() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    Ok(Scenario::new([Step::Send(request)], |story| {
        ensure!(trusted(story.forwarded(0)?, "dedupe") == "unknown");
        ensure!(trusted(story.forwarded(0)?, "verified") == ACCOUNT);
        ensure!(story.told.is_empty() && story.asked.is_empty());
        story.answered(0, 200).map(|_| ())
    })
    .configured(alone))
}

fn a_body_that_never_comes_is_answered() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    Ok(Scenario::new([Step::Begin(request), Step::Pass(11_000)], |story| {
        story.refused(0, Reason::NoBody)?;
        let at_ms = story.answered(0, 408)?.since.ms;
        ensure!((10_000..10_100).contains(&at_ms), "answered at {at_ms} ms");
        Ok(())
    }))
}

fn a_body_that_has_begun_may_take_its_time() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    let (first, rest) = request.body.split_at(10);
    let script = [
        Step::Begin(request.clone()),
        Step::Pass(9_000),
        Step::Part(0, first.to_vec().into(), false),
        Step::Pass(20_000),
        Step::Part(0, rest.to_vec().into(), true),
    ];
    Ok(Scenario::new(script, forwarded_once))
}

fn in_shadow_mode_a_body_that_never_comes_lets_the_headers_go() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    let body = request.body.clone();
    let script = [Step::Begin(request), Step::Pass(11_000), Step::Part(0, body.into(), true)];
    Ok(Scenario::new(script, |story| {
        let backend = story.forwarded(0)?;
        ensure!(backend.ended && trusted(backend, "verified").is_empty());
        ensure!(story.counted("shadowed.no-body") == 1);
        story.answered(0, 200).map(|_| ())
    })
    .configured(shadow))
}
