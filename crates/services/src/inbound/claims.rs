//! Processing of claims and their settlements. Calls the domain and the stores in the right order: opt-outs, opt-ins
//! and message statuses are recorded before the verdict is returned. It adds no rule of its own and knows neither HTTP
//! nor SQL.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use twilio_edge_contract::{
    Claim, Class, Decision, Identity, Opt, Outcome, Settlement, SettlementAck, SettlementResult,
    Verdict, is_url_digest,
};

use crate::{
    access::marketing::Withdrawal,
    inbound::redirects::{Redirects, StoredAnswer},
    operations::retention::RetentionPolicies,
    outbound::{deliveries::StatusReport, sending::Sending},
    wakeup::Wakeup,
};
use twilio_edge_connectors::sinks::Sinks;
use twilio_edge_domain::{
    lease::ClaimOutcome,
    optout::{Arrival, Lexicon},
    suppression::OptEvent,
    webhook::Webhook,
    window,
};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_store::{Acceptance, ClaimResult, NewDelivery, SettlementInput, Stores};

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
    ///
    /// # Errors
    /// Returns [`InvalidBatch`] if a claim of the batch is invalid; a store that is unavailable is a verdict.
    pub async fn claim(
        &self,
        claims: Vec<Claim>,
        now_ms: i64,
    ) -> Result<Vec<Verdict>, InvalidBatch> {
        let webhooks = self.read_claims(claims)?.into_iter().map(Some).collect();
        let webhooks = self.with_known_inbound(webhooks).await;
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

        let accepted = self.accept(&webhooks, &grants, now_ms).await;
        let verdicts = webhooks.iter().zip(grants).map(|(webhook, grant)| {
            let mut verdict = self.verdict(webhook, grant);
            if let Some(durable) = accepted.get(&webhook.claim_id) {
                verdict.attempt = None;
                verdict.decision =
                    if *durable { Decision::Accepted } else { Decision::Unavailable };
            }
            self.report(webhook, &verdict);
            verdict
        });
        Ok(verdicts.collect())
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

    /// Applies the statuses of our messages, and sends the fallbacks of those that failed. Returns the claim ids of
    /// failures that could not be stored. Other statuses that could not be stored are not lost: the reconciler looks them
    /// up at Twilio.
    async fn apply_statuses(&self, webhooks: &[Webhook], now_ms: i64) -> Vec<String> {
        let reports = webhooks.iter().filter_map(|webhook| {
            let (id, identity) = (webhook.message_id.as_deref(), &webhook.identity);
            let is_status = identity.class == Class::Status;
            let may_be_ours =
                id.is_some() || self.sending.twilio.has_credentials(&identity.account_sid);
            if !is_status || !may_be_ours {
                return None;
            }
            let report = StatusReport {
                id,
                account_sid: &identity.account_sid,
                message_sid: &identity.message_sid,
                status: identity.status.as_deref().unwrap_or_default(),
                code: identity.error_code.as_deref().unwrap_or_default(),
            };
            Some((webhook, report))
        });
        let (sources, reports): (Vec<&Webhook>, Vec<StatusReport<'_>>) = reports.unzip();
        if reports.is_empty() {
            return Vec::new();
        }
        match self.sending.apply_statuses(&reports, now_ms).await {
            Ok(learned) => {
                self.metrics.messages.reconciled("callback", learned);
                Vec::new()
            }
            Err(reason) => {
                let count = reports.len();
                tracing::warn!(event = "status.apply_failed", %reason, count, "the sidecar could not store reported statuses of sent messages; the reconciler looks them up at Twilio");
                let failures =
                    sources.iter().zip(&reports).filter(|(_, report)| report.must_be_durable());
                failures.map(|(webhook, _)| webhook.claim_id.clone()).collect()
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
            let deliveries = webhook.is_ours.then(|| self.deliveries(webhook, now_ms))?;
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

    fn deliveries(&self, webhook: &Webhook, now_ms: i64) -> Vec<NewDelivery> {
        let deliveries =
            self.sinks.of(&webhook.route, webhook.identity.class).map(|sink| NewDelivery {
                sink: sink.to_owned(),
                delivery_id: webhook.key.clone(),
                dedupe_key: webhook.key.clone(),
                replay_id: None,
                account_sid: webhook.identity.account_sid.clone(),
                lane: webhook.ordering_key(),
                recorded_at_ms: now_ms,
            });
        deliveries.collect()
    }

    /// Settles claims. Returns one result per settlement, in order.
    ///
    /// # Errors
    /// Returns [`InvalidBatch`] if a settlement of the batch is invalid; a store that is unavailable is a result.
    pub async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now_ms: i64,
    ) -> Result<Vec<SettlementAck>, InvalidBatch> {
        // A webhook that was forwarded without a verdict is recorded first, as its claim would have been.
        let unclaimed = self.with_known_inbound(self.read_unclaimed(&settlements)?).await;
        let mut unrecorded = self.link_contacts(unclaimed.iter().flatten(), now_ms).await;
        let late = unclaimed.iter().flatten();
        unrecorded.extend(self.record_opts(late, Arrival::Late, now_ms).await);
        unrecorded.extend(self.record_withdrawals(unclaimed.iter().flatten(), now_ms).await);
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
        Ok(settled.collect())
    }

    fn read_claims(&self, claims: Vec<Claim>) -> Result<Vec<Webhook>, InvalidBatch> {
        let rules = self.retention_policies.now();
        let read = claims.into_iter().enumerate().map(|(i, claim)| {
            Webhook::from_claim(claim, &self.lexicon)
                .map(|webhook| {
                    // The filter forwards a webhook that no sink receives.
                    let class = webhook.identity.class;
                    let is_ours =
                        webhook.is_ours && self.sinks.of(&webhook.route, class).next().is_some();
                    self.retention_policies
                        .without_unstored_parts(Webhook { is_ours, ..webhook }, &rules)
                })
                .map_err(|problem| InvalidBatch(format!("claims[{i}].{problem}")))
        });
        read.collect()
    }

    fn read_unclaimed(
        &self,
        settlements: &[Settlement],
    ) -> Result<Vec<Option<Webhook>>, InvalidBatch> {
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
        read.collect()
    }

    /// Records which user ids belong to which numbers: a STOP by either applies to both. Returns the claim ids for
    /// which that failed.
    async fn link_contacts(
        &self,
        webhooks: impl Iterator<Item = &Webhook>,
        now_ms: i64,
    ) -> HashSet<String> {
        let (mut claim_ids, mut links) = (HashSet::new(), Vec::new());
        for webhook in webhooks {
            let Some(inbound) = webhook.inbound.as_ref().filter(|i| !i.links.is_empty()) else {
                continue;
            };
            claim_ids.insert(webhook.claim_id.clone());
            links.extend(inbound.links.iter().cloned());
        }
        if links.is_empty() {
            return HashSet::new();
        }
        match self.stores.contacts().link(links, now_ms).await {
            Ok(()) => HashSet::new(),
            Err(reason) => {
                let count = claim_ids.len();
                tracing::error!(event = "contact.link_failed", %reason, count, "the sidecar could not record the ids of contacts; their webhooks wait");
                claim_ids
            }
        }
    }

    /// Marks failures of messages that the ledger knows as inbound: such a status is about the sender, and suppresses
    /// none of our own numbers. Without an answer of the database the webhooks stay unchanged.
    async fn with_known_inbound(&self, webhooks: Vec<Option<Webhook>>) -> Vec<Option<Webhook>> {
        let inbound_key = |webhook: &Webhook| {
            webhook.may_be_about_inbound().then(|| {
                let identity = webhook.identity.clone();
                Identity { class: Class::Inbound, ..identity }.dedupe_key()
            })
        };
        let keys: Vec<String> = webhooks.iter().flatten().filter_map(inbound_key).collect();
        if keys.is_empty() {
            return webhooks;
        }
        let known = self.stores.known_keys(&keys).await.unwrap_or_default();
        let read = |webhook: Webhook| {
            let is_known = inbound_key(&webhook).is_some_and(|key| known.contains(&key));
            if is_known { webhook.about_inbound() } else { webhook }
        };
        webhooks.into_iter().map(|webhook| webhook.map(read)).collect()
    }

    /// Stores the withdrawals of consent to marketing that statuses report; returns the claim ids for which that failed.
    async fn record_withdrawals(
        &self,
        webhooks: impl Iterator<Item = &Webhook>,
        now_ms: i64,
    ) -> Vec<String> {
        let mut failed = Vec::new();
        for webhook in webhooks {
            let Some(withdrawal) = Withdrawal::of(webhook) else { continue };
            if let Err(reason) = withdrawal.record(&self.stores.consents(), now_ms).await {
                tracing::error!(event = "consent.persist_failed", %reason, webhook.sid = %webhook.identity.message_sid, "the sidecar could not record a withdrawn consent; its webhook waits");
                failed.push(webhook.claim_id.clone());
            }
        }
        failed
    }

    /// Records every opt-out and opt-in durably. Returns the claim ids for which that failed.
    async fn record_opts(
        &self,
        webhooks: impl Iterator<Item = &Webhook>,
        arrival: Arrival,
        now_ms: i64,
    ) -> HashSet<String> {
        let (claim_ids, events): (Vec<String>, Vec<OptEvent>) = webhooks
            .filter_map(|webhook| Some((webhook.claim_id.clone(), OptEvent::of(webhook, arrival)?)))
            .unzip();
        if events.is_empty() {
            return HashSet::new();
        }
        match self.stores.record_opts(events.clone(), now_ms).await {
            Ok(changed) => {
                let changes = events.iter().zip(changed).filter(|(_, changed)| *changed);
                changes.for_each(|(event, _)| {
                    self.metrics.webhooks.suppression_changed(event.opt == Opt::Stop, event.source);
                    log_change(event);
                });
                HashSet::new()
            }
            Err(reason) => {
                let count = events.len();
                tracing::error!(event = "optout.persist_failed", %reason, count, "the sidecar could not record opt-outs; their webhooks wait");
                claim_ids.into_iter().collect()
            }
        }
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
    /// Builds the verdict for the filter. Without a grant the decision is `unavailable`.
    fn verdict(&self, webhook: &Webhook, grant: Option<ClaimResult>) -> Verdict {
        let mut verdict = Verdict {
            claim_id: webhook.claim_id.clone(),
            decision: Decision::Unavailable,
            attempt: None,
            opt: webhook.opt(),
            suppressed: false,
            window_expires: None,
            answer: None,
            step: None,
        };
        let Some(grant) = grant else { return verdict };
        verdict.suppressed = grant.suppressed;
        verdict.window_expires =
            grant.last_inbound_ms.map(window::expires_ms).and_then(window::rfc3339);
        verdict.decision = match grant.claimed {
            ClaimOutcome::Proceed { attempt, .. } => {
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

fn log_change(change: &OptEvent) {
    tracing::info!(event = "suppression.changed",
        webhook.sid = %change.message_sid,
        account.sid = %change.account_sid,
        address = %change.address,
        "the sidecar {} a suppression",
        if change.opt == Opt::Stop { "recorded" } else { "lifted" },
    );
}
