//! Routes whose webhooks the sidecar delivers. Twilio gets its answer as soon as the sidecar has the webhook, and the
//! backend behind Envoy does not receive it. Most tests use a scripted sidecar.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::{Decision, Delivery};
use twilio_edge_demo::BACKEND_CLUSTER;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::Response;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, CLAIMS, SETTLEMENTS};
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack};
use twilio_edge_wasm_tests::webhook::{Form, Request};

use crate::expect::{all_sent, arrives, claimed, counts, deciding, refused, sent};
use crate::suite::{Scenario, Setting, scenarios};

/// A route beside the shipped ones, whose webhooks Envoy forwards.
const FORWARDED: &str = "/app/forwarded";
/// One that has an answer of its own.
const GREETED: &str = "/app/greeted";
const GREETING: &str = "<Response><Message>We have it &amp; come back.</Message></Response>";
const GOODBYE: &str = "<Response><Message>Bye.</Message></Response>";

/// Messages are refused without a verdict, statuses forwarded.
const ACCEPT: Plan = Plan::adapted(SidecarPlan::Scripted, |config| {
    config.plugin["on_unavailable"] = json!({ "inbound": "reject", "status": "forward" });
    let routes = config.plugin["routes"].as_array_mut().context("routes")?;
    for route in routes.iter_mut().filter(|route| route["class"] != "other") {
        route["delivery"] = "accept".into();
    }
    routes.push(json!({ "path": FORWARDED, "class": "inbound", "on_unavailable": "forward" }));
    let greeted = json!({
        "path": GREETED, "class": "inbound", "delivery": "accept", "answer": GREETING,
        "keyword_answers": { "stop": GOODBYE },
    });
    routes.push(greeted);
    Ok(())
});

const SHADOW: Plan = Plan::adapted(SidecarPlan::Scripted, |config| {
    for route in config.plugin["routes"].as_array_mut().context("routes")? {
        if route["class"] != "other" {
            route["delivery"] = "accept".into();
        }
        route["mode"] = "shadow".into();
    }
    Ok(())
});

/// The real sidecar; neither the backend nor the application of its sink is reachable.
const UNREACHABLE: Plan = Plan {
    sinks_file: Some(include_str!("unreachable_sink.toml")),
    ..Plan::adapted(SidecarPlan::Sqlite, |config| {
        config.set_cluster(BACKEND_CLUSTER, ([127, 0, 0, 1], 9).into())?;
        (ACCEPT.adapt)(config)
    })
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let accept = scenarios![Setting::Own(ACCEPT);
        accepted_webhook_is_answered_and_not_forwarded,
        route_may_configure_the_answer_to_messages,
        policy_decides_without_a_verdict,
        unrequested_acceptance_counts_as_no_verdict,
    ];
    let shadow =
        scenarios![Setting::Newest(SHADOW); shadow_mode_forwards_webhooks_of_accept_routes];
    let alone = scenarios![Setting::Newest(UNREACHABLE);
        accepted_webhook_is_answered_while_the_application_is_down,
        route_may_answer_keywords_differently,
    ];
    [accept.as_slice(), &shadow, &alone].concat()
}

/// A sidecar that accepts claims for delivery, treats messages "again" as duplicates, and lets all others proceed.
fn accepting(body: &[u8]) -> Answer {
    deciding(body, |claim| match claim.delivery {
        _ if claim.form.contains("Body=again") => Decision::Duplicate,
        Delivery::Accept => Decision::Accepted,
        Delivery::Forward => Decision::Proceed,
    })
}

/// A sidecar that accepts every claim.
fn accepting_all(body: &[u8]) -> Answer {
    deciding(body, |_| Decision::Accepted)
}

/// Checks the answer to Twilio: no reply to the sender, and no status that calls the fallback URL.
fn is_thanks(response: &Response, form: &Form) -> Result<()> {
    ensure!(response.header("x-twilio-edge-reason").is_none(), "{}", response.text());
    if form.get("MessageStatus").is_empty() {
        assert_eq!(
            (response.status, response.header("content-type").as_deref()),
            (200, Some("text/xml"))
        );
        ensure!(response.text().ends_with("<Response/>"), "{}", response.text());
    } else {
        assert_eq!((response.status, response.body.len()), (204, 0));
    }
    Ok(())
}

/// Returns the ids of all settled claims, once there are `count`.
async fn outcomes(stack: &Stack, count: usize) -> Result<Vec<Value>> {
    let sidecar = stack.scripted()?;
    until(&format!("{count} outcomes"), async || {
        let mut all = Vec::new();
        for seen in sidecar.seen(SETTLEMENTS) {
            all.extend(all_sent(&seen, "settlements")?);
        }
        Ok((all.len() >= count).then_some(all))
    })
    .await
}

