//! Sinks: destinations of accepted webhooks. Reads their configuration, selects the sinks of a route, and makes
//! delivery attempts. This module does not know the outbox, its order, or the retries.

mod file;
mod http;
mod kafka;
mod redis_stream;

use std::{sync::Arc, time::Duration};

use twilio_edge_contract::Class;

use self::file::Kind;
pub use self::file::Sink as Settings;
use twilio_edge_domain::{
    delivery::{DeliveryOutcome, RetryPolicy},
    event::Delivery,
    secret,
};

/// All sinks of a sidecar. Copies share them.
#[derive(Debug, Clone, Default)]
pub struct Sinks {
    all: Arc<[Sink]>,
}

/// One sink.
#[derive(Debug)]
pub struct Sink {
    name: String,
    routes: Vec<String>,
    classes: Vec<Class>,
    patience: RetryPolicy,
    concurrency: usize,
    longest_try: Duration,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Http(http::Endpoint),
    Kafka(Box<kafka::Cluster>),
    RedisStream(Box<redis_stream::Streams>),
}

/// Returns every problem of a sinks file, or the weak secrets of a valid file unless `is_demo`.
pub fn problems(path: &str, is_demo: bool) -> Vec<String> {
    match Sinks::read(path) {
        Ok(_) if is_demo => Vec::new(),
        Ok(sinks) => sinks.iter().filter_map(Sink::weakness).collect(),
        Err(problems) => problems,
    }
}

impl Sink {
    /// Returns the first secret that is too weak, with the reason.
    fn weakness(&self) -> Option<String> {
        let Way::Http(endpoint) = &self.way else { return None };
        let mut weak = endpoint.secrets().iter().map(|key| secret::weakness_of_key(key));
        let (n, why) = weak.by_ref().enumerate().find_map(|(n, why)| Some((n, why?)))?;
        Some(format!("sink {:?}: secrets[{n}]: {why}", self.name))
    }
}

impl Sinks {
    /// Reads a sinks file. Returns every problem of the file.
    pub fn read(path: &str) -> Result<Sinks, Vec<String>> {
        let text = twilio_edge_platform::file_access::read_secret(path.as_ref())
            .map_err(|problem| vec![problem])?;
        let settings = file::parse(&text)?;
        // The TLS provider of all sinks. This fails if a provider is installed already; that provider is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sinks: Result<Vec<Sink>, String> = settings.into_iter().map(Sink::new).collect();
        Ok(Sinks { all: sinks.map_err(|problem| vec![problem])?.into() })
    }

    /// Iterates over the sinks.
    pub fn iter(&self) -> impl Iterator<Item = &Sink> {
        self.all.iter()
    }

    /// Returns the names of the sinks that receive webhooks of this class on this route.
    pub fn of<'a>(&'a self, route: &'a str, class: Class) -> impl Iterator<Item = &'a str> {
        let gets = move |sink: &&Sink| sink.has_route(route) && sink.has_class(class);
        self.all.iter().filter(gets).map(|sink| sink.name.as_str())
    }

    /// Returns the sink of this name.
    pub fn get(&self, name: &str) -> Option<&Sink> {
        self.all.iter().find(|sink| sink.name == name)
    }
}

impl Sink {
    fn new(settings: Settings) -> Result<Sink, String> {
        let Settings { name, routes, classes, patience, concurrency, kind } = settings;
        // Connecting and the answer have one timeout each.
        let longest_try = 2 * match &kind {
            Kind::Http(settings) => settings.timeout,
            Kind::Kafka(settings) => settings.timeout,
            Kind::RedisStream(settings) => settings.timeout,
        };
        let way = match kind {
            Kind::Http(settings) => http::Endpoint::new(settings).map(Way::Http),
            Kind::Kafka(settings) => {
                kafka::Cluster::new(settings).map(|cluster| Way::Kafka(Box::new(cluster)))
            }
            Kind::RedisStream(settings) => redis_stream::Streams::new(settings)
                .map(|streams| Way::RedisStream(Box::new(streams))),
        };
        let way = way.map_err(|problem| format!("sink {name}: {problem}"))?;
        Ok(Sink { name, routes, classes, patience, concurrency, longest_try, way })
    }

    /// Name in metrics, logs and commands.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Retry policy of its deliveries.
    pub fn patience(&self) -> &RetryPolicy {
        &self.patience
    }

    /// Number of lanes that one sidecar delivers concurrently.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Time limit of one delivery attempt; a longer attempt has failed.
    pub fn longest_try(&self) -> Duration {
        self.longest_try
    }

    fn has_route(&self, route: &str) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|own| own == route)
    }

    fn has_class(&self, class: Class) -> bool {
        self.classes.is_empty() || self.classes.contains(&class)
    }

    /// Makes one attempt to deliver one event.
    pub async fn deliver(&self, parcel: &Delivery<'_>) -> DeliveryOutcome {
        let tried = async {
            match &self.way {
                Way::Http(endpoint) => endpoint.deliver(parcel).await,
                Way::Kafka(cluster) => cluster.deliver(parcel).await,
                Way::RedisStream(streams) => streams.deliver(parcel).await,
            }
        };
        let tried = tokio::time::timeout(self.longest_try, tried).await;
        tried.unwrap_or_else(|_| DeliveryOutcome::Failed {
            reason: "it did not answer in time".into(),
            retry_after: None,
            is_outage: true,
        })
    }
}
