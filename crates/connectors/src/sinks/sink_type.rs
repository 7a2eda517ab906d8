//! The interface of a sink type, and its registration. Erases the type, so that the sinks file, the delivery workers and the
//! documents treat all types alike. Knows no sink type.

use std::{fmt::Debug, pin::Pin, time::Duration};

use twilio_edge_domain::{delivery::SinkAnswer, event::Delivery};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// A type of sinks. A value is one open sink.
pub trait SinkType: Debug + Send + Sync + Sized + 'static {
    /// Value of `type` in the sinks file.
    const NAME: &'static str;
    /// Destination of the deliveries, for the documents.
    const DESTINATION: &'static str;
    /// Fields of the sinks file that sinks of this type have in addition to the common ones.
    const FIELDS: &'static [Field];
    /// Log targets of a client library that are off unless `log.level` enables them.
    const QUIET_LOG_TARGETS: &'static [&'static str] = &[];

    /// Parsed values of `FIELDS`. The output of `Debug` must not contain secrets.
    type Settings: Debug + 'static;

    /// Parses the values of `FIELDS`. Reports every problem to `reading`, under `path`, and without the value.
    fn parse(reading: &mut TomlReader, path: &str, fields: Fields<'_>) -> Self::Settings;

    /// Returns the first secret that can be guessed, with the reason. `serve` refuses it unless `demo` is set.
    fn weak_secret(_settings: &Self::Settings) -> Option<String> {
        None
    }

    /// Opens the sink. Makes no connection, because the destination may be unavailable at any time. `timeout` limits
    /// connecting and the answer, each.
    ///
    /// # Errors
    /// Returns the problem if the settings cannot work, for instance if a file does not exist.
    fn open(settings: Self::Settings, timeout: Duration) -> Result<Self, String>;

    /// Makes one attempt to deliver one event, and classifies the result. The caller measures the latency, decides about retries, and cancels
    /// an attempt that takes longer than twice the `timeout`.
    fn deliver(&self, delivery: &Delivery<'_>) -> impl Future<Output = SinkAnswer> + Send;
}

/// Field of the sinks file.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Name in the file.
    pub name: &'static str,
    /// Meaning, range and default, for the documents.
    pub meaning: &'static str,
}

/// Entry of the registry: one sink type.
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    pub(super) name: &'static str,
    pub(super) destination: &'static str,
    pub(super) fields: &'static [Field],
    pub(super) quiet_log_targets: &'static [&'static str],
    pub(super) parse: fn(&mut TomlReader, &str, Fields<'_>) -> Box<dyn ParsedSink>,
}

impl Registration {
    /// Describes a sink type.
    pub const fn of<T: SinkType>() -> Registration {
        Registration {
            name: T::NAME,
            destination: T::DESTINATION,
            fields: T::FIELDS,
            quiet_log_targets: T::QUIET_LOG_TARGETS,
            parse: |reading, path, fields| {
                Box::new(Parsed::<T> { settings: T::parse(reading, path, fields) })
            },
        }
    }
}

/// Settings of one sink of any type.
pub(super) trait ParsedSink: Debug {
    fn weak_secret(&self) -> Option<String>;

    fn open(self: Box<Self>, timeout: Duration) -> Result<Box<dyn OpenSink>, String>;
}

/// Open sink of any type.
pub(super) trait OpenSink: Debug + Send + Sync {
    fn deliver<'a>(
        &'a self,
        delivery: &'a Delivery<'_>,
    ) -> Pin<Box<dyn Future<Output = SinkAnswer> + Send + 'a>>;
}

#[derive(Debug)]
struct Parsed<T: SinkType> {
    settings: T::Settings,
}

impl<T: SinkType> ParsedSink for Parsed<T> {
    fn weak_secret(&self) -> Option<String> {
        T::weak_secret(&self.settings)
    }

    fn open(self: Box<Self>, timeout: Duration) -> Result<Box<dyn OpenSink>, String> {
        Ok(Box::new(T::open(self.settings, timeout)?))
    }
}

impl<T: SinkType> OpenSink for T {
    fn deliver<'a>(
        &'a self,
        delivery: &'a Delivery<'_>,
    ) -> Pin<Box<dyn Future<Output = SinkAnswer> + Send + 'a>> {
        Box::pin(SinkType::deliver(self, delivery))
    }
}

/// Parses the fields of one sink, without the common ones.
#[cfg(test)]
pub(super) fn settings_of<T: SinkType>(text: &str) -> Result<T::Settings, Vec<String>> {
    let value = toml::Value::Table(text.parse().unwrap());
    let names: Vec<&str> = T::FIELDS.iter().map(|field| field.name).collect();
    let mut reading = TomlReader::default();
    let fields = reading.table("sink[0]", &value, &names);
    let settings = T::parse(&mut reading, "sink[0]", fields);
    reading.outcome(settings)
}
