//! Names of the headers the filter sets for the backend. A client may send none of them: they are removed
//! from every request the filter sees, in this spelling and in any that a backend could mistake for it.

/// What every trusted header starts with, in lower case.
pub const PREFIX: &str = "x-twilio-edge-";

/// Account SID (`AC..`) whose key signed the request. Present on proven requests only.
pub const VERIFIED: &str = "x-twilio-edge-verified";
/// Class of the webhook: `inbound`, `status` or `other`.
pub const CLASS: &str = "x-twilio-edge-class";
/// `MessageSid` (`SM..` or `MM..`).
pub const MESSAGE_SID: &str = "x-twilio-edge-message-sid";
/// `MessageStatus` of a status callback.
pub const STATUS: &str = "x-twilio-edge-status";
/// Sender, without its channel prefix: E.164 for phone channels.
pub const FROM: &str = "x-twilio-edge-from";
/// Recipient, without its channel prefix: E.164 for phone channels.
pub const TO: &str = "x-twilio-edge-to";
/// Channel: `sms`, `whatsapp`, `messenger`, `rcs`, or whatever prefix Twilio used.
pub const CHANNEL: &str = "x-twilio-edge-channel";
/// `stop`, `start` or `help`, when the message was one of these.
pub const OPT: &str = "x-twilio-edge-opt";
/// `true` when the sender is on the suppression list, this message's own STOP included.
pub const SUPPRESSED: &str = "x-twilio-edge-suppressed";
/// When the 24-hour window this message opened ends, RFC 3339 in UTC.
pub const WINDOW_EXPIRES: &str = "x-twilio-edge-window-expires";
/// `first` when the sidecar saw this webhook for the first time, `unknown` when nobody could be asked.
pub const DEDUPE: &str = "x-twilio-edge-dedupe";
/// How many times this webhook was handed to the backend, this time included, from 1.
pub const ATTEMPT: &str = "x-twilio-edge-attempt";
/// Which configured key matched: `current`, `next`, .. (never the key itself).
pub const KEY: &str = "x-twilio-edge-key";
/// On local replies, to the client: why the request was not forwarded.
pub const REASON: &str = "x-twilio-edge-reason";

/// Whether a backend could take `name` for one of ours. CGI, WSGI and PHP read `-` and `_` as the same
/// character, so `X_Twilio_Edge_Verified` must go too.
pub fn is_reserved(name: &[u8]) -> bool {
    name.len() >= PREFIX.len()
        && name.iter().zip(PREFIX.as_bytes()).all(|(have, want)| {
            have.to_ascii_lowercase() == *want || (*have == b'_' && *want == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_a_backend_could_mistake_for_ours_is_reserved() {
        for name in [
            "x-twilio-edge-verified",
            "X-Twilio-Edge-Verified",
            "x_twilio_edge_verified",
            "X_Twilio-Edge_anything",
            "x-twilio-edge-",
        ] {
            assert!(is_reserved(name.as_bytes()), "{name}");
        }
        for name in
            ["x-twilio-signature", "x-twilio-edge", "twilio-edge-verified", "", "x-twilio-edged-x"]
        {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }
}
