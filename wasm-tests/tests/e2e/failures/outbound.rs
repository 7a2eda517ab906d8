//! Outbound message during an outage.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_wasm_tests::client::{Response, send};
use twilio_edge_wasm_tests::failures::OutboundBehaviour;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::stack::Stack;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Request};

use super::{Baseline, require};

/// Client of the applications' API.
pub(super) struct ApiClient<'a> {
    stack: &'a Stack,
    outbound: OutboundBehaviour,
    token: String,
}

impl<'a> ApiClient<'a> {
    pub(super) async fn open(stack: &'a Stack, outbound: OutboundBehaviour) -> Result<Self> {
        let token = stack.api_key().await?;
        Ok(Self { stack, outbound, token })
    }

    async fn call(&self, method: &str, path: &str, body: String) -> Result<Response> {
        let request = Request::new(method, path, body)
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Idempotency-Key", "one-message");
        send(self.stack.sidecar()?.address(), &request).await
    }

    /// Requests the message.
    async fn request(&self) -> Result<Response> {
        let message = json!({
            "account_sid": ACCOUNT,
            "to": "+14155552671",
            "from": "+15005550006",
            "body": "Your order has been shipped",
        });
        self.call("POST", "/v1/messages", message.to_string()).await
    }

    fn posted(&self) -> Result<usize> {
        let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
        Ok(self.stack.dependencies().twilio()?.seen(&path).len())
    }

    async fn wait_until_sent(&self, id: &str) -> Result<()> {
        until(&format!("{id} to be sent"), async || {
            let path = format!("/v1/messages/{id}?account_sid={ACCOUNT}");
            let message = self.call("GET", &path, String::new()).await?;
            let message: Value = serde_json::from_slice(&message.body).unwrap_or_default();
            Ok((message["state"] == "sent").then_some(()))
        })
        .await
    }

    /// Requests the message during the outage; returns its id if it was accepted.
    pub(super) async fn check_outage(&self) -> Result<Option<String>> {
        let baseline = Baseline::read(self.stack, self.outbound.signals).await?;
        let response = self.request().await;
        let Some(status) = self.outbound.status else {
            ensure!(response.is_err(), "the sidecar answered: {response:?}");
            return Ok(None);
        };
        let response = response?;
        ensure!(response.status == status, "{} {}", response.status, response.text());
        ensure!((status == 503) == response.header("retry-after").is_some(), "{:?}", response.head);
        let message: Value = serde_json::from_slice(&response.body)?;
        let id = message["id"].as_str().map(str::to_owned);
        ensure!(id.is_some() == (status == 202), "{message}");
        if let Some(id) = id.as_deref().filter(|_| self.outbound.is_sent) {
            self.wait_until_sent(id).await?;
        }
        baseline.check_change().await?;
        ensure!(self.posted()? == usize::from(self.outbound.is_sent), "at Twilio");
        Ok(id)
    }

    /// Repeats the request after the outage; the message is sent once.
    pub(super) async fn check_recovery(&self, id: Option<String>) -> Result<()> {
        let response = self.request().await?;
        ensure!(response.status == 202, "{} {}", response.status, response.text());
        let message: Value = serde_json::from_slice(&response.body)?;
        let repeated = message["id"].as_str().context("no id")?;
        require(id.as_deref().is_none_or(|id| id == repeated), "the id of the first request")?;
        self.wait_until_sent(repeated).await?;
        ensure!(self.posted()? == 1, "{} times at Twilio", self.posted()?);
        Ok(())
    }
}
