//! A thousand simultaneous webhooks. Copies among them are delivered once, and killed parts lose no webhook that
//! was answered 2xx.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use futures_util::future::join_all;
use tokio::join;
use tokio::sync::Semaphore;
use twilio_edge_wasm_tests::client::Response;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack};
use twilio_edge_wasm_tests::webhook::{Form, Request};

use crate::suite::{Scenario, Setting, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let exact = scenarios![Setting::Alone(Plan::new(SidecarPlan::Sqlite));
        copies_among_a_thousand_are_delivered_once,
        killed_sidecar_loses_nothing,
    ];
    let on_redis = scenarios![Setting::Alone(Plan::new(SidecarPlan::Redis));
        copies_among_a_thousand_are_delivered_once_on_redis,
        killed_redis_loses_nothing,
    ];
    // Webhooks of a killed Envoy can be claimed again when its leases end.
    let short_leases = Plan {
        settings: &[("TWILIO_EDGE_LEASES_PERIOD_MS", "2000")],
        ..Plan::new(SidecarPlan::Sqlite)
    };
    let short = scenarios![Setting::Alone(short_leases);
        killed_envoy_loses_nothing,
    ];
    [exact.as_slice(), &on_redis, &short].concat()
}

const REQUESTS: usize = 1000;
/// Every twentieth is a copy of another.
const COPIES: usize = REQUESTS / 20;

/// Signed webhooks, all different.
async fn webhooks(stack: &Stack, count: usize) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for n in 0..count {
        let form = match n % 10 {
            0..3 => Form::inbound(&format!("message {n}")),
            _ => Form::status("delivered"),
        };
        requests.push(stack.post(&form).await?);
    }
    Ok(requests)
}

/// `originals` with copies between them, some right behind the original, some far.
fn with_copies(originals: &[Request]) -> Vec<&Request> {
    let mut all: Vec<&Request> = originals.iter().collect();
    for n in 0..COPIES {
        let original = n * originals.len() / COPIES;
        let at = if n % 2 == 0 { original + 1 } else { all.len() - original / 2 };
        all.insert(at.min(all.len()), &originals[original]);
    }
    all
}

fn delivered(stack: &Stack, request: &Request) -> usize {
    stack.backend.seen(&request.case).iter().filter(|seen| seen.body.is_some()).count()
}

/// Sends all at once; each is answered with success, and the backend receives every webhook exactly once.
async fn delivered_exactly_once(stack: &Stack) -> Result<()> {
    let ledger = stack.ledger().await?;
    // The ledger may still get webhooks that arrived before.
    let began_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let before = stack.backend.all().len();
    let originals = webhooks(stack, REQUESTS - COPIES).await?;
    let all = with_copies(&originals);
    assert_eq!(all.len(), REQUESTS);
    let responses = join_all(all.iter().map(|request| stack.send(request))).await;
    for response in responses {
        let response = response?;
        assert!((200..300).contains(&response.status), "{} {}", response.status, response.text());
    }
    let twice = originals.iter().filter(|request| delivered(stack, request) != 1).count();
    assert_eq!(twice, 0, "not delivered exactly once");
    assert_eq!(stack.backend.all().len() - before, originals.len());
    until("the ledger to have them all", async || {
        let accepted = ledger.accepted_since(began_ms).await?;
        Ok((accepted == i64::try_from(originals.len())?).then_some(()))
    })
    .await
}

async fn copies_among_a_thousand_are_delivered_once(stack: &Stack) -> Result<()> {
    delivered_exactly_once(stack).await
}

async fn copies_among_a_thousand_are_delivered_once_on_redis(stack: &Stack) -> Result<()> {
    delivered_exactly_once(stack).await
}

/// Sends the usual mix, so many at a time, and does `meanwhile` when a third of them has been answered. What was
/// answered with success must be at the backend. Gives what was not.
async fn storm(
    stack: &Stack,
    originals: &[Request],
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<Vec<Request>> {
    let at_a_time = Semaphore::new(100);
    let answered = Cell::new(0);
    let all = with_copies(originals);
    let sending = join_all(all.iter().map(async |request| {
        let _turn = at_a_time.acquire().await?;
        let response = stack.send(request).await;
        answered.set(answered.get() + 1);
        response
    }));
    let disaster = async {
        until("a third to be answered", async || Ok((answered.get() > REQUESTS / 3).then_some(())))
            .await?;
        assert!(answered.get() < REQUESTS, "the storm must not be over");
        meanwhile.await
    };
    let (responses, disaster) = join!(sending, disaster);
    disaster?;
    let succeeded = |response: &Result<Response>| {
        response.as_ref().is_ok_and(|response| (200..300).contains(&response.status))
    };
    let mut failed = Vec::new();
    for (request, response) in all.iter().zip(&responses) {
        if succeeded(response) {
            assert!(delivered(stack, request) >= 1, "answered 2xx and lost: {request:?}");
        } else {
            failed.push((*request).clone());
        }
    }
    Ok(failed)
}

/// Sends each webhook without a 2xx again until it gets one, as Twilio or an operator does.
async fn retry(stack: &Stack, failed: &[Request]) -> Result<()> {
    for response in join_all(failed.iter().map(|request| {
        until("a retry to succeed", async || {
            let response = stack.send(request).await?;
            Ok((200..300).contains(&response.status).then_some(()))
        })
    }))
    .await
    {
        response?;
    }
    Ok(())
}

async fn killed_sidecar_loses_nothing(stack: &Stack) -> Result<()> {
    let originals = webhooks(stack, REQUESTS - COPIES).await?;
    let failed = storm(stack, &originals, async { stack.sidecar()?.kill().await }).await?;
    assert_eq!(failed.len(), 0, "the policy is to forward");
    stack.sidecar()?.restart().await?;
    let ledger = stack.ledger().await?;
    // The event of a webhook may die with the sidecar that was to write it; that it is done may not.
    until("all to be done", async || {
        Ok((ledger.done().await? == i64::try_from(originals.len())?).then_some(()))
    })
    .await?;
    let before = stack.backend.all().len();
    retry(stack, &originals).await?;
    assert_eq!(stack.backend.all().len(), before, "all of them are duplicates now");
    delivered_exactly_once(stack).await
}

async fn killed_envoy_loses_nothing(stack: &Stack) -> Result<()> {
    let originals = webhooks(stack, REQUESTS - COPIES).await?;
    let failed = storm(stack, &originals, async {
        stack.envoy.kill().await?;
        stack.envoy.restart().await
    })
    .await?;
    assert!(!failed.is_empty(), "no request failed while Envoy was killed");
    retry(stack, &failed).await?;
    for request in &originals {
        assert!(delivered(stack, request) >= 1, "lost: {request:?}");
    }
    delivered_exactly_once(stack).await
}

async fn killed_redis_loses_nothing(stack: &Stack) -> Result<()> {
    let originals = webhooks(stack, REQUESTS - COPIES).await?;
    let failed = storm(stack, &originals, async { stack.redis()?.kill().await }).await?;
    assert_eq!(failed.len(), 0, "claims fall through to the database");
    for request in &originals {
        assert!(delivered(stack, request) >= 1, "lost: {request:?}");
    }
    stack.redis()?.restart().await.context("Redis again")?;
    delivered_exactly_once(stack).await
}
