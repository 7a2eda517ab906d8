//! Invalid configurations. Envoy does not start with them, and reports all of their problems at
//! once.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack, TOKEN};

use crate::suite::{Scenario, Setting, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios![Setting::Own(Plan::new(SidecarPlan::Absent)); request_that_no_signature_covers_is_refused]
        .to_vec()
}

/// Twilio signs the URL it was given, proxies before this one tidy it up, and then nothing could be proven.
async fn request_that_no_signature_covers_is_refused(stack: &Stack) -> Result<()> {
    let wrong = [
        ("path", "/twilio/../inbound", "contains a dot segment"),
        ("prefix", "/twilio/%2e/", "contains a dot segment"),
        ("path", "/twilio//inbound", "contains an empty segment"),
        ("path", "/twilio/%69nbound", "escapes a letter, a digit or one of -._~"),
        ("path", "/twilio\\inbound", "contains a backslash"),
        ("path", "/twilio/inbound?x=1", "must have no query and no fragment"),
        ("prefix", "/twilio", "must end with /"),
    ];
    let plan = Plan::new(SidecarPlan::Absent);
    let started = stack.another_with(plan, |config| {
        let routes = wrong.map(|(kind, path, _)| json!({ kind: path, "class": "inbound" }));
        config.plugin["routes"] = json!(routes);
        config.plugin["origins"] = json!(["https://hooks.example.com/twilio"]);
        Ok(())
    });
    let refused = match started.await {
        Ok(_) => anyhow::bail!("Envoy has started"),
        Err(refused) => format!("{refused:#}"),
    };
    ensure!(refused.contains("envoy ended by itself"), "{refused}");
    for (n, (kind, path, what)) in wrong.iter().enumerate() {
        let line = refused.lines().find(|line| line.contains(&format!(" routes[{n}].{kind}: ")));
        let line = line.with_context(|| format!("nothing about {path} in {refused}"))?;
        ensure!(line.contains(&format!("{path:?}")) && line.contains(what), "{path}: {line}");
    }
    ensure!(refused.contains(" origins[0]: \"https://hooks.example.com/twilio\" "), "{refused}");
    ensure!(!refused.contains(TOKEN), "a problem shows a secret");
    Ok(())
}
