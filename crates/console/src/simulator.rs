//! Client of the simulator of Twilio: it plays the part of the contact, which no API of the service has.

use std::{fmt::Write as _, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::failure::Failure;

/// Time limit of a request. A message waits for the answer of the application.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Largest answer, in bytes.
const LARGEST: usize = 4 << 20;

/// Simulator of Twilio at one address.
#[derive(Debug, Clone)]
pub struct Simulator {
    base: String,
    client: reqwest::Client,
}

/// Message in the simulator, as Twilio's API shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct SimulatedMessage {
    pub(crate) sid: String,
    pub(crate) body: String,
    pub(crate) direction: String,
    pub(crate) status: String,
    pub(crate) error_code: Option<u32>,
    from: Option<String>,
    to: String,
}

#[derive(Debug, Deserialize)]
struct Messages {
    messages: Vec<SimulatedMessage>,
}

/// Result of the webhook of a message that the contact wrote.
#[derive(Debug, Deserialize)]
pub(crate) struct Arrival {
    pub(crate) delivered: bool,
    calls: Vec<Value>,
}

impl Arrival {
    /// Returns the answers to the calls of the webhook.
    pub(crate) fn calls(&self) -> String {
        let mut text = String::new();
        for call in &self.calls {
            let separator = if text.is_empty() { "" } else { ", then " };
            let _ = match call.get("status") {
                Some(status) => write!(text, "{separator}HTTP {status}"),
                None => write!(text, "{separator}{}", call.as_str().unwrap_or("no answer")),
            };
        }
        text.replace('_', " ")
    }
}

impl Simulator {
    /// Creates a client for the simulator at this URL; `None` if no client can be created.
    pub fn new(base: &str) -> Option<Simulator> {
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().ok()?;
        Some(Simulator { base: base.trim_end_matches('/').to_owned(), client })
    }

    /// Returns the messages between two addresses, the oldest first.
    pub(crate) async fn conversation(
        &self,
        contact: &str,
        own: &str,
    ) -> Result<Vec<SimulatedMessage>, Failure> {
        let request = self.client.get(format!("{}/simulator/messages", self.base));
        let Messages { mut messages } = answer(request).await?;
        messages.retain(|message| {
            let from = message.from.as_deref().unwrap_or_default();
            (from, message.to.as_str()) == (contact, own)
                || (from, message.to.as_str()) == (own, contact)
        });
        messages.reverse();
        Ok(messages)
    }

    /// Sends a message of the contact, and waits for what becomes of its webhook.
    pub(crate) async fn write(
        &self,
        contact: &str,
        own: &str,
        text: &str,
        signed_origin: Option<&str>,
    ) -> Result<Arrival, Failure> {
        let message =
            json!({ "from": contact, "to": own, "body": text, "signed_origin": signed_origin });
        let request = self.client.post(format!("{}/simulator/inbound", self.base));
        answer(request.body(message.to_string())).await
    }

    /// Sends the webhook of a message of the contact once more.
    pub(crate) async fn repeat(&self, sid: &str) -> Result<Arrival, Failure> {
        let request = self.client.post(format!("{}/simulator/repeat", self.base));
        answer(request.body(json!({ "sid": sid }).to_string())).await
    }
}

async fn answer<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, Failure> {
    let unavailable = |error: reqwest::Error| {
        Failure::Internal(format!("The simulator does not answer: {}", error.without_url()))
    };
    let mut response = request.send().await.map_err(unavailable)?;
    let is_success = response.status().is_success();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(unavailable)? {
        if body.len().saturating_add(part.len()) > LARGEST {
            return Err(Failure::Internal("The answer of the simulator is too large.".to_owned()));
        }
        body.extend_from_slice(&part);
    }
    if !is_success {
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let detail = problem.get("detail").and_then(Value::as_str).unwrap_or("no detail");
        return Err(Failure::Invalid(format!("The simulator refused the message: {detail}")));
    }
    serde_json::from_slice(&body).map_err(|error| Failure::internal(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_webhook_are_listed_in_order() {
        let arrival: Arrival = serde_json::from_value(
            json!({ "delivered": false, "calls": [{ "status": 503 }, "no_connection"] }),
        )
        .unwrap();
        assert_eq!(arrival.calls(), "HTTP 503, then no connection");
    }
}
