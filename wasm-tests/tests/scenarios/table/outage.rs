//! No verdict, or none that can be believed: the route's policy decides, and nothing is lost.

use anyhow::{Result, ensure};
use twilio_edge_contract::{Decision, Outcome};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::host::Cluster;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form};

use super::{MakeScenario, Scenario, named, shadow, trusted, with_policy_reject};
use crate::request::Request;
use crate::sidecar::Behaviour;
use crate::world::{Backend, Record, Step};

pub(super) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        unknown_cluster_gives_no_verdict,
        cluster_without_an_endpoint_gives_no_verdict,
        refused_connection_to_the_sidecar_is_no_verdict,
        sidecar_without_an_answer_gives_no_verdict,
        reply_without_headers_is_no_verdict,
        truncated_reply_is_no_verdict,
        reply_without_json_is_no_verdict,
        reply_of_another_content_type_is_no_verdict,
        reply_of_another_version_is_no_verdict,
        verdict_about_another_claim_is_no_verdict,
        verdict_unavailable_is_no_verdict,
        verdict_released_is_no_verdict,
        verdict_without_a_claim_is_ignored,
        outage_is_refused_by_policy_reject,
        missing_verdict_is_refused_by_policy_reject,
        outage_in_shadow_mode_is_forwarded,
        verdict_after_the_deadline_changes_nothing,
        slow_callout_does_not_hold_the_next_request,
        unclaimed_opt_out_is_acknowledged_before_twilio_is_answered,
        unclaimed_opt_out_with_twiml_is_acknowledged_before_its_answer_begins,
        unclaimed_opt_out_is_answered_after_a_bounded_wait,
        unclaimed_opt_out_is_sent_as_soon_as_the_sidecar_answers_others,
        unclaimed_question_is_answered_at_once,
    ]
}

/// Forwarded without a verdict; the settlement carries the contents of the claim.
fn forwarded_unasked(record: &Record) -> Result<()> {
    let backend = record.forwarded(0)?;
    ensure!(trusted(backend, "dedupe") == "unknown" && trusted(backend, "verified") == ACCOUNT);
    record.answered(0, 200)?;
    record.access_logged(0, "unknown")?;
    ensure!(record.counter("verdict.none") == 1);
    let settlement: Vec<_> =
        record.settlements.iter().filter(|settlement| settlement.is_acknowledged()).collect();
    ensure!(
        settlement.len() == 1 && settlement[0].settlement.outcome == Outcome::Commit,
        "{settlement:?}"
    );
    let unclaimed = settlement[0].settlement.unclaimed.as_ref();
    ensure!(unclaimed.is_some_and(|it| it.form.contains("STOP")), "a STOP that is lost");
    Ok(())
}

fn stop() -> Result<[Step; 2]> {
    Ok([Step::Send(Request::post(&Form::inbound("STOP"))?), Step::Wait(1_000)])
}

fn against(behaviour: Behaviour) -> Result<Scenario> {
    Ok(Scenario::new(stop()?, forwarded_unasked).claims([behaviour]))
}

/// Settlements fail as well, which has no further effect.
fn unreachable(cluster: Option<Cluster>) -> Result<Scenario> {
    Ok(Scenario::new(stop()?, |record| {
        ensure!(trusted(record.forwarded(0)?, "dedupe") == "unknown");
        ensure!(record.forwarded(0)?.since.ms == 0, "it waits although a call cannot even leave");
        ensure!(record.counter("callout_failed.claims") == 1 && record.settlements.is_empty());
        record.answered(0, 200).map(|_| ())
    })
    .cluster(cluster))
}

fn unknown_cluster_gives_no_verdict() -> Result<Scenario> {
    unreachable(None)
}

fn cluster_without_an_endpoint_gives_no_verdict() -> Result<Scenario> {
    unreachable(Some(Cluster::NoEndpoint))
}

fn refused_connection_to_the_sidecar_is_no_verdict() -> Result<Scenario> {
    against(Behaviour::Fails(503))
}

fn sidecar_without_an_answer_gives_no_verdict() -> Result<Scenario> {
    let mut scenario = against(Behaviour::Silent)?;
    scenario.check = |record| {
        forwarded_unasked(record)?;
        let at_ms = record.forwarded(0)?.since.ms;
        ensure!((500..550).contains(&at_ms), "forwarded at {at_ms} ms");
        Ok(())
    };
    Ok(scenario)
}

