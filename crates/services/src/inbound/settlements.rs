//! Processing of settlements: the outcomes of forwarded webhooks.

use twilio_edge_contract::{
    Class, Outcome, Settlement, SettlementAck, SettlementResult, is_url_digest,
};

use super::claims::{Claims, InvalidBatch};
use crate::inbound::redirects::StoredAnswer;
use twilio_edge_domain::{optout::Arrival, webhook::Webhook};
use twilio_edge_store::SettlementInput;

/// Settlements that were validated, each with the webhook that it carries if there was no verdict.
#[derive(Debug)]
pub struct ValidSettlements {
    settlements: Vec<Settlement>,
    unclaimed: Vec<Option<Webhook>>,
}

impl Claims {
    /// Settles claims. Returns one result per settlement, in order.
    pub async fn settle(&self, batch: ValidSettlements, now_ms: i64) -> Vec<SettlementAck> {
        let ValidSettlements { settlements, unclaimed } = batch;
        if settlements.is_empty() {
            return Vec::new();
        }
        // A webhook that was forwarded without a verdict is recorded first, as its claim would have been.
        let unclaimed = self.with_known_own(self.with_known_inbound(unclaimed).await).await;
        let mut unrecorded = self.link_contacts(unclaimed.iter().flatten(), now_ms).await;
        let late = unclaimed.iter().flatten();
        unrecorded.extend(self.record_opts(late, Arrival::Late, now_ms).await);
        unrecorded.extend(self.record_withdrawals(unclaimed.iter().flatten(), now_ms).await);
        for webhook in unclaimed.iter().flatten() {
            if !self.start_flow(webhook, now_ms).await {
                unrecorded.insert(webhook.claim_id.clone());
            }
        }
        let recorded = |settlement: &Settlement| {
            settlement.unclaimed.is_none() || !unrecorded.contains(&settlement.claim_id)
        };

        let settles = settlements.iter().zip(unclaimed);
        let settles = settles.filter(|(settlement, _)| recorded(settlement));
        let settles =
            settles.map(|(settlement, webhook)| self.settlement_input(settlement, webhook));
        let mut results = self.stores.settle(settles.collect(), now_ms).await.into_iter();
        let results: Vec<SettlementResult> = settlements
            .iter()
            .map(|settlement| if recorded(settlement) { results.next().flatten() } else { None })
            .map(|result| result.unwrap_or(SettlementResult::Unavailable))
            .collect();

        let settled = settlements.into_iter().zip(results).map(|(settlement, result)| {
            self.metrics.webhooks.settled(settlement.outcome, result);
            tracing::debug!(
                event = "settlement.answered",
                webhook.sid = %settlement.identity.message_sid,
                webhook.class = settlement.identity.class.as_str(),
                account.sid = %settlement.identity.account_sid,
                claim.id = %settlement.claim_id,
                outcome = ?settlement.outcome,
                ?result,
                "the sidecar answered a settlement",
            );
            SettlementAck { claim_id: settlement.claim_id, result }
        });
        settled.collect()
    }

    /// Validates settlements.
    ///
    /// # Errors
    /// [`InvalidBatch`] with the first field that is invalid.
    pub fn read_settlements(
        &self,
        settlements: Vec<Settlement>,
    ) -> Result<ValidSettlements, InvalidBatch> {
        let rules = self.retention_policies.now();
        let read = settlements.iter().enumerate().map(|(i, settlement)| {
            Webhook::from_settlement(settlement, &self.lexicon)
                .map(|webhook| {
                    webhook.map(|webhook| {
                        self.retention_policies.without_unstored_parts(webhook, &rules)
                    })
                })
                .map_err(|problem| InvalidBatch(format!("settlements[{i}].{problem}")))
        });
        let unclaimed = read.collect::<Result<_, _>>()?;
        Ok(ValidSettlements { settlements, unclaimed })
    }

    fn settlement_input(
        &self,
        settlement: &Settlement,
        unclaimed: Option<Webhook>,
    ) -> SettlementInput {
        let answer = settlement.answer.as_ref().filter(|answer| {
            let bytes = answer.body.len().saturating_add(answer.content_type.len());
            bytes <= self.max_answer_bytes && (200..300).contains(&answer.status)
        });
        let is_inbound = settlement.identity.class == Class::Inbound;
        let is_valid = |text: &&String| is_inbound && is_url_digest(text);
        let step = settlement.step.as_ref().filter(is_valid);
        let url_digest = settlement.url_digest.as_ref().filter(is_valid).cloned();
        SettlementInput {
            identity: settlement.identity.clone(),
            key: match step {
                Some(step) => settlement.identity.step_key(step),
                None => settlement.identity.dedupe_key(),
            },
            claim_id: settlement.claim_id.clone(),
            outcome: settlement.outcome,
            answer: match settlement.outcome {
                Outcome::Commit => StoredAnswer { url_digest, answer: answer.cloned() }.write(),
                Outcome::Release => None,
            },
            unclaimed,
        }
    }
}
