//! All parts of an edge as in production, each in a separate process that can be killed and paused.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex as Lock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Mutex;
use twilio_edge_demo::account::write_private;
use twilio_edge_demo::{BACKEND_CLUSTER, EnvoyConfig, SIDECAR_CLUSTER};
use twilio_edge_wasm_tests::application::Application;
use twilio_edge_wasm_tests::broker::Broker;
use twilio_edge_wasm_tests::envoy::{Envoy, Make, Version};
use twilio_edge_wasm_tests::postgres::Postgres;
use twilio_edge_wasm_tests::process::{free_port, tail};
use twilio_edge_wasm_tests::redis::{Memory, Redis};
use twilio_edge_wasm_tests::repository;
use twilio_edge_wasm_tests::sidecar::Sidecar;
use twilio_edge_wasm_tests::stack::{EDGE_TOKEN, environment};

use crate::plan::{Disaster, FORWARDED_INBOUND, FORWARDED_STATUS, Harm, LONGEST_PAUSE_MS, Part};

pub(crate) const TOPICS: [&str; 2] = ["twilio.inbound.v1", "twilio.status.v1"];

const DATABASE_TIMEOUT_MS: u64 = 1500;
const REQUEST_TIMEOUT_MS: u64 = 5000;

/// Longest time from the timestamp of a settlement until it is in effect: its request may be slow, and be paused.
pub(crate) const SLACK: Duration =
    Duration::from_millis(REQUEST_TIMEOUT_MS + LONGEST_PAUSE_MS + 500);

/// Something that was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) part: Part,
    pub(crate) harm: Harm,
    pub(crate) at_ms: i64,
}

pub(crate) struct Stage {
    pub(crate) edge: Envoy,
    sidecars: [Sidecar; 2],
    leases: Redis,
    pub(crate) postgres: Postgres,
    pub(crate) application: Application,
    pub(crate) broker: Broker,
    pub(crate) streams: Redis,
    pub(crate) backend: Application,
    /// A part has at most one fault at a time.
    turns: [Mutex<()>; Part::ALL.len()],
    done: Lock<Vec<Done>>,
    folder: TempDir,
}

impl Stage {
    pub(crate) async fn set() -> Result<Self> {
        let folder = TempDir::with_prefix("twilio-edge-chaos-")?;
        let at = |name: &str| folder.path().join(name);
        // PostgreSQL's user has to get through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open)?;
        let postgres = Postgres::start(&at("postgres")).await?;
        let leases = Redis::start_with(&at("leases"), Memory::Nothing).await?;
        let streams = Redis::start_with(&at("streams"), Memory::Everything).await?;
        let broker = Broker::start(&at("broker"), &TOPICS).await?;
        let this = std::env::current_exe()?;
        let application = Application::start(&this, &at("application")).await?;
        let backend = Application::start(&this, &at("backend")).await?;
        let sinks = at("sinks.toml");
        write_private(&sinks, &sinks_file(&application, &broker, &streams))?;
        let sidecar = async |name: &str| {
            let folder = at(name);
            std::fs::create_dir_all(&folder)?;
            let environment = [
                ("TWILIO_EDGE_TOKEN", EDGE_TOKEN.to_owned()),
                ("DATABASE_URL", postgres.url()),
                ("REDIS_URL", leases.url()),
                ("TWILIO_EDGE_SINKS_FILE", sinks.display().to_string()),
                ("TWILIO_EDGE_EVENTS_SPOOL_DIR", folder.join("spool").display().to_string()),
                ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", DATABASE_TIMEOUT_MS.to_string()),
                // It may be started again before PostgreSQL is.
                ("TWILIO_EDGE_DATABASE_CONNECT_TIMEOUT_MS", "25000".to_owned()),
                ("TWILIO_EDGE_HTTP_REQUEST_TIMEOUT_MS", REQUEST_TIMEOUT_MS.to_string()),
                // Leases of a killed Envoy end soon.
                ("TWILIO_EDGE_LEASES_PERIOD_MS", "6000".to_owned()),
            ];
            let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
            Sidecar::start(address, environment, &folder).await
        };
        let sidecars = [sidecar("sidecar-1").await?, sidecar("sidecar-2").await?];
        let config = edge_config(backend.address(), sidecars.each_ref().map(Sidecar::address))?;
        let make = Make { version: Version::Newest, pushed: false, trap_in: None };
        let edge = Envoy::start(make, config, environment(), folder.path()).await?;
        Ok(Self {
            edge,
            sidecars,
            leases,
            postgres,
            application,
            broker,
            streams,
            backend,
            turns: Default::default(),
            done: Lock::default(),
            folder,
        })
    }

    /// Lets it happen, and waits until the part is as it was.
    pub(crate) async fn suffer(&self, disaster: Disaster) -> Result<()> {
        let Disaster { part, harm, for_ms, .. } = disaster;
        let turn = self.turns.iter().zip(Part::ALL).find(|(_, of)| *of == part);
        let _turn = turn.context("a part without a turn")?.0.lock().await;
        let note = Done { part, harm, at_ms: now_ms() };
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(note);
        let what = || format!("{} {harm:?}", part.name());
        match harm {
            Harm::Killed => self.kill(part).await.with_context(what)?,
            Harm::Paused => self.signal(part, Signal::STOP).await.with_context(what)?,
            Harm::Cut => self.broker.line().cut().await,
        }
        tokio::time::sleep(Duration::from_millis(for_ms)).await;
        match harm {
            Harm::Killed => self.restart(part).await.with_context(what),
            Harm::Paused => self.signal(part, Signal::CONT).await.with_context(what),
            Harm::Cut => self.broker.line().mend().await,
        }
    }

