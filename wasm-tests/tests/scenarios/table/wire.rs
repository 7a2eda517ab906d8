//! What a proxy delivers to a filter on a bad day: refusals of its own, limits, streams that end at any time.

use anyhow::{Result, ensure};
use twilio_edge_contract::Outcome;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, INBOUND};

use super::{Plot, Scenario, configuration, told, trusted};
use crate::request::{Request, Shape};
use crate::sidecar::Does;
use crate::world::{Backend, Step};

pub(super) fn scenarios() -> Vec<(&'static str, Plot)> {
    told![
        a_length_over_the_cap_is_refused_at_once,
        a_body_over_the_cap_is_refused_when_it_gets_there,
        another_method_is_refused,
        two_signatures_are_refused,
        header_bytes_that_are_no_text_are_passed_on,
        a_get_with_a_body_is_refused,
        what_envoy_refuses_never_begins,
        an_upload_that_envoy_ends_is_not_forwarded,
        a_wait_that_envoy_ends_is_not_forwarded,
        a_client_that_leaves_early_is_forgotten,
        a_new_configuration_works_beside_the_old_one,
        a_bad_configuration_leaves_the_old_one,
        many_at_once_share_callouts,
    ]
}

fn a_length_over_the_cap_is_refused_at_once() -> Result<Scenario> {
    let request = Request::new("POST", INBOUND, b"").with("content-length", "65537");
    Ok(Scenario::new([Step::Begin(request.shaped(Shape::OnePart))], |story| {
        ensure!(story.answered(0, 413)?.since.ms == 0);
        story.refused(0, Reason::BodyTooLarge)
    }))
}

fn a_body_over_the_cap_is_refused_when_it_gets_there() -> Result<Scenario> {
    let request = Request::new("POST", INBOUND, &[b'a'; 70_000]).without("content-length");
    Ok(Scenario::new([Step::Send(request.shaped(Shape::Parts(16_384)))], |story| {
        story.refused(0, Reason::BodyTooLarge)
    }))
}

fn another_method_is_refused() -> Result<Scenario> {
    let request = Request::new("PUT", INBOUND, b"Body=hello");
    Ok(Scenario::new([Step::Send(request)], |story| {
        let allowed = story.answered(0, 405)?.header("allow");
        ensure!(allowed.as_deref() == Some("POST"));
        story.refused(0, Reason::MethodNotAllowed)
    }))
}

fn two_signatures_are_refused() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.with("x-twilio-signature", "AAAA");
    Ok(Scenario::new([Step::Send(request)], |story| story.refused(0, Reason::AmbiguousRequest)))
}

fn header_bytes_that_are_no_text_are_passed_on() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?.with("x-bin", b"a\xff\xfe");
    Ok(Scenario::new([Step::Send(request)], |story| {
        let backend = story.forwarded(0)?;
        let raw = backend.headers.iter().find(|(name, _)| name == "x-bin");
        ensure!(raw.is_some_and(|(_, value)| value == b"a\xff\xfe"));
        ensure!(trusted(backend, "verified") == ACCOUNT);
        Ok(())
    }))
}

fn a_get_with_a_body_is_refused() -> Result<Scenario> {
    let mut request = Request::get(&Form::status("sent"))?;
    request.body = b"Body=other".to_vec();
    Ok(Scenario::new([Step::Send(request.shaped(Shape::OnePart))], |story| {
        story.refused(0, Reason::UnexpectedBody)
    }))
}

fn what_envoy_refuses_never_begins() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    Ok(Scenario::new([Step::Broken, Step::Broken, Step::Send(request)], |story| {
        story.nothing_reached(0)?;
        story.forwarded(2)?;
        ensure!(story.outcomes() == [Outcome::Commit]);
        Ok(())
    }))
}

fn an_upload_that_envoy_ends_is_not_forwarded() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    let part = request.body.get(..10).unwrap_or_default().to_vec();
    let script = [
        Step::Begin(request),
        Step::Part(0, part.into(), false),
        Step::Pass(5_000),
        Step::Own(0, 408, "request_overall_timeout"),
    ];
    Ok(Scenario::new(script, |story| {
        story.answered(0, 408)?;
        ensure!(story.asked.is_empty() && story.told.is_empty());
        story.nothing_reached(0)
    }))
}

