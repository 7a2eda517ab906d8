//! The path of a claim, and of its settlement, through the sidecar: what is recorded before the answer, who may have
//! the webhook, what is written behind the answer. It puts the domain and the stores in order and adds no rule of its
//! own; it knows neither HTTP nor SQL.

use std::{collections::HashSet, sync::Arc};

use twilio_edge_contract::{
    Claim, Decision, Opt, Outcome, SavedAnswer, Settled, Settlement, SettlementResult, Verdict,
};

use crate::{
    domain::{
        lease::Claimed,
        optout::{Arrival, Keywords},
        webhook::Webhook,
        window,
    },
    events::Events,
    metrics::Metrics,
    store::{EventRow, Grant, OptSaid, Settle, Stores},
};

/// Answers claims and settlements.
#[derive(Clone)]
pub struct Claims {
    /// Where everything is kept.
    pub stores: Stores,
    /// Where events go.
    pub events: Events,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What makes a message an opt-out.
    pub keywords: Arc<Keywords>,
    /// Largest backend answer that is kept for duplicates.
    pub max_answer_bytes: usize,
}

/// A batch that cannot be read; nothing of it was done. Where, and what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl Claims {
    /// One verdict per claim, in order.
    pub async fn claim(&self, claims: Vec<Claim>, now_ms: i64) -> Result<Vec<Verdict>, Unreadable> {
        let webhooks = self.read_claims(claims)?;

        // A STOP counts from now on, whoever gets the webhook; while it cannot be recorded, nobody does.
        let unrecorded = self.record_opts(webhooks.iter(), Arrival::OnTime, now_ms).await;
        let recorded = |webhook: &Webhook| !unrecorded.contains(&webhook.claim_id);
        let claimable: Vec<&Webhook> = webhooks.iter().filter(|w| recorded(w)).collect();
        let mut granted = self.stores.claim(&claimable, now_ms).await.into_iter();
        let mut grants: Vec<Option<Grant>> = webhooks
            .iter()
            .map(|webhook| if recorded(webhook) { granted.next().flatten() } else { None })
            .collect();

        let events = webhooks.iter().zip(&grants);
        let events =
            events.filter_map(|(webhook, grant)| arrival(webhook, grant.as_ref()?, now_ms));
        if let Err(reason) = self.events.record(events.collect()).await {
            // The leases stand; but without the events nobody could tell later what came.
            tracing::warn!(%reason, "the queue is full and events could not be written");
            grants.fill(None);
        }

        let verdicts = webhooks.iter().zip(grants).map(|(webhook, grant)| {
            let verdict = verdict(webhook, grant);
            self.report(webhook, &verdict);
            verdict
        });
        Ok(verdicts.collect())
    }

    /// One result per settlement, in order.
    pub async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now_ms: i64,
    ) -> Result<Vec<Settled>, Unreadable> {
        // What was forwarded without a verdict is recorded first, as its claim would have been.
        let unclaimed = self.read_unclaimed(&settlements)?;
        let came = || unclaimed.iter().flatten();
        let unrecorded = self.record_opts(came(), Arrival::Late, now_ms).await;
        let events = came().map(|webhook| EventRow::received(webhook, 1, now_ms)).collect();
        let written = self.events.record(events).await.is_ok();
        let recorded = |settlement: &Settlement| {
            settlement.unclaimed.is_none()
                || (written && !unrecorded.contains(&settlement.claim_id))
        };

        let settles = settlements.iter().zip(&unclaimed);
        let settles = settles.filter(|(settlement, _)| recorded(settlement));
        let settles =
            settles.map(|(settlement, webhook)| self.settle_of(settlement, webhook.as_ref()));
        let mut results = self.stores.settle(settles.collect(), now_ms).await.into_iter();
        let results: Vec<SettlementResult> = settlements
            .iter()
            .map(|settlement| if recorded(settlement) { results.next() } else { None })
            .map(|result| result.unwrap_or(SettlementResult::Unavailable))
            .collect();

        let ends = settlements.iter().zip(&results);
        let ends = ends.filter_map(|(settlement, result)| end(settlement, *result, now_ms));
        if let Err(reason) = self.events.record(ends.collect()).await {
            // The lease has the outcome; what is lost is only its copy beside the event.
            tracing::warn!(%reason, "outcomes could not be written beside their events");
        }
        let settled = settlements.into_iter().zip(results).map(|(settlement, result)| {
            self.metrics.settled(settlement.outcome, result);
            Settled { claim_id: settlement.claim_id, result }
        });
        Ok(settled.collect())
    }

    fn read_claims(&self, claims: Vec<Claim>) -> Result<Vec<Webhook>, Unreadable> {
        let read = claims.into_iter().enumerate().map(|(i, claim)| {
            Webhook::from_claim(claim, &self.keywords)
                .map_err(|problem| Unreadable(format!("claims[{i}].{problem}")))
        });
        read.collect()
    }

    fn read_unclaimed(
        &self,
        settlements: &[Settlement],
    ) -> Result<Vec<Option<Webhook>>, Unreadable> {
        let read = settlements.iter().enumerate().map(|(i, settlement)| {
            Webhook::from_settlement(settlement, &self.keywords)
                .map_err(|problem| Unreadable(format!("settlements[{i}].{problem}")))
        });
        read.collect()
    }

    /// Records every opt-out and opt-in durably; the claim ids for which that failed.
    async fn record_opts(
        &self,
        webhooks: impl Iterator<Item = &Webhook>,
        arrival: Arrival,
        now_ms: i64,
    ) -> HashSet<String> {
        let (claim_ids, said): (Vec<String>, Vec<OptSaid>) = webhooks
            .filter_map(|webhook| Some((webhook.claim_id.clone(), OptSaid::of(webhook, arrival)?)))
            .unzip();
        if said.is_empty() {
            return HashSet::new();
        }
        match self.stores.record_opts(said.clone(), now_ms).await {
            Ok(changed) => {
                let changes = said.iter().zip(changed).filter(|(_, changed)| *changed);
                changes.for_each(|(said, _)| log_change(said));
                HashSet::new()
            }
            Err(reason) => {
                let count = said.len();
                tracing::error!(%reason, count, "opt-outs could not be recorded, their webhooks wait");
                claim_ids.into_iter().collect()
            }
        }
    }

    fn settle_of(&self, settlement: &Settlement, unclaimed: Option<&Webhook>) -> Settle {
        let answer = settlement.answer.as_ref().filter(|answer| {
            let bytes = answer.body.len().saturating_add(answer.content_type.len());
            bytes <= self.max_answer_bytes && (200..300).contains(&answer.status)
        });
        Settle {
            key: settlement.identity.dedupe_key(),
            claim_id: settlement.claim_id.clone(),
            outcome: settlement.outcome,
            answer: answer
                .filter(|_| settlement.outcome == Outcome::Commit)
                .and_then(|answer| serde_json::to_string(answer).ok()),
            opens: unclaimed
                .and_then(|webhook| webhook.inbound.as_ref())
                .map(|inbound| inbound.pair.clone()),
        }
    }

    fn report(&self, webhook: &Webhook, verdict: &Verdict) {
        self.metrics.claimed(verdict.decision);
        if let (Some(1), Some(opt)) = (verdict.attempt, verdict.opt) {
            self.metrics.opt_heard(opt);
        }
        tracing::debug!(
            webhook.sid = %webhook.identity.message_sid,
            webhook.class = webhook.identity.class.as_str(),
            account.sid = %webhook.identity.account_sid,
            claim.id = %webhook.claim_id,
            request.id = webhook.trace.request_id.as_deref(),
            trace.id = webhook.trace.trace_id(),
            decision = ?verdict.decision,
            attempt = verdict.attempt,
            "claim answered",
        );
    }
}

