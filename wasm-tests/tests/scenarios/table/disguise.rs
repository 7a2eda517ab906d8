//! Headers that a client may not send, and unguarded requests.

use anyhow::{Result, ensure};
use serde_json::json;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form};

use super::{MakeScenario, Scenario, named, on_every_route, shadow, trusted};
use crate::request::Request;
use crate::world::{Record, Step};

pub(super) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        forged_headers_are_replaced_on_a_guarded_route,
        forged_headers_are_removed_where_nothing_is_guarded,
        forged_headers_are_removed_where_the_mode_is_off,
        forged_trailers_are_removed_where_nothing_is_guarded,
        shadow_mode_forwards_a_forgery_without_a_trusted_header,
        shadow_mode_forwards_what_it_would_refuse_in_the_headers,
        shadow_mode_forwards_trusted_headers_of_proven_webhooks,
        unsigned_request_is_refused,
        webhook_on_the_wrong_route_is_refused,
        next_token_is_accepted,
        separators_do_not_hide_forged_headers,
        separators_do_not_hide_forged_headers_where_nothing_is_guarded,
        override_headers_are_removed_on_a_guarded_route,
        override_headers_are_removed_in_shadow_mode,
        override_headers_pass_where_nothing_is_guarded,
        headers_of_gateways_pass,
        compressed_body_is_refused,
        charset_other_than_utf8_is_refused,
        second_content_type_is_refused,
        utf8_in_any_spelling_is_accepted,
        flood_of_forgeries_does_not_flood_the_log,
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

fn nothing_forged(record: &Record) -> Result<()> {
    let backend = record.forwarded(0)?;
    let forged = backend.headers.iter().any(|(_, value)| value.starts_with(b"AC_forged"));
    ensure!(!forged && backend.header("x-twilio_edge-opt").is_none());
    ensure!(backend.header("x-kept").as_deref() == Some("1"));
    ensure!(record.counter("forged_headers") == 1);
    Ok(())
}

fn forged_headers_are_replaced_on_a_guarded_route() -> Result<Scenario> {
    let request = disguised(Request::post(&Form::inbound("hello"))?);
    Ok(Scenario::new([Step::Send(request)], |record| {
        nothing_forged(record)?;
        ensure!(trusted(record.forwarded(0)?, "verified") == ACCOUNT);
        Ok(())
    }))
}

fn unguarded() -> Result<Scenario> {
    let request = disguised(Request::new("POST", "/app/orders", b"not ours"));
    Ok(Scenario::new([Step::Send(request)], |record| {
        nothing_forged(record)?;
        ensure!(record.forwarded(0)?.body == b"not ours" && record.counter("unguarded") == 1);
        ensure!(trusted(record.forwarded(0)?, "verified").is_empty() && record.claims.is_empty());
        record.answered(0, 200).map(|_| ())
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
    Ok(Scenario::new([Step::Send(request)], |record| {
        let trailers = &record.forwarded(0)?.trailers;
        ensure!(trailers.len() == 1 && trailers[0].0 == "x-kept", "{trailers:?}");
        Ok(())
    }))
}

fn shadow_mode_forwards_a_forgery_without_a_trusted_header() -> Result<Scenario> {
    let request = disguised(Request::post_with(&Form::inbound("hello"), "not-the-token")?);
    Ok(Scenario::new([Step::Send(request)], |record| {
        nothing_forged(record)?;
        ensure!(trusted(record.forwarded(0)?, "verified").is_empty());
        ensure!(record.counter("shadowed.invalid-signature") == 1);
        ensure!(record.counter("rejected.invalid-signature") == 0 && record.settlements.is_empty());
        record.access_logged(0, "shadow")?;
        record.answered(0, 200).map(|_| ())
    })
    .configured(shadow))
}

fn shadow_mode_forwards_what_it_would_refuse_in_the_headers() -> Result<Scenario> {
    let request = Request::new("DELETE", "/twilio/inbound", b"anything");
    Ok(Scenario::new([Step::Send(request)], |record| {
        ensure!(record.forwarded(0)?.body == b"anything" && record.forwarded(0)?.ended);
        ensure!(record.counter("shadowed.method-not-allowed") == 1);
        Ok(())
    })
    .configured(shadow))
}

fn shadow_mode_forwards_trusted_headers_of_proven_webhooks() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(Request::post(&Form::inbound("hello"))?)], |record| {
        ensure!(trusted(record.forwarded(0)?, "verified") == ACCOUNT);
        Ok(())
    })
    .configured(shadow))
}

