//! Client of Twilio Verify, limits of the starts of verifications, and the policy on opt-outs. `verifications.rs` decides with them
//! whether a verification may start.

use std::time::Duration;

use twilio_edge_connectors::twilio::Verify;
use twilio_edge_domain::{
    idempotency::fingerprint,
    sending::verification::{OptOutPolicy, VALID_FOR_MS, VerificationRequest},
};
use twilio_edge_platform::config;
use twilio_edge_store::{OutboundMessage, StartLimit, StoreError, VerificationStarts};

/// Factor between the times of two lookups of a delivery status.
const LOOKUP_FACTOR: i64 = 3;

/// Client, limits and policy of verifications.
#[derive(Clone)]
pub struct Verifications {
    /// Client of Twilio Verify.
    pub client: Verify,
    starts: VerificationStarts,
    opted_out: OptOutPolicy,
    window_ms: i64,
    per_number: u32,
    per_address: u32,
    status_after_ms: i64,
}

impl Verifications {
    /// Creates the service.
    pub fn new(
        client: Verify,
        starts: VerificationStarts,
        settings: &config::Verify,
    ) -> Verifications {
        let ms = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
        Verifications {
            client,
            starts,
            opted_out: settings.opted_out,
            window_ms: ms(settings.window_s).max(1),
            per_number: settings.per_number,
            per_address: settings.per_address,
            status_after_ms: ms(settings.status_after_s),
        }
    }

    /// Returns whether a verification is sent although the contact opted out of messages.
    pub fn ignores_opt_outs(&self) -> bool {
        self.opted_out == OptOutPolicy::Send
    }

    /// Returns the time of lookup number `lookups` + 1 of the delivery of a code that was sent at `sent_ms`; 0: no lookup. A
    /// verification without a fallback has one lookup, for the log.
    pub fn lookup_at_ms(&self, message: &OutboundMessage, sent_ms: i64, lookups: i64) -> i64 {
        let has_fallback = !message.fallback.is_empty();
        let step = match has_fallback {
            true => u32::try_from(lookups.clamp(0, 16)).unwrap_or_default(),
            false => 2,
        };
        let after_ms = self.status_after_ms.saturating_mul(LOOKUP_FACTOR.saturating_pow(step));
        let is_over = after_ms > VALID_FOR_MS || (lookups > 0 && !has_fallback);
        if after_ms == 0 || is_over { 0 } else { sent_ms.saturating_add(after_ms) }
    }

    /// Counts a start. Returns the rest of the window if a limit is reached.
    pub(super) async fn count_start(
        &self,
        request: &VerificationRequest,
        end_user: Option<&str>,
        now_ms: i64,
    ) -> Result<Option<Duration>, StoreError> {
        let limit = |kind: &str, subject: &str, most| StartLimit {
            subject: fingerprint(&request.account_sid, kind, subject.as_bytes()),
            most,
        };
        let mut limits = vec![limit("number", &request.number, self.per_number)];
        limits.extend(end_user.map(|address| limit("address", address, self.per_address)));
        let window = now_ms.div_euclid(self.window_ms).saturating_add(1);
        let ends_at_ms = window.saturating_mul(self.window_ms);
        let is_counted = self.starts.count(&request.account_sid, &limits, ends_at_ms).await?;
        let rest_ms = u64::try_from(ends_at_ms.saturating_sub(now_ms)).unwrap_or_default();
        Ok((!is_counted).then(|| Duration::from_millis(rest_ms)))
    }
}
