//! Twilio for one run: it signs with its own SDKs, sends each webhook as often as planned, retries requests that were
//! not answered 2xx, as with `#rc=5&rp=all`, and records the answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use twilio_edge_wasm_tests::audit::{Call, Webhook};
use twilio_edge_wasm_tests::client::send;
use twilio_edge_wasm_tests::repository;
use twilio_edge_wasm_tests::signers::{Sdk, Signers};
use twilio_edge_wasm_tests::stack::{ORIGIN, TOKEN};
use twilio_edge_wasm_tests::webhook::Request;

use crate::plan::Planned;
use crate::stage::now_ms;

/// Maximum of Twilio's retries.
const RETRIES: u32 = 5;
/// And how long it waits for an answer.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Webhooks on their way at a time: fewer, where there are few, or all of them would meet the same disaster.
fn at_a_time(webhooks: usize) -> usize {
    (webhooks / 40).clamp(12, 64)
}

pub(crate) struct Twilio {
    edge: SocketAddr,
    requests: Vec<Request>,
    calls: Arc<Vec<Mutex<Vec<Call>>>>,
    at_a_time: Arc<Semaphore>,
    under_way: JoinSet<()>,
    dice: Arc<AtomicU64>,
}

impl Twilio {
    /// Signs all of them, half by each SDK.
    pub(crate) async fn sign(edge: SocketAddr, planned: &[Planned]) -> Result<Self> {
        let python = std::env::var_os("TWILIO_EDGE_PYTHON")
            .map_or_else(|| repository().join(".venv/bin/python"), Into::into);
        let signers = Signers::start(&python, &repository().join("wasm-tests/signers"))?;
        let (one, other) = planned.split_at(planned.len() / 2);
        let sign = async |sdk, part: &[Planned]| {
            let mut requests = Vec::new();
            for Planned { form, .. } in part {
                let url = format!("{ORIGIN}{}", form.target);
                let signed = signers.form(sdk, TOKEN, &url, &form.params).await?;
                let request = Request::new("POST", &form.target, form.encoded())
                    .header("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
                    .header("X-Twilio-Signature", signed.signature);
                requests.push(request);
            }
            anyhow::Ok(requests)
        };
        let (one, other) = tokio::try_join!(sign(Sdk::Python, one), sign(Sdk::Node, other))?;
        Ok(Self {
            edge,
            requests: [one, other].concat(),
            calls: Arc::new(planned.iter().map(|_| Mutex::default()).collect()),
            at_a_time: Arc::new(Semaphore::new(at_a_time(planned.len()))),
            under_way: JoinSet::new(),
            dice: Arc::default(),
        })
    }

    /// Begins to send a webhook once there is room, and does not wait for what comes of it.
    pub(crate) async fn begin(&mut self, webhook: usize) -> Result<()> {
        let turn = self.at_a_time.clone().acquire_owned().await?;
        let request = self.requests.get(webhook).context("no such webhook")?.clone();
        let (edge, calls, dice) = (self.edge, self.calls.clone(), self.dice.clone());
        self.under_way.spawn(async move {
            let _turn = turn;
            for nth in 0..=RETRIES {
                let request = request.clone().as_new_case();
                let sent_ms = now_ms();
                let answer = tokio::time::timeout(TIME_LIMIT, send(edge, &request)).await;
                let status = answer.ok().and_then(Result::ok).map(|response| response.status);
                let call = Call { case: request.case, sent_ms, ended_ms: now_ms(), status };
                if let Some(calls) = calls.get(webhook) {
                    calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
                }
                if status.is_some_and(|status| (200..300).contains(&status)) {
                    return;
                }
                // Random pauses, which grow with each retry.
                let dice = dice.fetch_add(97, Ordering::Relaxed) % 300;
                tokio::time::sleep(Duration::from_millis((100 << nth) + dice)).await;
            }
        });
        while self.under_way.try_join_next().is_some() {}
        Ok(())
    }

    /// Waits until nothing is on its way any more.
    pub(crate) async fn finish(&mut self) {
        while self.under_way.join_next().await.is_some() {}
    }

    /// Webhooks that were sent, with their answers.
    pub(crate) fn webhooks(&self, planned: &[Planned]) -> Vec<Webhook> {
        let all = planned.iter().zip(self.calls.iter()).map(|(planned, calls)| Webhook {
            key: planned.key.clone(),
            number: planned.number.clone(),
            text: planned.text.clone(),
            delivery: planned.delivery,
            calls: calls.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        });
        all.collect()
    }
}
