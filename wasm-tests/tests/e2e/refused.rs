//! Refused requests: the sidecar explains them, a flood stays bounded, and an outage of the sidecar changes no answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};
use twilio_edge_contract::{REFUSALS_PATH, RefusalReport};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::send;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::Answer;
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{Form, Request};

use crate::expect::{arrives, is_refusal, refused, willing};
use crate::suite::{Scenario, Setting, scenarios};

const FILE: &str = "[[account]]\nsid = \"AC00112233445566778899aabbccddeeff\"\n\
                    auth_tokens = [\"0123456789abcdef0123456789abcdef\"]\n";

const EXPLAINED: Plan = Plan { accounts: Some(FILE), ..Plan::new(SidecarPlan::Sqlite) };

pub(crate) fn scenarios() -> Vec<Scenario> {
    let explained = scenarios![Setting::Own(EXPLAINED);
        webhook_for_another_origin_is_captured_and_explained,
        sidecar_outage_changes_no_answer_to_a_refused_request,
    ];
    let scripted = scenarios![Setting::Newest(Plan::new(SidecarPlan::Scripted));
        flood_of_ten_thousand_forgeries_stays_bounded,
        unanswered_report_delays_no_request,
    ];
    [explained.as_slice(), &scripted].concat()
}

/// A webhook for a URL that the filter does not know, as a forwarding proxy sends it.
async fn for_another_origin(stack: &Stack) -> Result<Request> {
    let signing = Signing { origin: "https://old.example.com", ..Signing::default() };
    let request = stack.post_as(&Form::inbound("Where is my order?"), signing).await?;
    Ok(request.header("X-Forwarded-Host", "old.example.com"))
}

async fn webhook_for_another_origin_is_captured_and_explained(stack: &Stack) -> Result<()> {
    let request = for_another_origin(stack).await?;
    refused(stack, &request, Reason::InvalidSignature).await?;
    let key = stack.api_key().await?;
    let get = async |path: &str| -> Result<Value> {
        let request =
            Request::new("GET", path, "").header("Authorization", format!("Bearer {key}"));
        let response = send(stack.sidecar()?.address(), &request).await?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        Ok(serde_json::from_slice(&response.body)?)
    };
    let group = until("the refusal is explained", async || {
        let page = get("/v1/refusals?cause=origin").await?;
        Ok(page["refusals"].as_array().and_then(|groups| groups.first().cloned()))
    })
    .await?;
    let summary = group["summary"].as_str().context("a summary")?;
    ensure!(summary.contains("signed for https://old.example.com"), "{group}");
    ensure!(group["remedy"].as_str().is_some_and(|it| it.contains("`origins`")), "{group}");
    let page = get("/v1/refusals/requests").await?;
    let id = page["requests"][0]["id"].as_str().context("a request")?;
    let explained = get(&format!("/v1/refusals/{id}")).await?;
    ensure!(explained["explanation"]["signed"]["changes"][0]["what"] == "host", "{explained}");
    ensure!(!explained.to_string().contains("Where is my order"), "{explained}");
    Ok(())
}

async fn sidecar_outage_changes_no_answer_to_a_refused_request(stack: &Stack) -> Result<()> {
    let sidecar = stack.sidecar()?;
    sidecar.kill().await?;
    for _ in 0..20 {
        refused(stack, &for_another_origin(stack).await?, Reason::InvalidSignature).await?;
    }
    until("the report is lost", async || {
        Ok((stack.envoy.counter("refusal_reports.lost").await? > 0).then_some(()))
    })
    .await?;
    sidecar.restart().await?;
    arrives(stack, &stack.post(&Form::inbound("after")).await?).await.map(drop)
}

fn reports(stack: &Stack) -> Result<Vec<RefusalReport>> {
    let seen = stack.scripted()?.seen(REFUSALS_PATH);
    seen.iter().map(|seen| Ok(RefusalReport::decode(seen.bytes())?)).collect()
}

fn accepted() -> Answer {
    Answer::ok("application/json", json!({"v": 1, "accepted": 1}).to_string())
}

async fn flood_of_ten_thousand_forgeries_stays_bounded(stack: &Stack) -> Result<()> {
    let scripted = stack.scripted()?;
    scripted.usually(Answer::By(willing));
    scripted.script(REFUSALS_PATH, (0..1_000).map(|_| accepted()));
    let forged = for_another_origin(stack).await?;
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        let requests: Vec<_> = (0..100).map(|_| forged.clone().as_new_case()).collect();
        for answer in join_all(requests.iter().map(|request| stack.send(request))).await {
            is_refusal(&answer?, Reason::InvalidSignature)?;
        }
    }
    arrives(stack, &stack.post(&Form::inbound("and one that is none")).await?).await?;
    let skipped = async || stack.envoy.counter("refusal_reports.skipped").await;
    let sent = async || stack.envoy.counter("refusal_reports.sent").await;
    until("each refusal is counted", async || {
        Ok((skipped().await? + sent().await? == 10_000).then_some(()))
    })
    .await?;
    let reports = reports(stack)?;
    let requests: usize = reports.iter().map(|report| report.requests.len()).sum();
    // Two workers: five at once each, then one every twelve seconds; and one callout a second.
    let seconds = usize::try_from(begun.elapsed().as_secs())? + 2;
    let most = 2 * (5 + seconds.div_ceil(12));
    ensure!((1..=most).contains(&requests), "{requests} reports within {seconds} s");
    ensure!(reports.len() <= 2 * seconds, "{} callouts within {seconds} s", reports.len());
    Ok(())
}

async fn unanswered_report_delays_no_request(stack: &Stack) -> Result<()> {
    let scripted = stack.scripted()?;
    scripted.usually(Answer::By(willing));
    scripted.script(REFUSALS_PATH, [Answer::Never]);
    let forged = for_another_origin(stack).await?;
    refused(stack, &forged, Reason::InvalidSignature).await?;
    until("the report is on its way", async || Ok((!reports(stack)?.is_empty()).then_some(())))
        .await?;
    let begun = std::time::Instant::now();
    arrives(stack, &stack.post(&Form::inbound("meanwhile")).await?).await?;
    refused(stack, &forged.as_new_case(), Reason::InvalidSignature).await?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    Ok(())
}
