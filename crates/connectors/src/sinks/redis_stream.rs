//! Redis Streams sink: one XADD per delivery, which also trims the stream. Decides the meaning of Redis's errors for a
//! delivery. The durability of an entry depends on Redis's own persistence.

mod settings;

use std::time::Duration;

use redis::{
    Client, Cmd, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::sync::OnceCell;

use self::settings::{MaxLength, Settings};
use super::sink_type::{Field, SinkType};
use twilio_edge_domain::delivery::{DeliveryOutcome, SinkAnswer};
use twilio_edge_domain::event::Delivery;
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

pub(super) struct Streams {
    settings: Settings,
    timeout: Duration,
    client: Client,
    connection: OnceCell<ConnectionManager>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl SinkType for Streams {
    const NAME: &'static str = "redis-stream";
    const DESTINATION: &'static str = "stream of a Redis: one `XADD` for each delivery";
    const FIELDS: &'static [Field] = settings::FIELDS;

    type Settings = Settings;

    fn parse(reading: &mut TomlReader, path: &str, fields: Fields<'_>) -> Settings {
        settings::parse(reading, path, fields)
    }

    fn open(settings: Settings, timeout: Duration) -> Result<Streams, String> {
        // The URL may contain a password, so the error does not contain it.
        let client = Client::open(settings.url.as_str());
        let client = client.map_err(|_| "url: not a Redis URL".to_owned())?;
        Ok(Streams { settings, timeout, client, connection: OnceCell::new() })
    }

    async fn deliver(&self, delivery: &Delivery<'_>) -> SinkAnswer {
        let event = match serde_json::to_string(&delivery.event) {
            Ok(event) => event,
            Err(error) => return DeliveryOutcome::Refused { reason: error.to_string() }.into(),
        };
        let stream = self.settings.streams.of(delivery.event.kind());
        let added: Result<String, RedisError> = async {
            let mut connection =
                self.connection.get_or_try_init(|| async { self.connection() }).await?.clone();
            self.add(stream, delivery, &event).query_async(&mut connection).await
        }
        .await;
        let outcome = match added {
            Ok(_) => DeliveryOutcome::Delivered,
            Err(error) => failed(&error, stream),
        };
        outcome.into()
    }
}

impl Streams {
    fn connection(&self) -> Result<ConnectionManager, RedisError> {
        // No retries inside the client, because retries are decided for the whole sink.
        let limits = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_number_of_retries(0);
        ConnectionManager::new_lazy_with_config(self.client.clone(), limits)
    }

    fn add(&self, stream: &str, delivery: &Delivery<'_>, event: &str) -> Cmd {
        let mut add = redis::cmd("XADD");
        add.arg(stream);
        match self.settings.max_length {
            MaxLength::Unlimited => {}
            MaxLength::Approximate(length) => {
                add.arg("MAXLEN").arg("~").arg(length);
            }
            MaxLength::Exact(length) => {
                add.arg("MAXLEN").arg("=").arg(length);
            }
        }
        let is_replay = if delivery.replay_id.is_some() { "true" } else { "false" };
        add.arg("*")
            .arg(&[("event", event), ("key", &delivery.event.key())])
            .arg(&[("event_id", delivery.event.id()), ("delivery_id", &delivery.id)])
            .arg(&[("replay", is_replay)]);
        if let Some(replay_id) = delivery.replay_id {
            add.arg(&[("replay_id", replay_id)]);
        }
        if delivery.event.is_test() {
            add.arg(&[("test", "true")]);
        }
        add
    }
}

/// Maps an error to the outcome of its delivery. No error of Redis is about one event: it concerns all events, or all
/// events of this stream.
fn failed(error: &RedisError, stream: &str) -> DeliveryOutcome {
    let (advice, is_outage) = match error.code() {
        Some("WRONGTYPE") => {
            (format!("the key {stream} is not a stream: the operator of Redis has to rename or delete it"), false)
        }
        Some("NOPERM") => {
            (format!("the operator of Redis has to permit XADD to {stream} for this user"), false)
        }
        Some("NOAUTH" | "WRONGPASS") => {
            ("the operator of the sidecar has to correct the name and password in `url`".to_owned(), true)
        }
        Some("OOM") => (
            "Redis is full: its operator has to add memory, or the operator of the sidecar has to set `max_length`"
                .to_owned(),
            true,
        ),
        _ => ("Redis did not add the entry".to_owned(), true),
    };
    DeliveryOutcome::Failed { reason: format!("{advice}: {error}"), retry_after: None, is_outage }
}
