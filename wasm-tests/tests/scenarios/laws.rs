//! Invariants of every history.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twilio_edge_contract::headers;

use crate::world::{Record, StreamRecord};

/// Upper limit for the memory of a worker; the filter alone needs somewhat more than 1 MiB.
const MAX_MEMORY: usize = 16 << 20;

/// Checks all invariants.
pub(crate) fn check(record: &Record) -> Result<()> {
    ensure!(record.violations.is_empty(), "Envoy would not survive this: {:?}", record.violations);
    ensure!(record.unauthorized == 0, "a callout without the sidecar's token");
    if let Some(bytes) = record.memory_bytes {
        ensure!(bytes <= MAX_MEMORY, "the filter uses {bytes} bytes");
    }
    for (number, seen) in record.streams.iter().enumerate() {
        check_stream(record, seen).with_context(|| format!("stream {number}"))?;
    }
    every_lease_is_settled_once(record)?;
    log_contains_no_secret(record)
}

fn check_stream(record: &Record, seen: &StreamRecord) -> Result<()> {
    let Some(request) = &seen.request else {
        ensure!(seen.backend.is_none(), "the backend got a request that Envoy refused");
        return Ok(());
    };
    ensure!(!seen.is_stuck, "the stream hangs");
    let guarded = mode(&seen.configuration, &request.header(":path"));
    if let Some(client) = &seen.client {
        ensure!(seen.client_left || client.ended, "the client waits for the end of its answer");
    } else {
        ensure!(seen.client_left, "the client got no answer and did not disconnect");
    }
    let Some(backend) = &seen.backend else { return Ok(()) };
    if guarded == Some("enforce") {
        ensure!(seen.complete, "the backend received an incomplete request");
        ensure!(backend.header(headers::VERIFIED).is_some(), "the backend received it unproven");
        let sid = backend.header(headers::MESSAGE_SID);
        let has_sidecar = seen.configuration.get("sidecar").is_some();
        if let Some(sid) = sid.filter(|_| has_sidecar) {
            let dedupe = backend.header(headers::DEDUPE).unwrap_or_default();
            let mut claims = record.claims.iter();
            let claims = claims.any(|(_, claim)| claim.identity.message_sid == sid);
            ensure!(
                dedupe == "unknown" || (dedupe == "first" && claims),
                "the backend received {dedupe} for a webhook without a claim"
            );
        }
    } else {
        let proven = guarded == Some("shadow") && backend.header(headers::VERIFIED).is_some();
        let ours = backend.headers.iter().filter(|(name, _)| headers::is_reserved(name.as_bytes()));
        ensure!(proven || ours.count() == 0, "a trusted header of an unproven request");
    }
    for (name, _) in &backend.trailers {
        ensure!(!headers::is_reserved(name.as_bytes()), "a trusted trailer: {name}");
    }
    let mut names = BTreeSet::new();
    for (name, _) in
        backend.headers.iter().filter(|(name, _)| headers::is_reserved(name.as_bytes()))
    {
        ensure!(names.insert(name), "the backend received {name} twice");
    }
    if let Some(length) = backend.header("content-length").filter(|_| backend.ended) {
        ensure!(length == backend.body.len().to_string(), "smuggling: content-length {length}");
    }
    Ok(())
}

/// Returns the mode of the route of a target; `None` if it is unguarded. Scenarios have exact routes only.
fn mode<'a>(configuration: &'a Value, target: &str) -> Option<&'a str> {
    let path = target.split('?').next().unwrap_or_default();
    let routes = configuration.get("routes")?.as_array()?;
    let route =
        routes.iter().find(|route| route.get("path").and_then(Value::as_str) == Some(path))?;
    Some(route.get("mode").and_then(Value::as_str).unwrap_or("enforce"))
}

/// Checks that each granted lease is settled, in one way, and not again after the acknowledgement. All streams have
/// ended, and the sidecar has worked long enough.
fn every_lease_is_settled_once(record: &Record) -> Result<()> {
    let mut outcomes = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for received in &record.settlements {
        let claim_id = &received.settlement.claim_id;
        ensure!(!taken.contains(claim_id), "claim {claim_id} was settled twice");
        let outcome = outcomes.entry(claim_id).or_insert(received.settlement.outcome);
        ensure!(
            *outcome == received.settlement.outcome,
            "claim {claim_id} was settled in two ways"
        );
        if received.is_acknowledged() {
            taken.insert(claim_id);
        }
    }
    for claim_id in &record.granted {
        ensure!(taken.contains(claim_id), "the lease of claim {claim_id} was never settled");
    }
    for claim_id in outcomes.keys() {
        ensure!(
            taken.contains(claim_id),
            "claim {claim_id}: its settlement was never acknowledged"
        );
    }
    Ok(())
}

fn log_contains_no_secret(record: &Record) -> Result<()> {
    for line in &record.log {
        for secret in ["0123456789abcdef0123456789abcdef", "the-token-between", "+1500555"] {
            ensure!(!line.contains(secret), "a log line contains a secret: {line}");
        }
    }
    Ok(())
}
