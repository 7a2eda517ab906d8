//! Operators' view: every metric with the name and labels of the reference, gauges that return to zero,
//! a line at start, one verdict per request in the access log, and the same ids of a request in all logs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::Decision;
use twilio_edge_filter::metrics::{HOOK_PANICS, reference};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::envoy::is_native;
use twilio_edge_wasm_tests::http2::{Connection, Framing};
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::{Answer, CLAIMS, Gate, SETTLEMENTS};
use twilio_edge_wasm_tests::repository;
use twilio_edge_wasm_tests::stack::{NEXT_TOKEN, Plan, SidecarPlan, Signing, Stack, TOKEN};
use twilio_edge_wasm_tests::webhook::{Form, Request};

use crate::expect::{all_sent, arrives, claimed, counts, deciding, refused, willing};
use crate::suite::{Scenario, Setting, scenarios};

/// A route that only looks, beside the shipped ones.
const SHADOWED: &str = "/app/shadowed";

const SCRIPTED: Plan = Plan::adapted(SidecarPlan::Scripted, |config| {
    let routes = config.plugin["routes"].as_array_mut().context("routes")?;
    routes[1]["delivery"] = "accept".into();
    routes.push(json!({ "path": SHADOWED, "class": "inbound", "mode": "shadow" }));
    Ok(())
});

const TALKATIVE: Plan = Plan {
    settings: &[("TWILIO_EDGE_LOG_LEVEL", "debug"), ("TWILIO_EDGE_LOG_FORMAT", "json")],
    ..Plan::new(SidecarPlan::Sqlite)
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let scripted = scenarios![Setting::Own(SCRIPTED);
        metrics_are_those_of_the_reference,
        metrics_of_the_alerts_exist_in_envoy,
        gauges_rise_and_come_back_to_zero,
        each_claim_of_a_callout_has_the_names_of_its_own_request,
        access_log_has_the_verdict,
    ];
    let real = scenarios![Setting::Own(TALKATIVE);
        keys_are_counted_by_their_slot,
        sidecar_logs_a_request_with_its_ids,
    ];
    let pushed = scenarios![Setting::Own(Plan { pushed: true, ..Plan::new(SidecarPlan::Sqlite) });
        start_is_logged_with_version_and_configuration,
    ];
    [scripted.as_slice(), &real, &pushed].concat()
}

/// Names and kinds of metrics, and what each label of them may say: by what the reference prints.
fn promised() -> BTreeSet<(String, String, String)> {
    let mut promised = BTreeSet::new();
    for row in reference().lines().skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let (kind, metric) = (cells[1], cells[0].trim_matches('`'));
        let Some((name, label)) = metric.split_once('{') else {
            promised.insert((kind.to_owned(), metric.to_owned(), String::new()));
            continue;
        };
        let label = label.trim_end_matches("=\"..\"}");
        let slugs = Reason::ALL.map(Reason::slug);
        let listed = cells[2].rsplit_once(": ").map(|(_, words)| words.split(", "));
        let words: Vec<&str> = match label {
            "reason" => slugs.to_vec(),
            _ => listed.into_iter().flatten().map(|word| word.trim_matches('`')).collect(),
        };
        for word in words {
            promised.insert((kind.to_owned(), name.to_owned(), format!("{label}=\"{word}\"")));
        }
    }
    if !is_native() {
        promised.retain(|(_, name, _)| *name != HOOK_PANICS.replace('.', "_"));
    }
    promised
}

/// The same, as a scrape finds them.
async fn scraped(stack: &Stack) -> Result<BTreeSet<(String, String, String)>> {
    let page = stack.envoy.prometheus().await?;
    let mut kinds = BTreeMap::new();
    let mut scraped = BTreeSet::new();
    for line in page.lines().filter(|line| line.contains("twilio_edge_")) {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').context("a type")?;
            kinds.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        let (name, rest) = line.split_once('{').context("a sample")?;
        let name = ["_bucket", "_sum", "_count"].iter().fold(name, |name, suffix| {
            name.strip_suffix(suffix).filter(|name| kinds.contains_key(*name)).unwrap_or(name)
        });
        // Those of Envoy itself, about the cluster and the VM, are in its own name.
        if name.starts_with("envoy_") {
            continue;
        }
        let kind = kinds.get(name).with_context(|| format!("{name} has no type"))?;
        let labels = rest.split_once('}').context("no labels")?.0;
        let labels = if kind == "histogram" { "" } else { labels };
        scraped.insert((kind.clone(), name.to_owned(), labels.to_owned()));
    }
    Ok(scraped)
}

