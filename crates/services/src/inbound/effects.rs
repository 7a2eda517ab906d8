//! Durable effects of webhooks: opt-outs, withdrawn consents, links between the ids of a contact, and statuses of our own
//! messages. They are recorded before the claim or the settlement is answered.

use std::collections::HashSet;

use twilio_edge_contract::{Class, Identity, Opt};

use super::claims::Claims;
use crate::{access::marketing::Withdrawal, outbound::deliveries::StatusReport};
use twilio_edge_domain::{
    lease::ClaimOutcome, optout::Arrival, suppression::OptEvent, webhook::Webhook,
};
use twilio_edge_store::{ClaimResult, OptEffect, ReceivedOpt};

impl Claims {
    /// Applies the statuses of our messages, and sends the fallbacks of those that failed. Statuses that name no message
    /// of ours are applied in the background. Returns the claim ids of failures that could not be stored. Other statuses
    /// that could not be stored are not lost: the reconciler looks them up at Twilio.
    pub(super) async fn apply_statuses(&self, webhooks: &[Webhook], now_ms: i64) -> Vec<String> {
        let statuses = webhooks.iter().filter(|it| it.identity.class == Class::Status);
        let reports = statuses.filter_map(|webhook| {
            let identity = &webhook.identity;
            let report = StatusReport {
                id: webhook.message_id.as_deref(),
                account_sid: &identity.account_sid,
                message_sid: &identity.message_sid,
                status: identity.status.as_deref().unwrap_or_default(),
                code: identity.error_code.as_deref().unwrap_or_default(),
                recipient: webhook.outbound.as_ref().map_or("", |pair| &pair.theirs.number),
            };
            if report.id.is_some() {
                return Some((webhook, report));
            }
            // If the queue is full, the reconciler asks Twilio for the status.
            let may_be_ours = self.sending.twilio.has_credentials(report.account_sid);
            let _ = may_be_ours && self.sending.status_queue.push(&report);
            None
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

    /// Records which user ids belong to which numbers: a STOP by either applies to both. Returns the claim ids of
    /// webhooks whose links could not be stored.
    pub(super) async fn link_contacts(
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
    pub(super) async fn with_known_inbound(
        &self,
        webhooks: Vec<Option<Webhook>>,
    ) -> Vec<Option<Webhook>> {
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

    /// Marks the sidecar's own status callbacks, which a route of the filter may receive. Their codes are the sidecar's own
    /// decisions: they suppress no contact, and withdraw no consent. Without an answer of the database the webhooks stay
    /// unchanged.
    pub(super) async fn with_known_own(
        &self,
        webhooks: Vec<Option<Webhook>>,
    ) -> Vec<Option<Webhook>> {
        let ids: Vec<String> =
            webhooks.iter().flatten().filter_map(Webhook::id_of_own_message).collect();
        if ids.is_empty() {
            return webhooks;
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let known = self.sending.messages.by_ids(&ids).await.unwrap_or_default();
        let read = |webhook: Webhook| {
            let id = webhook.id_of_own_message();
            let is_own = known.iter().any(|message| Some(&message.id) == id.as_ref());
            if is_own { webhook.without_effect_on_consent() } else { webhook }
        };
        webhooks.into_iter().map(|webhook| webhook.map(read)).collect()
    }

    /// Stores the withdrawals of consent to marketing that statuses report; returns the claim ids for which that failed.
    pub(super) async fn record_withdrawals(
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

    /// Records every opt-out and opt-in durably, and queues the replies to keywords. Returns the claim ids for which that
    /// failed.
    pub(super) async fn record_opts(
        &self,
        webhooks: impl Iterator<Item = &Webhook>,
        arrival: Arrival,
        now_ms: i64,
    ) -> HashSet<String> {
        let (mut claim_ids, mut received) = (HashSet::new(), Vec::new());
        for webhook in webhooks {
            let Some(event) = OptEvent::of(webhook, arrival) else { continue };
            let policy = self.stores.policies().of(&event.account_sid);
            // Without random bytes there is no id; the filter sends the webhook again.
            let Ok(reply) = self.sending.reply_to(webhook, &policy, now_ms) else {
                claim_ids.insert(webhook.claim_id.clone());
                continue;
            };
            if event.opt != Opt::Help || reply.is_some() {
                received
                    .push((&webhook.claim_id, ReceivedOpt { event, reply: reply.map(Box::new) }));
            }
        }
        if received.is_empty() {
            return claim_ids;
        }
        let (of_received, received): (Vec<&String>, Vec<ReceivedOpt>) =
            received.into_iter().unzip();
        match self.stores.record_opts(received.clone(), now_ms).await {
            Ok(effects) => {
                received.iter().zip(effects).for_each(|(one, effect)| self.report_opt(one, effect));
                claim_ids
            }
            Err(reason) => {
                let count = received.len();
                tracing::error!(event = "optout.persist_failed", %reason, count, "the sidecar could not record opt-outs; their webhooks wait");
                claim_ids.extend(of_received.into_iter().cloned());
                claim_ids
            }
        }
    }

    /// Stores the executions of flows that inbound messages start, once for each message. Removes the grant of a webhook whose
    /// execution could not be stored: it is answered as unavailable, and comes again.
    pub(super) async fn start_flows(
        &self,
        webhooks: &[Webhook],
        grants: &mut [Option<ClaimResult>],
        now_ms: i64,
    ) {
        for (webhook, grant) in webhooks.iter().zip(grants) {
            let is_granted = grant
                .as_ref()
                .is_some_and(|grant| matches!(grant.claimed, ClaimOutcome::Proceed { .. }));
            if is_granted && webhook.step.is_none() && !self.start_flow(webhook, now_ms).await {
                *grant = None;
            }
        }
    }

    /// Stores the execution of a flow that the webhook starts, if it starts one. Returns false if that failed.
    pub(super) async fn start_flow(&self, webhook: &Webhook, now_ms: i64) -> bool {
        let stored = match self.sending.flow_of(webhook, now_ms) {
            Ok(None) => return true,
            Ok(Some(row)) => self.sending.messages.add_new(&row).await.map(|is_new| (row, is_new)),
            Err(reason) => Err(reason),
        };
        match stored {
            Ok((_, false)) => true,
            Ok((row, true)) => {
                self.metrics.messages.flow_started(row.state == "refused");
                self.sending.wakeup.wake();
                tracing::info!(event = "flow.started", message.id = %row.id, account.sid = %row.account_sid, webhook.sid = %row.reply_to, flow.sid = %row.sender, state = %row.state, code = %row.code, "the sidecar stored the execution of a flow for an inbound message");
                true
            }
            Err(reason) => {
                tracing::error!(event = "flow.persist_failed", %reason, webhook.sid = %webhook.identity.message_sid, "the sidecar could not store the execution of a flow; its webhook waits");
                false
            }
        }
    }

    /// Counts and logs the effect of a keyword, and wakes the dispatcher for its reply.
    fn report_opt(&self, received: &ReceivedOpt, effect: OptEffect) {
        let ReceivedOpt { event, reply } = received;
        if effect.has_changed {
            self.metrics.webhooks.suppression_changed(event.opt == Opt::Stop, event.source);
            log_change(event);
        }
        if let Some(reply) = reply.as_deref().filter(|_| effect.is_answered) {
            self.metrics.messages.replied(event.opt, reply.state == "refused");
            self.sending.wakeup.wake();
            tracing::info!(event = "keyword.answered", message.id = %reply.id, account.sid = %reply.account_sid, webhook.sid = %event.message_sid, keyword = event.opt.as_str(), state = %reply.state, code = %reply.code, "the sidecar stored the reply to a keyword");
        }
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
