//! Signature of SendGrid's Event Webhook: ECDSA on P-256 with SHA-256, over the timestamp header and the exact bytes of the
//! body. The public key is SendGrid's verification key of the account.
//! Source: twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features.

use base64::{Engine, engine::general_purpose::STANDARD};
use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::DecodePublicKey,
};

/// Header with the signature: DER in base64.
pub const SIGNATURE_HEADER: &str = "x-twilio-email-event-webhook-signature";

/// Header with the time of signing, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "x-twilio-email-event-webhook-timestamp";

/// Largest difference between the time of signing and now, in seconds. SendGrid retries a failed post for 24 hours, and its
/// documentation does not state whether a retry is signed again. An older copy of a post is harmless, because the effect of
/// an event on a message and on a suppression is the same each time.
pub const TOLERANCE_S: i64 = 25 * 3600;

/// SendGrid's verification key of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventKey(VerifyingKey);

/// Reason why events are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureProblem {
    /// A header is missing or has no valid form.
    Malformed,
    /// The time of signing is too far from now.
    Expired,
    /// The signature does not fit.
    Mismatch,
}

impl SignatureProblem {
    /// Returns the word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            SignatureProblem::Malformed => "malformed",
            SignatureProblem::Expired => "expired",
            SignatureProblem::Mismatch => "mismatch",
        }
    }
}

impl EventKey {
    /// Parses a key as SendGrid shows it: a SubjectPublicKeyInfo in base64, with or without the lines of PEM.
    ///
    /// # Errors
    /// Returns the problem.
    pub fn parse(text: &str) -> Result<EventKey, &'static str> {
        let lines = text.lines().filter(|line| !line.trim().starts_with("-----"));
        let base64: String = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
        let problem = "must be the verification key that SendGrid shows for the Event Webhook";
        let der = STANDARD.decode(base64).map_err(|_| problem)?;
        VerifyingKey::from_public_key_der(&der).map(EventKey).map_err(|_| problem)
    }

    /// Verifies a post of events.
    ///
    /// # Errors
    /// Returns the reason why the events are refused.
    pub fn verify(
        &self,
        signature: &str,
        timestamp: &str,
        body: &[u8],
        now_ms: i64,
    ) -> Result<(), SignatureProblem> {
        let is_time = (1..=12).contains(&timestamp.len())
            && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let signed_s: i64 =
            timestamp.parse().ok().filter(|_| is_time).ok_or(SignatureProblem::Malformed)?;
        let der = STANDARD.decode(signature).map_err(|_| SignatureProblem::Malformed)?;
        let signature = Signature::from_der(&der).map_err(|_| SignatureProblem::Malformed)?;
        let signed = [timestamp.as_bytes(), body].concat();
        self.0.verify(&signed, &signature).map_err(|_| SignatureProblem::Mismatch)?;
        match now_ms.div_euclid(1000).abs_diff(signed_s) <= TOLERANCE_S.unsigned_abs() {
            true => Ok(()),
            false => Err(SignatureProblem::Expired),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Test vector of Twilio's official libraries (sendgrid-python, test_eventwebhook.py).
    const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
    const SIGNATURE: &str = "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=";
    const TIMESTAMP: &str = "1600112502";
    const BODY: &str = "[{\"email\":\"hello@world.com\",\"event\":\"dropped\",\"reason\":\"Bounced Address\",\"sg_event_id\":\"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA\",\"sg_message_id\":\"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0\",\"smtp-id\":\"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>\",\"timestamp\":1600112492}]\r\n";
    const NOW_MS: i64 = 1_600_112_505_000;

    fn key() -> EventKey {
        EventKey::parse(KEY).unwrap()
    }

    #[test]
    fn published_signature_is_valid() {
        assert_eq!(key().verify(SIGNATURE, TIMESTAMP, BODY.as_bytes(), NOW_MS), Ok(()));
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{KEY}\n-----END PUBLIC KEY-----\n");
        assert_eq!(EventKey::parse(&pem), Ok(key()));
        assert!(EventKey::parse("MFkw").is_err());
    }

    #[test]
    fn any_change_is_refused() {
        let verify = |signature: &str, timestamp: &str, body: &str, now_ms| {
            key().verify(signature, timestamp, body.as_bytes(), now_ms)
        };
        let trimmed = BODY.trim_end();
        assert_eq!(verify(SIGNATURE, TIMESTAMP, trimmed, NOW_MS), Err(SignatureProblem::Mismatch));
        assert_eq!(verify(SIGNATURE, "1600112503", BODY, NOW_MS), Err(SignatureProblem::Mismatch));
        for (signature, timestamp) in [
            ("", TIMESTAMP),
            ("?", TIMESTAMP),
            ("AAAA", TIMESTAMP),
            (SIGNATURE, ""),
            (SIGNATURE, "+1600112502"),
            (SIGNATURE, "soon"),
        ] {
            let refused = verify(signature, timestamp, BODY, NOW_MS);
            assert_eq!(refused, Err(SignatureProblem::Malformed), "{signature} {timestamp}");
        }
        let late_ms = NOW_MS + (TOLERANCE_S + 10) * 1000;
        assert_eq!(verify(SIGNATURE, TIMESTAMP, BODY, late_ms), Err(SignatureProblem::Expired));
        assert_eq!(verify(SIGNATURE, TIMESTAMP, BODY, 0), Err(SignatureProblem::Expired));
    }

    proptest! {
        #[test]
        fn headers_of_any_text_are_refused_without_panic(signature: String, timestamp: String, body: Vec<u8>) {
            prop_assert!(key().verify(&signature, &timestamp, &body, NOW_MS).is_err());
            let _ = EventKey::parse(&signature);
        }
    }
}