/// The event of a claim that has something new to say: it goes to the backend, or its client did not wait.
fn arrival(webhook: &Webhook, grant: &Grant, now_ms: i64) -> Option<EventRow> {
    match grant.claimed {
        Claimed::Proceed { attempt, first_seen_ms } => {
            Some(EventRow::received(webhook, attempt, first_seen_ms))
        }
        Claimed::Released => Some(EventRow::received(webhook, 0, now_ms)),
        Claimed::Duplicate(_) | Claimed::InFlight => None,
    }
}

/// The event of a settlement that ended something: not of a claim that was overtaken or never forwarded.
fn end(settlement: &Settlement, result: SettlementResult, now_ms: i64) -> Option<EventRow> {
    let forwarded = match result {
        SettlementResult::Settled => true,
        SettlementResult::Tombstoned => settlement.unclaimed.is_some(),
        SettlementResult::Superseded | SettlementResult::Unavailable => false,
    };
    forwarded.then(|| EventRow::settled(&settlement.identity, settlement.outcome, now_ms))
}

/// What the filter is told; without a grant, that the stores could not say.
fn verdict(webhook: &Webhook, grant: Option<Grant>) -> Verdict {
    let mut verdict = Verdict {
        claim_id: webhook.claim_id.clone(),
        decision: Decision::Unavailable,
        attempt: None,
        opt: webhook.opt(),
        suppressed: false,
        window_expires: None,
        answer: None,
    };
    let Some(grant) = grant else { return verdict };
    verdict.suppressed = grant.suppressed;
    verdict.window_expires =
        grant.last_inbound_ms.map(window::expires_ms).and_then(window::rfc3339);
    verdict.decision = match grant.claimed {
        Claimed::Proceed { attempt, .. } => {
            verdict.attempt = Some(attempt);
            Decision::Proceed
        }
        Claimed::Duplicate(answer) => {
            verdict.answer =
                answer.and_then(|answer| serde_json::from_str::<SavedAnswer>(&answer).ok());
            Decision::Duplicate
        }
        Claimed::InFlight => Decision::InFlight,
        Claimed::Released => Decision::Released,
    };
    verdict
}

fn log_change(change: &OptSaid) {
    tracing::info!(
        webhook.sid = %change.message_sid,
        account.sid = %change.account_sid,
        address = %change.address,
        "suppression {}",
        if change.opt == Opt::Stop { "recorded" } else { "lifted" },
    );
}
