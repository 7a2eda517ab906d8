//! Redis Streams sink: one XADD per delivery, which also trims the stream. Decides the meaning of Redis's errors for a
//! delivery. The durability of an entry depends on Redis's own persistence.

use redis::{
    Client, Cmd, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::sync::OnceCell;

use super::file;
use twilio_edge_domain::delivery::DeliveryOutcome;
use twilio_edge_domain::event::Delivery;

pub(super) struct Streams {
    settings: file::RedisStream,
    client: Client,
    connection: OnceCell<ConnectionManager>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Streams {
    /// Creates the sink without a connection.
    pub(super) fn new(settings: file::RedisStream) -> Result<Streams, String> {
        // The URL may contain a password, so the error does not contain it.
        let client = Client::open(settings.url.as_str());
        let client = client.map_err(|_| "url: no Redis URL".to_owned())?;
        Ok(Streams { settings, client, connection: OnceCell::new() })
    }

    pub(super) async fn deliver(&self, parcel: &Delivery<'_>) -> DeliveryOutcome {
        let event = match serde_json::to_string(&parcel.event) {
            Ok(event) => event,
            Err(error) => return DeliveryOutcome::Refused { reason: error.to_string() },
        };
        let stream = self.settings.streams.of(parcel.event.class());
        let added: Result<String, RedisError> = async {
            let mut connection =
                self.connection.get_or_try_init(|| async { self.open() }).await?.clone();
            self.add(stream, parcel, &event).query_async(&mut connection).await
        }
        .await;
        match added {
            Ok(_) => DeliveryOutcome::Delivered,
            Err(error) => failed(&error, stream),
        }
    }

    fn open(&self) -> Result<ConnectionManager, RedisError> {
        // No retries inside the client, because retries are decided for the whole sink.
        let limits = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.settings.timeout))
            .set_response_timeout(Some(self.settings.timeout))
            .set_number_of_retries(0);
        ConnectionManager::new_lazy_with_config(self.client.clone(), limits)
    }

    fn add(&self, stream: &str, parcel: &Delivery<'_>, event: &str) -> Cmd {
        let mut add = redis::cmd("XADD");
        add.arg(stream);
        match self.settings.max_length {
            file::MaxLength::Any => {}
            file::MaxLength::About(length) => {
                add.arg("MAXLEN").arg("~").arg(length);
            }
            file::MaxLength::Exactly(length) => {
                add.arg("MAXLEN").arg("=").arg(length);
            }
        }
        let is_replay = if parcel.replay_id.is_some() { "true" } else { "false" };
        add.arg("*")
            .arg(&[("event", event), ("key", &parcel.event.key())])
            .arg(&[("event_id", parcel.event.id()), ("delivery_id", &parcel.id)])
            .arg(&[("replay", is_replay)]);
        if let Some(replay_id) = parcel.replay_id {
            add.arg(&[("replay_id", replay_id)]);
        }
        add
    }
}

/// Maps an error to the outcome of its delivery. No error of Redis is about one event: it concerns all events, or all
/// events of this stream.
fn failed(error: &RedisError, stream: &str) -> DeliveryOutcome {
    let (advice, is_outage) = match error.code() {
        Some("WRONGTYPE") => {
            (format!("{stream} is no stream: whoever runs Redis has to move what it is"), false)
        }
        Some("NOPERM") => {
            (format!("whoever runs Redis has to let this user XADD to {stream}"), false)
        }
        Some("NOAUTH" | "WRONGPASS") => {
            ("whoever runs the sidecar has to mend the name and password in `url`".to_owned(), true)
        }
        Some("OOM") => (
            "Redis is full: whoever runs it has to give it room, or the sink a `max_length`"
                .to_owned(),
            true,
        ),
        _ => ("Redis did not take it".to_owned(), true),
    };
    DeliveryOutcome::Failed { reason: format!("{advice}: {error}"), retry_after: None, is_outage }
}
