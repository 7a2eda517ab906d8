//! The scenarios, one file per subject, and the words they are told in.

mod dedupe;
mod disguise;
mod end;
mod options;
mod outage;
mod recut;
mod settle;
mod wire;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::{Outcome, headers};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::host::{Cluster, Passed};
use twilio_edge_wasm_tests::webhook::{INBOUND, OTHER, STATUS};

use crate::sidecar::Does;
use crate::world::{Backend, CLUSTER, Seen, Setting, Step, Story};

/// What the world is and does, and what must be true afterwards.
pub(crate) struct Scenario {
    pub(crate) setting: Setting,
    pub(crate) script: Vec<Step>,
    pub(crate) then: fn(&Story) -> Result<()>,
}

/// How a scenario is made; it signs anew in each run.
pub(crate) type Plot = fn() -> Result<Scenario>;

/// Scenarios by the names of their functions.
macro_rules! told {
    ($($name:ident),+ $(,)?) => { vec![$((stringify!($name), $name as $crate::table::Plot)),+] };
}
use told;

pub(crate) fn scenarios() -> Vec<(String, Plot)> {
    let subjects = [
        ("end", end::scenarios()),
        ("wire", wire::scenarios()),
        ("disguise", disguise::scenarios()),
        ("dedupe", dedupe::scenarios()),
        ("settle", settle::scenarios()),
        ("outage", outage::scenarios()),
        ("options", options::scenarios()),
        ("recut", recut::scenarios()),
    ];
    let named = subjects.into_iter().flat_map(|(subject, scenarios)| {
        scenarios.into_iter().map(move |(name, plot)| (format!("{subject}/{name}"), plot))
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
pub(crate) fn alone(configuration: &mut Value) {
    if let Some(object) = configuration.as_object_mut() {
        object.remove("sidecar");
    }
}

/// Every route in shadow mode.
pub(crate) fn shadow(configuration: &mut Value) {
    on_every_route(configuration, "mode", json!("shadow"));
}

/// What is not verdicted is not forwarded.
pub(crate) fn rejecting(configuration: &mut Value) {
    on_every_route(configuration, "on_unavailable", json!("reject"));
}

pub(crate) fn on_every_route(configuration: &mut Value, field: &str, value: Value) {
    let routes = configuration.get_mut("routes").and_then(Value::as_array_mut);
    for route in routes.into_iter().flatten().filter_map(Value::as_object_mut) {
        route.insert(field.to_owned(), value.clone());
    }
}

impl Scenario {
    /// The usual setting: a sidecar that works, a backend that says 200.
    pub(crate) fn new(script: impl Into<Vec<Step>>, then: fn(&Story) -> Result<()>) -> Self {
        let setting = Setting {
            configuration: configuration(),
            claims: Vec::new(),
            settlements: Vec::new(),
            keys: Vec::new(),
            backend: Vec::new(),
            cluster: Some(Cluster::Up),
        };
        Self { setting, script: script.into(), then }
    }

    fn configured(mut self, change: fn(&mut Value)) -> Self {
        change(&mut self.setting.configuration);
        self
    }

    fn claims(mut self, plan: impl Into<Vec<Does>>) -> Self {
        self.setting.claims = plan.into();
        self
    }

    fn settlements(mut self, plan: impl Into<Vec<Does>>) -> Self {
        self.setting.settlements = plan.into();
        self
    }

    fn keys(mut self, plan: impl Into<Vec<Does>>) -> Self {
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

impl Story {
    fn stream(&self, stream: usize) -> Result<&Seen> {
        self.streams.get(stream).with_context(|| format!("there was no stream {stream}"))
    }

    /// What the backend got.
    fn forwarded(&self, stream: usize) -> Result<&Passed> {
        let seen = self.stream(stream)?;
        seen.backend.as_ref().with_context(|| format!("stream {stream} never reached the backend"))
    }

    /// The backend knows nothing of it.
    fn nothing_reached(&self, stream: usize) -> Result<()> {
        let backend = &self.stream(stream)?.backend;
        ensure!(backend.is_none(), "stream {stream} reached the backend: {backend:?}");
        Ok(())
    }

    /// What the client got.
    fn answered(&self, stream: usize, status: u16) -> Result<&Passed> {
        let client = self.stream(stream)?.client.as_ref();
        let client =
            client.with_context(|| format!("the client of stream {stream} got nothing"))?;
        ensure!(client.status() == Some(status), "the client got {:?}", client.status());
        Ok(client)
    }

    /// The client got a refusal for this reason, and the backend nothing; logged and counted once.
    fn refused(&self, stream: usize, reason: Reason) -> Result<()> {
        let client = self.answered(stream, reason.status())?;
        let slug = client.header(headers::REASON);
        ensure!(slug.as_deref() == Some(reason.slug()), "refused because of {slug:?}");
        self.nothing_reached(stream)?;
        self.noted(stream, reason.slug())?;
        ensure!(self.counted(&format!("rejected.{}", reason.slug())) > 0, "it was not counted");
        ensure!(self.log.iter().any(|line| line.contains(reason.slug())), "it was not logged");
        Ok(())
    }

    /// The word for the access log.
    fn noted(&self, stream: usize, word: &str) -> Result<()> {
        let note = &self.stream(stream)?.note;
        ensure!(note.as_deref() == Some(word), "the access log says {note:?}, not {word}");
        Ok(())
    }

    fn counted(&self, name: &str) -> u64 {
        self.counters.get(&format!("twilio_edge.{name}")).copied().unwrap_or_default()
    }

    /// What the sidecar took, in order.
    fn outcomes(&self) -> Vec<Outcome> {
        let taken = self.told.iter().filter(|told| told.is_acknowledged());
        taken.map(|told| told.settlement.outcome).collect()
    }
}

/// The trusted header `name`, without the prefix.
fn trusted(backend: &Passed, name: &str) -> String {
    backend.header(&format!("{}{name}", headers::PREFIX)).unwrap_or_default()
}
