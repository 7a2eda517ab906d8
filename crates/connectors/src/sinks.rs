//! Sinks: destinations of accepted webhooks and operational events. Reads their configuration, selects the sinks of a route, and makes
//! delivery attempts. This module does not know the outbox, its order, or the retries.
//!
//! Each sink type is one module that implements [`SinkType`], and one line of [`TYPES`]. `status_callbacks.rs` has the
//! built-in sink, which no file names.

mod client;
mod fields;
mod file;
mod http;
mod kafka;
mod pubsub;
mod redis_stream;
mod sink_type;
mod sqs;
mod status_callbacks;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use twilio_edge_domain::{
    delivery::{DeliveryOutcome, RetryPolicy, SinkAnswer},
    event::Delivery,
    operational_event::{EventSubscription, EventSubscriptions},
    pace::Pace,
    sink_filter::SinkFilter,
    webhook::Webhook,
};
use twilio_edge_platform::file_access;

use self::sink_type::OpenSink;
pub use self::{
    sink_type::{Field, Registration, SinkType},
    status_callbacks::{AuthTokenLookup, AuthTokens},
};

/// Registry of the sink types that a sinks file can name.
pub const TYPES: &[Registration] = &[
    Registration::of::<http::Endpoint>(),
    Registration::of::<kafka::Cluster>(),
    Registration::of::<redis_stream::Streams>(),
    Registration::of::<sqs::Queue>(),
    Registration::of::<pubsub::Topic>(),
];

/// All sinks of a sidecar. Copies share them.
#[derive(Debug, Clone, Default)]
pub struct Sinks {
    all: Arc<[Sink]>,
}

/// One sink.
#[derive(Debug)]
pub struct Sink {
    name: String,
    type_name: &'static str,
    filter: SinkFilter,
    retry_policy: RetryPolicy,
    concurrency: usize,
    attempt_timeout: Duration,
    pace: Option<SinkPace>,
    open: Box<dyn OpenSink>,
}

/// Pace of the deliveries of one sink; times are since `began`.
#[derive(Debug)]
struct SinkPace {
    began: Instant,
    pace: Mutex<Pace>,
}

/// Returns every problem of a sinks file, or the weak secrets of a valid file unless `is_demo`.
pub fn problems(path: &str, is_demo: bool) -> Vec<String> {
    let settings = match read(path, TYPES) {
        Ok(settings) => settings,
        Err(problems) => return problems,
    };
    let weak = |sink: &file::Settings| {
        let problem = sink.parsed.weak_secret()?;
        Some(format!("sink {:?}: {problem}", sink.name))
    };
    let weak: Vec<String> =
        if is_demo { Vec::new() } else { settings.iter().filter_map(weak).collect() };
    match Sinks::open(settings) {
        Ok(_) => weak,
        Err(problems) => problems,
    }
}

/// Returns the log targets of client libraries that are off unless `log.level` enables them. The error of a delivery
/// is logged as an event.
pub fn quiet_log_targets() -> impl Iterator<Item = &'static str> {
    TYPES.iter().flat_map(|sink_type| sink_type.quiet_log_targets).copied()
}

/// Describes the sink types and the fields of the sinks file as Markdown tables.
pub fn reference() -> String {
    file::reference(TYPES)
}

/// Reads the subscriptions of a sinks file to operational events. Opens no sink.
///
/// # Errors
/// Returns every problem of the file.
pub fn subscriptions(path: &str) -> Result<EventSubscriptions, Vec<String>> {
    let settings = read(path, TYPES)?;
    Ok(EventSubscriptions::of(settings.into_iter().map(|sink| EventSubscription {
        sink: sink.name,
        patterns: sink.events,
        filter: sink.filter,
    })))
}

fn read(path: &str, types: &[Registration]) -> Result<Vec<file::Settings>, Vec<String>> {
    let text = file_access::read_secret(path.as_ref()).map_err(|problem| vec![problem])?;
    file::parse(&text, types)
}

impl Sinks {
    /// Reads a sinks file and opens its sinks.
    ///
    /// # Errors
    /// Returns every problem of the file.
    pub fn read(path: &str) -> Result<Sinks, Vec<String>> {
        Sinks::read_with(path, TYPES)
    }