fn reply_without_headers_is_no_verdict() -> Result<Scenario> {
    against(Behaviour::OmitsHeaders)
}

fn truncated_reply_is_no_verdict() -> Result<Scenario> {
    against(Behaviour::Truncates)
}

fn reply_without_json_is_no_verdict() -> Result<Scenario> {
    against(Behaviour::Garbage)
}

fn reply_of_another_content_type_is_no_verdict() -> Result<Scenario> {
    against(Behaviour::AsText)
}

fn reply_of_another_version_is_no_verdict() -> Result<Scenario> {
    against(Behaviour::WrongVersion)
}

fn verdict_about_another_claim_is_no_verdict() -> Result<Scenario> {
    against(Behaviour::NamesAnotherClaim)
}

fn verdict_unavailable_is_no_verdict() -> Result<Scenario> {
    against(Behaviour::Decides(Decision::Unavailable))
}

fn verdict_released_is_no_verdict() -> Result<Scenario> {
    against(Behaviour::Decides(Decision::Released))
}

/// The route is not for delivery by the sidecar, so a verdict `accepted` would lose the webhook.
fn verdict_without_a_claim_is_ignored() -> Result<Scenario> {
    against(Behaviour::Decides(Decision::Accepted))
}

fn refused_unasked(record: &Record) -> Result<()> {
    record.refused(0, Reason::SidecarUnavailable)?;
    ensure!(record.answered(0, 503)?.header("retry-after").is_some());
    ensure!(record.outcomes() == [Outcome::Release], "the lease may have been granted");
    let unclaimed = record.settlements[0].settlement.unclaimed.as_ref();
    ensure!(unclaimed.is_some_and(|it| it.form.contains("STOP")), "a STOP that is lost");
    Ok(())
}

fn outage_is_refused_by_policy_reject() -> Result<Scenario> {
    let scenario = Scenario::new(stop()?, refused_unasked).configured(with_policy_reject);
    Ok(scenario.claims([Behaviour::Fails(503)]))
}

fn missing_verdict_is_refused_by_policy_reject() -> Result<Scenario> {
    let scenario = Scenario::new(stop()?, refused_unasked).configured(with_policy_reject);
    Ok(scenario.claims([Behaviour::Silent]))
}

fn outage_in_shadow_mode_is_forwarded() -> Result<Scenario> {
    Ok(Scenario::new(stop()?, |record| {
        ensure!(trusted(record.forwarded(0)?, "dedupe") == "unknown");
        ensure!(record.counter("shadowed.sidecar-unavailable") == 1);
        ensure!(record.outcomes() == [Outcome::Commit]);
        record.answered(0, 200).map(|_| ())
    })
    .configured(|configuration| {
        shadow(configuration);
        with_policy_reject(configuration);
    })
    .claims([Behaviour::Fails(503)]))
}

fn verdict_after_the_deadline_changes_nothing() -> Result<Scenario> {
    against(Behaviour::Late(700, Box::new(Behaviour::Works)))
}

fn slow_callout_does_not_hold_the_next_request() -> Result<Scenario> {
    let script = [
        Step::Send(Request::post(&Form::inbound("slow"))?),
        Step::Wait(20),
        Step::Send(Request::post(&Form::inbound("fast"))?),
        Step::Wait(1_000),
    ];
    Ok(Scenario::new(script, |record| {
        let at_ms = record.forwarded(1)?.since.ms;
        ensure!(at_ms < 100, "forwarded at {at_ms} ms");
        ensure!(record.forwarded(0)?.since.ms == 400);
        Ok(())
    })
    .claims([Behaviour::Late(400, Box::new(Behaviour::Works))]))
}

/// The client got the end of the answer after the sidecar had acknowledged the settlement, and not much later.
fn acknowledged_first(record: &Record) -> Result<()> {
    ensure!(record.forwarded(0)?.since.ms < 20, "the backend waited");
    let answered = record.answered(0, 200)?.until.map(|moment| moment.ms);
    let settlement = record.settlements.iter().find(|settlement| settlement.is_acknowledged());
    let settlement = settlement.map(|settlement| settlement.at_ms);
    ensure!(
        settlement.is_some() && settlement <= answered,
        "answered at {answered:?}, settlement at {settlement:?}"
    );
    ensure!(
        answered <= settlement.map(|ms| ms + 50),
        "answered at {answered:?}, settlement at {settlement:?}"
    );
    ensure!(record.counter("opt_out_unacknowledged") == 0);
    Ok(())
}