async fn metrics_are_those_of_the_reference(stack: &Stack) -> Result<()> {
    let promised = promised();
    ensure!(promised.len() > 2 * Reason::ALL.len(), "{promised:?}");
    // All metrics exist before the first request.
    let at_first = scraped(stack).await?;
    let missing: Vec<_> = promised.difference(&at_first).collect();
    ensure!(missing.is_empty(), "not there from the start: {missing:?}");

    stack.scripted()?.usually(Answer::By(willing));
    let request = stack.post(&Form::inbound("hello")).await?;
    arrives(stack, &request).await?;
    let unsigned = request.as_new_case().without_header("x-twilio-signature");
    refused(stack, &unsigned, Reason::MissingSignature).await?;
    // Envoy merges its histograms every five seconds.
    until("the histograms to have something", async || {
        let page = stack.envoy.prometheus().await?;
        let is_filled = |name: &str| {
            page.lines().any(|line| {
                line.starts_with(&format!("{name}_count{{}} ")) && !line.ends_with(" 0")
            })
        };
        let filled = ["twilio_edge_claim_ms", "twilio_edge_claim_batch"].map(is_filled);
        Ok(filled.iter().all(|filled| *filled).then_some(()))
    })
    .await?;
    let page = stack.envoy.prometheus().await?;
    for sample in [
        "twilio_edge_webhooks{} 2",
        "twilio_edge_rejected{reason=\"missing-signature\"} 1",
        "twilio_edge_rejected{reason=\"invalid-signature\"} 0",
        "twilio_edge_verdict{decision=\"proceed\"} 1",
        "twilio_edge_settlements{outcome=\"commit\"} 1",
        "twilio_edge_settlement_results{result=\"settled\"} 1",
        "twilio_edge_callout_failed{callout=\"claims\"} 0",
        "twilio_edge_key_matches{slot=\"current\"} 1",
        "twilio_edge_keys_refresh{result=\"updated\"} 0",
        "twilio_edge_claim_batch_count{} 1",
        "twilio_edge_claim_batch_sum{} 1",
    ] {
        ensure!(page.lines().any(|line| line.starts_with(sample)), "no {sample} in {page}");
    }
    let scraped = scraped(stack).await?;
    let unknown: Vec<_> = scraped.difference(&promised).collect();
    ensure!(unknown.is_empty(), "not in the reference: {unknown:?}");
    Ok(())
}

/// Checks Envoy's own metrics that our alerts and the dashboard use; docs/METRICS.md has the filter's.
async fn metrics_of_the_alerts_exist_in_envoy(stack: &Stack) -> Result<()> {
    let page = stack.envoy.prometheus().await?;
    let mut asked = BTreeSet::new();
    for folder in ["envoy/alerts", "envoy/dashboards"] {
        for entry in std::fs::read_dir(repository().join(folder))? {
            let text = std::fs::read_to_string(entry?.path())?;
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            asked.extend(words.filter(|word| word.starts_with("envoy_")).map(str::to_owned));
        }
    }
    ensure!(!asked.is_empty(), "the alerts use no metric of Envoy");
    if is_native() {
        // It has no VM, and counts the panics of its hooks instead.
        asked.retain(|name| !name.contains("_vm_reload_"));
    }
    let exposed: BTreeSet<&str> = page.lines().filter_map(|line| line.split('{').next()).collect();
    let missing: Vec<_> = asked.iter().filter(|name| !exposed.contains(name.as_str())).collect();
    ensure!(missing.is_empty(), "Envoy does not expose {missing:?}");
    Ok(())
}

