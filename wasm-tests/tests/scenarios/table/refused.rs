//! Reports of refused requests: the client has its answer before, and nothing depends on the sidecar.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::{BodyContent, RefusedRequest};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::webhook::Form;

use super::{MakeScenario, Scenario, named, shadow, without_sidecar};
use crate::request::Request;
use crate::sidecar::Behaviour;
use crate::world::{Record, Step};

pub(super) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        refused_request_is_reported_with_what_its_explanation_needs,
        refused_request_is_reported_without_its_body_if_configured,
        request_in_shadow_mode_is_reported_and_forwarded,
        flood_is_sampled_and_bounded,
        report_that_fails_is_lost_and_changes_no_answer,
        report_to_a_silent_sidecar_delays_no_webhook,
        proven_webhook_is_not_reported,
        switched_off_reports_are_not_sent,
        filter_without_a_sidecar_reports_nothing,
    ]
}

const TOKEN_OF_ANOTHER: &str = "ffffffffffffffffffffffffffffffff";

fn forged() -> Result<Request> {
    let request = Request::post_with(&Form::inbound("Where is my order?"), TOKEN_OF_ANOTHER)?;
    Ok(request.with("x-forwarded-host", "old.example.com").with("authorization", "Basic dTpw"))
}

impl Record {
    fn reported(&self) -> Vec<&RefusedRequest> {
        self.reports.iter().flat_map(|(_, report)| &report.requests).collect()
    }
}

fn refused_request_is_reported_with_what_its_explanation_needs() -> Result<Scenario> {
    Ok(Scenario::new([Step::Send(forged()?)], |record| {
        record.refused(0, Reason::InvalidSignature)?;
        let reported = record.reported();
        let request = reported.first().context("no report")?;
        ensure!(reported.len() == 1 && request.reason == "invalid-signature", "{reported:?}");
        ensure!(request.body_content == BodyContent::Full && request.body.contains("Body="));
        let header = |name: &str| request.headers.iter().find(|line| line.name == name);
        ensure!(header("x-twilio-signature").is_some_and(|line| line.value.len() == 28));
        ensure!(header("x-forwarded-host").is_some_and(|line| line.value == "old.example.com"));
        ensure!(header(":authority").is_some() && header("authorization").is_none());
        ensure!(!request.is_shadow && request.skipped == 0);
        ensure!(record.counter("refusal_reports.sent") == 1, "{:?}", record.counters);
        Ok(())
    }))
}

fn refused_request_is_reported_without_its_body_if_configured() -> Result<Scenario> {
    fn names(configuration: &mut Value) {
        configuration["refused_requests"] = json!({ "body": "names" });
    }
    let scenario = Scenario::new([Step::Send(forged()?)], |record| {
        let reported = record.reported();
        let request = reported.first().context("no report")?;
        ensure!(request.body_content == BodyContent::Names, "{request:?}");
        ensure!(request.body.contains("Body=") && !request.body.contains("order"), "{request:?}");
        Ok(())
    });
    Ok(scenario.configured(names))
}

fn request_in_shadow_mode_is_reported_and_forwarded() -> Result<Scenario> {
    let scenario = Scenario::new([Step::Send(forged()?)], |record| {
        record.forwarded(0)?;
        let reported = record.reported();
        ensure!(reported.len() == 1 && reported[0].is_shadow, "{reported:?}");
        Ok(())
    });
    Ok(scenario.configured(shadow))
}

fn flood_is_sampled_and_bounded() -> Result<Scenario> {
    let flood: Vec<Step> = (0..500).map(|_| Ok(Step::Send(forged()?))).collect::<Result<_>>()?;
    Ok(Scenario::new(flood, |record| {
        let reported = record.reported().len();
        ensure!((1..=10).contains(&reported), "{reported} reports");
        ensure!(record.reports.len() <= reported, "{} callouts", record.reports.len());
        let skipped = record.counter("refusal_reports.skipped");
        ensure!(skipped + reported as u64 == 500, "{skipped} skipped, {reported} reported");
        record.refused(499, Reason::InvalidSignature)
    }))
}

fn report_that_fails_is_lost_and_changes_no_answer() -> Result<Scenario> {
    let script = [Step::Send(forged()?), Step::Wait(50), Step::Send(forged()?)];
    let mut scenario = Scenario::new(script, |record| {
        record.refused(0, Reason::InvalidSignature)?;
        record.refused(1, Reason::InvalidSignature)?;
        ensure!(record.counter("refusal_reports.lost") == 1, "{:?}", record.counters);
        ensure!(record.counter("refusal_reports.sent") == 1, "{:?}", record.counters);
        Ok(())
    });
    scenario.setting.reports = vec![Behaviour::Fails(503)];
    Ok(scenario)
}

fn report_to_a_silent_sidecar_delays_no_webhook() -> Result<Scenario> {
    let genuine = Request::post(&Form::inbound("Where is my order?"))?;
    let script = [Step::Send(forged()?), Step::Wait(50), Step::Send(genuine)];
    let mut scenario = Scenario::new(script, |record| {
        record.refused(0, Reason::InvalidSignature)?;
        record.forwarded(1)?;
        ensure!(record.counter("refusal_reports.lost") == 1, "{:?}", record.counters);
        Ok(())
    });
    scenario.setting.reports = vec![Behaviour::Silent];
    Ok(scenario)
}

fn proven_webhook_is_not_reported() -> Result<Scenario> {
    let genuine = Request::post(&Form::inbound("Where is my order?"))?;
    Ok(Scenario::new([Step::Send(genuine)], |record| {
        record.forwarded(0)?;
        ensure!(record.reports.is_empty(), "{:?}", record.reports);
        Ok(())
    }))
}

fn switched_off_reports_are_not_sent() -> Result<Scenario> {
    fn off(configuration: &mut Value) {
        configuration["refused_requests"] = json!({ "report": false });
    }
    let scenario = Scenario::new([Step::Send(forged()?)], nothing_reported);
    Ok(scenario.configured(off))
}

fn filter_without_a_sidecar_reports_nothing() -> Result<Scenario> {
    let scenario = Scenario::new([Step::Send(forged()?)], nothing_reported);
    Ok(scenario.configured(without_sidecar))
}

fn nothing_reported(record: &Record) -> Result<()> {
    record.refused(0, Reason::InvalidSignature)?;
    ensure!(record.reports.is_empty(), "{:?}", record.reports);
    Ok(())
}
