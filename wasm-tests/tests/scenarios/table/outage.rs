//! No verdict, or none that can be believed: the route's policy decides, and nothing is lost.

use anyhow::{Result, ensure};
use twilio_edge_contract::{Decision, Outcome};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::host::Cluster;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form};

use super::{Plot, Scenario, rejecting, shadow, told, trusted};
use crate::request::Request;
use crate::sidecar::Does;
use crate::world::{Backend, Step, Story};

pub(super) fn scenarios() -> Vec<(&'static str, Plot)> {
    told![
        a_cluster_nobody_knows,
        a_cluster_without_an_endpoint,
        a_sidecar_that_is_refused,
        a_sidecar_that_never_answers,
        a_reply_without_headers,
        half_a_reply,
        a_reply_that_is_no_json,
        a_reply_of_another_kind,
        a_reply_in_another_version,
        a_verdict_about_another_claim,
        a_verdict_that_says_unavailable,
        a_verdict_that_says_released,
        a_verdict_that_nobody_asked_for,
        an_outage_is_refused_if_so_configured,
        a_silence_is_refused_if_so_configured,
        an_outage_in_shadow_mode_is_forwarded,
        a_verdict_after_the_deadline_changes_nothing,
        a_slow_callout_does_not_hold_the_next_request,
        unclaimed_opt_out_is_acknowledged_before_twilio_is_answered,
        unclaimed_opt_out_with_twiml_is_acknowledged_before_its_answer_begins,
        unclaimed_opt_out_is_answered_after_a_bounded_wait,
        unclaimed_opt_out_is_sent_as_soon_as_the_sidecar_answers_others,
        unclaimed_question_is_answered_at_once,
    ]
}

/// Forwarded without a verdict; what the sidecar could not be asked it is told afterwards.
fn forwarded_unasked(story: &Story) -> Result<()> {
    let backend = story.forwarded(0)?;
    ensure!(trusted(backend, "dedupe") == "unknown" && trusted(backend, "verified") == ACCOUNT);
    story.answered(0, 200)?;
    story.noted(0, "unknown")?;
    ensure!(story.counted("verdict.none") == 1);
    let told: Vec<_> = story.told.iter().filter(|told| told.is_acknowledged()).collect();
    ensure!(told.len() == 1 && told[0].settlement.outcome == Outcome::Commit, "{told:?}");
    let unclaimed = told[0].settlement.unclaimed.as_ref();
    ensure!(unclaimed.is_some_and(|it| it.form.contains("STOP")), "a STOP that is lost");
    Ok(())
}

fn stop() -> Result<[Step; 2]> {
    Ok([Step::Send(Request::post(&Form::inbound("STOP"))?), Step::Pass(1_000)])
}

fn against(does: Does) -> Result<Scenario> {
    Ok(Scenario::new(stop()?, forwarded_unasked).claims([does]))
}

/// Nobody is there to settle with either: the sidecar learns nothing, and nothing else happens.
fn unreachable(cluster: Option<Cluster>) -> Result<Scenario> {
    Ok(Scenario::new(stop()?, |story| {
        ensure!(trusted(story.forwarded(0)?, "dedupe") == "unknown");
        ensure!(story.forwarded(0)?.since.ms == 0, "it waits although a call cannot even leave");
        ensure!(story.counted("callout_failed.claims") == 1 && story.told.is_empty());
        story.answered(0, 200).map(|_| ())
    })
    .cluster(cluster))
}

fn a_cluster_nobody_knows() -> Result<Scenario> {
    unreachable(None)
}

fn a_cluster_without_an_endpoint() -> Result<Scenario> {
    unreachable(Some(Cluster::NoEndpoint))
}

fn a_sidecar_that_is_refused() -> Result<Scenario> {
    against(Does::Fails(503))
}

fn a_sidecar_that_never_answers() -> Result<Scenario> {
    let mut scenario = against(Does::Silent)?;
    scenario.then = |story| {
        forwarded_unasked(story)?;
        let at_ms = story.forwarded(0)?.since.ms;
        ensure!((500..550).contains(&at_ms), "forwarded at {at_ms} ms");
        Ok(())
    };
    Ok(scenario)
}

