//! Dependencies of a sidecar: its stores, the sinks of accepted webhooks, the archive, Twilio's REST API. Starts them and
//! creates the sidecar's settings for them.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use twilio_edge_demo::account::write_private;

use crate::broker::Broker;
use crate::objects::ObjectStore;
use crate::postgres::Postgres;
use crate::recorder::{Answer, Recorder};
use crate::redis::Redis;
use crate::stack::{Plan, SidecarPlan};
use crate::webhook::{ACCOUNT, fresh_sid};

/// Path at which the application behind Envoy receives the sidecar's deliveries.
pub const DELIVERED: &str = "/delivered";

/// Default topics in Kafka and Redis Streams.
pub const TOPICS: [&str; 2] = ["twilio.inbound.v1", "twilio.status.v1"];

/// A sink of accepted webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// The application behind Envoy, over HTTP.
    App,
    /// Kafka.
    Bus,
    /// The Redis that is a store as well.
    Live,
}

impl Sink {
    /// Returns its name in the sinks file.
    pub fn name(self) -> &'static str {
        match self {
            Sink::App => "app",
            Sink::Bus => "bus",
            Sink::Live => "live",
        }
    }
}

/// The dependencies of one sidecar.
#[derive(Default)]
pub struct Dependencies {
    redis: Option<Redis>,
    postgres: Option<Postgres>,
    kafka: Option<Broker>,
    objects: Option<ObjectStore>,
    twilio: Option<Recorder>,
}

impl Dependencies {
    /// Starts the dependencies of the plan.
    pub async fn start(plan: &Plan, folder: &Path) -> Result<Self> {
        let mut all = Self::default();
        if matches!(plan.sidecar, SidecarPlan::Redis | SidecarPlan::RedisPostgres) {
            all.redis = Some(Redis::start(folder).await?);
        }
        if matches!(plan.sidecar, SidecarPlan::Postgres | SidecarPlan::RedisPostgres) {
            // PostgreSQL's user must be able to enter the folder.
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
            all.postgres = Some(Postgres::start(&folder.join("postgres")).await?);
        }
        if plan.sinks.contains(&Sink::Bus) {
            all.kafka = Some(Broker::start(folder, &TOPICS).await?);
        }
        if plan.archives {
            all.objects = Some(ObjectStore::start(folder).await?);
        }
        if plan.sends {
            let twilio = Recorder::start().await?;
            twilio.usually(Answer::By(queued));
            all.twilio = Some(twilio);
        }
        Ok(all)
    }

    /// Returns the sidecar's settings for them.
    pub fn settings(
        &self,
        plan: &Plan,
        application: SocketAddr,
        folder: &Path,
    ) -> Result<Vec<(String, String)>> {
        let mut settings = Vec::new();
        let mut set = |name: &str, value: String| settings.push((name.to_owned(), value));
        set("REDIS_URL", self.redis.as_ref().map(Redis::url).unwrap_or_default());
        if let Some(postgres) = &self.postgres {
            set("DATABASE_URL", postgres.url());
            set("TWILIO_EDGE_EVENTS_SPOOL_DIR", folder.join("spool").display().to_string());
        }
        let sinks = match plan.sinks_file {
            Some(text) => text.to_owned(),
            None => {
                let sinks = plan.sinks.iter().map(|sink| self.sink(*sink, application));
                sinks.collect::<Result<Vec<_>>>()?.join("\n")
            }
        };
        if !sinks.is_empty() {
            let path = folder.join("sinks.toml");
            write_private(&path, &sinks)?;
            set("TWILIO_EDGE_SINKS_FILE", path.display().to_string());
        }
        for (name, value) in self.objects.iter().flat_map(ObjectStore::settings) {
            set(name, value);
        }
        if let Some(twilio) = &self.twilio {
            let path = folder.join("sending.toml");
            write_private(
                &path,
                &format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_token = \"t\"\n"),
            )?;
            set("TWILIO_EDGE_SENDING_FILE", path.display().to_string());
            set("TWILIO_EDGE_SENDING_BASE_URL", format!("http://{}", twilio.address()));
        }
        Ok(settings)
    }

    fn sink(&self, sink: Sink, application: SocketAddr) -> Result<String> {
        let place = match sink {
            Sink::App => format!("type = \"http\"\nurl = \"http://{application}{DELIVERED}\""),
            Sink::Bus => format!("type = \"kafka\"\nbrokers = [\"{}\"]", self.kafka()?.address()),
            Sink::Live => format!("type = \"redis-stream\"\nurl = \"{}\"", self.redis()?.url()),
        };
        // Retry as soon as the other side is available.
        let name = sink.name();
        Ok(format!(
            "[[sink]]\nname = \"{name}\"\n{place}\ntimeout_ms = 4000\nlongest_pause_ms = 200\n"
        ))
    }

    /// Returns the Redis of the plan.
    pub fn redis(&self) -> Result<&Redis> {
        self.redis.as_ref().context("this stack has no Redis")
    }

    /// Returns the PostgreSQL of the plan.
    pub fn postgres(&self) -> Result<&Postgres> {
        self.postgres.as_ref().context("this stack has no PostgreSQL")
    }

    /// Returns the Kafka broker of the plan.
    pub fn kafka(&self) -> Result<&Broker> {
        self.kafka.as_ref().context("this stack has no Kafka")
    }

    /// Returns the server of the archive.
    pub fn objects(&self) -> Result<&ObjectStore> {
        self.objects.as_ref().context("this stack has no object store")
    }

    /// Returns the server that stands for Twilio's REST API.
    pub fn twilio(&self) -> Result<&Recorder> {
        self.twilio.as_ref().context("this stack has no Twilio")
    }
}

/// Accepts every message, as Twilio does.
fn queued(_: &[u8]) -> Answer {
    let sid = fresh_sid("SM");
    let body = format!("{{\"sid\":\"{sid}\",\"status\":\"queued\"}}");
    Answer::Reply { status: 201, content_type: "application/json", body: body.into_bytes() }
}
