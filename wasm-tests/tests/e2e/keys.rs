//! Keys from the sidecar. An Envoy without keys gets them, follows a rotation without a restart, and keeps the
//! last valid ones during any failure of the sidecar and its file. Until it has keys, it answers every webhook
//! with 503 and Retry-After.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::{Connection, Response};
use twilio_edge_wasm_tests::envoy::is_native;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::Answer;
use twilio_edge_wasm_tests::stack::{EDGE_TOKEN, Plan, SidecarPlan, Signing, Stack, TOKEN};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, Request};

use crate::expect::{arrives, is_refusal, refused, willing};
use crate::suite::{Scenario, Setting, scenarios};

/// The tokens of the accounts file. Envoy's environment has others.
const FIRST: &str = "00000000111111112222222233333333";
const SECOND: &str = "44444444555555556666666677777777";

const FILE: &str = "[[account]]\nsid = \"AC00112233445566778899aabbccddeeff\"\n\
                    auth_tokens = [\"00000000111111112222222233333333\"]\n";

/// Interval of the filter's requests for keys, with a jitter of a tenth.
const PERIOD: Duration = Duration::from_millis(1_100);
/// Interval at which the sidecar checks the file.
const LOOK: Duration = Duration::from_secs(1);
/// Longest time to an answer on a busy machine.
const MARGIN: Duration = Duration::from_secs(3);

/// No account in the filter's configuration.
const RING: Plan = Plan {
    accounts: Some(FILE),
    ..Plan::adapted(SidecarPlan::Sqlite, |config| {
        config.plugin.as_object_mut().context("an object")?.remove("accounts");
        config.plugin["sidecar"]["accounts_refresh_ms"] = 1_000.into();
        Ok(())
    })
};

/// The account in the filter's configuration as well, with other keys.
const BOTH: Plan = Plan {
    accounts: Some(FILE),
    ..Plan::adapted(SidecarPlan::Sqlite, |config| {
        config.plugin["sidecar"]["accounts_refresh_ms"] = 1_000.into();
        Ok(())
    })
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ring = scenarios![Setting::Own(RING);
        rotation_is_live_without_touching_envoy,
        missing_keys_are_answered_with_503,
        last_good_keys_outlive_the_sidecar_and_its_file,
    ];
    let scripted = scenarios![Setting::Own(Plan { sidecar: SidecarPlan::Scripted, ..RING });
        reply_without_keys_changes_nothing,
    ];
    let both = scenarios![Setting::Newest(BOTH); keys_to_begin_with_give_way_to_the_sidecars];
    [ring.as_slice(), &scripted, &both].concat()
}

/// An accounts file of one account with these tokens.
fn file(tokens: &[&str]) -> String {
    format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_tokens = {tokens:?}\n")
}

async fn signed(stack: &Stack, token: &str) -> Result<Request> {
    stack.post_as(&Form::inbound("signed"), Signing { token, ..Signing::default() }).await
}

async fn on(worker: &mut Connection, request: &Request) -> Result<Response> {
    worker.write(&request.bytes()).await?;
    worker.response().await
}

/// Waits until every worker accepts requests signed with `token`, which were refused for `reason` before. Returns the time.
async fn is_taken(
    stack: &Stack,
    workers: &mut [Connection],
    token: &str,
    reason: Reason,
) -> Result<Duration> {
    let started = Instant::now();
    for worker in workers {
        until("a key to be known", async || {
            let request = signed(stack, token).await?;
            let response = on(worker, &request).await?;
            if response.status == 200 {
                return Ok(Some(()));
            }
            is_refusal(&response, reason)?;
            Ok(None)
        })
        .await?;
    }
    Ok(started.elapsed())
}

/// Waits until no worker accepts requests signed with `token`.
async fn is_given_up(stack: &Stack, workers: &mut [Connection], token: &str) -> Result<Duration> {
    let started = Instant::now();
    for worker in workers {
        until("a key to be forgotten", async || {
            let response = on(worker, &signed(stack, token).await?).await?;
            if response.status == 200 {
                return Ok(None);
            }
            is_refusal(&response, Reason::InvalidSignature).map(Some)
        })
        .await?;
    }
    Ok(started.elapsed())
}

/// Waits until asking for keys has come to `result` so many times more.
async fn asks(stack: &Stack, result: &str, times: u64) -> Result<()> {
    let name = format!("keys_refresh.{result}");
    let before = stack.envoy.counter(&name).await?;
    until(&format!("{times} more of {name}"), async || {
        Ok((stack.envoy.counter(&name).await? >= before + times).then_some(()))
    })
    .await
}

