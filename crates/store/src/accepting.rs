//! How a webhook becomes ours to deliver: its event, that it is done, and what each sink is owed are one transaction, durable
//! before Twilio is told anything. Which sinks there are is not known here.

use twilio_edge_contract::Outcome;

use super::{
    event::{ACCEPTED, Event},
    ledger::{Ledger, each_once},
    outbox::{NewDelivery, owe},
};
use crate::settlement::SettlementInput;
use crate::{database::Durability, error::StoreError, stores::Stores};
use twilio_edge_domain::webhook::Webhook;

/// A webhook that was granted, and what sinks are owed of it.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// Who holds it.
    pub webhook: Webhook,
    /// Which time it is handed out, from 1.
    pub attempt: u32,
    /// When it was first heard of, in milliseconds since 1970.
    pub first_seen_ms: i64,
    /// One for each sink.
    pub owed: Vec<NewDelivery>,
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
    /// Whether all of it is durable. What is not is given back, for the next copy; it may be delivered all the same if
    /// the database took it and only could not say so.
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
                    // What Redis misses it is told when the lease it knows has ended.
                    self.metrics.redis_fell_through();
                }
                true
            }
            Err(reason) => {
                tracing::warn!(event = "webhooks.not_accepted", %reason, count = accepted.len(), "webhooks could not be accepted");
                self.settle(settles(Outcome::Release), now_ms).await;
                false
            }
        }
    }
}

impl Ledger {
    /// Writes events that are done, with what sinks are owed of them. Survives the loss of power.
    pub(super) async fn accept(
        &self,
        accepted: &[Acceptance],
        now_ms: i64,
    ) -> Result<Vec<()>, StoreError> {
        let events = accepted.iter().map(|acceptance| acceptance.event(now_ms)).collect();
        let events = each_once(events);
        let owed: Vec<&NewDelivery> =
            accepted.iter().flat_map(|acceptance| &acceptance.owed).collect();
        self.bounded(async {
            let mut tx = self.database.begin(Durability::Power).await?;
            tx.keep_events(&events, now_ms.saturating_sub(self.periods.result_ms)).await?;
            owe(&mut tx, &self.database.statements().outbox, &owed).await?;
            tx.commit().await
        })
        .await?;
        Ok(vec![(); accepted.len()])
    }
}