fn a_reply_without_headers() -> Result<Scenario> {
    against(Does::Breaks)
}

fn half_a_reply() -> Result<Scenario> {
    against(Does::Half)
}

fn a_reply_that_is_no_json() -> Result<Scenario> {
    against(Does::Garbage)
}

fn a_reply_of_another_kind() -> Result<Scenario> {
    against(Does::AsText)
}

fn a_reply_in_another_version() -> Result<Scenario> {
    against(Does::WrongVersion)
}

fn a_verdict_about_another_claim() -> Result<Scenario> {
    against(Does::AboutAnother)
}

fn a_verdict_that_says_unavailable() -> Result<Scenario> {
    against(Does::Says(Decision::Unavailable))
}

fn a_verdict_that_says_released() -> Result<Scenario> {
    against(Does::Says(Decision::Released))
}

/// Nothing was to be delivered by the sidecar, so what it says it accepted would be lost.
fn a_verdict_that_nobody_asked_for() -> Result<Scenario> {
    against(Does::Says(Decision::Accepted))
}

fn refused_unasked(story: &Story) -> Result<()> {
    story.refused(0, Reason::SidecarUnavailable)?;
    ensure!(story.answered(0, 503)?.header("retry-after").is_some());
    ensure!(story.outcomes() == [Outcome::Release], "the lease may have been granted");
    let unclaimed = story.told[0].settlement.unclaimed.as_ref();
    ensure!(unclaimed.is_some_and(|it| it.form.contains("STOP")), "a STOP that is lost");
    Ok(())
}

fn an_outage_is_refused_if_so_configured() -> Result<Scenario> {
    let scenario = Scenario::new(stop()?, refused_unasked).configured(rejecting);
    Ok(scenario.claims([Does::Fails(503)]))
}

fn a_silence_is_refused_if_so_configured() -> Result<Scenario> {
    let scenario = Scenario::new(stop()?, refused_unasked).configured(rejecting);
    Ok(scenario.claims([Does::Silent]))
}

fn an_outage_in_shadow_mode_is_forwarded() -> Result<Scenario> {
    Ok(Scenario::new(stop()?, |story| {
        ensure!(trusted(story.forwarded(0)?, "dedupe") == "unknown");
        ensure!(story.counted("shadowed.sidecar-unavailable") == 1);
        ensure!(story.outcomes() == [Outcome::Commit]);
        story.answered(0, 200).map(|_| ())
    })
    .configured(|configuration| {
        shadow(configuration);
        rejecting(configuration);
    })
    .claims([Does::Fails(503)]))
}

fn a_verdict_after_the_deadline_changes_nothing() -> Result<Scenario> {
    against(Does::Late(700, Box::new(Does::Works)))
}

fn a_slow_callout_does_not_hold_the_next_request() -> Result<Scenario> {
    let script = [
        Step::Send(Request::post(&Form::inbound("slow"))?),
        Step::Pass(20),
        Step::Send(Request::post(&Form::inbound("fast"))?),
        Step::Pass(1_000),
    ];
    Ok(Scenario::new(script, |story| {
        let at_ms = story.forwarded(1)?.since.ms;
        ensure!(at_ms < 100, "forwarded at {at_ms} ms");
        ensure!(story.forwarded(0)?.since.ms == 400);
        Ok(())
    })
    .claims([Does::Late(400, Box::new(Does::Works))]))
}

/// The client got the end of the answer after the sidecar had acknowledged the settlement, and not much later.
fn acknowledged_first(story: &Story) -> Result<()> {
    ensure!(story.forwarded(0)?.since.ms < 20, "the backend waited");
    let answered = story.answered(0, 200)?.until.map(|moment| moment.ms);
    let told = story.told.iter().find(|told| told.is_acknowledged());
    let told = told.map(|told| told.at_ms);
    ensure!(told.is_some() && told <= answered, "answered at {answered:?}, told at {told:?}");
    ensure!(answered <= told.map(|ms| ms + 50), "answered at {answered:?}, told at {told:?}");
    ensure!(story.counted("opt_out_unacknowledged") == 0);
    Ok(())
}