fn unsigned_request_is_refused() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.without("x-twilio-signature");
    Ok(Scenario::new([Step::Send(request)], |record| record.refused(0, Reason::MissingSignature)))
}

fn webhook_on_the_wrong_route_is_refused() -> Result<Scenario> {
    let request = Request::post(&Form::status("delivered").to("/twilio/inbound"))?;
    Ok(Scenario::new([Step::Send(request)], |record| record.refused(0, Reason::WrongClass)))
}

fn next_token_is_accepted() -> Result<Scenario> {
    let token = twilio_edge_wasm_tests::stack::NEXT_TOKEN;
    let request = Request::post_with(&Form::inbound("hello"), token)?;
    Ok(Scenario::new([Step::Send(request)], |record| {
        ensure!(trusted(record.forwarded(0)?, "key") == "next");
        Ok(())
    }))
}

const SEPARATED: [&str; 8] = [
    "x.twilio.edge.verified",
    "x~twilio~edge~opt",
    "x--twilio__edge..from",
    "xtwilioedgeverified",
    "x-twilioedge-message-sid",
    "x!twilio|edge^anything",
    "_x_twilio_edge_suppressed",
    "x'twilio'edge'dedupe",
];

fn separated(request: Request) -> Request {
    SEPARATED.into_iter().fold(request, |request, name| request.with(name, "AC_forged"))
}

fn separators_do_not_hide_forged_headers() -> Result<Scenario> {
    let request = separated(Request::post(&Form::inbound("hello"))?);
    Ok(Scenario::new([Step::Send(request)], |record| {
        let backend = record.forwarded(0)?;
        let forged = backend.headers.iter().find(|(_, value)| value == b"AC_forged");
        ensure!(forged.is_none(), "{forged:?} reached the backend");
        ensure!(trusted(backend, "verified") == ACCOUNT && record.counter("forged_headers") == 1);
        Ok(())
    }))
}

fn separators_do_not_hide_forged_headers_where_nothing_is_guarded() -> Result<Scenario> {
    let request = separated(Request::new("POST", "/app/orders", b"not ours"))
        .with("x-twilio-edged", "kept")
        .trailers(&[("x.twilio.edge.verified", "AC_forged"), ("x-kept", "1")]);
    Ok(Scenario::new([Step::Send(request)], |record| {
        let backend = record.forwarded(0)?;
        let forged = backend.headers.iter().find(|(_, value)| value == b"AC_forged");
        ensure!(forged.is_none(), "{forged:?} reached the backend");
        ensure!(backend.header("x-twilio-edged").is_some(), "it only looks alike");
        ensure!(backend.trailers.len() == 1, "{:?}", backend.trailers);
        Ok(())
    }))
}

const OVERRIDES: [&str; 12] = [
    "x-http-method-override",
    "x_http_method_override",
    "x-http-method",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x.original.url",
    "x-rewrite-url",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "content_length",
    "transfer_encoding",
];

fn overriding(request: Request) -> Request {
    OVERRIDES.into_iter().fold(request, |request, name| request.with(name, "override"))
}

fn override_headers_are_removed_on_a_guarded_route() -> Result<Scenario> {
    let request = overriding(Request::post(&Form::inbound("hello"))?);
    Ok(Scenario::new([Step::Send(request)], |record| {
        let backend = record.forwarded(0)?;
        let client_left = backend.headers.iter().find(|(_, value)| value == b"override");
        ensure!(client_left.is_none(), "{client_left:?} reached the backend");
        ensure!(backend.header("content-length").is_some(), "the proxy's own header is kept");
        ensure!(trusted(backend, "verified") == ACCOUNT);
        ensure!(record.counter("override_headers") == 1 && record.counter("forged_headers") == 0);
        record.answered(0, 200).map(|_| ())
    }))
}

fn override_headers_are_removed_in_shadow_mode() -> Result<Scenario> {
    Ok(override_headers_are_removed_on_a_guarded_route()?.configured(shadow))
}

fn override_headers_pass_where_nothing_is_guarded() -> Result<Scenario> {
    let request = overriding(Request::new("POST", "/app/orders", b"not ours"));
    Ok(Scenario::new([Step::Send(request)], |record| {
        let backend = record.forwarded(0)?;
        for name in OVERRIDES {
            ensure!(backend.header(name).is_some(), "{name} was removed");
        }
        ensure!(record.counter("override_headers") == 0);
        Ok(())
    }))
}