async fn generation(stack: &Stack) -> Result<u64> {
    stack.envoy.counter("generation").await
}

async fn rotation_is_live_without_touching_envoy(stack: &Stack) -> Result<()> {
    let mut workers = stack.envoy.workers().await?;
    assert_eq!(workers.len(), 2);
    is_taken(stack, &mut workers, FIRST, Reason::NoKeys).await?;
    refused(stack, &signed(stack, TOKEN).await?, Reason::InvalidSignature).await?;
    let begun = generation(stack).await?;

    stack.sidecar()?.replace_accounts(&file(&[FIRST, SECOND]))?;
    let took = is_taken(stack, &mut workers, SECOND, Reason::InvalidSignature).await?;
    ensure!(took < LOOK + PERIOD + MARGIN, "a new token took {took:?}");
    for worker in &mut workers {
        assert_eq!(
            on(worker, &signed(stack, FIRST).await?).await?.status,
            200,
            "still the current"
        );
    }
    assert_eq!(arrives(stack, &signed(stack, FIRST).await?).await?.trusted()["key"], "current");
    assert_eq!(arrives(stack, &signed(stack, SECOND).await?).await?.trusted()["key"], "next");
    let between = generation(stack).await?;

    stack.sidecar()?.replace_accounts(&file(&[SECOND]))?;
    let took = is_given_up(stack, &mut workers, FIRST).await?;
    ensure!(took < LOOK + PERIOD + MARGIN, "an old token took {took:?}");
    for worker in &mut workers {
        assert_eq!(on(worker, &signed(stack, SECOND).await?).await?.status, 200);
    }
    assert_eq!(arrives(stack, &signed(stack, SECOND).await?).await?.trusted()["key"], "current");
    let ended = generation(stack).await?;
    ensure!(begun != between && between != ended && ended != begun, "{begun} {between} {ended}");

    for slot in ["current", "next"] {
        ensure!(stack.envoy.counter(&format!("key_matches.{slot}")).await? > 0, "{slot}");
    }
    let updated = stack.envoy.counter("keys_refresh.updated").await?;
    // Each worker of the wasm filter fetches the keys, and the main thread of the native module for all.
    let fetchers = if is_native() { 1 } else { 2 };
    ensure!(updated >= 3 * fetchers, "{updated}: each worker has learnt three rings");
    assert_eq!(stack.envoy.counter("keys_refresh.failed").await?, 0);
    outputs_contain_no_secret(stack).await
}

async fn outputs_contain_no_secret(stack: &Stack) -> Result<()> {
    let (envoy, sidecar) = (stack.envoy.log()?, stack.sidecar()?.log()?);
    ensure!(envoy.contains("twilio-edge keys "), "the log has no line about keys");
    for (place, text) in [
        ("Envoy's log", envoy),
        ("/config_dump", stack.envoy.config_dump().await?),
        ("the sidecar's log", sidecar),
    ] {
        for secret in [FIRST, SECOND, TOKEN, EDGE_TOKEN] {
            ensure!(!text.contains(secret), "{place} shows {secret}");
        }
    }
    Ok(())
}

async fn missing_keys_are_answered_with_503(stack: &Stack) -> Result<()> {
    stack.sidecar()?.kill().await?;
    stack.envoy.kill().await?;
    stack.envoy.restart().await?;
    let mut workers = stack.envoy.workers().await?;
    let request = signed(stack, FIRST).await?;
    for _ in 0..2 {
        for worker in &mut workers {
            let response = on(worker, &request).await?;
            is_refusal(&response, Reason::NoKeys)?;
            assert_eq!(response.status, 503);
            let again = response.header("retry-after").context("no Retry-After")?;
            ensure!((1..=60).contains(&again.parse::<u32>()?), "{again}");
        }
        asks(stack, "failed", 2).await?;
    }
    // The filter does not verify unsigned requests either.
    let unsigned = request.clone().as_new_case().without_header("x-twilio-signature");
    refused(stack, &unsigned, Reason::NoKeys).await?;
    stack.nothing_reached(&request).await?;

    stack.sidecar()?.restart().await?;
    is_taken(stack, &mut workers, FIRST, Reason::NoKeys).await?;
    arrives(stack, &request).await?;
    refused(stack, &unsigned, Reason::MissingSignature).await
}