fn a_wait_that_envoy_ends_is_not_forwarded() -> Result<Scenario> {
    let script = [
        Step::Send(Request::post(&Form::inbound("hello"))?),
        Step::Pass(200),
        Step::Own(0, 408, "stream_idle_timeout"),
        Step::Pass(1_000),
    ];
    Ok(Scenario::new(script, |story| {
        story.answered(0, 408)?;
        ensure!(story.outcomes() == [Outcome::Release], "the lease that was granted stays held");
        story.nothing_reached(0)
    })
    .claims([Does::Late(400, Box::new(Does::Works))]))
}

fn a_client_that_leaves_early_is_forgotten() -> Result<Scenario> {
    let request = Request::post(&Form::inbound("hello"))?;
    let part = request.body.get(..10).unwrap_or_default().to_vec();
    let script = [
        Step::Begin(request.clone()),
        Step::Gone(0),
        Step::Begin(request),
        Step::Part(1, part.into(), false),
        Step::Gone(1),
        Step::Pass(11_000),
    ];
    Ok(Scenario::new(script, |story| {
        ensure!(story.asked.is_empty() && story.told.is_empty());
        story.nothing_reached(0)?;
        story.nothing_reached(1)
    }))
}

fn a_new_configuration_works_beside_the_old_one() -> Result<Scenario> {
    let mut next = configuration();
    next["routes"][0]["path"] = "/elsewhere".into();
    let script = [
        Step::Send(Request::post(&Form::inbound("under the old one"))?),
        Step::Pass(100),
        Step::Configure(next),
        Step::Send(Request::post(&Form::inbound("under the new one").to("/elsewhere"))?),
        Step::Send(Request::post(&Form::inbound("no longer guarded"))?),
        Step::Pass(1_000),
        Step::Retire,
        Step::Send(Request::post(&Form::inbound("the old one is gone").to("/elsewhere"))?),
    ];
    Ok(Scenario::new(script, |story| {
        ensure!(story.taken == [true, true]);
        for stream in [0, 1, 3] {
            ensure!(trusted(story.forwarded(stream)?, "dedupe") == "first", "stream {stream}");
            story.answered(stream, 200)?;
        }
        ensure!(trusted(story.forwarded(2)?, "verified").is_empty());
        ensure!(story.outcomes() == [Outcome::Commit; 3]);
        let claims: std::collections::BTreeSet<_> =
            story.asked.iter().map(|(_, claim)| &claim.claim_id).collect();
        ensure!(claims.len() == 3, "two roots of one VM made the same claim id");
        Ok(())
    })
    .claims([Does::Late(300, Box::new(Does::Works))])
    .backend([Backend::says(200).after(200)]))
}

fn a_bad_configuration_leaves_the_old_one() -> Result<Scenario> {
    let mut bad = configuration();
    bad["routs"] = 7.into();
    bad["max_body_bytes"] = 0.into();
    let script = [Step::Configure(bad), Step::Send(Request::post(&Form::inbound("hello"))?)];
    Ok(Scenario::new(script, |story| {
        ensure!(story.taken == [true, false]);
        for problem in ["routs", "max_body_bytes"] {
            ensure!(story.log.iter().any(|line| line.contains(problem)), "{problem} is not told");
        }
        story.forwarded(0).map(|_| ())
    }))
}

fn many_at_once_share_callouts() -> Result<Scenario> {
    let requests = (0..40).map(|number| {
        let form = Form::inbound(&format!("number {number}"));
        Ok(Step::Send(Request::post(&form)?))
    });
    let script = [Step::AtOnce(requests.collect::<Result<_>>()?), Step::Pass(1_000)];
    Ok(Scenario::new(script, |story| {
        for stream in 0..40 {
            ensure!(trusted(story.forwarded(stream)?, "dedupe") == "first", "stream {stream}");
            story.answered(stream, 200)?;
        }
        ensure!(story.asked.len() == 40 && story.outcomes() == vec![Outcome::Commit; 40]);
        Ok(())
    }))
}