    /// Reads a sinks file that can name these types, and opens its sinks.
    ///
    /// # Errors
    /// Returns every problem of the file.
    pub fn read_with(path: &str, types: &[Registration]) -> Result<Sinks, Vec<String>> {
        Sinks::open(read(path, types)?)
    }

    fn open(settings: Vec<file::Settings>) -> Result<Sinks, Vec<String>> {
        // The TLS provider of all sinks. This fails if a provider is installed already; that provider is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sinks: Result<Vec<Sink>, String> = settings.into_iter().map(Sink::open).collect();
        Ok(Sinks { all: sinks.map_err(|problem| vec![problem])?.into() })
    }

    /// Iterates over the sinks.
    pub fn iter(&self) -> impl Iterator<Item = &Sink> {
        self.all.iter()
    }

    /// Returns the names of the sinks whose filter admits this webhook.
    pub fn of<'a>(&'a self, webhook: &'a Webhook) -> impl Iterator<Item = &'a str> {
        let receives = |sink: &&Sink| sink.filter.admits(webhook);
        self.all.iter().filter(receives).map(|sink| sink.name.as_str())
    }

    /// Returns the sink of this name.
    pub fn get(&self, name: &str) -> Option<&Sink> {
        self.all.iter().find(|sink| sink.name == name)
    }
}

impl Sink {
    fn open(settings: file::Settings) -> Result<Sink, String> {
        let file::Settings { name, type_name, filter, .. } = settings;
        let open = settings.parsed.open(settings.timeout);
        let open = open.map_err(|problem| format!("sink {name}: {problem}"))?;
        Ok(Sink {
            name,
            type_name,
            filter,
            retry_policy: settings.retry_policy,
            concurrency: settings.concurrency,
            // Connecting and the answer have one timeout each.
            attempt_timeout: 2 * settings.timeout,
            pace: settings.requests_per_second.map(|per_second| SinkPace {
                began: Instant::now(),
                pace: Mutex::new(Pace::new(per_second)),
            }),
            open,
        })
    }

    /// Name in metrics, logs and commands.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Value of `type` in the sinks file.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Retry policy of its deliveries.
    pub fn retry_policy(&self) -> &RetryPolicy {
        &self.retry_policy
    }

    /// Number of lanes that one sidecar delivers concurrently.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Time limit of one delivery attempt; a longer attempt has failed.
    pub fn attempt_timeout(&self) -> Duration {
        self.attempt_timeout
    }

    /// Number of deliveries that may start within one second.
    pub fn available_starts(&self) -> usize {
        self.pace.as_ref().map_or(usize::MAX, |own| own.with(|pace, now| pace.available(now)))
    }

    /// Waits for the start of one delivery, as `requests_per_second` requires. Returns false at once if the wait would be
    /// longer than one second.
    pub async fn wait_for_start(&self) -> bool {
        let Some(own) = &self.pace else { return true };
        match own.with(Pace::reserve) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                true
            }
            None => false,
        }
    }

    /// Makes one attempt to deliver one event, and measures it.
    pub async fn deliver(&self, delivery: &Delivery<'_>) -> SinkAnswer {
        let began = Instant::now();
        let attempt = tokio::time::timeout(self.attempt_timeout, self.open.deliver(delivery));
        let answer = attempt.await.unwrap_or_else(|_| {
            let reason = "the sink did not answer in time".into();
            DeliveryOutcome::Failed { reason, retry_after: None, is_outage: true }.into()
        });
        SinkAnswer { latency: began.elapsed(), ..answer }
    }
}

impl SinkPace {
    fn with<T>(&self, act: impl FnOnce(&mut Pace, Duration) -> T) -> T {
        act(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner), self.began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sink_types_are_documented() {
        let document = include_str!("../../../docs/DELIVERY.md");
        assert!(document.contains(&reference()), "print it with `twilio-edge reference sinks`");
    }

    #[test]
    fn sink_types_and_their_fields_have_unambiguous_names() {
        let mut names: Vec<&str> = TYPES.iter().map(|sink_type| sink_type.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TYPES.len(), "two types have the same name");
        for sink_type in TYPES {
            let own = sink_type.fields.iter().map(|field| field.name);
            let common = own.filter(|name| file::common_fields().any(|field| field.name == *name));
            assert_eq!(common.collect::<Vec<_>>(), [""; 0], "{}", sink_type.name);
        }
    }
}
