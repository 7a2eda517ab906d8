//! Processing of claims. Calls the domain and the stores in the right order: opt-outs, opt-ins
//! and message statuses are recorded before the verdict is returned. It adds no rule of its own and knows neither HTTP
//! nor SQL.

use std::{collections::HashMap, sync::Arc};

use twilio_edge_contract::{Claim, Class, Decision, Identity, MediaLink, Verdict};

use crate::{
    inbound::redirects::{Redirects, StoredAnswer},
    operations::retention::RetentionPolicies,
    outbound::sending::Sending,
    wakeup::Wakeup,
};
use twilio_edge_connectors::sinks::Sinks;
use twilio_edge_domain::{
    event::ArrivalFacts,
    lease::ClaimOutcome,
    media::inbound::{MediaLinks, has_media},
    optout::{Arrival, Lexicon},
    webhook::Webhook,
    window,
};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{Acceptance, ClaimResult, NewDelivery, Stores};

/// Handles claims and settlements.
#[derive(Clone)]
pub struct Claims {
    /// Leases, ledger, suppressions and contacts.
    pub stores: Stores,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Sinks that accepted webhooks are delivered to.
    pub sinks: Sinks,
    /// Wakes the delivery workers.
    pub wakeup: Wakeup,
    /// Keywords that make a message an opt-out or opt-in.
    pub lexicon: Arc<Lexicon>,
    /// Retention policies, which also decide which content is never stored.
    pub retention_policies: RetentionPolicies,
    /// Receives the statuses of our own messages.
    pub sending: Sending,
    /// Creates links to media of inbound messages; `None` without a media store that has links of its own.
    pub media_links: Option<Arc<MediaLinks>>,
    /// Largest backend answer that is stored for duplicates, in bytes.
    pub max_answer_bytes: usize,
    /// Steps of messages after a TwiML `<Redirect>`.
    pub redirects: Redirects,
}

/// Invalid batch, of which nothing was processed. Holds the path of the field and the problem.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidBatch(pub String);

impl Claims {
    /// Claims webhooks. Returns one verdict per claim, in order.
    pub async fn claim(&self, webhooks: Vec<Webhook>, now_ms: i64) -> Vec<Verdict> {
        if webhooks.is_empty() {
            return Vec::new();
        }
        let webhooks = webhooks.into_iter().map(Some).collect();
        let webhooks = self.with_known_own(self.with_known_inbound(webhooks).await).await;
        let mut webhooks: Vec<Webhook> = webhooks.into_iter().flatten().collect();

        // A STOP takes effect now, with every verdict. A webhook whose STOP could not be recorded gets
        // `unavailable`.
        let mut unrecorded = self.link_contacts(webhooks.iter(), now_ms).await;
        unrecorded.extend(self.record_opts(webhooks.iter(), Arrival::OnTime, now_ms).await);
        unrecorded.extend(self.record_withdrawals(webhooks.iter(), now_ms).await);
        // The same applies to a failed message while its fallback cannot be stored.
        unrecorded.extend(self.apply_statuses(&webhooks, now_ms).await);
        let recorded = |webhook: &Webhook| !unrecorded.contains(&webhook.claim_id);
        let claimable: Vec<&Webhook> = webhooks.iter().filter(|w| recorded(w)).collect();
        let mut granted = self.stores.claim(&claimable, now_ms).await.into_iter();
        let mut grants: Vec<Option<ClaimResult>> = webhooks
            .iter()
            .map(|webhook| if recorded(webhook) { granted.next().flatten() } else { None })
            .collect();
        self.claim_steps(&mut webhooks, &mut grants, now_ms).await;
        self.start_flows(&webhooks, &mut grants, now_ms).await;

        let accepted = self.accept(&webhooks, &grants, now_ms).await;
        let verdicts = webhooks.iter().zip(grants).map(|(webhook, grant)| {
            let mut verdict = self.verdict(webhook, grant);
            if let Some(durable) = accepted.get(&webhook.claim_id) {
                verdict.attempt = None;
                verdict.media.clear();
                verdict.decision =
                    if *durable { Decision::Accepted } else { Decision::Unavailable };
            }
            self.report(webhook, &verdict);
            verdict
        });
        verdicts.collect()
    }

    /// A message that was accepted at another URL gets a second claim, as a step of its message.
    async fn claim_steps(
        &self,
        webhooks: &mut [Webhook],
        grants: &mut [Option<ClaimResult>],
        now_ms: i64,
    ) {
        let mut indices = Vec::new();
        for (index, (webhook, grant)) in webhooks.iter_mut().zip(grants.iter()).enumerate() {
            let Some(ClaimOutcome::Duplicate(answer)) = grant.as_ref().map(|grant| &grant.claimed)
            else {
                continue;
            };
            let stored = StoredAnswer::read(answer.as_deref());
            if let Some(step) = self.redirects.step(webhook, &stored) {
                *webhook = step;
                indices.push(index);
            }
        }
        if indices.is_empty() {
            return;
        }
        let steps: Vec<&Webhook> =
            indices.iter().filter_map(|index| webhooks.get(*index)).collect();
        let granted = self.stores.claim(&steps, now_ms).await;
        for (index, granted) in indices.into_iter().zip(granted) {
            if let Some(grant) = grants.get_mut(index) {
                *grant = granted;
            }
        }
    }

