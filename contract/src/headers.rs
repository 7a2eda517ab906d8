//! Names of the headers that the filter sets for the backend. A client may send none of them: the filter removes them from
//! every request, in this spelling and in any that a backend could mistake for it.

/// Prefix of every trusted header, in lower case.
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
/// Channel: `sms`, `whatsapp`, `messenger`, `rcs`, or another prefix that Twilio used.
pub const CHANNEL: &str = "x-twilio-edge-channel";
/// `stop`, `start` or `help`, when the message was one of these.
pub const OPT: &str = "x-twilio-edge-opt";
/// `true` when the sender is on the suppression list, this message's own STOP included.
pub const SUPPRESSED: &str = "x-twilio-edge-suppressed";
/// End of the 24-hour window that this message opened, RFC 3339 in UTC.
pub const WINDOW_EXPIRES: &str = "x-twilio-edge-window-expires";
/// Links to the media of an inbound message in the sidecar's media store, in the order of `MediaUrl0..9`, separated by spaces.
pub const MEDIA: &str = "x-twilio-edge-media";
/// `first` when the sidecar saw this webhook for the first time, `unknown` without a verdict.
pub const DEDUPE: &str = "x-twilio-edge-dedupe";
/// Number of times this webhook was forwarded to the backend, this time included, from 1.
pub const ATTEMPT: &str = "x-twilio-edge-attempt";
/// Label of the configured key that signed: `current`, `next`, .. (never the key itself).
pub const KEY: &str = "x-twilio-edge-key";
/// `true` on a copy that `twilio-edge listen` sends to a developer's machine. The filter never sets it.
pub const COPY: &str = "x-twilio-edge-copy";
/// On local replies to the client: the reason why the request was not forwarded.
pub const REASON: &str = "x-twilio-edge-reason";

/// Every trusted header of the filter.
const ALL: [&str; 16] = [
    VERIFIED,
    CLASS,
    MESSAGE_SID,
    STATUS,
    FROM,
    TO,
    CHANNEL,
    OPT,
    SUPPRESSED,
    WINDOW_EXPIRES,
    MEDIA,
    DEDUPE,
    ATTEMPT,
    KEY,
    COPY,
    REASON,
];

/// Reports whether a backend could mistake `name` for a header of the filter.
///
/// CGI, WSGI, Rack and PHP map every separator of a header name to `_` in the name of a variable, and some frameworks drop
/// separators. So `X_Twilio_Edge_Verified`, `x.twilio.edge.verified`, `x--twilio~edge-verified` and `XTwilioEdgeVerified`
/// are reserved as well. Names under the prefix are reserved although no such header exists today.
pub fn is_reserved(name: &[u8]) -> bool {
    let mut rest = without_separators(name);
    // Most headers of a request begin with another letter.
    if !matches!(rest.first(), Some(b'x' | b'X')) {
        return false;
    }
    for want in PREFIX.bytes().filter(u8::is_ascii_alphanumeric) {
        rest = match without_separators(rest).split_first() {
            Some((have, rest)) if have.to_ascii_lowercase() == want => rest,
            _ => return false,
        };
    }
    let is_separated = rest.first().is_some_and(|byte| !byte.is_ascii_alphanumeric());
    is_separated
        || ALL
            .iter()
            .filter_map(|known| known.strip_prefix(PREFIX))
            .any(|known| is_spelling(rest, known))
}

/// Reports whether `name` has the letters and digits of `known`, in any case and with any separators.
pub fn is_spelling(name: &[u8], known: &str) -> bool {
    let known = known.bytes().filter(u8::is_ascii_alphanumeric);
    let letters = name.iter().copied().filter(u8::is_ascii_alphanumeric);
    letters.map(|byte| byte.to_ascii_lowercase()).eq(known.map(|byte| byte.to_ascii_lowercase()))
}

fn without_separators(name: &[u8]) -> &[u8] {
    let letters = name.iter().position(u8::is_ascii_alphanumeric).unwrap_or(name.len());
    name.get(letters..).unwrap_or_default()
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
            "x.twilio.edge.verified",
            "x~twilio!edge|verified",
            "x--twilio__edge..verified",
            "-x-twilio-edge-verified",
            "_X_Twilio_Edge_Verified_",
            "xtwilioedgeverified",
            "XTwilioEdge-MessageSid",
            "x-twilioedge-verified",
            "x-twilio-edgeverified",
            "xtwilioedge_anything",
            "x twilio edge key",
        ] {
            assert!(is_reserved(name.as_bytes()), "{name}");
        }
        assert!(is_reserved(b"x-twilio-edge\xe9verified"));
        for name in [
            "x-twilio-signature",
            "x-twilio-edge",
            "twilio-edge-verified",
            "",
            "-",
            "x-twilio-edged-x",
            "x-twilio-edged",
            "xx-twilio-edge-verified",
            "x-twilio-edgeverifiedly",
        ] {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn every_header_of_the_filter_is_reserved_with_any_separators() {
        for known in ALL {
            for separator in ["", "-", "_", ".", "--", "'"] {
                let name = known.replace('-', separator);
                assert!(is_reserved(name.as_bytes()), "{name}");
                assert!(is_reserved(name.to_ascii_uppercase().as_bytes()), "{name}");
            }
        }
    }
}
