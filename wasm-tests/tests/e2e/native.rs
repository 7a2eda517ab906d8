//! The native module where it differs from the wasm filter: panics of its hooks, files that an Envoy cannot load, upgrades to
//! another file, and streams that end while they carry the claims of others. Only with `TWILIO_EDGE_NATIVE`.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use tokio::join;
use tokio::time::sleep;
use twilio_edge_wasm_tests::caller::{Caller, Leaving};
use twilio_edge_wasm_tests::envoy::{is_native, native_module};
use twilio_edge_wasm_tests::http2::{Connection, Framing, send_h2};
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, Gate};
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack};
use twilio_edge_wasm_tests::webhook::{Form, Request};

use crate::expect::{arrives, counts};
use crate::push;
use crate::suite::{Scenario, Setting, scenarios};

const PLAN: Plan = Plan::new(SidecarPlan::Sqlite);
const PUSHED: Plan = Plan { pushed: true, ..PLAN };
/// The hook for trailers panics; Envoy and the sidecar end leases soon.
const FRAGILE: Plan = panicking("request_trailers");

const fn panicking(hook: &'static str) -> Plan {
    Plan {
        trap_in: Some(hook),
        settings: &[("TWILIO_EDGE_LEASES_PERIOD_MS", "2000")],
        ..Plan::new(SidecarPlan::Sqlite)
    }
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    if !is_native() {
        return Vec::new();
    }
    let own = scenarios![Setting::Own(PLAN);
        aborted_streams_leave_nothing_behind,
        envoy_that_lacks_a_function_is_refused_with_a_line,
        other_abi_version_is_a_warning,
        panic_of_any_hook_forwards_nothing_unverified,
    ];
    let fragile = scenarios![Setting::Own(FRAGILE); panic_concerns_one_request_only];
    let pushed = scenarios![Setting::Own(PUSHED);
        upgrade_to_another_file_under_load_loses_nothing,
        file_that_cannot_be_loaded_changes_nothing,
    ];
    [own.as_slice(), &fragile, &pushed].concat()
}

async fn panic_concerns_one_request_only(stack: &Stack) -> Result<()> {
    let edge = stack.envoy.address();
    arrives(stack, &stack.post(&Form::inbound("before")).await?).await?;

    // All on one connection, so that one worker handles them.
    let mut connection = Connection::open(edge).await?;
    let (at_backend, deciding) = (Form::inbound("at the backend"), Form::inbound("undecided"));
    let working = stack.post(&at_backend).await?;
    let gate = Gate::default();
    stack.backend.script(&working.case, [gate.then(Answer::status(200))]);
    let first = connection.call(&working, Framing::default()).await?;
    stack.backend.wait(&working.case, 1).await?;
    stack.sidecar()?.pause().await?;
    let paused = stack.post(&deciding).await?;
    let second = connection.call(&paused, Framing::default()).await?;
    counts(stack, "waiting", 1).await?;

    let deadly = stack.post(&Form::inbound("with trailers")).await?;
    let framing = Framing { trailers: &[("x-checksum", b"1")], ..Framing::default() };
    let third = connection.call(&deadly, framing).await?;
    assert_eq!(third.begun().await?.status, 500, "the request whose hook panicked");
    gate.open();
    assert_eq!(first.begun().await?.status, 200, "a request at the backend goes on");
    stack.sidecar()?.resume().await?;
    assert_eq!(second.begun().await?.status, 200, "a request that waits for its verdict goes on");
    counts(stack, "hook_panics", 1).await?;
    counts(stack, "waiting", 0).await?;
    let log = stack.envoy.log()?;
    ensure!(log.contains("twilio-edge panicked at native/src/"), "the log has no place");
    ensure!(!log.contains("wants this panic"), "the log has the message, which may be input");

    let ledger = stack.ledger().await?;
    for form in [&at_backend, &deciding] {
        ledger.settled(form.get("MessageSid"), "accepted", 1).await?;
    }
    arrives(stack, &stack.post(&Form::inbound("after")).await?).await?;
    stack.nothing_reached(&deadly).await
}

