//! What a route or a configuration may ask for beyond the usual: a JSON body, delivery by the sidecar, keys from it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::Outcome;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form};

use super::{Plot, Scenario, alone, on_every_route, shadow, told, trusted};
use crate::request::{Request, Shape};
use crate::sidecar::Does;
use crate::world::{Step, Story};

pub(super) fn scenarios() -> Vec<(&'static str, Plot)> {
    told![
        a_json_body_replaces_the_form,
        a_json_body_replaces_a_form_in_parts,
        a_json_body_replaces_a_form_that_ends_with_trailers,
        a_json_body_needs_no_sidecar,
        a_get_has_no_body_to_replace,
        a_forgery_in_shadow_mode_keeps_its_form,
        what_the_sidecar_delivers_is_answered_at_once,
        what_the_sidecar_cannot_take_is_forwarded,
        shadow_mode_hands_nothing_over,
        keys_come_from_the_sidecar,
        keys_that_do_not_come_are_asked_for_again,
    ]
}

fn json_body(configuration: &mut Value) {
    on_every_route(configuration, "body", json!("json"));
}

/// The laws hold the backend's content-length against its body.
fn got_json(story: &Story) -> Result<()> {
    let backend = story.forwarded(0)?;
    ensure!(backend.header("content-type").as_deref() == Some("application/json"));
    ensure!(backend.header("content-length").is_some());
    let event: Value = serde_json::from_slice(&backend.body).context("the body is no JSON")?;
    ensure!(event["account_sid"] == ACCOUNT && event["body"] == "h\u{e9}llo", "{event}");
    ensure!(event["dedupe"] == trusted(backend, "dedupe"), "{event}");
    story.answered(0, 200).map(|_| ())
}

fn form() -> Result<Request> {
    Request::post(&Form::inbound("h\u{e9}llo"))
}

fn a_json_body_replaces_the_form() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(form()?)], got_json).configured(json_body))
}

fn a_json_body_replaces_a_form_in_parts() -> Result<Scenario> {
    let request = form()?.without("content-length").shaped(Shape::Parts(20));
    Ok(Scenario::new([Step::Send(request)], got_json).configured(json_body))
}

fn a_json_body_replaces_a_form_that_ends_with_trailers() -> Result<Scenario> {
    let request = form()?.trailers(&[("x-checksum", "1")]);
    Ok(Scenario::new([Step::Send(request)], got_json)
        .configured(json_body)
        .claims([Does::Late(100, Box::new(Does::Works))]))
}

fn a_json_body_needs_no_sidecar() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(form()?)], got_json).configured(json_body).configured(alone))
}

fn a_get_has_no_body_to_replace() -> Result<Scenario> {
    let request = Request::get(&Form::status("sent"))?;
    Ok(Scenario::new([Step::Send(request)], |story| {
        let backend = story.forwarded(0)?;
        ensure!(backend.body.is_empty() && backend.header("content-length").is_none());
        Ok(())
    })
    .configured(json_body))
}

fn a_forgery_in_shadow_mode_keeps_its_form() -> Result<Scenario> {
    let request = Request::post_with(&Form::inbound("hello"), "not-the-token")?;
    Ok(Scenario::new([Step::Send(request)], |story| {
        let sent = story.stream(0)?.request.as_ref().map(|request| request.body.clone());
        ensure!(sent.as_ref() == Some(&story.forwarded(0)?.body));
        Ok(())
    })
    .configured(json_body)
    .configured(shadow))
}

fn accepting(configuration: &mut Value) {
    // What is not deduplicated cannot be delivered by the sidecar.
    for route in 0..2 {
        configuration["routes"][route]["delivery"] = json!("accept");
    }
}

fn what_the_sidecar_delivers_is_answered_at_once() -> Result<Scenario> {
    let script = [Step::Send(form()?), Step::Send(Request::post(&Form::status("delivered"))?)];
    Ok(Scenario::new(script, |story| {
        ensure!(story.answered(0, 200)?.body.ends_with(b"<Response/>"));
        story.answered(1, 204)?;
        story.noted(0, "accepted")?;
        ensure!(story.asked.len() == 2 && story.told.is_empty(), "there is nothing to settle");
        story.nothing_reached(0)?;
        story.nothing_reached(1)
    })
    .configured(accepting))
}

fn what_the_sidecar_cannot_take_is_forwarded() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(form()?), Step::Pass(1_000)], |story| {
        ensure!(trusted(story.forwarded(0)?, "dedupe") == "unknown");
        ensure!(story.outcomes() == [Outcome::Commit]);
        story.answered(0, 200).map(|_| ())
    })
    .configured(accepting)
    .claims([Does::Fails(503)]))
}

fn shadow_mode_hands_nothing_over() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(form()?)], |story| {
        ensure!(trusted(story.forwarded(0)?, "dedupe") == "first");
        story.answered(0, 200).map(|_| ())
    })
    .configured(accepting)
    .configured(shadow))
}

fn keys_elsewhere(configuration: &mut Value) {
    if let Some(object) = configuration.as_object_mut() {
        object.remove("accounts");
    }
    configuration["sidecar"]["accounts_refresh_ms"] = json!(60_000);
}

fn keys_come_from_the_sidecar() -> Result<Scenario> {
    let script = [Step::Send(form()?), Step::Pass(100), Step::Send(form()?)];
    Ok(Scenario::new(script, |story| {
        story.refused(0, Reason::NoKeys)?;
        ensure!(story.answered(0, 503)?.header("retry-after").is_some());
        ensure!(trusted(story.forwarded(1)?, "verified") == ACCOUNT);
        Ok(())
    })
    .configured(keys_elsewhere))
}

fn keys_that_do_not_come_are_asked_for_again() -> Result<Scenario> {
    let script = [Step::Pass(500), Step::Send(form()?), Step::Pass(6_000), Step::Send(form()?)];
    Ok(Scenario::new(script, |story| {
        story.refused(0, Reason::NoKeys)?;
        ensure!(story.counted("keys_refresh.failed") == 2, "{:?}", story.counters);
        story.forwarded(1).map(|_| ())
    })
    .configured(keys_elsewhere)
    .keys([Does::Breaks, Does::Garbage]))
}