fn unclaimed_opt_out_is_acknowledged_before_twilio_is_answered() -> Result<Scenario> {
    Ok(Scenario::new(stop()?, |record| {
        forwarded_unasked(record)?;
        ensure!(record.answered(0, 200)?.since.ms >= 300, "answered before a sidecar had the STOP");
        acknowledged_first(record)
    })
    .claims([Behaviour::Fails(503)])
    .settlements([
        Behaviour::Fails(503),
        Behaviour::Fails(503),
        Behaviour::Decides(Decision::Unavailable),
    ])
    .backend([no_twiml()]))
}

/// An answer that is not saved for duplicates, so that its headers are held.
fn no_twiml() -> Backend {
    Backend::Answers { status: 200, kind: "application/json", body: "{}".to_owned(), parts: 1 }
}

fn unclaimed_opt_out_with_twiml_is_acknowledged_before_its_answer_begins() -> Result<Scenario> {
    let twiml = "<Response><Message>You get no more messages.</Message></Response>";
    Ok(Scenario::new(stop()?, |record| {
        acknowledged_first(record)?;
        let answer = record.answered(0, 200)?;
        ensure!(answer.since.ms >= 100, "answered before a sidecar had the STOP");
        ensure!(answer.body.ends_with(b"</Response>"), "{:?}", answer.body);
        // It was held at its headers, so no part of it was copied.
        let saved =
            record.settlements.iter().find_map(|settlement| settlement.settlement.answer.as_ref());
        ensure!(saved.is_none(), "{saved:?}");
        Ok(())
    })
    .claims([Behaviour::Fails(503)])
    .settlements([Behaviour::Fails(503)])
    .backend([Backend::twiml(twiml)]))
}

fn unclaimed_opt_out_is_answered_after_a_bounded_wait() -> Result<Scenario> {
    let mut script = stop()?.to_vec();
    script.push(Step::Wait(3_000));
    Ok(Scenario::new(script, |record| {
        let at_ms = record.answered(0, 200)?.since.ms;
        ensure!((1_000..1_100).contains(&at_ms), "answered at {at_ms} ms");
        ensure!(record.counter("opt_out_unacknowledged") == 1);
        ensure!(record.counter("release_unacknowledged") == 0);
        let settlement: Vec<_> =
            record.settlements.iter().filter(|settlement| settlement.is_acknowledged()).collect();
        ensure!(
            settlement.len() == 1,
            "the STOP is settlement when the sidecar is back: {settlement:?}"
        );
        Ok(())
    })
    .claims([Behaviour::Fails(503)])
    .settlements(vec![Behaviour::Fails(503); 50])
    .backend([no_twiml()]))
}

fn unclaimed_opt_out_is_sent_as_soon_as_the_sidecar_answers_others() -> Result<Scenario> {
    let script = [
        Step::Send(Request::post(&Form::inbound("STOP"))?),
        Step::Wait(760),
        Step::Send(Request::post(&Form::inbound("Is the service back at last?"))?),
        Step::Wait(1_000),
    ];
    Ok(Scenario::new(script, |record| {
        let settlement = record.settlements.iter().find(|settlement| {
            settlement.is_acknowledged()
                && settlement
                    .settlement
                    .unclaimed
                    .as_ref()
                    .is_some_and(|it| it.form.contains("STOP"))
        });
        let at_ms = settlement.map(|settlement| settlement.at_ms).unwrap_or(u64::MAX);
        ensure!((760..830).contains(&at_ms), "the STOP was settled at {at_ms} ms");
        Ok(())
    })
    .claims([Behaviour::Fails(503)])
    // At 0, 100, 300 and 700 ms.
    .settlements(vec![Behaviour::Fails(503); 4]))
}

/// An answer to a message that cannot be an opt-out is not held.
fn unclaimed_question_is_answered_at_once() -> Result<Scenario> {
    let script =
        [Step::Send(Request::post(&Form::inbound("Where is my order?"))?), Step::Wait(1_000)];
    Ok(Scenario::new(script, |record| {
        let at_ms = record.answered(0, 200)?.since.ms;
        ensure!(at_ms < 50, "answered at {at_ms} ms");
        Ok(())
    })
    .claims([Behaviour::Fails(503)])
    .settlements(vec![Behaviour::Fails(503); 10]))
}