async fn accepted_webhook_is_answered_and_not_forwarded(stack: &Stack) -> Result<()> {
    let sidecar = stack.scripted()?;
    sidecar.usually(Answer::By(accepting));
    let mut gone: Vec<Request> = Vec::new();
    for form in [Form::inbound("hello"), Form::status("delivered"), Form::inbound("again")] {
        let request = stack.post(&form).await?;
        is_thanks(&stack.send(&request).await?, &form)?;
        let asked = sidecar.seen(CLAIMS);
        let claim = sent(asked.last().context("no claim was sent")?, "claims")?;
        assert_eq!(claim["delivery"], "accept");
        assert_eq!(claim["form"], form.encoded());
        assert_eq!(claim["message_sid"], form.get("MessageSid"));
        gone.push(request);
    }
    // The forwarded webhook is settled, which bounds the time in which the others could have been settled.
    let form = Form::inbound("forwarded").to(FORWARDED);
    arrives(stack, &stack.post(&form).await?).await?;
    let claim = sent(sidecar.seen(CLAIMS).last().context("no claim was sent")?, "claims")?;
    assert_eq!(claim["delivery"], Value::Null, "{claim}");
    let outcomes = outcomes(stack, 1).await?;
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    assert_eq!(outcomes[0]["message_sid"], form.get("MessageSid"));
    for request in &gone {
        stack.nothing_reached(request).await?;
    }
    counts(stack, "verdict.accepted", 2).await?;
    assert_eq!(stack.envoy.counter("verdict.none").await?, 0);
    // A forged webhook is not accepted.
    let forged = stack.post(&Form::inbound("forged")).await?.without_header("x-twilio-signature");
    refused(stack, &forged, Reason::MissingSignature).await?;
    assert_eq!(claimed(stack)?.len(), 4);
    Ok(())
}

async fn accepted_webhook_is_answered_while_the_application_is_down(stack: &Stack) -> Result<()> {
    let ledger = stack.ledger().await?;
    let mut sent = Vec::new();
    for form in [Form::inbound("hello"), Form::status("delivered"), Form::inbound("again")] {
        let request = stack.post(&form).await?;
        is_thanks(&stack.send(&request).await?, &form)?;
        // The sidecar records the webhook before the filter answers Twilio.
        let events = ledger.events(form.get("MessageSid")).await?;
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0].outcome.as_deref(), Some("accepted"));
        sent.push((form, request));
    }
    assert_eq!(ledger.owed("app").await?, 3);
    stack.sidecar()?.kill().await?;
    stack.sidecar()?.restart().await?;
    assert_eq!(ledger.owed("app").await?, 3);
    for (form, request) in sent {
        is_thanks(&stack.send(&request).await?, &form)?;
    }
    assert_eq!(ledger.owed("app").await?, 3);
    Ok(())
}

async fn route_may_configure_the_answer_to_messages(stack: &Stack) -> Result<()> {
    stack.scripted()?.usually(Answer::By(accepting));
    for (text, mark) in [("hello", None), ("again", Some("duplicate"))] {
        let request = stack.post(&Form::inbound(text).to(GREETED)).await?;
        let answer = stack.send(&request).await?;
        let kind = answer.header("content-type");
        assert_eq!((answer.status, kind.as_deref()), (200, Some("text/xml")));
        assert_eq!(
            (answer.text().as_str(), answer.header("x-twilio-edge-dedupe").as_deref()),
            (GREETING, mark)
        );
        stack.nothing_reached(&request).await?;
    }
    Ok(())
}

async fn route_may_answer_keywords_differently(stack: &Stack) -> Result<()> {
    for (text, expected) in [("STOP", GOODBYE), ("hello", GREETING), ("HELP", GREETING)] {
        let request = stack.post(&Form::inbound(text).to(GREETED)).await?;
        // The worker answers the repeat itself, with the keyword that it remembers.
        for mark in [None, Some("duplicate")] {
            let answer = stack.send(&request).await?;
            let dedupe = answer.header("x-twilio-edge-dedupe");
            assert_eq!((answer.text().as_str(), dedupe.as_deref()), (expected, mark), "{text}");
        }
    }
    Ok(())
}

async fn policy_decides_without_a_verdict(stack: &Stack) -> Result<()> {
    let sidecar = stack.scripted()?;
    for answer in [Answer::status(500), Answer::Close] {
        sidecar.usually(answer);
        refused(stack, &stack.post(&Form::inbound("hello")).await?, Reason::SidecarUnavailable)
            .await?;
        let request = stack.post(&Form::status("delivered")).await?;
        assert_eq!(arrives(stack, &request).await?.trusted()["dedupe"], "unknown");
    }
    // After the outage it receives the outcome and the contents of each.
    sidecar.usually(Answer::By(accepting));
    counts(stack, "outbox", 0).await?;
    for outcome in outcomes(stack, 4).await? {
        let expected = if outcome["class"] == "status" { "commit" } else { "release" };
        assert_eq!(outcome["outcome"], expected, "{outcome}");
        ensure!(outcome["unclaimed"]["form"].is_string(), "{outcome}");
    }
    let form = Form::inbound("hello");
    is_thanks(&stack.send(&stack.post(&form).await?).await?, &form)
}

async fn unrequested_acceptance_counts_as_no_verdict(stack: &Stack) -> Result<()> {
    let sidecar = stack.scripted()?;
    sidecar.usually(Answer::By(accepting_all));
    let form = Form::inbound("mine").to(FORWARDED);
    let seen = arrives(stack, &stack.post(&form).await?).await?;
    assert_eq!(seen.trusted()["dedupe"], "unknown");
    let outcomes = outcomes(stack, 1).await?;
    assert_eq!(outcomes[0]["outcome"], "commit");
    assert_eq!(outcomes[0]["unclaimed"]["form"], form.encoded());
    counts(stack, "verdict.none", 1).await
}

async fn shadow_mode_forwards_webhooks_of_accept_routes(stack: &Stack) -> Result<()> {
    let sidecar = stack.scripted()?;
    sidecar.usually(Answer::By(accepting));
    for form in [Form::inbound("hello"), Form::status("delivered")] {
        let seen = arrives(stack, &stack.post(&form).await?).await?;
        assert_eq!(seen.trusted()["dedupe"], "first");
        let claim = sent(sidecar.seen(CLAIMS).last().context("no claim was sent")?, "claims")?;
        assert_eq!(claim["delivery"], Value::Null);
    }
    Ok(())
}
