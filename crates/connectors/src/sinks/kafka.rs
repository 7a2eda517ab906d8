//! Kafka sink: one record per delivery. The record key is the contact's number, so that all records of a contact are in one
//! partition of their topic; it is the id of the message or object if no contact is known. A delivery is done when every in-sync replica has the record
//! (`acks=all`, idempotent producer). Decides the meaning of the brokers' errors for a delivery. The operators of the
//! brokers create topics and grant permissions.

mod settings;

use std::{sync::Arc, time::Duration};

use krafka::{
    Kafka, KrafkaError, Record,
    auth::{AuthConfig, TlsConfig},
    error::ErrorCode,
    producer::{Acks, Producer},
};
use tokio::{sync::Mutex, time::timeout};

use self::settings::{Mechanism, Sasl, Settings};
use super::sink_type::{Field, SinkType};
use twilio_edge_domain::delivery::{DeliveryOutcome, SinkAnswer};
use twilio_edge_domain::event::Delivery;
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Interval at which certificates are read again; they are renewed while the sidecar runs.
const CERTIFICATE_RELOAD: Duration = Duration::from_secs(300);

/// Time limit of connecting to one broker, within the time limit of the delivery.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Cluster {
    settings: Settings,
    /// Time limit of a delivery, until the brokers have acknowledged the record.
    timeout: Duration,
    /// `None` before the first delivery, and after an error that a producer cannot recover from.
    producer: Mutex<Option<Arc<Producer>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl SinkType for Cluster {
    const NAME: &'static str = "kafka";
    const DESTINATION: &'static str =
        "Kafka cluster: one record for each delivery, acknowledged by every in-sync replica";
    const FIELDS: &'static [Field] = settings::FIELDS;
    const QUIET_LOG_TARGETS: &'static [&'static str] = &["krafka"];

    type Settings = Settings;

    fn parse(reading: &mut TomlReader, path: &str, fields: Fields<'_>) -> Settings {
        settings::parse(reading, path, fields)
    }

    /// Checks that the configured files exist.
    fn open(settings: Settings, timeout: Duration) -> Result<Cluster, String> {
        if let Some(tls) = &settings.tls {
            tls.check_files()?;
        }
        Ok(Cluster { settings, timeout, producer: Mutex::default() })
    }

    async fn deliver(&self, delivery: &Delivery<'_>) -> SinkAnswer {
        self.produce(delivery).await.into()
    }
}

impl Cluster {
    async fn produce(&self, delivery: &Delivery<'_>) -> DeliveryOutcome {
        let value = match serde_json::to_vec(&delivery.event) {
            Ok(value) => value,
            Err(error) => return DeliveryOutcome::Refused { reason: error.to_string() },
        };
        let topic = self.settings.topics.of(delivery.event.kind());
        let is_replay = if delivery.replay_id.is_some() { "true" } else { "false" };
        let mut record = Record::new(topic, value)
            .key(delivery.event.key())
            .header("webhook-id", delivery.id.clone())
            .header("x-twilio-edge-replay", is_replay);
        if let Some(replay_id) = delivery.replay_id {
            record = record.header("x-twilio-edge-replay-id", replay_id.to_owned());
        }
        if delivery.event.is_test() {
            record = record.header("x-twilio-edge-test", "true");
        }
        let producer = match timeout(self.timeout, self.producer()).await {
            Ok(Ok(producer)) => producer,
            Ok(Err(error)) => return failed(&error, topic),
            Err(_) => return outage("no broker answered in time".into()),
        };
        // The send is not canceled; its own limits bound it. An abandoned record could be written after the next one.
        match producer.send(record).await {
            Ok(_) => DeliveryOutcome::Delivered,
            Err(error) => {
                if error.is_fatal() || matches!(error, KrafkaError::OutOfOrderSequence { .. }) {
                    self.drop_producer(&producer).await;
                }
                failed(&error, topic)
            }
        }
    }

    async fn producer(&self) -> Result<Arc<Producer>, KrafkaError> {
        let mut slot = self.producer.lock().await;
        if let Some(producer) = slot.as_ref() {
            return Ok(producer.clone());
        }
        // Half of the time is for the metadata, half for the record itself.
        let limit = self.timeout / 2;
        let kafka = Kafka::builder(self.settings.brokers.join(","))
            .client_id(concat!("twilio-edge/", env!("CARGO_PKG_VERSION")))
            .security(self.security())
            .request_timeout(limit)
            .connect_timeout(CONNECT_TIMEOUT.min(limit))
            .tls_reload_interval(self.settings.tls.is_some().then_some(CERTIFICATE_RELOAD))
            .connect()
            .await?;
        // A lane waits for each of its records, so lingering for a second one gains nothing.
        let producer = kafka
            .producer()
            .acks(Acks::All)
            .idempotent(true)
            .linger(Duration::ZERO)
            .max_block(limit)
            .delivery_timeout(limit)
            .metrics_push(false)
            .build()
            .await?;
        Ok(slot.insert(Arc::new(producer)).clone())
    }

