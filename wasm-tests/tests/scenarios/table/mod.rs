//! The scenarios, one file per subject, and their vocabulary.

mod dedupe;
mod disguise;
mod end;
mod exchange;
mod options;
mod outage;
mod recut;
mod refused;
mod settle;
mod wire;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::{Outcome, headers};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::host::{Cluster, HttpMessage};
use twilio_edge_wasm_tests::webhook::{INBOUND, OTHER, STATUS};

use crate::sidecar::Behaviour;
use crate::world::{Backend, CLUSTER, Record, Setting, Step, StreamRecord};

/// Setting, script and expected result of a scenario.
pub(crate) struct Scenario {
    pub(crate) setting: Setting,
    pub(crate) script: Vec<Step>,
    pub(crate) check: fn(&Record) -> Result<()>,
}

/// Constructor of a scenario; each run signs its webhooks again.
pub(crate) type MakeScenario = fn() -> Result<Scenario>;

/// Scenarios by the names of their functions.
macro_rules! named {
    ($($name:ident),+ $(,)?) => { vec![$((stringify!($name), $name as $crate::table::MakeScenario)),+] };
}
use named;

pub(crate) fn scenarios() -> Vec<(String, MakeScenario)> {
    let subjects = [
        ("end", end::scenarios()),
        ("wire", wire::scenarios()),
        ("disguise", disguise::scenarios()),
        ("dedupe", dedupe::scenarios()),
        ("settle", settle::scenarios()),
        ("exchange", exchange::scenarios()),
        ("outage", outage::scenarios()),
        ("options", options::scenarios()),
        ("recut", recut::scenarios()),
        ("refused", refused::scenarios()),
    ];
    let named = subjects.into_iter().flat_map(|(subject, scenarios)| {
        scenarios.into_iter().map(move |(name, make)| (format!("{subject}/{name}"), make))
    });
    named.collect()
}

/// Three routes and a sidecar.
pub(crate) fn configuration() -> Value {
    json!({
        "origins": [{ "env": "PUBLIC_ORIGIN" }],
        "accounts": [{ "sid": { "env": "TWILIO_ACCOUNT_SID" }, "auth_tokens": [
            { "env": "TWILIO_AUTH_TOKEN" }, { "env": "TWILIO_AUTH_TOKEN_NEXT", "optional": true }] }],
        "routes": [{ "path": INBOUND, "class": "inbound" }, { "path": STATUS, "class": "status", "methods": ["GET", "POST"] },
            { "path": OTHER, "class": "other", "methods": ["GET", "POST"], "bodies": ["form", "hash"] }],
        "sidecar": { "cluster": CLUSTER, "token": { "env": "TWILIO_EDGE_TOKEN" }, "timeout_ms": 500 },
    })
}

/// Without a sidecar.
pub(crate) fn without_sidecar(configuration: &mut Value) {
    if let Some(object) = configuration.as_object_mut() {
        object.remove("sidecar");
    }
}

/// Every route in shadow mode.
pub(crate) fn shadow(configuration: &mut Value) {
    on_every_route(configuration, "mode", json!("shadow"));
}

/// Every route refuses webhooks without a verdict.
pub(crate) fn with_policy_reject(configuration: &mut Value) {
    on_every_route(configuration, "on_unavailable", json!("reject"));
}

pub(crate) fn on_every_route(configuration: &mut Value, field: &str, value: Value) {
    let routes = configuration.get_mut("routes").and_then(Value::as_array_mut);
    for route in routes.into_iter().flatten().filter_map(Value::as_object_mut) {
        route.insert(field.to_owned(), value.clone());
    }
}

impl Scenario {
    /// Creates a scenario with a working sidecar and a backend that answers 200.
    pub(crate) fn new(script: impl Into<Vec<Step>>, check: fn(&Record) -> Result<()>) -> Self {
        let setting = Setting {
            configuration: configuration(),
            claims: Vec::new(),
            settlements: Vec::new(),
            keys: Vec::new(),
            reports: Vec::new(),
            backend: Vec::new(),
            cluster: Some(Cluster::Up),
        };
        Self { setting, script: script.into(), check }
    }

    fn configured(mut self, change: fn(&mut Value)) -> Self {
        change(&mut self.setting.configuration);
        self
    }

    fn claims(mut self, plan: impl Into<Vec<Behaviour>>) -> Self {
        self.setting.claims = plan.into();
        self
    }

    fn settlements(mut self, plan: impl Into<Vec<Behaviour>>) -> Self {
        self.setting.settlements = plan.into();
        self
    }

    fn keys(mut self, plan: impl Into<Vec<Behaviour>>) -> Self {
        self.setting.keys = plan.into();
        self
    }

    fn backend(mut self, plan: impl Into<Vec<Backend>>) -> Self {
        self.setting.backend = plan.into();
        self
    }

    fn cluster(mut self, state: Option<Cluster>) -> Self {
        self.setting.cluster = state;
        self
    }
}

impl Record {
    fn stream(&self, stream: usize) -> Result<&StreamRecord> {
        self.streams.get(stream).with_context(|| format!("there was no stream {stream}"))
    }

    /// Request that the backend received.
    fn forwarded(&self, stream: usize) -> Result<&HttpMessage> {
        let seen = self.stream(stream)?;
        seen.backend.as_ref().with_context(|| format!("stream {stream} never reached the backend"))
    }

    /// Checks that the stream did not reach the backend.
    fn not_forwarded(&self, stream: usize) -> Result<()> {
        let backend = &self.stream(stream)?.backend;
        ensure!(backend.is_none(), "stream {stream} reached the backend: {backend:?}");
        Ok(())
    }

    /// Response that the client received.
    fn answered(&self, stream: usize, status: u16) -> Result<&HttpMessage> {
        let client = self.stream(stream)?.client.as_ref();
        let client =
            client.with_context(|| format!("the client of stream {stream} received nothing"))?;
        ensure!(client.status() == Some(status), "the client received {:?}", client.status());
        Ok(client)
    }

    /// Checks that the client received a refusal for this reason and the backend nothing, and that it was logged and counted.
    fn refused(&self, stream: usize, reason: Reason) -> Result<()> {
        let client = self.answered(stream, reason.status())?;
        let slug = client.header(headers::REASON);
        ensure!(slug.as_deref() == Some(reason.slug()), "the reason is {slug:?}");
        self.not_forwarded(stream)?;
        self.access_logged(stream, reason.slug())?;
        ensure!(self.counter(&format!("rejected.{}", reason.slug())) > 0, "it was not counted");
        ensure!(self.log.iter().any(|line| line.contains(reason.slug())), "it was not logged");
        Ok(())
    }

    /// Verdict for the access log.
    fn access_logged(&self, stream: usize, word: &str) -> Result<()> {
        let access_log = &self.stream(stream)?.access_log;
        ensure!(
            access_log.as_deref() == Some(word),
            "the access log says {access_log:?}, not {word}"
        );
        Ok(())
    }

    fn counter(&self, name: &str) -> u64 {
        self.counters.get(&format!("twilio_edge.{name}")).copied().unwrap_or_default()
    }

    /// Returns the outcomes that the sidecar acknowledged, in order.
    fn outcomes(&self) -> Vec<Outcome> {
        let taken = self.settlements.iter().filter(|settlement| settlement.is_acknowledged());
        taken.map(|settlement| settlement.settlement.outcome).collect()
    }
}

/// The trusted header `name`, without the prefix.
fn trusted(backend: &HttpMessage, name: &str) -> String {
    backend.header(&format!("{}{name}", headers::PREFIX)).unwrap_or_default()
}