async fn panic_of_any_hook_forwards_nothing_unverified(shared: &Stack) -> Result<()> {
    // Before the verdict nothing is forwarded. After it the request is at the backend, and its outcome is unknown.
    for (hook, is_forwarded) in [
        ("request_headers", false),
        ("request_body", false),
        ("http_callout_done", false),
        ("deliver", false),
        ("response_headers", true),
    ] {
        let stack = shared.another(panicking(hook)).await.context(hook)?;
        let request = stack.post(&Form::inbound(hook)).await?;
        let answer = send_h2(stack.envoy.address(), &request, Framing::default()).await?;
        ensure!(answer.status == 500, "{hook}: {} {}", answer.status, answer.text());
        let arrived = stack.backend.seen(&request.case).len();
        ensure!(arrived == usize::from(is_forwarded), "{hook}: {arrived} at the backend");
        counts(&stack, "hook_panics", 1).await.context(hook)?;
        counts(&stack, "waiting", 0).await.context(hook)?;
    }
    // The tick is a hook of a stream, too. Only that stream ends, and the claims of others are sent all the same.
    let stack = shared.another(panicking("scheduled")).await?;
    stack.sidecar()?.pause().await?;
    let request = stack.post(&Form::inbound("ticked")).await?;
    let answer = send_h2(stack.envoy.address(), &request, Framing::default()).await?;
    assert_eq!(answer.status, 500);
    stack.sidecar()?.resume().await?;
    stack.nothing_reached(&request).await
}

/// A copy of the module with other bytes for all occurrences of a text, which must have the same length.
fn altered(folder: &Path, name: &str, text: &str, other: &str) -> Result<PathBuf> {
    let mut bytes = std::fs::read(native_module()?)?;
    ensure!(text.len() == other.len(), "{other} has another length");
    let mut at = 0;
    let mut count = 0;
    while let Some(next) = bytes
        .get(at..)
        .and_then(|rest| rest.windows(text.len()).position(|window| window == text.as_bytes()))
    {
        at += next;
        let place = bytes.get_mut(at..at + text.len()).context("a place")?;
        place.copy_from_slice(other.as_bytes());
        at += text.len();
        count += 1;
    }
    ensure!(count > 0, "the module does not contain {text}");
    let path = folder.join(name);
    std::fs::write(&path, bytes)?;
    Ok(path)
}

/// A function that Envoy 1.38 and older do not have, under a name that no Envoy has.
fn for_another_envoy(folder: &Path) -> Result<PathBuf> {
    let function = "envoy_dynamic_module_callback_http_filter_config_set_gauge";
    altered(folder, "for-another-envoy.so", function, &function.replace("set_gauge", "get_gauge"))
}

async fn envoy_that_lacks_a_function_is_refused_with_a_line(shared: &Stack) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = for_another_envoy(folder.path())?;
    let started = shared.another_with(PLAN, |config| Ok(config.use_native(&file)?)).await;
    let problem = format!("{:#}", started.err().context("Envoy has loaded it")?);
    let line = "needs Envoy 1.39 or later: this Envoy has no envoy_dynamic_module_callback_http_filter_config_get_gauge";
    ensure!(problem.lines().any(|it| it.ends_with(line)), "{problem}");
    ensure!(problem.contains("ended by itself (exit status: 1)"), "{problem}");

    // No file, and a file that is no library.
    let missing = folder.path().join("missing.so");
    let started = shared.another_with(PLAN, |config| Ok(config.use_native(&missing)?)).await;
    ensure!(started.is_err(), "Envoy has started without the file");
    Ok(())
}

async fn other_abi_version_is_a_warning(shared: &Stack) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = altered(folder.path(), "v9.so", "v0.2.0\0", "v9.9.9\0")?;
    let stack = shared.another_with(PLAN, |config| Ok(config.use_native(&file)?)).await?;
    let log = stack.envoy.log()?;
    ensure!(log.contains("Dynamic module ABI version v9.9.9 is deprecated"), "{log}");
    arrives(&stack, &stack.post(&Form::inbound("all the same")).await?).await.map(drop)
}

async fn file_that_cannot_be_loaded_changes_nothing(stack: &Stack) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let before = stack.post(&Form::inbound("before")).await?;
    arrives(stack, &before).await?;
    let no_library = folder.path().join("text.so");
    std::fs::write(&no_library, "not a library")?;
    for file in [for_another_envoy(folder.path())?, no_library, folder.path().join("missing.so")] {
        let is_accepted = stack.envoy.push(|config| Ok(config.set_module(&file)?)).await?;
        ensure!(!is_accepted, "Envoy has accepted {}", file.display());
        arrives(stack, &stack.post(&Form::inbound("after")).await?).await?;
    }
    assert_eq!(stack.send(&before).await?.status, 200);
    assert_eq!(stack.backend.seen(&before.case).len(), 1, "still a duplicate");
    Ok(())
}

