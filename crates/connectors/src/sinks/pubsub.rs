//! Google Pub/Sub sink: one published message for each delivery, through the REST API. The ordering key is the contact.
//! Decides the meaning of the errors of Pub/Sub for a delivery.

mod settings;

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use object_store::gcp::GcpCredentialProvider;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use self::settings::Settings;
use super::{
    client::{ERROR_BYTES, SinkClient, read_beginning},
    sink_type::{Field, SinkType},
};
use crate::{bucket::gcp_builder, causes::with_causes};
use twilio_edge_domain::{
    delivery::{DeliveryOutcome, SinkAnswer},
    delivery_attempt::excerpt,
    event::Delivery,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Longest status of an error that becomes part of a reason, in characters.
const MAX_STATUS_CHARS: usize = 64;

pub(super) struct Topic {
    client: SinkClient,
    /// `None` for an emulator.
    credentials: Option<GcpCredentialProvider>,
    settings: Settings,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl SinkType for Topic {
    const NAME: &'static str = "pubsub";
    const DESTINATION: &'static str =
        "topic of Google Pub/Sub: one message for each delivery, whose ordering key is the contact";
    const FIELDS: &'static [Field] = settings::FIELDS;

    type Settings = Settings;

    fn parse(reading: &mut TomlReader, path: &str, fields: Fields<'_>) -> Settings {
        settings::parse(reading, path, fields)
    }

    fn open(settings: Settings, timeout: Duration) -> Result<Topic, String> {
        let credentials = match settings.has_credentials() {
            true => {
                let file = settings.credentials_file.as_deref().unwrap_or_default();
                // The store is never used: it only finds and renews the credentials, as for a bucket.
                let store = gcp_builder(file)?.with_bucket_name("none").build();
                let store = store.map_err(|_| {
                    "credentials_file: the credentials in it, or in GOOGLE_APPLICATION_CREDENTIALS, cannot be used"
                        .to_owned()
                })?;
                Some(store.credentials().clone())
            }
            false => None,
        };
        Ok(Topic { client: SinkClient::new(None, timeout)?, credentials, settings })
    }

    async fn deliver(&self, delivery: &Delivery<'_>) -> SinkAnswer {
        let body = match message(delivery) {
            Ok(body) => body,
            Err(error) => return DeliveryOutcome::Refused { reason: error.to_string() }.into(),
        };
        let Settings { endpoint, topic, .. } = &self.settings;
        let request = self.client.get().await.post(format!("{endpoint}/v1/{topic}:publish"));
        let mut request = request.header(CONTENT_TYPE, "application/json").body(body);
        if let Some(credentials) = &self.credentials {
            match credentials.get_credential().await {
                Ok(credential) => request = request.bearer_auth(&credential.bearer),
                // The text of the error may repeat an answer with credentials.
                Err(_) => return outage("there are no credentials for Google Cloud: the operator of the sidecar has to set `credentials_file`, or give the machine a service account".into()),
            }
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return outage(with_causes(&error.without_url())),
        };
        let status = response.status();
        let answer = read_beginning(response, ERROR_BYTES).await;
        let outcome = match status.is_success() {
            true => DeliveryOutcome::Delivered,
            false => failed(status.as_u16(), &error_status(&answer), topic),
        };
        SinkAnswer { status: Some(status.as_u16()), excerpt: excerpt(&answer), ..outcome.into() }
    }
}

/// Builds the body of `publish`.
fn message(delivery: &Delivery<'_>) -> Result<String, serde_json::Error> {
    let event = serde_json::to_vec(&delivery.event)?;
    let is_replay = if delivery.replay_id.is_some() { "true" } else { "false" };
    let mut attributes =
        BTreeMap::from([("webhook-id", delivery.id.as_str()), ("x-twilio-edge-replay", is_replay)]);
    if let Some(replay_id) = delivery.replay_id {
        attributes.insert("x-twilio-edge-replay-id", replay_id);
    }
    if delivery.event.is_test() {
        attributes.insert("x-twilio-edge-test", "true");
    }
    let message = json!({
        "data": STANDARD.encode(event),
        "attributes": attributes,
        "orderingKey": delivery.event.key(),
    });
    serde_json::to_string(&json!({ "messages": [message] }))
}

/// Returns the status of an error of Google, as in `NOT_FOUND`; an empty text if the answer has none.
fn error_status(answer: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let status = answer.pointer("/error/status").and_then(Value::as_str).unwrap_or_default();
    let is_word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    status.chars().filter(is_word).take(MAX_STATUS_CHARS).collect()
}

fn outage(reason: String) -> SinkAnswer {
    DeliveryOutcome::Failed { reason, retry_after: None, is_outage: true }.into()
}

/// Maps an error to the outcome of its delivery. All deliveries go to one topic, so that every error that is not about the
/// message concerns the whole sink.
fn failed(status: u16, word: &str, topic: &str) -> DeliveryOutcome {
    let advice = match (status, word) {
        (400, "INVALID_ARGUMENT") | (413, _) => {
            let reason = format!("Pub/Sub refuses the message, for instance because it is too large: {status} {word}");
            return DeliveryOutcome::Refused { reason };
        }
        (404, _) => format!(
            "the topic does not exist: its operator has to create {topic}, or the operator of the sidecar has to correct `topic`"
        ),
        (403, _) => "the operator of the topic has to grant the role `roles/pubsub.publisher` to our service account".into(),
        (401, _) => "the operator of the sidecar has to correct `credentials_file` or the service account".into(),
        (429, _) => "the quota of the project is used up: set `requests_per_second`, or have the quota raised".into(),
        _ => "Pub/Sub did not accept the message".to_owned(),
    };
    let reason = format!("{advice}: {status} {word}").trim_end().to_owned();
    DeliveryOutcome::Failed { reason, retry_after: None, is_outage: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_operator_who_must_act() {
        let of = |status: u16, answer: &str| {
            failed(status, &error_status(answer.as_bytes()), "projects/p/topics/t")
        };
        let invalid =
            r#"{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "hush"}}"#;
        assert!(matches!(of(400, invalid), DeliveryOutcome::Refused { .. }));
        for (status, answer, text) in [
            (404, r#"{"error": {"status": "NOT_FOUND"}}"#, "create projects/p/topics/t"),
            (
                403,
                r#"{"error": {"status": "PERMISSION_DENIED", "message": "hush"}}"#,
                "403 PERMISSION_DENIED",
            ),
            (401, "{}", "correct `credentials_file`"),
            (429, "", "set `requests_per_second`"),
            (400, r#"{"error": {"status": "FAILED_PRECONDITION"}}"#, "400 FAILED_PRECONDITION"),
            (503, "<html>hush", "Pub/Sub did not accept the message: 503"),
        ] {
            let DeliveryOutcome::Failed { reason, is_outage: true, .. } = of(status, answer) else {
                panic!("{answer}")
            };
            assert!(reason.contains(text) && !reason.contains("hush"), "{reason}");
        }
    }
}
