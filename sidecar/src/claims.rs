//! The path of a claim, and of its settlement, through the sidecar: what is recorded before the answer, who may have
//! the webhook, what is written behind the answer. It puts the domain and the stores in order and adds no rule of its
//! own; it knows neither HTTP nor SQL.

use std::{collections::HashSet, sync::Arc};

use twilio_edge_contract::{
    Claim, Decision, Opt, Outcome, SavedAnswer, Settled, Settlement, SettlementResult, Verdict,
};

use crate::{
    domain::{lease::Claimed, optout::Keywords, webhook::Webhook, window},
    events::Events,
    metrics::Metrics,
    store::{EventRow, Grant, OptSaid, Settle, StoreError, Stores},
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
        let unrecorded = self.record_opts(webhooks.iter(), now_ms).await;
        let (lost, webhooks): (Vec<_>, Vec<_>) =
            webhooks.into_iter().enumerate().partition(|(_, w)| unrecorded.contains(&w.claim_id));
        let (places, webhooks): (Vec<usize>, Vec<Webhook>) = webhooks.into_iter().unzip();

        let mut grants = Vec::with_capacity(webhooks.len());
        for (webhook, grant) in webhooks.iter().zip(self.stores.claim(&webhooks, now_ms).await) {
            grants.push(grant.map_err(|reason| warn_unclaimed(webhook, &reason)).ok());
        }

        let events = webhooks.iter().zip(&grants);
        let events =
            events.filter_map(|(webhook, grant)| arrival(webhook, grant.as_ref()?, now_ms));
        if let Err(reason) = self.events.record(events.collect()).await {
            // The lease stands; without an event, though, nobody could tell later that it came.
            tracing::warn!(%reason, "the queue is full and the database is away");
            grants.fill(None);
        }

        let mut verdicts: Vec<(usize, Verdict)> =
            lost.iter()
                .map(|(place, webhook)| (*place, verdict(webhook, None)))
                .chain(places.into_iter().zip(
                    webhooks.iter().zip(grants).map(|(webhook, grant)| verdict(webhook, grant)),
                ))
                .collect();
        verdicts.sort_by_key(|(place, _)| *place);
        Ok(verdicts.into_iter().map(|(_, verdict)| self.counted(verdict)).collect())
    }

    /// One result per settlement, in order.
    pub async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now_ms: i64,
    ) -> Result<Vec<Settled>, Unreadable> {
        // What was forwarded without a verdict is recorded first, as its claim would have been.
        let unclaimed = self.read_unclaimed(&settlements)?;
        let unrecorded = self.record_opts(unclaimed.iter().flatten(), now_ms).await;
        for opt in unclaimed.iter().flatten().filter_map(Webhook::opt) {
            self.metrics.opt_heard(opt);
        }
        let arrivals = unclaimed.iter().flatten().map(|w| EventRow::received(w, 1, now_ms));
        let recorded = self.events.record(arrivals.collect()).await.is_ok();

        let settleable = |settlement: &Settlement| {
            settlement.unclaimed.is_none()
                || (recorded && !unrecorded.contains(&settlement.claim_id))
        };
        let settles: Vec<Settle> = settlements
            .iter()
            .zip(&unclaimed)
            .filter(|(settlement, _)| settleable(settlement))
            .map(|(settlement, webhook)| self.settle_of(settlement, webhook.as_ref()))
            .collect();
        let results = match settles.is_empty() {
            true => Vec::new(),
            false => self.stores.settle(settles, now_ms).await.unwrap_or_else(|reason| {
                tracing::warn!(%reason, "settlements could not be kept, the filter sends them again");
                Vec::new()
            }),
        };

        let mut results = results.into_iter();
        let mut settled = Vec::with_capacity(settlements.len());
        let mut events = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let result = match settleable(&settlement) {
                true => results.next().unwrap_or(SettlementResult::Unavailable),
                false => SettlementResult::Unavailable,
            };
            self.metrics.settled(settlement.outcome, result);
            if result == SettlementResult::Settled {
                events.push(EventRow::settled(&settlement.identity, settlement.outcome, now_ms));
            }
            settled.push(Settled { claim_id: settlement.claim_id, result });
        }
        if let Err(reason) = self.events.record(events).await {
            // The lease has the outcome; what is lost is only its copy beside the event.
            tracing::warn!(%reason, "outcomes could not be written to the ledger");
        }
        Ok(settled)
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
        now_ms: i64,
    ) -> HashSet<String> {
        let (claim_ids, said): (Vec<String>, Vec<OptSaid>) = webhooks
            .filter_map(|webhook| Some((webhook.claim_id.clone(), OptSaid::of(webhook)?)))
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

    fn counted(&self, verdict: Verdict) -> Verdict {
        self.metrics.claimed(verdict.decision);
        if let (Some(1), Some(opt)) = (verdict.attempt, verdict.opt) {
            self.metrics.opt_heard(opt);
        }
        verdict
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

fn warn_unclaimed(webhook: &Webhook, reason: &StoreError) {
    tracing::warn!(
        webhook.sid = %webhook.identity.message_sid,
        account.sid = %webhook.identity.account_sid,
        %reason,
        "the stores could not answer for a claim",
    );
}
