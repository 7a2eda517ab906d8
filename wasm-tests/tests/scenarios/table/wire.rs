//! Unusual callbacks of a proxy: its own refusals, limits, streams that end at any time.

use anyhow::{Result, ensure};
use twilio_edge_contract::Outcome;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, INBOUND};

use super::{MakeScenario, Scenario, configuration, named, trusted};
use crate::request::{Request, Shape};
use crate::sidecar::Behaviour;
use crate::world::{Backend, Step};

pub(super) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        content_length_over_the_cap_is_refused_at_once,
        body_over_the_cap_is_refused_when_it_is_received,
        another_method_is_refused,
        second_signature_is_refused,
        header_bytes_that_are_no_text_are_passed_on,
        get_with_a_body_is_refused,
        request_refused_by_envoy_never_begins,
        upload_that_envoy_ends_is_not_forwarded,
        wait_that_envoy_ends_is_not_forwarded,
        client_that_disconnects_early_leaves_no_state,
        new_configuration_works_beside_the_old_one,
        invalid_configuration_leaves_the_old_one,
        many_at_once_share_callouts,
    ]
}

fn content_length_over_the_cap_is_refused_at_once() -> Result<Scenario> {
    let request = Request::new("POST", INBOUND, b"").with("content-length", "65537");
    Ok(Scenario::new([Step::Begin(request.shaped(Shape::OnePart))], |record| {
        ensure!(record.answered(0, 413)?.since.ms == 0);
        record.refused(0, Reason::BodyTooLarge)
    }))
}

fn body_over_the_cap_is_refused_when_it_is_received() -> Result<Scenario> {
    let request = Request::new("POST", INBOUND, &[b'a'; 70_000]).without("content-length");
    Ok(Scenario::new([Step::Send(request.shaped(Shape::Parts(16_384)))], |record| {
        record.refused(0, Reason::BodyTooLarge)
    }))
}

fn another_method_is_refused() -> Result<Scenario> {
    let request = Request::new("PUT", INBOUND, b"Body=hello");
    Ok(Scenario::new([Step::Send(request)], |record| {
        let allowed = record.answered(0, 405)?.header("allow");
        ensure!(allowed.as_deref() == Some("POST"));
        record.refused(0, Reason::MethodNotAllowed)
    }))
}

fn second_signature_is_refused() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.with("x-twilio-signature", "AAAA");
    Ok(Scenario::new([Step::Send(request)], |record| record.refused(0, Reason::AmbiguousRequest)))
}

fn header_bytes_that_are_no_text_are_passed_on() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.with("x-bin", b"a\xff\xfe");
    Ok(Scenario::new([Step::Send(request)], |record| {
        let backend = record.forwarded(0)?;
        let raw = backend.headers.iter().find(|(name, _)| name == "x-bin");
        ensure!(raw.is_some_and(|(_, value)| value == b"a\xff\xfe"));
        ensure!(trusted(backend, "verified") == ACCOUNT);
        Ok(())
    }))
}

fn get_with_a_body_is_refused() -> Result<Scenario> {
    let mut request = Request::get(&Form::status("sent"))?;
    request.body = b"Body=other".to_vec();
    Ok(Scenario::new([Step::Send(request.shaped(Shape::OnePart))], |record| {
        record.refused(0, Reason::UnexpectedBody)
    }))
}

fn request_refused_by_envoy_never_begins() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    Ok(Scenario::new([Step::Broken, Step::Broken, Step::Send(request)], |record| {
        record.not_forwarded(0)?;
        record.forwarded(2)?;
        ensure!(record.outcomes() == [Outcome::Commit]);
        Ok(())
    }))
}

fn upload_that_envoy_ends_is_not_forwarded() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    let part = request.body.get(..10).unwrap_or_default().to_vec();
    let script = [
        Step::Begin(request),
        Step::Part(0, part.into(), false),
        Step::Wait(5_000),
        Step::EnvoyAnswer(0, 408, "request_overall_timeout"),
    ];
    Ok(Scenario::new(script, |record| {
        record.answered(0, 408)?;
        ensure!(record.claims.is_empty() && record.settlements.is_empty());
        record.not_forwarded(0)
    }))
}