    /// Accepts the webhooks that were granted and that the sidecar delivers itself. Returns, by claim id, whether the
    /// acceptance is durable.
    async fn accept(
        &self,
        webhooks: &[Webhook],
        grants: &[Option<ClaimResult>],
        now_ms: i64,
    ) -> HashMap<String, bool> {
        let acceptance = |(webhook, grant): (&Webhook, &Option<ClaimResult>)| {
            let ClaimOutcome::Proceed { attempt, first_seen_ms } = grant.as_ref()?.claimed else {
                return None;
            };
            let grant = grant.as_ref()?;
            let deliveries = webhook.is_ours.then(|| self.deliveries(webhook, grant, now_ms))?;
            let webhook = webhook.clone();
            (!deliveries.is_empty()).then_some(Acceptance {
                webhook,
                attempt,
                first_seen_ms,
                deliveries,
            })
        };
        let accepted: Vec<Acceptance> =
            webhooks.iter().zip(grants).filter_map(acceptance).collect();
        if accepted.is_empty() {
            return HashMap::new();
        }
        let claim_ids: Vec<String> =
            accepted.iter().map(|acceptance| acceptance.webhook.claim_id.clone()).collect();
        let durable = self.stores.accept(accepted, now_ms).await;
        if durable {
            self.wakeup.wake();
        }
        claim_ids.into_iter().map(|claim_id| (claim_id, durable)).collect()
    }

    fn deliveries(&self, webhook: &Webhook, grant: &ClaimResult, now_ms: i64) -> Vec<NewDelivery> {
        let is_inbound = webhook.inbound.is_some();
        let arrival = ArrivalFacts {
            opt: webhook.opt(),
            suppressed: is_inbound.then_some(grant.suppressed),
            window_expires_ms: grant.last_inbound_ms.map(window::expires_ms),
        };
        let facts = arrival.stored();
        let deliveries = self.sinks.of(webhook).map(|sink| NewDelivery {
            sink: sink.to_owned(),
            delivery_id: webhook.key.clone(),
            dedupe_key: webhook.key.clone(),
            replay_id: None,
            account_sid: webhook.identity.account_sid.clone(),
            lane: webhook.ordering_key(),
            recorded_at_ms: now_ms,
            facts: facts.clone(),
        });
        deliveries.collect()
    }

    /// Validates claims and reads their webhooks, in order.
    ///
    /// # Errors
    /// [`InvalidBatch`] with the first field that is invalid.
    pub fn read_claims(&self, claims: Vec<Claim>) -> Result<Vec<Webhook>, InvalidBatch> {
        let rules = self.retention_policies.now();
        let read = claims.into_iter().enumerate().map(|(i, claim)| {
            Webhook::from_claim(claim, &self.lexicon)
                .map(|webhook| {
                    // The filter forwards a webhook that no sink receives.
                    let is_ours = webhook.is_ours && self.sinks.of(&webhook).next().is_some();
                    self.retention_policies
                        .without_unstored_parts(Webhook { is_ours, ..webhook }, &rules)
                })
                .map_err(|problem| InvalidBatch(format!("claims[{i}].{problem}")))
        });
        read.collect()
    }

    fn report(&self, webhook: &Webhook, verdict: &Verdict) {
        self.metrics.webhooks.claimed(verdict.decision, webhook.identity.class);
        if let (Some(1), Some(opt)) = (verdict.attempt, verdict.opt) {
            self.metrics.webhooks.opt_received(opt);
        }
        tracing::debug!(event = "claim.answered",
            webhook.sid = %webhook.identity.message_sid,
            webhook.class = webhook.identity.class.as_str(),
            account.sid = %webhook.identity.account_sid,
            claim.id = %webhook.claim_id,
            request.id = webhook.trace.request_id.as_deref(),
            trace.id = webhook.trace.trace_id(),
            decision = ?verdict.decision,
            attempt = verdict.attempt,
            "the sidecar answered a claim",
        );
    }
}

impl Claims {
    /// Returns links to the media of an inbound message, if its account stores them.
    fn media_links(&self, webhook: &Webhook, received_at_ms: i64) -> Vec<MediaLink> {
        let identity = &webhook.identity;
        let links = self.media_links.as_ref().filter(|_| {
            identity.class == Class::Inbound
                && has_media(&webhook.form)
                && self.stores.policies().of(&identity.account_sid).inbound_media.fetch
        });
        links.map_or_else(Vec::new, |links| {
            let Identity { account_sid, message_sid, .. } = identity;
            links.of(&webhook.form, account_sid, message_sid, received_at_ms)
        })
    }

    /// Builds the verdict for the filter. Without a grant the decision is `unavailable`.
    fn verdict(&self, webhook: &Webhook, grant: Option<ClaimResult>) -> Verdict {
        let mut verdict = Verdict::new(webhook.claim_id.clone(), Decision::Unavailable);
        verdict.opt = webhook.opt();
        let Some(grant) = grant else { return verdict };
        verdict.suppressed = grant.suppressed;
        verdict.window_expires =
            grant.last_inbound_ms.map(window::expires_ms).and_then(window::rfc3339);
        verdict.decision = match grant.claimed {
            ClaimOutcome::Proceed { attempt, first_seen_ms } => {
                verdict.media = self.media_links(webhook, first_seen_ms);
                verdict.attempt = Some(attempt);
                verdict.step = webhook.step.clone();
                Decision::Proceed
            }
            ClaimOutcome::Duplicate(answer) => {
                let stored = StoredAnswer::read(answer.as_deref());
                verdict.answer = self.redirects.answer(&webhook.key, stored);
                Decision::Duplicate
            }
            ClaimOutcome::InFlight => Decision::InFlight,
            ClaimOutcome::Released => Decision::Released,
        };
        verdict
    }
}
