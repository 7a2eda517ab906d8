//! What a client may not say, and what is let through that nobody guards.

use anyhow::{Result, ensure};
use serde_json::json;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form};

use super::{Plot, Scenario, on_every_route, shadow, told, trusted};
use crate::request::Request;
use crate::world::{Step, Story};

pub(super) fn scenarios() -> Vec<(&'static str, Plot)> {
    told![
        forged_headers_are_replaced_on_a_guarded_route,
        forged_headers_are_removed_where_nothing_is_guarded,
        forged_headers_are_removed_where_the_mode_is_off,
        forged_trailers_are_removed_where_nothing_is_guarded,
        shadow_mode_forwards_a_forgery_without_a_trusted_header,
        shadow_mode_forwards_what_it_would_refuse_in_the_headers,
        shadow_mode_tells_what_is_proven,
        an_unsigned_request_is_refused,
        a_webhook_on_the_wrong_route_is_refused,
        the_next_token_is_good_too,
    ]
}

fn disguised(request: Request) -> Request {
    request
        .with("x-twilio-edge-verified", "AC_forged")
        .with("x-twilio-edge-verified", "AC_forged_again")
        .with("x_twilio_edge_verified", "AC_forged")
        .with("x-twilio_edge-opt", "start")
        .with("x-kept", "1")
}

fn nothing_forged(story: &Story) -> Result<()> {
    let backend = story.forwarded(0)?;
    let forged = backend.headers.iter().any(|(_, value)| value.starts_with(b"AC_forged"));
    ensure!(!forged && backend.header("x-twilio_edge-opt").is_none());
    ensure!(backend.header("x-kept").as_deref() == Some("1"));
    ensure!(story.counted("forged_headers") == 1);
    Ok(())
}

fn forged_headers_are_replaced_on_a_guarded_route() -> Result<Scenario> {
    let request = disguised(Request::post(&Form::inbound("hello"))?);
    Ok(Scenario::new([Step::Send(request)], |story| {
        nothing_forged(story)?;
        ensure!(trusted(story.forwarded(0)?, "verified") == ACCOUNT);
        Ok(())
    }))
}

fn unguarded() -> Result<Scenario> {
    let request = disguised(Request::new("POST", "/app/orders", b"not ours"));
    Ok(Scenario::new([Step::Send(request)], |story| {
        nothing_forged(story)?;
        ensure!(story.forwarded(0)?.body == b"not ours" && story.counted("passed") == 1);
        ensure!(trusted(story.forwarded(0)?, "verified").is_empty() && story.asked.is_empty());
        story.answered(0, 200).map(|_| ())
    }))
}

fn forged_headers_are_removed_where_nothing_is_guarded() -> Result<Scenario> {
    unguarded()
}

fn forged_headers_are_removed_where_the_mode_is_off() -> Result<Scenario> {
    let mut scenario = unguarded()?;
    scenario.script =
        vec![Step::Send(disguised(Request::new("POST", "/twilio/inbound", b"not ours")))];
    Ok(scenario.configured(|configuration| on_every_route(configuration, "mode", json!("off"))))
}

fn forged_trailers_are_removed_where_nothing_is_guarded() -> Result<Scenario> {
    let request = Request::new("POST", "/app/orders", b"not ours")
        .trailers(&[("x-twilio-edge-verified", "AC_forged"), ("x-kept", "1")]);
    Ok(Scenario::new([Step::Send(request)], |story| {
        let trailers = &story.forwarded(0)?.trailers;
        ensure!(trailers.len() == 1 && trailers[0].0 == "x-kept", "{trailers:?}");
        Ok(())
    }))
}

fn shadow_mode_forwards_a_forgery_without_a_trusted_header() -> Result<Scenario> {
    let request = disguised(Request::post_with(&Form::inbound("hello"), "not-the-token")?);
    Ok(Scenario::new([Step::Send(request)], |story| {
        nothing_forged(story)?;
        ensure!(trusted(story.forwarded(0)?, "verified").is_empty());
        ensure!(story.counted("shadowed.invalid-signature") == 1);
        ensure!(story.counted("rejected.invalid-signature") == 0 && story.told.is_empty());
        story.noted(0, "shadow")?;
        story.answered(0, 200).map(|_| ())
    })
    .configured(shadow))
}

fn shadow_mode_forwards_what_it_would_refuse_in_the_headers() -> Result<Scenario> {
    let request = Request::new("DELETE", "/twilio/inbound", b"whatever");
    Ok(Scenario::new([Step::Send(request)], |story| {
        ensure!(story.forwarded(0)?.body == b"whatever" && story.forwarded(0)?.ended);
        ensure!(story.counted("shadowed.method-not-allowed") == 1);
        Ok(())
    })
    .configured(shadow))
}

fn shadow_mode_tells_what_is_proven() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(Request::post(&Form::inbound("hello"))?)], |story| {
        ensure!(trusted(story.forwarded(0)?, "verified") == ACCOUNT);
        Ok(())
    })
    .configured(shadow))
}

fn an_unsigned_request_is_refused() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.without("x-twilio-signature");
    Ok(Scenario::new([Step::Send(request)], |story| story.refused(0, Reason::MissingSignature)))
}

fn a_webhook_on_the_wrong_route_is_refused() -> Result<Scenario> {
    let request = Request::post(&Form::status("delivered").to("/twilio/inbound"))?;
    Ok(Scenario::new([Step::Send(request)], |story| story.refused(0, Reason::WrongClass)))
}

fn the_next_token_is_good_too() -> Result<Scenario> {
    let token = twilio_edge_wasm_tests::stack::NEXT_TOKEN;
    let request = Request::post_with(&Form::inbound("hello"), token)?;
    Ok(Scenario::new([Step::Send(request)], |story| {
        ensure!(trusted(story.forwarded(0)?, "key") == "next");
        Ok(())
    }))
}