async fn last_good_keys_outlive_the_sidecar_and_its_file(stack: &Stack) -> Result<()> {
    let mut workers = stack.envoy.workers().await?;
    is_taken(stack, &mut workers, FIRST, Reason::NoKeys).await?;
    let begun = generation(stack).await?;
    let mut still_good = async |what: &str| {
        for worker in &mut workers {
            let request = signed(stack, FIRST).await?;
            assert_eq!(on(worker, &request).await?.status, 200, "{what}");
            let request = signed(stack, SECOND).await?;
            is_refusal(&on(worker, &request).await?, Reason::InvalidSignature)
                .with_context(|| what.to_owned())?;
        }
        anyhow::Ok(())
    };

    stack
        .sidecar()?
        .replace_accounts("[[account]]\nauth_tokens = [\"44444444555555556666666677777777\"]")?;
    until("the sidecar to see a broken file", async || {
        let is_seen = stack.sidecar()?.log()?.contains("could not use the accounts file");
        Ok(is_seen.then_some(()))
    })
    .await?;
    asks(stack, "unchanged", 4).await?;
    still_good("a broken file").await?;
    assert_eq!(stack.envoy.counter("keys_refresh.failed").await?, 0);

    stack.sidecar()?.pause().await?;
    stack.sidecar()?.kill().await?;
    asks(stack, "failed", 4).await?;
    still_good("no sidecar").await?;
    assert_eq!(generation(stack).await?, begun);

    stack.sidecar()?.replace_accounts(&file(&[SECOND]))?;
    stack.sidecar()?.restart().await?;
    is_taken(stack, &mut workers, SECOND, Reason::InvalidSignature).await?;
    is_given_up(stack, &mut workers, FIRST).await?;
    outputs_contain_no_secret(stack).await
}

async fn reply_without_keys_changes_nothing(stack: &Stack) -> Result<()> {
    let sidecar = stack.scripted()?;
    sidecar.usually(Answer::status(404));
    let mut workers = stack.envoy.workers().await?;
    for known in [false, true] {
        for (what, answer) in no_keys() {
            sidecar.usually(answer);
            // The workers ask, and Envoy's main thread.
            asks(stack, "failed", 4).await.context(what)?;
            // Claims are answered like that as well, and then the policy is to forward.
            for worker in &mut workers {
                let response = on(worker, &signed(stack, FIRST).await?).await?;
                match known {
                    true => assert_eq!(response.status, 200, "{what}"),
                    false => is_refusal(&response, Reason::NoKeys).context(what)?,
                }
            }
        }
        sidecar.usually(ring("g1", ACCOUNT, FIRST));
        is_taken(stack, &mut workers, FIRST, Reason::NoKeys).await?;
    }
    sidecar.usually(Answer::By(willing));
    assert_eq!(arrives(stack, &signed(stack, FIRST).await?).await?.trusted()["dedupe"], "first");
    Ok(())
}

/// A key ring of one account with one token.
fn ring(generation: &str, sid: &str, token: &str) -> Answer {
    let account = json!({ "sid": sid, "auth_tokens": [token] });
    let ring = json!({ "v": 1, "generation": generation, "accounts": [account] });
    Answer::ok("application/json", ring.to_string())
}

fn no_keys() -> [(&'static str, Answer); 8] {
    let json = |text: &str| Answer::ok("application/json", text);
    [
        ("no accounts file", Answer::status(404)),
        ("a portal", Answer::ok("text/html", "<html>welcome</html>")),
        ("half a reply", Answer::CloseInBody),
        ("no account", json(r#"{"v":1,"generation":"g2","accounts":[]}"#)),
        ("a ring that was never sent", json(r#"{"v":1,"generation":"g3"}"#)),
        ("another version", json(r#"{"v":2,"generation":"g4","accounts":[]}"#)),
        ("an account that is none", ring("g5", "AC1", SECOND)),
        ("a key that is none", ring("g6", ACCOUNT, "with a blank")),
    ]
}

/// Configured keys prove webhooks before the first request to the sidecar; afterwards the sidecar's keys replace them.
async fn keys_to_begin_with_give_way_to_the_sidecars(stack: &Stack) -> Result<()> {
    stack.sidecar()?.kill().await?;
    stack.envoy.kill().await?;
    stack.envoy.restart().await?;
    let mut workers = stack.envoy.workers().await?;
    for worker in &mut workers {
        assert_eq!(on(worker, &signed(stack, TOKEN).await?).await?.status, 200);
        let request = signed(stack, FIRST).await?;
        is_refusal(&on(worker, &request).await?, Reason::InvalidSignature)?;
    }
    stack.sidecar()?.restart().await?;
    is_taken(stack, &mut workers, FIRST, Reason::InvalidSignature).await?;
    is_given_up(stack, &mut workers, TOKEN).await?;
    Ok(())
}