fn unclaimed_opt_out_is_acknowledged_before_twilio_is_answered() -> Result<Scenario> {
    Ok(Scenario::new(stop()?, |story| {
        forwarded_unasked(story)?;
        ensure!(story.answered(0, 200)?.since.ms >= 300, "answered while nobody had the STOP");
        acknowledged_first(story)
    })
    .claims([Does::Fails(503)])
    .settlements([Does::Fails(503), Does::Fails(503), Does::Says(Decision::Unavailable)])
    .backend([no_twiml()]))
}

/// An answer of which nothing is kept for duplicates, so that its headers already wait.
fn no_twiml() -> Backend {
    Backend::Answers { status: 200, kind: "application/json", body: "{}".to_owned(), parts: 1 }
}

fn unclaimed_opt_out_with_twiml_is_acknowledged_before_its_answer_begins() -> Result<Scenario> {
    let twiml = "<Response><Message>You get no more messages.</Message></Response>";
    Ok(Scenario::new(stop()?, |story| {
        acknowledged_first(story)?;
        let answer = story.answered(0, 200)?;
        ensure!(answer.since.ms >= 100, "nobody had the STOP");
        ensure!(answer.body.ends_with(b"</Response>"), "{:?}", answer.body);
        // It was held at its headers, so nothing of it was copied.
        let saved = story.told.iter().find_map(|told| told.settlement.answer.as_ref());
        ensure!(saved.is_none(), "{saved:?}");
        Ok(())
    })
    .claims([Does::Fails(503)])
    .settlements([Does::Fails(503)])
    .backend([Backend::twiml(twiml)]))
}

fn unclaimed_opt_out_is_answered_after_a_bounded_wait() -> Result<Scenario> {
    let mut script = stop()?.to_vec();
    script.push(Step::Pass(3_000));
    Ok(Scenario::new(script, |story| {
        let at_ms = story.answered(0, 200)?.since.ms;
        ensure!((1_000..1_100).contains(&at_ms), "answered at {at_ms} ms");
        ensure!(story.counted("opt_out_unacknowledged") == 1);
        ensure!(story.counted("release_unacknowledged") == 0);
        let told: Vec<_> = story.told.iter().filter(|told| told.is_acknowledged()).collect();
        ensure!(told.len() == 1, "the STOP is told when the sidecar is back: {told:?}");
        Ok(())
    })
    .claims([Does::Fails(503)])
    .settlements(vec![Does::Fails(503); 50])
    .backend([no_twiml()]))
}

fn unclaimed_opt_out_is_sent_as_soon_as_the_sidecar_answers_others() -> Result<Scenario> {
    let script = [
        Step::Send(Request::post(&Form::inbound("STOP"))?),
        Step::Pass(760),
        Step::Send(Request::post(&Form::inbound("Is anybody there at last?"))?),
        Step::Pass(1_000),
    ];
    Ok(Scenario::new(script, |story| {
        let told = story.told.iter().find(|told| {
            told.is_acknowledged()
                && told.settlement.unclaimed.as_ref().is_some_and(|it| it.form.contains("STOP"))
        });
        let at_ms = told.map(|told| told.at_ms).unwrap_or(u64::MAX);
        ensure!((760..830).contains(&at_ms), "told at {at_ms} ms");
        Ok(())
    })
    .claims([Does::Fails(503)])
    // At 0, 100, 300 and 700 ms.
    .settlements(vec![Does::Fails(503); 4]))
}

/// What cannot be an opt-out waits for nobody.
fn unclaimed_question_is_answered_at_once() -> Result<Scenario> {
    let script =
        [Step::Send(Request::post(&Form::inbound("Where is my order?"))?), Step::Pass(1_000)];
    Ok(Scenario::new(script, |story| {
        let at_ms = story.answered(0, 200)?.since.ms;
        ensure!(at_ms < 50, "answered at {at_ms} ms");
        Ok(())
    })
    .claims([Does::Fails(503)])
    .settlements(vec![Does::Fails(503); 10]))
}