fn wait_that_envoy_ends_is_not_forwarded() -> Result<Scenario> {
    let script = [
        Step::Send(Request::post(&Form::inbound("hello"))?),
        Step::Wait(200),
        Step::EnvoyAnswer(0, 408, "stream_idle_timeout"),
        Step::Wait(1_000),
    ];
    Ok(Scenario::new(script, |record| {
        record.answered(0, 408)?;
        ensure!(record.outcomes() == [Outcome::Release], "the lease that was granted stays held");
        record.not_forwarded(0)
    })
    .claims([Behaviour::Late(400, Box::new(Behaviour::Works))]))
}

fn client_that_disconnects_early_leaves_no_state() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    let part = request.body.get(..10).unwrap_or_default().to_vec();
    let script = [
        Step::Begin(request.clone()),
        Step::Disconnect(0),
        Step::Begin(request),
        Step::Part(1, part.into(), false),
        Step::Disconnect(1),
        Step::Wait(11_000),
    ];
    Ok(Scenario::new(script, |record| {
        ensure!(record.claims.is_empty() && record.settlements.is_empty());
        record.not_forwarded(0)?;
        record.not_forwarded(1)
    }))
}

fn new_configuration_works_beside_the_old_one() -> Result<Scenario> {
    let mut next = configuration();
    next["routes"][0]["path"] = "/elsewhere".into();
    let script = [
        Step::Send(Request::post(&Form::inbound("under the old one"))?),
        Step::Wait(100),
        Step::Configure(next),
        Step::Send(Request::post(&Form::inbound("under the new one").to("/elsewhere"))?),
        Step::Send(Request::post(&Form::inbound("no longer guarded"))?),
        Step::Wait(1_000),
        Step::Retire,
        Step::Send(Request::post(&Form::inbound("the old one is gone").to("/elsewhere"))?),
    ];
    Ok(Scenario::new(script, |record| {
        ensure!(record.taken == [true, true]);
        for stream in [0, 1, 3] {
            ensure!(trusted(record.forwarded(stream)?, "dedupe") == "first", "stream {stream}");
            record.answered(stream, 200)?;
        }
        ensure!(trusted(record.forwarded(2)?, "verified").is_empty());
        ensure!(record.outcomes() == [Outcome::Commit; 3]);
        let claims: std::collections::BTreeSet<_> =
            record.claims.iter().map(|(_, claim)| &claim.claim_id).collect();
        ensure!(claims.len() == 3, "two roots of one VM made the same claim id");
        Ok(())
    })
    .claims([Behaviour::Late(300, Box::new(Behaviour::Works))])
    .backend([Backend::status(200).after(200)]))
}

fn invalid_configuration_leaves_the_old_one() -> Result<Scenario> {
    let mut bad = configuration();
    bad["routs"] = 7.into();
    bad["max_body_bytes"] = 0.into();
    let script = [Step::Configure(bad), Step::Send(Request::post(&Form::inbound("hello"))?)];
    Ok(Scenario::new(script, |record| {
        ensure!(record.taken == [true, false]);
        for problem in ["routs", "max_body_bytes"] {
            ensure!(
                record.log.iter().any(|line| line.contains(problem)),
                "{problem} is not settlement"
            );
        }
        record.forwarded(0).map(|_| ())
    }))
}

fn many_at_once_share_callouts() -> Result<Scenario> {
    let requests = (0..40).map(|number| {
        let form = Form::inbound(&format!("number {number}"));
        Ok(Step::Send(Request::post(&form)?))
    });
    let script = [Step::Together(requests.collect::<Result<_>>()?), Step::Wait(1_000)];
    Ok(Scenario::new(script, |record| {
        for stream in 0..40 {
            ensure!(trusted(record.forwarded(stream)?, "dedupe") == "first", "stream {stream}");
            record.answered(stream, 200)?;
        }
        ensure!(record.claims.len() == 40 && record.outcomes() == vec![Outcome::Commit; 40]);
        Ok(())
    }))
}
