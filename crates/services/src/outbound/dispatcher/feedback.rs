//! Feedback of a call for the concurrency limit of its account.

use std::hash::{DefaultHasher, Hash, Hasher};

use twilio_edge_domain::{
    email::outcome::THROTTLED as EMAIL_THROTTLED,
    sending::{adaptive_concurrency::CallOutcome, outcome::SendOutcome},
};

/// Codes of a 429 that may be about the account: Twilio's own code, and the bare status if the answer has no code.
const ACCOUNT_THROTTLED: [&str; 2] = ["20429", "429"];

/// Maps the end of a call to feedback for the concurrency limit. A 429 with another code than the account's (63018: of
/// the sender, the channel or the recipient) delays only its own message.
pub(super) fn feedback(meaning: &SendOutcome, recipient: &str) -> CallOutcome {
    match meaning {
        SendOutcome::Retry { is_throttled: true, retry_after, code, .. }
            if ACCOUNT_THROTTLED.contains(&code.as_str()) =>
        {
            let mut hasher = DefaultHasher::new();
            recipient.hash(&mut hasher);
            CallOutcome::Throttled {
                pause: retry_after.unwrap_or_default(),
                recipient: hasher.finish(),
            }
        }
        SendOutcome::Retry { is_throttled: true, retry_after, code, .. }
            if code == EMAIL_THROTTLED =>
        {
            CallOutcome::SenderThrottled { pause: retry_after.unwrap_or_default() }
        }
        SendOutcome::Sent { .. } | SendOutcome::Refused { .. } => CallOutcome::Accepted,
        SendOutcome::Retry { .. } | SendOutcome::Unknown { .. } => CallOutcome::NoEvidence,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn account_is_throttled_only_by_a_429_without_the_code_of_another_limit() {
        let of = |code: &str, is_throttled| {
            let (code, retry_after) = (code.to_owned(), None);
            feedback(
                &SendOutcome::Retry { code, reason: String::new(), retry_after, is_throttled },
                "+1",
            )
        };
        for (code, is_throttled, is_about_account) in [
            ("20429", true, true),
            ("429", true, true),
            ("63018", true, false),
            ("21611", true, false),
            ("21611", false, false),
            ("not_connected", false, false),
        ] {
            let feedback = of(code, is_throttled);
            assert_eq!(
                matches!(feedback, CallOutcome::Throttled { .. }),
                is_about_account,
                "{code}"
            );
        }
    }

    #[test]
    fn sender_pauses_if_the_mail_provider_throttles() {
        let pause = Duration::from_secs(7);
        let throttled = SendOutcome::Retry {
            code: "email_throttled".to_owned(),
            reason: String::new(),
            retry_after: Some(pause),
            is_throttled: true,
        };
        let feedback = feedback(&throttled, "email:ava@example.com");
        assert_eq!(feedback, CallOutcome::SenderThrottled { pause });
    }
}
