//! What holds in every history, whatever happened in it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twilio_edge_contract::headers;

use crate::world::{Seen, Story};

/// A worker's memory stays below this, whatever it is sent; the filter alone takes a bit more than one.
const MOST_MEMORY: usize = 16 << 20;

/// All of them.
pub(crate) fn check(story: &Story) -> Result<()> {
    ensure!(story.offences.is_empty(), "Envoy would not survive this: {:?}", story.offences);
    ensure!(story.unauthorized == 0, "a callout without the sidecar's token");
    if let Some(bytes) = story.memory_bytes {
        ensure!(bytes <= MOST_MEMORY, "the filter has taken {bytes} bytes");
    }
    for (number, seen) in story.streams.iter().enumerate() {
        check_stream(story, seen).with_context(|| format!("stream {number}"))?;
    }
    every_lease_is_settled_once(story)?;
    no_secret_is_logged(story)
}

fn check_stream(story: &Story, seen: &Seen) -> Result<()> {
    let Some(request) = &seen.request else {
        ensure!(seen.backend.is_none(), "the backend got a request that Envoy refused");
        return Ok(());
    };
    ensure!(!seen.stuck, "it hangs");
    let guarded = mode(&seen.configuration, &request.header(":path"));
    if let Some(client) = &seen.client {
        ensure!(seen.left || client.ended, "the client waits for the end of its answer");
    } else {
        ensure!(seen.left, "the client is neither answered nor gone");
    }
    let Some(backend) = &seen.backend else { return Ok(()) };
    if guarded == Some("enforce") {
        ensure!(seen.complete, "the backend got a request that had not ended");
        ensure!(backend.header(headers::VERIFIED).is_some(), "the backend got it unproven");
        let sid = backend.header(headers::MESSAGE_SID);
        let has_sidecar = seen.configuration.get("sidecar").is_some();
        if let Some(sid) = sid.filter(|_| has_sidecar) {
            let dedupe = backend.header(headers::DEDUPE).unwrap_or_default();
            let mut claims = story.asked.iter();
            let asked = claims.any(|(_, claim)| claim.identity.message_sid == sid);
            ensure!(
                dedupe == "unknown" || (dedupe == "first" && asked),
                "the backend was told {dedupe} about a webhook nobody asked about"
            );
        }
    } else {
        let proven = guarded == Some("shadow") && backend.header(headers::VERIFIED).is_some();
        let ours = backend.headers.iter().filter(|(name, _)| headers::is_reserved(name.as_bytes()));
        ensure!(proven || ours.count() == 0, "a header in our name that nothing proves");
    }
    for (name, _) in &backend.trailers {
        ensure!(!headers::is_reserved(name.as_bytes()), "a trailer in our name: {name}");
    }
    let mut names = BTreeSet::new();
    for (name, _) in
        backend.headers.iter().filter(|(name, _)| headers::is_reserved(name.as_bytes()))
    {
        ensure!(names.insert(name), "the backend got {name} twice");
    }
    if let Some(length) = backend.header("content-length").filter(|_| backend.ended) {
        ensure!(length == backend.body.len().to_string(), "smuggling: content-length {length}");
    }
    Ok(())
}

/// The mode of the route of a target; none if nobody guards it. Scenarios have exact routes only.
fn mode<'a>(configuration: &'a Value, target: &str) -> Option<&'a str> {
    let path = target.split('?').next().unwrap_or_default();
    let routes = configuration.get("routes")?.as_array()?;
    let route =
        routes.iter().find(|route| route.get("path").and_then(Value::as_str) == Some(path))?;
    Some(route.get("mode").and_then(Value::as_str).unwrap_or("enforce"))
}

/// What was granted is settled, in one way, and not told again once the sidecar has taken it. Nobody is in a stream any
/// more, and the sidecar has worked for long enough.
fn every_lease_is_settled_once(story: &Story) -> Result<()> {
    let mut outcomes = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for told in &story.told {
        let claim_id = &told.settlement.claim_id;
        ensure!(!taken.contains(claim_id), "claim {claim_id} was settled twice");
        let outcome = outcomes.entry(claim_id).or_insert(told.settlement.outcome);
        ensure!(*outcome == told.settlement.outcome, "claim {claim_id} was settled in two ways");
        if told.is_acknowledged() {
            taken.insert(claim_id);
        }
    }
    for claim_id in &story.granted {
        ensure!(taken.contains(claim_id), "the lease of claim {claim_id} was never settled");
    }
    for claim_id in outcomes.keys() {
        ensure!(taken.contains(claim_id), "claim {claim_id}: nobody took its settlement");
    }
    Ok(())
}

fn no_secret_is_logged(story: &Story) -> Result<()> {
    for line in &story.log {
        for secret in ["0123456789abcdef0123456789abcdef", "the-token-between", "+1500555"] {
            ensure!(!line.contains(secret), "a log line holds a secret: {line}");
        }
    }
    Ok(())
}
