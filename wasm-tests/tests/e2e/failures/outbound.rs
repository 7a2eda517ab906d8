//! A message that is to be sent while a part is away.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_wasm_tests::client::{Response, send};
use twilio_edge_wasm_tests::failures::Sending;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::stack::Stack;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Request};

use super::{Seen, promised};

/// What applications ask with.
pub(super) struct Desk<'a> {
    stack: &'a Stack,
    sending: Sending,
    token: String,
}

impl<'a> Desk<'a> {
    pub(super) async fn open(stack: &'a Stack, sending: Sending) -> Result<Self> {
        let token = stack.api_key().await?;
        Ok(Self { stack, sending, token })
    }

    async fn call(&self, method: &str, path: &str, body: String) -> Result<Response> {
        let request = Request::new(method, path, body)
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Idempotency-Key", "the-only-one");
        send(self.stack.sidecar()?.address(), &request).await
    }

    /// Asks for the message.
    async fn ask(&self) -> Result<Response> {
        let message = json!({
            "account_sid": ACCOUNT,
            "to": "+14155552671",
            "from": "+15005550006",
            "body": "It is on its way",
        });
        self.call("POST", "/v1/messages", message.to_string()).await
    }

    fn posted(&self) -> Result<usize> {
        let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
        Ok(self.stack.dependencies().twilio()?.seen(&path).len())
    }

    async fn is_sent(&self, id: &str) -> Result<()> {
        until(&format!("{id} to be sent"), async || {
            let path = format!("/v1/messages/{id}?account_sid={ACCOUNT}");
            let shown = self.call("GET", &path, String::new()).await?;
            let shown: Value = serde_json::from_slice(&shown.body).unwrap_or_default();
            Ok((shown["state"] == "sent").then_some(()))
        })
        .await
    }

    /// The message's id, if it was taken on.
    pub(super) async fn meanwhile(&self) -> Result<Option<String>> {
        let seen = Seen::before(self.stack, self.sending.seen).await?;
        let told = self.ask().await;
        let Some(status) = self.sending.told else {
            ensure!(told.is_err(), "somebody answered: {told:?}");
            return Ok(None);
        };
        let told = told?;
        ensure!(told.status == status, "{} {}", told.status, told.text());
        ensure!((status == 503) == told.header("retry-after").is_some(), "{:?}", told.head);
        let shown: Value = serde_json::from_slice(&told.body)?;
        let id = shown["id"].as_str().map(str::to_owned);
        ensure!(id.is_some() == (status == 202), "{shown}");
        if let Some(id) = id.as_deref().filter(|_| self.sending.sent) {
            self.is_sent(id).await?;
        }
        seen.after().await?;
        ensure!(self.posted()? == usize::from(self.sending.sent), "at Twilio");
        Ok(id)
    }

    /// However often it was asked for, it is sent once.
    pub(super) async fn afterwards(&self, id: Option<String>) -> Result<()> {
        let told = self.ask().await?;
        ensure!(told.status == 202, "{} {}", told.status, told.text());
        let shown: Value = serde_json::from_slice(&told.body)?;
        let asked = shown["id"].as_str().context("no id")?;
        promised(id.as_deref().is_none_or(|id| id == asked), "another message")?;
        self.is_sent(asked).await?;
        ensure!(self.posted()? == 1, "{} times at Twilio", self.posted()?);
        Ok(())
    }
}