    /// Drops the failed producer, unless it is replaced already. The next delivery creates a new one.
    async fn drop_producer(&self, failed: &Arc<Producer>) {
        let mut slot = self.producer.lock().await;
        if slot.as_ref().is_some_and(|own| Arc::ptr_eq(own, failed)) {
            *slot = None;
        }
    }

    fn security(&self) -> AuthConfig {
        use Mechanism::{Plain, ScramSha256, ScramSha512};
        let security = match &self.settings.sasl {
            None => AuthConfig::plaintext(),
            Some(Sasl { mechanism, username, password }) => {
                let (username, password) = (username.as_str(), password.as_str());
                match mechanism {
                    Plain => AuthConfig::sasl_plain(username, password),
                    ScramSha256 => AuthConfig::sasl_scram_sha256(username, password),
                    ScramSha512 => AuthConfig::sasl_scram_sha512(username, password),
                }
            }
        };
        let Some(tls) = &self.settings.tls else { return security };
        let roots = match &tls.ca_file {
            Some(path) => TlsConfig::new().with_ca_cert(path),
            None => TlsConfig::new().with_native_roots(),
        };
        security.with_tls(match &tls.identity {
            Some((cert, key)) => roots.with_client_cert(cert, key),
            None => roots,
        })
    }
}

fn outage(reason: String) -> DeliveryOutcome {
    DeliveryOutcome::Failed { reason, retry_after: None, is_outage: true }
}

/// Maps an error to the outcome of its delivery.
fn failed(error: &KrafkaError, topic: &str) -> DeliveryOutcome {
    use ErrorCode::{
        ClusterAuthorizationFailed, InvalidRecord, InvalidTopic, MessageTooLarge,
        RecordListTooLarge, SaslAuthenticationFailed, TopicAuthorizationFailed,
        UnknownTopicOrPartition,
    };
    let unusable = |advice: &str| DeliveryOutcome::Failed {
        reason: format!("{advice}: {error}"),
        retry_after: None,
        is_outage: false,
    };
    match error {
        KrafkaError::Broker {
            code: MessageTooLarge | RecordListTooLarge | InvalidRecord, ..
        }
        | KrafkaError::Serialization { .. } => {
            DeliveryOutcome::Refused { reason: error.to_string() }
        }
        KrafkaError::UnknownTopic { .. }
        | KrafkaError::Broker { code: UnknownTopicOrPartition | InvalidTopic, .. } => {
            unusable(&format!("the operator of the brokers has to create the topic {topic}"))
        }
        KrafkaError::Broker {
            code: TopicAuthorizationFailed | ClusterAuthorizationFailed, ..
        } => unusable(&format!(
            "the operator of the brokers has to permit idempotent writes to {topic} for this user"
        )),
        KrafkaError::Auth { .. } | KrafkaError::Broker { code: SaslAuthenticationFailed, .. } => {
            outage(format!("the operator of the sidecar has to correct `sasl` or `tls`: {error}"))
        }
        KrafkaError::Config { .. } => {
            unusable("the operator of the sidecar has to correct the sink")
        }
        _ => outage(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_operator_who_must_act() {
        let failed = |error: KrafkaError| failed(&error, "twilio.inbound.v1");
        let broker = |code| failed(KrafkaError::broker(code, "no"));
        assert!(matches!(broker(ErrorCode::MessageTooLarge), DeliveryOutcome::Refused { .. }));
        for (outcome, advice) in [
            (broker(ErrorCode::UnknownTopicOrPartition), "create the topic twilio.inbound.v1"),
            (failed(KrafkaError::unknown_topic("t")), "operator of the brokers"),
            (broker(ErrorCode::TopicAuthorizationFailed), "writes to twilio.inbound.v1"),
        ] {
            let DeliveryOutcome::Failed { reason, is_outage: false, .. } = outcome else {
                panic!("{outcome:?}")
            };
            assert!(reason.contains(advice), "{reason}");
        }
        for (outcome, text) in [
            (failed(KrafkaError::auth("no")), "`sasl` or `tls`"),
            (broker(ErrorCode::NotEnoughReplicas), "NotEnoughReplicas"),
            (failed(KrafkaError::timeout("produce")), "produce"),
        ] {
            let DeliveryOutcome::Failed { reason, is_outage: true, .. } = outcome else {
                panic!("{outcome:?}")
            };
            assert!(reason.contains(text), "{reason}");
        }
    }
}