/// Gateways before ours may set these; a genuine webhook carries them to the backend.
fn headers_of_gateways_pass() -> Result<Scenario> {
    const SET: [&str; 7] = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-envoy-external-address",
        "x-real-ip",
        "x-forwarded-client-cert",
    ];
    let request = Request::post(&Form::inbound("hello"))?;
    let request = SET.into_iter().fold(request, |request, name| request.with(name, "gateway"));
    let request =
        request.with("x-envoy-original-path", "/elsewhere").with("content-encoding", "identity");
    Ok(Scenario::new([Step::Send(request)], |record| {
        let backend = record.forwarded(0)?;
        for name in SET {
            ensure!(backend.header(name).is_some(), "{name} was removed");
        }
        record.answered(0, 200).map(|_| ())
    }))
}

fn unsupported(record: &Record) -> Result<()> {
    for stream in 0..record.streams.len() {
        record.refused(stream, Reason::UnsupportedEncoding)?;
    }
    ensure!(record.claims.is_empty(), "the sidecar received a claim");
    Ok(())
}

fn compressed_body_is_refused() -> Result<Scenario> {
    let mut script = Vec::new();
    for coding in ["gzip", "deflate", "br", "identity, gzip", "X-Custom"] {
        let request = Request::post(&Form::inbound("hello"))?.with("content-encoding", coding);
        script.push(Step::Send(request));
    }
    let twice = Request::post(&Form::inbound("hello"))?
        .with("content-encoding", "identity")
        .with("content-encoding", "gzip");
    script.push(Step::Send(twice));
    Ok(Scenario::new(script, unsupported))
}

fn typed(kind: &str) -> Result<Step> {
    let request = Request::post(&Form::inbound("hello"))?.without("content-type");
    Ok(Step::Send(request.with("content-type", kind)))
}

fn charset_other_than_utf8_is_refused() -> Result<Scenario> {
    let kinds =
        ["utf-7", "UTF-16", "iso-8859-1", "\"utf-16\"", "utf-8; charset=utf-7", "ebcdic-cp-us"];
    let script = kinds
        .iter()
        .map(|charset| typed(&format!("application/x-www-form-urlencoded; charset={charset}")));
    Ok(Scenario::new(script.collect::<Result<Vec<_>>>()?, unsupported))
}

fn second_content_type_is_refused() -> Result<Scenario> {
    let twice = Request::post(&Form::inbound("hello"))?.with("content-type", "application/json");
    let joined = typed("application/x-www-form-urlencoded, application/json")?;
    Ok(Scenario::new([Step::Send(twice), joined], |record| {
        record.refused(0, Reason::AmbiguousRequest)?;
        record.not_forwarded(1)
    }))
}

fn utf8_in_any_spelling_is_accepted() -> Result<Scenario> {
    let kinds =
        ["", "; charset=utf-8", ";charset=UTF-8", "; charset=\"utf-8\"", "; Charset = utf-8"];
    let mut script = Vec::new();
    for rest in kinds {
        let form = Form::inbound("hello")
            .set("MessageSid", &twilio_edge_wasm_tests::webhook::fresh_sid("SM"));
        let request = Request::post(&form)?.without("content-type");
        let kind = format!("application/x-www-form-urlencoded{rest}");
        script.push(Step::Send(request.with("content-type", kind)));
    }
    Ok(Scenario::new(script, |record| {
        for stream in 0..record.streams.len() {
            record.answered(stream, 200)?;
            ensure!(trusted(record.forwarded(stream)?, "verified") == ACCOUNT);
        }
        Ok(())
    }))
}

fn flood_of_forgeries_does_not_flood_the_log() -> Result<Scenario> {
    let forged = Request::post_with(&Form::inbound("hello"), "not-the-token")?;
    let flood = Step::Together(vec![Step::Send(forged); 300]);
    Ok(Scenario::new([flood, Step::Wait(3_000)], |record| {
        ensure!(record.counter("rejected.invalid-signature") == 300, "each of them is counted");
        let lines = record.log.iter().filter(|line| line.contains("invalid-signature")).count();
        ensure!((1..=30).contains(&lines), "{lines} lines");
        let settlement = format!("{} more refused webhooks were not logged", 300 - lines);
        ensure!(
            record.log.iter().any(|line| line.contains(&settlement)),
            "{:?}",
            record.log.last()
        );
        Ok(())
    }))
}