async fn gauges_rise_and_come_back_to_zero(stack: &Stack) -> Result<()> {
    let sidecar = stack.scripted()?;
    sidecar.usually(Answer::By(willing));
    let [claims, settlements] = [CLAIMS, SETTLEMENTS].map(|case| {
        let gate = Gate::default();
        sidecar.script(case, (0..8).map(|_| gate.then(Answer::By(willing))));
        gate
    });
    let mut connection = Connection::open(stack.envoy.address()).await?;
    let mut streams = Vec::new();
    for n in 0..3 {
        let request = stack.post(&Form::inbound(&format!("message {n}"))).await?;
        streams.push(connection.call(&request, Framing::default()).await?);
    }
    counts(stack, "waiting", 3).await?;
    assert_eq!(stack.envoy.counter("outbox").await?, 0);
    // A claim that is sent later would take the first settlements with it.
    until("the claims to arrive", async || Ok((claimed(stack)?.len() == 3).then_some(()))).await?;
    claims.open();
    for stream in streams {
        assert_eq!(stream.begun().await?.whole().await?.status, 200);
    }
    counts(stack, "outbox", 3).await?;
    counts(stack, "waiting", 0).await?;
    settlements.open();
    counts(stack, "outbox", 0).await?;
    // A waiting client that disconnects does not wait any more.
    let gate = Gate::default();
    sidecar.script(CLAIMS, [gate.then(Answer::By(willing))]);
    let request = stack.post(&Form::inbound("left")).await?;
    let stream = connection.call(&request, Framing::default()).await?;
    counts(stack, "waiting", 1).await?;
    stream.reset();
    counts(stack, "waiting", 0).await?;
    gate.open();
    Ok(())
}

fn traceparent(n: usize) -> String {
    format!("00-4bf92f3577b34da6a3ce929d0e0e{n:04x}-00f067aa0ba9{n:04x}-01")
}

async fn each_claim_of_a_callout_has_the_names_of_its_own_request(stack: &Stack) -> Result<()> {
    let sidecar = stack.scripted()?;
    let gate = Gate::default();
    sidecar.usually(gate.then(Answer::By(willing)));
    let mut connection = Connection::open(stack.envoy.address()).await?;
    let (mut cases, mut streams) = (Vec::new(), Vec::new());
    // Four callouts may be under way; who comes later shares the next.
    for n in 0..9 {
        let mut request = stack.post(&Form::inbound(&format!("message {n}"))).await?;
        if n != 5 {
            request = request.header("traceparent", traceparent(n));
        }
        streams.push(connection.call(&request, Framing::default()).await?);
        counts(stack, "waiting", n as u64 + 1).await?;
        cases.push(request);
    }
    gate.open();
    for stream in streams {
        assert_eq!(stream.begun().await?.whole().await?.status, 200);
    }
    let mut claims = BTreeMap::new();
    let mut largest = 0;
    for seen in sidecar.seen(CLAIMS) {
        let batch = all_sent(&seen, "claims")?;
        largest = largest.max(batch.len());
        for claim in batch {
            claims.insert(claim["form"].as_str().context("a form")?.to_owned(), claim);
        }
    }
    ensure!(largest >= 4, "{largest} claims are no batch");
    let mut ids = BTreeSet::new();
    for (n, request) in cases.iter().enumerate() {
        let claim = &claims[&String::from_utf8(request.body.clone())?];
        let seen = stack.backend.wait(&request.case, 1).await?;
        let id = seen[0].header("x-request-id").context("Envoy gives each request an id")?;
        assert_eq!(claim["request_id"], id);
        ids.insert(id);
        let expected = if n == 5 { Value::Null } else { traceparent(n).into() };
        assert_eq!(claim["traceparent"], expected);
        assert_eq!(seen[0].header("traceparent"), (n != 5).then(|| traceparent(n)));
    }
    assert_eq!(ids.len(), cases.len());
    Ok(())
}

/// The access log's last line about the path of a request, once that has this verdict.
async fn logged(stack: &Stack, request: &Request, verdict: &str) -> Result<Value> {
    let what = format!("{verdict} in the access log, for {}", request.target);
    until(&what, async || {
        let log = stack.envoy.log()?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.rev().find(|line| line["path"] == request.target);
        Ok(line.filter(|line| line["verdict"] == verdict))
    })
    .await
}