async fn upgrade_to_another_file_under_load_loses_nothing(stack: &Stack) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let over = Cell::new(false);
    let load = join_all((0..8).map(|_| push::keeps_sending(stack, &over)));
    let upgrades = async {
        let mut upgraded = Ok(());
        for version in 1..=3 {
            upgraded = async {
                let file = folder.path().join(format!("libtwilio_edge_native-{version}.so"));
                std::fs::copy(native_module()?, &file)?;
                // The route shows which configuration answers.
                let path = format!("/twilio/version-{version}");
                let is_accepted = stack
                    .envoy
                    .push(|config| {
                        let routes = config.plugin["routes"].as_array_mut().context("routes")?;
                        routes.push(json!({ "path": path, "class": "inbound" }));
                        let cluster = json!({ "cluster": "backend" });
                        let route = json!({ "match": { "path": path }, "route": cluster });
                        config.routes()?.insert(0, route);
                        Ok(config.set_module(&file)?)
                    })
                    .await?;
                ensure!(is_accepted, "Envoy has rejected {}", file.display());
                push::is_live(stack, &path).await?;
                arrives(stack, &stack.post(&Form::inbound("new").to(&path)).await?).await
            }
            .await
            .map(drop);
            if upgraded.is_err() {
                break;
            }
        }
        if upgraded.is_ok() {
            upgraded = push::is_drained(stack).await;
        }
        over.set(true);
        upgraded
    };
    let (load, upgraded) = join!(load, upgrades);
    upgraded?;
    let (ledger, mut count) = (stack.ledger().await?, 0);
    for sent in load {
        for (form, request) in sent? {
            assert_eq!(stack.backend.seen(&request.case).len(), 1, "delivered once: {form:?}");
            ledger.settled(form.get("MessageSid"), "accepted", 1).await?;
            count += 1;
        }
    }
    ensure!(count > 100, "{count} requests are no load");
    counts(stack, "waiting", 0).await?;
    counts(stack, "outbox", 0).await
}

/// Streams carry the claims of others, so a stream that ends at any moment must not take them along.
async fn aborted_streams_leave_nothing_behind(stack: &Stack) -> Result<()> {
    const STREAMS: usize = 400;
    let mut forms = Vec::new();
    let mut callers = Vec::new();
    for n in 0..STREAMS {
        let form = Form::inbound(&format!("message {n}"));
        let request = stack.post(&form).await?;
        forms.push((form, request.clone()));
        callers.push(abort(stack, request, n));
        if callers.len() == 40 {
            try_join_all(callers.drain(..)).await?;
        }
    }
    counts(stack, "waiting", 0).await?;
    counts(stack, "outbox", 0).await?;
    until("Envoy to have no request", async || {
        let active = stack.envoy.stats("http.edge.downstream_rq_active").await?;
        Ok((active.values().sum::<u64>() == 0).then_some(()))
    })
    .await?;
    counts(stack, "settlements_dropped", 0).await?;
    // The next copy of each is delivered, or is a duplicate of one that was.
    for (_, request) in &forms {
        assert_eq!(stack.send(request).await?.status, 200);
    }
    let ledger = stack.ledger().await?;
    for (form, request) in &forms {
        ensure!(!stack.backend.seen(&request.case).is_empty(), "never delivered: {form:?}");
        ledger.settled(form.get("MessageSid"), "accepted", 1..=3).await?;
    }
    Ok(())
}

/// Sends a request, and aborts two of five after up to 11 ms.
async fn abort(stack: &Stack, request: Request, n: usize) -> Result<()> {
    let leaving = Leaving::ALL[n % Leaving::ALL.len()];
    let caller = Caller::call(stack.envoy.address(), &request, leaving).await?;
    if n % 5 < 2 {
        sleep(Duration::from_millis(u64::try_from(n * 7 % 12)?)).await;
        return caller.leave().await;
    }
    let (status, caller) = caller.answered().await?;
    ensure!(status == 200, "{status}");
    caller.leave().await
}
