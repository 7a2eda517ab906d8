//! Acceptance of a webhook for delivery by the sidecar. One transaction stores its event, its completion and the delivery
//! for each sink, durably before Twilio gets an answer. This module must not know which sinks exist.

use twilio_edge_contract::Outcome;

use super::{
    event::{ACCEPTED, Event},
    inbound_media::recording,
    ledger::{Ledger, each_once},
    operational_events::windows,
    outbox::NewDelivery,
};
use crate::settlement_input::SettlementInput;
use crate::{database::Durability, error::StoreError, stores::Stores};
use twilio_edge_domain::webhook::Webhook;

/// Granted webhook, and the deliveries to its sinks.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// The webhook, with its claim.
    pub webhook: Webhook,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Time of the first arrival, in milliseconds since 1970.
    pub first_seen_ms: i64,
    /// One delivery per sink.
    pub deliveries: Vec<NewDelivery>,
}

impl Acceptance {
    fn settle(&self, outcome: Outcome) -> SettlementInput {
        SettlementInput {
            identity: self.webhook.identity.clone(),
            key: self.webhook.key.clone(),
            claim_id: self.webhook.claim_id.clone(),
            outcome,
            answer: None,
            unclaimed: None,
        }
    }

    fn event(&self, now_ms: i64) -> Event<'_> {
        Event {
            attempts: i64::from(self.attempt),
            claim_id: Some(&self.webhook.claim_id),
            outcome: Some(ACCEPTED),
            settled_at_ms: Some(now_ms),
            ..Event::came(&self.webhook, self.first_seen_ms, now_ms)
        }
    }
}

impl Stores {
    /// Stores the acceptances. Returns whether all of them are durable. If not, their claims are released for the next
    /// copy. A webhook may still be delivered if the database committed and its answer was lost.
    pub async fn accept(&self, accepted: Vec<Acceptance>, now_ms: i64) -> bool {
        if accepted.is_empty() {
            return true;
        }
        let settles = |outcome| -> Vec<SettlementInput> {
            accepted.iter().map(|acceptance| acceptance.settle(outcome)).collect()
        };
        match self.accepts.ask(accepted.clone(), now_ms).await {
            Ok(_) => {
                let settles = settles(Outcome::Commit);
                let settles: Vec<&SettlementInput> = settles.iter().collect();
                if self.leases.commit(&settles, now_ms).await.is_err() {
                    // Redis learns a missed commit when the lease that it holds expires.
                    self.metrics.stores.redis_fell_through();
                }
                true
            }
            Err(reason) => {
                tracing::warn!(event = "webhooks.accept_failed", %reason, count = accepted.len(), "the database could not store accepted webhooks");
                self.settle(settles(Outcome::Release), now_ms).await;
                false
            }
        }
    }
}

impl Ledger {
    /// Writes completed events and the deliveries to their sinks. Survives a power loss.
    pub(super) async fn accept(
        &self,
        accepted: &[Acceptance],
        now_ms: i64,
    ) -> Result<Vec<()>, StoreError> {
        let events = accepted.iter().map(|acceptance| acceptance.event(now_ms)).collect();
        let events = each_once(events);
        let owed: Vec<&NewDelivery> =
            accepted.iter().flat_map(|acceptance| &acceptance.deliveries).collect();
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Power).await?;
                tx.write_events(&events, now_ms.saturating_sub(self.periods.result_ms)).await?;
                recording::record(&mut tx, &self.policies, &events).await?;
                let reporting = self.database.reporting();
                windows::record_opened(&mut tx, reporting, &events, &owed).await?;
                tx.commit().await
            })
            .await?;
        Ok(vec![(); accepted.len()])
    }
}