async fn access_log_has_the_verdict(stack: &Stack) -> Result<()> {
    let sidecar = stack.scripted()?;
    sidecar.usually(Answer::By(willing));
    let verdict = |decision: &'static str| match decision {
        "duplicate" => Answer::By(|body| deciding(body, |_| Decision::Duplicate)),
        "accepted" => Answer::By(|body| deciding(body, |_| Decision::Accepted)),
        "proceed" => Answer::By(willing),
        _ => Answer::status(500),
    };
    let post = async |form: Form| stack.post(&form).await;
    let unsigned = async |form: Form| {
        anyhow::Ok(stack.post(&form).await?.without_header("x-twilio-signature"))
    };
    // No two after each other on one path have the same word.
    let cases = [
        ("first", "proceed", post(Form::inbound("hello")).await?, 200),
        ("duplicate", "duplicate", post(Form::inbound("hello")).await?, 200),
        ("unknown", "", post(Form::inbound("hello")).await?, 200),
        ("accepted", "accepted", post(Form::status("sent")).await?, 204),
        ("missing-signature", "", unsigned(Form::status("sent")).await?, 403),
        ("unknown", "", post(Form::other()).await?, 200),
        ("method-not-allowed", "", Request::new("PUT", "/twilio/other", "x"), 405),
        ("shadow", "", unsigned(Form::inbound("looked at").to(SHADOWED)).await?, 200),
        ("first", "proceed", post(Form::inbound("looked at").to(SHADOWED)).await?, 200),
        ("duplicate", "duplicate", post(Form::inbound("looked at").to(SHADOWED)).await?, 200),
    ];
    for (word, decision, request, status) in cases {
        sidecar.script(CLAIMS, [verdict(decision)]);
        assert_eq!(stack.send(&request).await?.status, status, "{word}");
        let line = logged(stack, &request, word).await?;
        assert_eq!((&line["method"], &line["status"]), (&json!(request.method), &json!(status)));
        ensure!(line["request_id"].as_str().is_some_and(|id| id.len() == 36), "{line}");
    }
    let log = stack.envoy.log()?;
    ensure!(!log.contains("hello") && !log.contains("%2B"), "the log has what people wrote");
    Ok(())
}

async fn keys_are_counted_by_their_slot(stack: &Stack) -> Result<()> {
    for (slot, token, times) in [("current", TOKEN, 2), ("next", NEXT_TOKEN, 3)] {
        let signing = Signing { token, ..Signing::default() };
        for _ in 0..times {
            arrives(stack, &stack.post_as(&Form::inbound("hello"), signing).await?).await?;
        }
        counts(stack, &format!("key_matches.{slot}"), times).await?;
    }
    for slot in ["later", "shared"] {
        assert_eq!(stack.envoy.counter(&format!("key_matches.{slot}")).await?, 0);
    }
    Ok(())
}

async fn sidecar_logs_a_request_with_its_ids(stack: &Stack) -> Result<()> {
    for (n, header) in
        [(1, traceparent(1)), (2, "00-nonsense".to_owned()), (3, traceparent(0xffff))]
    {
        let form = Form::inbound(&format!("zebra {n}"));
        let request = stack.post(&form).await?.header("traceparent", &header);
        let seen = arrives(stack, &request).await?;
        let line = until("a line about the claim", async || {
            let log = stack.sidecar()?.log()?;
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut lines = lines.filter(|line| line["message"] == "the sidecar answered a claim");
            Ok(lines.find(|line| line["webhook.sid"] == form.get("MessageSid")))
        })
        .await?;
        assert_eq!(line["request.id"].as_str(), seen.header("x-request-id").as_deref());
        let trace = header.split('-').nth(1).filter(|trace| trace.len() == 32);
        assert_eq!(line["trace.id"].as_str(), trace, "{line}");
    }
    ensure!(!stack.sidecar()?.log()?.contains("zebra"), "a log is no place for messages");
    Ok(())
}

async fn start_is_logged_with_version_and_configuration(stack: &Stack) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let start_line = async |routes: usize| {
        until("the line of a start", async || {
            let log = stack.envoy.log()?;
            let lines =
                log.lines().filter(|line| line.contains(&format!("twilio-edge {version} ready: ")));
            let line = lines.rev().find(|line| line.contains(&format!(" {routes} routes, ")));
            Ok(line.map(str::to_owned))
        })
        .await
    };
    let digest = |line: &str| {
        let digest = line.split("configuration ").nth(1).and_then(|rest| rest.split(',').next());
        digest.filter(|digest| digest.len() == 12).map(str::to_owned)
    };
    let line = start_line(3).await?;
    ensure!(
        line.contains("2 origins, 1 accounts with 2 keys, 3 routes, sidecar in cluster "),
        "{line}"
    );
    let (first, generation) =
        (digest(&line).context(line)?, stack.envoy.counter("generation").await?);
    let taken = stack.envoy.push(|config| {
        let routes = config.plugin["routes"].as_array_mut().context("routes")?;
        routes.push(json!({ "path": "/twilio/more", "class": "inbound" }));
        Ok(())
    });
    ensure!(taken.await?);
    let line = start_line(4).await?;
    let second = digest(&line).context(line)?;
    assert_ne!(first, second);
    until("another generation", async || {
        Ok((stack.envoy.counter("generation").await? != generation).then_some(()))
    })
    .await
}
