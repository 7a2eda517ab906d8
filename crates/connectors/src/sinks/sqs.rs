//! SQS sink: one `SendMessage` for each delivery, in the JSON protocol of AWS, signed with AWS Signature Version 4. In a
//! FIFO queue the group is the contact, and the deduplication id is the delivery id. Decides the meaning of the errors of
//! SQS for a delivery.

mod settings;

use std::{collections::BTreeMap, time::Duration};

use object_store::{
    aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider},
    client::{HttpRequest, HttpRequestBody},
};
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::settings::Settings;
use super::{
    client::{ERROR_BYTES, SinkClient, read_beginning},
    sink_type::{Field, SinkType},
};
use crate::{bucket::aws_builder, causes::with_causes};
use twilio_edge_domain::{
    delivery::{DeliveryOutcome, SinkAnswer},
    delivery_attempt::excerpt,
    event::Delivery,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Longest group id and deduplication id that SQS accepts, in bytes.
const MAX_ID_BYTES: usize = 128;

pub(super) struct Queue {
    client: SinkClient,
    credentials: AwsCredentialProvider,
    settings: Settings,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl SinkType for Queue {
    const NAME: &'static str = "sqs";
    const DESTINATION: &'static str =
        "queue of Amazon SQS: one message for each delivery, in order per contact in a FIFO queue";
    const FIELDS: &'static [Field] = settings::FIELDS;

    type Settings = Settings;

    fn parse(reading: &mut TomlReader, path: &str, fields: Fields<'_>) -> Settings {
        settings::parse(reading, path, fields)
    }

    fn open(settings: Settings, timeout: Duration) -> Result<Queue, String> {
        let file = settings.credentials_file.as_deref().unwrap_or_default();
        // The store is never used: it only finds and renews the credentials, as for a bucket.
        let store = aws_builder(file)?.with_bucket_name("none").with_region(&settings.region);
        let store = store.build().map_err(|error| format!("credentials_file: {error}"))?;
        let credentials = store.credentials().clone();
        Ok(Queue { client: SinkClient::new(None, timeout)?, credentials, settings })
    }

    async fn deliver(&self, delivery: &Delivery<'_>) -> SinkAnswer {
        let body = match self.message(delivery) {
            Ok(body) => body,
            Err(error) => return DeliveryOutcome::Refused { reason: error.to_string() }.into(),
        };
        let credential = match self.credentials.get_credential().await {
            Ok(credential) => credential,
            // The text of the error may repeat an answer with credentials.
            Err(_) => return outage("there are no credentials for AWS: the operator of the sidecar has to set `credentials_file`, or a role with `sqs:SendMessage`".into()),
        };
        let headers = match self.signed(&credential, &body) {
            Ok(headers) => headers,
            Err(reason) => return outage(reason),
        };
        let request = self.client.get().await.post(&self.settings.endpoint).headers(headers);
        let response = match request.body(body).send().await {
            Ok(response) => response,
            Err(error) => return outage(with_causes(&error.without_url())),
        };
        let status = response.status();
        let answer = read_beginning(response, ERROR_BYTES).await;
        // The rest of an error may repeat the signed headers, the session token among them.
        let (outcome, excerpt) = match status.is_success() {
            true => (DeliveryOutcome::Delivered, excerpt(&answer)),
            false => {
                let code = error_code(&answer);
                (failed(status.as_u16(), &code), code)
            }
        };
        SinkAnswer { status: Some(status.as_u16()), excerpt, ..outcome.into() }
    }
}

impl Queue {
    /// Builds the body of `SendMessage`.
    fn message(&self, delivery: &Delivery<'_>) -> Result<String, serde_json::Error> {
        let event = serde_json::to_string(&delivery.event)?;
        // SQS refuses these two characters; JSON can express them without them.
        let event = event.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff");
        let is_replay = if delivery.replay_id.is_some() { "true" } else { "false" };
        let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
        let mut attributes = BTreeMap::from([
            ("webhook-id", text(&delivery.id)),
            ("x-twilio-edge-replay", text(is_replay)),
        ]);
        if let Some(replay_id) = delivery.replay_id {
            attributes.insert("x-twilio-edge-replay-id", text(replay_id));
        }
        if delivery.event.is_test() {
            attributes.insert("x-twilio-edge-test", text("true"));
        }
        let mut message = BTreeMap::from([
            ("QueueUrl", json!(self.settings.queue_url)),
            ("MessageBody", json!(event)),
            ("MessageAttributes", json!(attributes)),
        ]);
        if self.settings.is_fifo() {
            message.insert("MessageGroupId", json!(id(&delivery.event.key())));
            message.insert("MessageDeduplicationId", json!(id(&delivery.id)));
        }
        serde_json::to_string(&message)
    }

    /// Returns the headers of the request, its signature among them.
    fn signed(&self, credential: &AwsCredential, body: &str) -> Result<HeaderMap, String> {
        let mut request = HttpRequest::new(HttpRequestBody::from(body.to_owned()));
        *request.method_mut() = Method::POST;
        let uri = format!("{}/", self.settings.endpoint).parse();
        *request.uri_mut() = uri.map_err(|_| "`queue_url` is not a URL".to_owned())?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
        headers.insert("x-amz-target", HeaderValue::from_static("AmazonSQS.SendMessage"));
        let authorizer = AwsAuthorizer::new(credential, "sqs", &self.settings.region);
        let signed = authorizer.try_authorize(&mut request, None);
        signed.map_err(|_| "the request could not be signed".to_owned())?;
        Ok(std::mem::take(request.headers_mut()))
    }
}

/// Returns the text if it is a valid group id or deduplication id, or its digest.
fn id(text: &str) -> String {
    let is_valid = (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_valid {
        true => text.to_owned(),
        false => Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Returns the code of an error of AWS, as in `QueueDoesNotExist`; an empty text if the answer has none.
fn error_code(answer: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let code = answer.get("__type").or_else(|| answer.get("code")).and_then(Value::as_str);
    let code = code.and_then(|code| code.rsplit('#').next()).unwrap_or_default();
    code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').take(MAX_ID_BYTES).collect()
}

fn outage(reason: String) -> SinkAnswer {
    DeliveryOutcome::Failed { reason, retry_after: None, is_outage: true }.into()
}

/// Maps an error to the outcome of its delivery. All deliveries go to one queue, so that every error that is not about the
/// message concerns the whole sink.
fn failed(status: u16, code: &str) -> DeliveryOutcome {
    let has = |parts: &[&str]| parts.iter().any(|part| code.contains(part));
    if has(&[
        "InvalidMessageContents",
        "InvalidParameterValue",
        "MessageTooLong",
        "RequestEntityTooLarge",
    ]) {
        let reason = format!(
            "SQS refuses the message, for instance because it is too large: {status} {code}"
        );
        return DeliveryOutcome::Refused { reason };
    }
    let advice = if has(&["QueueDoesNotExist", "NonExistentQueue", "InvalidAddress"]) {
        "the queue does not exist: its operator has to create it, or the operator of the sidecar has to correct `queue_url`"
    } else if has(&["AccessDenied", "KMS", "Kms"]) {
        "the operator of the queue has to permit `sqs:SendMessage`, and the key of an encrypted queue, for our credentials"
    } else if has(&[
        "Signature",
        "Token",
        "UnrecognizedClient",
        "InvalidClient",
        "InvalidSecurity",
        "AuthFailure",
        "OptInRequired",
    ]) {
        "the operator of the sidecar has to correct `credentials_file` or the role, and the clock of the machine"
    } else if has(&["Throttl", "OverLimit"]) || status == 429 {
        "SQS limits the rate of requests: set `requests_per_second`, or use a FIFO queue with high throughput"
    } else if status == 401 || status == 403 {
        "SQS denies access: the operator of the sidecar has to correct `credentials_file` or the role, or the operator of the queue has to permit `sqs:SendMessage`"
    } else {
        "SQS did not accept the message"
    };
    let reason = format!("{advice}: {status} {code}").trim_end().to_owned();
    DeliveryOutcome::Failed { reason, retry_after: None, is_outage: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_operator_who_must_act() {
        let answer = br#"{"__type":"com.amazonaws.sqs#InvalidMessageContents","message":"hush"}"#;
        assert!(matches!(failed(400, &error_code(answer)), DeliveryOutcome::Refused { .. }));
        for (status, answer, text) in [
            (
                400,
                r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist"}"#,
                "correct `queue_url`: 400 QueueDoesNotExist",
            ),
            (
                403,
                r#"{"__type":"AccessDeniedException","message":"hush"}"#,
                "permit `sqs:SendMessage`",
            ),
            (403, r#"{"__type":"InvalidSignatureException"}"#, "correct `credentials_file`"),
            (
                400,
                r#"{"__type":"com.amazonaws.sqs#RequestThrottled"}"#,
                "set `requests_per_second`",
            ),
            (403, "<hush/>", "SQS denies access: the operator of the sidecar has to correct"),
            (503, "<html>hush", "SQS did not accept the message: 503"),
        ] {
            let DeliveryOutcome::Failed { reason, is_outage: true, .. } =
                failed(status, &error_code(answer.as_bytes()))
            else {
                panic!("{answer}")
            };
            assert!(reason.contains(text) && !reason.contains("hush"), "{reason}");
        }
    }

    #[test]
    fn id_is_the_text_or_its_digest() {
        assert_eq!(id("inbound:AC1:SM1#RP1"), "inbound:AC1:SM1#RP1");
        assert_eq!(id(&"1".repeat(128)).len(), 128);
        for text in ["", "two words", "é", &"1".repeat(129)] {
            let digest = id(text);
            assert!(digest.len() == 64 && digest != id("other é"), "{text}: {digest}");
        }
    }
}
