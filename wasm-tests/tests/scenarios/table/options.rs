//! Optional settings of a route or a configuration: a JSON body, delivery by the sidecar, keys from it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::Outcome;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form};

use super::{MakeScenario, Scenario, named, on_every_route, shadow, trusted, without_sidecar};
use crate::request::{Request, Shape};
use crate::sidecar::Behaviour;
use crate::world::{Record, Step};

pub(super) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        json_body_replaces_the_form,
        json_body_replaces_a_form_in_parts,
        json_body_replaces_a_form_that_ends_with_trailers,
        json_body_needs_no_sidecar,
        get_has_no_body_to_replace,
        forgery_in_shadow_mode_keeps_its_form,
        webhook_that_the_sidecar_delivers_is_answered_at_once,
        webhook_that_the_sidecar_cannot_accept_is_forwarded,
        shadow_mode_leaves_delivery_to_the_backend,
        keys_come_from_the_sidecar,
        missing_keys_are_requested_again,
        access_log_has_no_word_if_switched_off,
    ]
}

fn json_body(configuration: &mut Value) {
    on_every_route(configuration, "body", json!("json"));
}

/// The laws hold the backend's content-length against its body.
fn got_json(record: &Record) -> Result<()> {
    let backend = record.forwarded(0)?;
    ensure!(backend.header("content-type").as_deref() == Some("application/json"));
    ensure!(backend.header("content-length").is_some());
    let event: Value = serde_json::from_slice(&backend.body).context("the body is no JSON")?;
    ensure!(event["account_sid"] == ACCOUNT && event["body"] == "h\u{e9}llo", "{event}");
    ensure!(event["dedupe"] == trusted(backend, "dedupe"), "{event}");
    record.answered(0, 200).map(|_| ())
}

fn form() -> Result<Request> {
    Request::post(&Form::inbound("h\u{e9}llo"))
}

fn json_body_replaces_the_form() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(form()?)], got_json).configured(json_body))
}

fn json_body_replaces_a_form_in_parts() -> Result<Scenario> {
    let request = form()?.without("content-length").shaped(Shape::Parts(20));
    Ok(Scenario::new([Step::Send(request)], got_json).configured(json_body))
}

fn json_body_replaces_a_form_that_ends_with_trailers() -> Result<Scenario> {
    let request = form()?.trailers(&[("x-checksum", "1")]);
    Ok(Scenario::new([Step::Send(request)], got_json)
        .configured(json_body)
        .claims([Behaviour::Late(100, Box::new(Behaviour::Works))]))
}

fn json_body_needs_no_sidecar() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(form()?)], got_json)
        .configured(json_body)
        .configured(without_sidecar))
}

fn get_has_no_body_to_replace() -> Result<Scenario> {
    let request = Request::get(&Form::status("sent"))?;
    Ok(Scenario::new([Step::Send(request)], |record| {
        let backend = record.forwarded(0)?;
        ensure!(backend.body.is_empty() && backend.header("content-length").is_none());
        Ok(())
    })
    .configured(json_body))
}

fn forgery_in_shadow_mode_keeps_its_form() -> Result<Scenario> {
    let request = Request::post_with(&Form::inbound("hello"), "not-the-token")?;
    Ok(Scenario::new([Step::Send(request)], |record| {
        let sent = record.stream(0)?.request.as_ref().map(|request| request.body.clone());
        ensure!(sent.as_ref() == Some(&record.forwarded(0)?.body));
        Ok(())
    })
    .configured(json_body)
    .configured(shadow))
}

fn accepting(configuration: &mut Value) {
    // A webhook without deduplication cannot be delivered by the sidecar.
    for route in 0..2 {
        configuration["routes"][route]["delivery"] = json!("accept");
    }
}

fn webhook_that_the_sidecar_delivers_is_answered_at_once() -> Result<Scenario> {
    let script = [Step::Send(form()?), Step::Send(Request::post(&Form::status("delivered"))?)];
    Ok(Scenario::new(script, |record| {
        ensure!(record.answered(0, 200)?.body.ends_with(b"<Response/>"));
        record.answered(1, 204)?;
        record.access_logged(0, "accepted")?;
        ensure!(
            record.claims.len() == 2 && record.settlements.is_empty(),
            "there is nothing to settle"
        );
        record.not_forwarded(0)?;
        record.not_forwarded(1)
    })
    .configured(accepting))
}

fn webhook_that_the_sidecar_cannot_accept_is_forwarded() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(form()?), Step::Wait(1_000)], |record| {
        ensure!(trusted(record.forwarded(0)?, "dedupe") == "unknown");
        ensure!(record.outcomes() == [Outcome::Commit]);
        record.answered(0, 200).map(|_| ())
    })
    .configured(accepting)
    .claims([Behaviour::Fails(503)]))
}

fn shadow_mode_leaves_delivery_to_the_backend() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(form()?)], |record| {
        ensure!(trusted(record.forwarded(0)?, "dedupe") == "first");
        record.answered(0, 200).map(|_| ())
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
    let script = [Step::Send(form()?), Step::Wait(100), Step::Send(form()?)];
    Ok(Scenario::new(script, |record| {
        record.refused(0, Reason::NoKeys)?;
        ensure!(record.answered(0, 503)?.header("retry-after").is_some());
        ensure!(trusted(record.forwarded(1)?, "verified") == ACCOUNT);
        Ok(())
    })
    .configured(keys_elsewhere))
}

fn missing_keys_are_requested_again() -> Result<Scenario> {
    let script = [Step::Wait(500), Step::Send(form()?), Step::Wait(6_000), Step::Send(form()?)];
    Ok(Scenario::new(script, |record| {
        record.refused(0, Reason::NoKeys)?;
        ensure!(record.counter("keys_refresh.failed") == 2, "{:?}", record.counters);
        record.forwarded(1).map(|_| ())
    })
    .configured(keys_elsewhere)
    .keys([Behaviour::OmitsHeaders, Behaviour::Garbage]))
}

fn access_log_has_no_word_if_switched_off() -> Result<Scenario> {
    let forgery = Request::post_with(&Form::inbound("hello"), "not-the-token")?;
    Ok(Scenario::new([Step::Send(form()?), Step::Send(forgery)], |record| {
        record.forwarded(0)?;
        record.answered(1, 403)?;
        let words: Vec<_> = record.streams.iter().map(|stream| &stream.access_log).collect();
        ensure!(words.iter().all(|word| word.is_none()), "{words:?}");
        Ok(())
    })
    .configured(|configuration| configuration["access_log"] = json!(false)))
}
