//! HTTP sink: one POST per delivery, signed after the Standard Webhooks specification
//! (github.com/standard-webhooks/standard-webhooks), so that receivers can verify it with an existing library.

mod settings;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header;
use sha2::Sha256;

use self::settings::{Format, Settings};
use super::{
    client::SinkClient,
    sink_type::{Field, SinkType},
};
use crate::causes::with_causes;
use twilio_edge_domain::{
    delivery::{DeliveryOutcome, SinkAnswer, outcome_of_response, parse_retry_after},
    delivery_attempt::{EXCERPT_BYTES, excerpt},
    event::Delivery,
    secret,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Time limit of reading the beginning of an answer, whose status has arrived.
const EXCERPT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Endpoint {
    client: SinkClient,
    settings: Settings,
}

impl SinkType for Endpoint {
    const NAME: &'static str = "http";
    const DESTINATION: &'static str = "HTTP endpoint: one POST for each delivery, signed after Standard Webhooks if `secrets` is set";
    const FIELDS: &'static [Field] = settings::FIELDS;

    type Settings = Settings;

    fn parse(reading: &mut TomlReader, path: &str, fields: Fields<'_>) -> Settings {
        settings::parse(reading, path, fields)
    }

    fn weak_secret(settings: &Settings) -> Option<String> {
        let weaknesses = settings.secrets.iter().map(|key| secret::weakness_of_key(key));
        let (n, reason) = weaknesses.enumerate().find_map(|(n, reason)| Some((n, reason?)))?;
        Some(format!("secrets[{n}]: {reason}"))
    }

    fn open(settings: Settings, timeout: Duration) -> Result<Endpoint, String> {
        Ok(Endpoint { client: SinkClient::new(settings.tls.clone(), timeout)?, settings })
    }

    async fn deliver(&self, delivery: &Delivery<'_>) -> SinkAnswer {
        let (content_type, body) = match (self.settings.format, delivery.form) {
            (Format::Form, Some(form)) => ("application/x-www-form-urlencoded", form.to_owned()),
            // An operational event has no parameters.
            (Format::Form, None) | (Format::Event, _) => {
                match serde_json::to_string(&delivery.event) {
                    Ok(body) => ("application/json", body),
                    Err(error) => {
                        return DeliveryOutcome::Refused { reason: error.to_string() }.into();
                    }
                }
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = self
            .client
            .get()
            .await
            .post(&self.settings.url)
            .headers(self.settings.headers.clone())
            .header(header::CONTENT_TYPE, content_type)
            .header("webhook-id", &delivery.id)
            .header("webhook-timestamp", now)
            .header(
                "x-twilio-edge-replay",
                if delivery.replay_id.is_some() { "true" } else { "false" },
            );
        if let Some(replay_id) = delivery.replay_id {
            request = request.header("x-twilio-edge-replay-id", replay_id);
        }
        if delivery.event.is_test() {
            request = request.header("x-twilio-edge-test", "true");
        }
        if !self.settings.secrets.is_empty() {
            let signatures = signatures(&self.settings.secrets, &delivery.id, now, &body);
            request = request.header("webhook-signature", signatures);
        }
        match request.body(body).send().await {
            Ok(response) => {
                let wait = response.headers().get(header::RETRY_AFTER);
                let wait = wait.and_then(|wait| wait.to_str().ok()).and_then(parse_retry_after);
                let status = response.status().as_u16();
                let excerpt = beginning(response).await;
                let outcome = outcome_of_response(status, wait, &excerpt);
                SinkAnswer { status: Some(status), excerpt, ..outcome.into() }
            }
            // The URL is removed from the reason, because it may contain a token.
            Err(error) => DeliveryOutcome::Failed {
                reason: with_causes(&error.without_url()),
                retry_after: None,
                is_outage: true,
            }
            .into(),
        }
    }
}

/// Builds one signature for each secret: during a rotation the receiver has only one of them.
fn signatures(secrets: &[Vec<u8>], id: &str, timestamp: u64, body: &str) -> String {
    let signed = format!("{id}.{timestamp}.{body}");
    let signatures = secrets.iter().filter_map(|secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
        mac.update(signed.as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    });
    signatures.collect::<Vec<String>>().join(" ")
}

/// Returns the beginning of the receiver's answer. An answer that stops early counts as it is.
pub(super) async fn beginning(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while bytes.len() < EXCERPT_BYTES {
            let Ok(Some(chunk)) = response.chunk().await else { break };
            bytes.extend_from_slice(&chunk);
        }
    };
    let _ = tokio::time::timeout(EXCERPT_TIMEOUT, read).await;
    excerpt(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example of the specification.
    #[test]
    fn signature_equals_the_example_of_the_specification() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let header = signatures(
            &[secret.clone(), secret],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        let one = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(header, format!("{one} {one}"));
    }
}