    /// Faults so far.
    pub(crate) fn done(&self) -> Vec<Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails if a process ended without being killed, or if the filter trapped.
    pub(crate) async fn judge(&self) -> Result<()> {
        for sidecar in &self.sidecars {
            sidecar.check_alive().await?;
        }
        self.edge.check_no_trap().await
    }

    /// The ends of all logs, and where all of them are, which stay.
    pub(crate) fn keep_logs(self) -> (String, PathBuf) {
        let logs = ["sidecar-1/sidecar", "sidecar-2/sidecar", "postgres/postgres"].map(|name| {
            let end = tail(&self.folder.path().join(format!("{name}.log")), 8);
            format!("--- {name}\n{end}\n")
        });
        (logs.concat(), self.folder.keep())
    }

    async fn kill(&self, part: Part) -> Result<()> {
        match part {
            Part::Edge => self.edge.kill().await,
            Part::FirstSidecar | Part::SecondSidecar => self.sidecar(part)?.kill().await,
            Part::Leases => self.leases.kill().await,
            Part::Postgres => self.postgres.kill().await,
            Part::Application => self.application.kill().await,
            Part::Broker => anyhow::bail!("the broker would forget"),
            Part::Streams => self.streams.kill().await,
            Part::Backend => self.backend.kill().await,
        }
    }

    async fn restart(&self, part: Part) -> Result<()> {
        match part {
            Part::Edge => self.edge.restart().await,
            Part::FirstSidecar | Part::SecondSidecar => self.sidecar(part)?.restart().await,
            Part::Leases => self.leases.restart().await,
            Part::Postgres => self.postgres.restart().await,
            Part::Application => self.application.restart().await,
            Part::Broker => Ok(()),
            Part::Streams => self.streams.restart().await,
            Part::Backend => self.backend.restart().await,
        }
    }

    async fn signal(&self, part: Part, signal: Signal) -> Result<()> {
        match part {
            Part::Edge => self.edge.signal(signal).await,
            Part::FirstSidecar | Part::SecondSidecar => self.sidecar(part)?.signal(signal).await,
            Part::Leases => self.leases.signal(signal).await,
            Part::Postgres => self.postgres.signal(signal).await,
            Part::Application => self.application.signal(signal).await,
            Part::Broker => self.broker.signal(signal).await,
            Part::Streams => self.streams.signal(signal).await,
            Part::Backend => self.backend.signal(signal).await,
        }
    }

    fn sidecar(&self, part: Part) -> Result<&Sidecar> {
        let [first, second] = &self.sidecars;
        match part {
            Part::FirstSidecar => Ok(first),
            Part::SecondSidecar => Ok(second),
            _ => anyhow::bail!("{} is no sidecar", part.name()),
        }
    }
}

/// Milliseconds since 1970, from the clock of the sidecars.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn sinks_file(application: &Application, broker: &Broker, streams: &Redis) -> String {
    let common = "timeout_ms = 3000\nlongest_pause_ms = 500\n";
    format!(
        "[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"http://{}/events\"\n{common}\n\
         [[sink]]\nname = \"bus\"\ntype = \"kafka\"\nbrokers = [\"{}\"]\n{common}\n\
         [[sink]]\nname = \"live\"\ntype = \"redis-stream\"\nurl = \"{}\"\n{common}\n",
        application.address(),
        broker.address(),
        streams.url()
    )
}

/// The shipped configuration with two sidecars, whose webhooks are accepted, and two routes more, which are forwarded.
fn edge_config(backend: SocketAddr, sidecars: [SocketAddr; 2]) -> Result<EnvoyConfig> {
    let mut config = EnvoyConfig::load(&repository().join("envoy/envoy.yaml"))?;
    let [first, second] = sidecars;
    config.set_cluster(BACKEND_CLUSTER, backend)?;
    config.set_cluster(SIDECAR_CLUSTER, first)?;
    let clusters = config.bootstrap["static_resources"]["clusters"].as_array_mut();
    let clusters = clusters.context("clusters")?.iter_mut();
    let mut asked = clusters.filter(|cluster| cluster["name"] == SIDECAR_CLUSTER);
    let endpoints = "/load_assignment/endpoints/0/lb_endpoints";
    let endpoints = asked.next().and_then(|cluster| cluster.pointer_mut(endpoints));
    let socket = json!({ "address": second.ip().to_string(), "port_value": second.port() });
    endpoints
        .and_then(serde_json::Value::as_array_mut)
        .context("the sidecar's endpoints")?
        .push(json!({ "endpoint": { "address": { "socket_address": socket } } }));
    config.routes()?.insert(
        0,
        json!({ "match": { "prefix": "/forwarded/" },
                "route": { "cluster": BACKEND_CLUSTER, "timeout": "14s" } }),
    );
    config.plugin["origins"] = json!([{ "env": "PUBLIC_ORIGIN" }]);
    config.plugin["sidecar"]["timeout_ms"] = json!(2000);
    let routes = config.plugin["routes"].as_array_mut().context("routes")?;
    for route in routes.iter_mut().filter(|route| route["class"] != "other") {
        route["delivery"] = "accept".into();
        route["on_unavailable"] = "reject".into();
    }
    for (path, class, policy) in
        [(FORWARDED_INBOUND, "inbound", "forward"), (FORWARDED_STATUS, "status", "reject")]
    {
        routes.push(json!({ "path": path, "class": class, "on_unavailable": policy }));
    }
    Ok(config)
}
