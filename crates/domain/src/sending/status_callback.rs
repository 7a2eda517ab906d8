//! Status callbacks of the sidecar's own: how a message ended that Twilio never received. Twilio reports nothing about such a
//! message, so the sidecar sends the request that Twilio would send to the StatusCallback of the caller, with Twilio's
//! parameters and Twilio's signature. Builds and signs the request; does not know when it is sent.

use base64::{Engine, engine::general_purpose::STANDARD};
use form_urlencoded::{Serializer, parse};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha1::Sha1;
use twilio_edge_contract::MESSAGE_PARAMETER;

use crate::dropin::{codes, resource::provisional_sid};

/// Name of the built-in sink that sends the callbacks. No sink of the sinks file may have it.
pub const SINK: &str = "status_callbacks";

/// Type of the stored event of a callback. No sink of the sinks file receives it.
pub const EVENT_TYPE: &str = "status_callback";

/// Version of Twilio's API, as its callbacks name it.
const API_VERSION: &str = "2010-04-01";

/// Request that the sidecar sends to the StatusCallback of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCallback {
    /// URL of the caller, with our id of the message.
    pub url: String,
    /// Parameters, form-encoded.
    pub form: String,
}

/// Message that ended without Twilio.
#[derive(Debug, Clone, Copy)]
pub struct UnsentMessage<'a> {
    /// Our id.
    pub id: &'a str,
    /// Account of the message.
    pub account_sid: &'a str,
    /// Form that would have been posted to Twilio.
    pub form: &'a str,
    /// State in which it ended: `refused`, `not_sent` or `canceled`.
    pub state: &'a str,
    /// Code of the reason; empty without one.
    pub code: &'a str,
}

impl StatusCallback {
    /// Builds the callback. Returns `None` if the request of the message named no StatusCallback.
    pub fn of(message: UnsentMessage<'_>) -> Option<StatusCallback> {
        let get = |name: &str| {
            let mut found = parse(message.form.as_bytes()).filter(|(have, _)| have == name);
            found.next().map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
        };
        let url = get("StatusCallback")?;
        // The fragment has settings for Twilio's request, and is not sent.
        let url = url.split('#').next().unwrap_or_default();
        let sid = provisional_sid(message.id);
        let status = if message.state == "canceled" { "canceled" } else { "failed" };
        let mut form = Serializer::new(String::new());
        form.append_pair("AccountSid", message.account_sid)
            .append_pair("ApiVersion", API_VERSION)
            .append_pair("MessageSid", &sid)
            .append_pair("MessageStatus", status)
            .append_pair("SmsSid", &sid)
            .append_pair("SmsStatus", status);
        if status == "failed" {
            let code = codes::of_end(message.code).unwrap_or(codes::UNKNOWN);
            form.append_pair("ErrorCode", &code.to_string());
        }
        for name in ["From", "MessagingServiceSid", "To"] {
            if let Some(value) = get(name) {
                form.append_pair(name, &value);
            }
        }
        Some(StatusCallback { url: with_message_id(url, message.id), form: form.finish() })
    }

    /// Returns the stored form: an object.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Returns the id of the stored event of a message's callback. A message ends once.
pub fn event_id(message_id: &str) -> String {
    format!("{EVENT_TYPE}:{message_id}")
}

/// Returns whether a status callback about this SID is the sidecar's own: the SID is derived from the id of its message.
pub fn is_own(message_id: &str, message_sid: &str) -> bool {
    provisional_sid(message_id) == message_sid
}

/// Returns Twilio's signature of a form that is posted to this URL: the header `X-Twilio-Signature`.
/// Source: twilio.com/docs/usage/security.
pub fn signature(auth_token: &str, url: &str, form: &str) -> Option<String> {
    let mut pairs: Vec<_> = parse(form.as_bytes()).collect();
    pairs.sort();
    let mut mac = Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()).ok()?;
    mac.update(url.as_bytes());
    for (name, value) in pairs {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    Some(STANDARD.encode(mac.finalize().into_bytes()))
}

/// Adds the message id to a URL, before a fragment, which contains settings for Twilio's request and is not sent. A query in alphabetical
/// order stays in it: some proxies sort queries, and a sorted query must be the one that Twilio signed
/// (twilio-php issue 790, twilio-node issue 1079).
pub fn with_message_id(url: &str, id: &str) -> String {
    let (url, fragment) = match url.split_once('#') {
        Some((url, fragment)) => (url, format!("#{fragment}")),
        None => (url, String::new()),
    };
    let own = format!("{MESSAGE_PARAMETER}={id}");
    let Some((base, query)) = url.split_once('?').filter(|(_, query)| !query.is_empty()) else {
        return format!("{}?{own}{fragment}", url.trim_end_matches('?'));
    };
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let mut pairs: Vec<&str> = query.split('&').collect();
    let is_after = |pair: &&str| name(pair).as_str() > MESSAGE_PARAMETER;
    let index = pairs.iter().position(is_after).unwrap_or(pairs.len());
    pairs.insert(index, &own);
    format!("{base}?{}{fragment}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "ms_00112233445566778899aabbccddeeff";
    const FORM: &str = "To=%2B14155550101&From=%2B14155238886&Body=hi&StatusCallback=https%3A%2F%2Fapp.example%2Fs%23rc%3D3";

    fn unsent() -> UnsentMessage<'static> {
        UnsentMessage { id: ID, account_sid: "AC1", form: FORM, state: "refused", code: "expired" }
    }

    #[test]
    fn callback_has_the_parameters_of_twilio_and_no_text() {
        let callback = StatusCallback::of(unsent()).unwrap();
        assert_eq!(
            callback.url,
            "https://app.example/s?twilio_edge_message=ms_00112233445566778899aabbccddeeff"
        );
        assert_eq!(
            callback.form,
            "AccountSid=AC1&ApiVersion=2010-04-01&MessageSid=SM00112233445566778899aabbccddeeff\
             &MessageStatus=failed&SmsSid=SM00112233445566778899aabbccddeeff&SmsStatus=failed&ErrorCode=30036\
             &From=%2B14155238886&To=%2B14155550101"
        );
        let stored: StatusCallback = serde_json::from_value(callback.to_json()).unwrap();
        assert_eq!(stored, callback);
        for (code, of_twilio) in [("suppressed", "21610"), ("21211", "21211"), ("", "30008")] {
            let form = StatusCallback::of(UnsentMessage { code, ..unsent() }).unwrap().form;
            assert!(form.contains(&format!("&ErrorCode={of_twilio}&")), "{form}");
        }
        let canceled = UnsentMessage { state: "canceled", code: "", ..unsent() };
        let form = StatusCallback::of(canceled).unwrap().form;
        assert!(form.contains("MessageStatus=canceled") && !form.contains("ErrorCode"), "{form}");
        let service = "To=%2B1&MessagingServiceSid=MG1&StatusCallback=https%3A%2F%2Fa.example";
        let form = StatusCallback::of(UnsentMessage { form: service, ..unsent() }).unwrap().form;
        assert!(form.contains("MessagingServiceSid=MG1&To") && !form.contains("From="), "{form}");
        for none in ["", "To=%2B1", "To=%2B1&StatusCallback="] {
            assert_eq!(StatusCallback::of(UnsentMessage { form: none, ..unsent() }), None);
        }
    }

    /// Example of Twilio's documentation (twilio.com/docs/usage/security).
    #[test]
    fn signature_equals_the_example_of_the_documentation() {
        let form = "Digits=1234&To=%2B18005551212&From=%2B14158675309&Caller=%2B14158675309&CallSid=CA1234567890ABCDE";
        let signed = signature("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", form);
        assert_eq!(signed.as_deref(), Some("RSOYDt4T1cUTdK1PDd93/VVr8B8="));
    }

    #[test]
    fn own_callback_is_known_by_its_sid() {
        assert!(is_own(ID, "SM00112233445566778899aabbccddeeff"));
        assert!(!is_own(ID, "SM00000000000000000000000000000000"));
    }

    #[test]
    fn url_contains_our_id() {
        let id = "ms_0";
        for (url, expected) in [
            ("https://a.example/s", "https://a.example/s?twilio_edge_message=ms_0"),
            ("https://a.example/s?b=c", "https://a.example/s?b=c&twilio_edge_message=ms_0"),
            ("https://a.example/s#rc=3", "https://a.example/s?twilio_edge_message=ms_0#rc=3"),
            ("https://a.example/s?", "https://a.example/s?twilio_edge_message=ms_0"),
            (
                "https://a.example/s?app=7&zone=eu#rc=3",
                "https://a.example/s?app=7&twilio_edge_message=ms_0&zone=eu#rc=3",
            ),
            ("https://a.example/s?zone=eu", "https://a.example/s?twilio_edge_message=ms_0&zone=eu"),
            ("https://a.example/s?u", "https://a.example/s?twilio_edge_message=ms_0&u"),
        ] {
            assert_eq!(with_message_id(url, id), expected);
        }
    }

    proptest! {
        /// Any form and any token are signed without a panic, and the order of the parameters does not matter.
        #[test]
        fn signature_depends_on_no_order(token: String, url: String, pairs in prop::collection::btree_map(".{0,4}", ".{0,6}", 0..6)) {
            let written = |pairs: Vec<(&String, &String)>| Serializer::new(String::new()).extend_pairs(pairs).finish();
            let forward = written(pairs.iter().collect());
            let backward = written(pairs.iter().rev().collect());
            prop_assert!(signature(&token, &url, &forward).is_some());
            prop_assert_eq!(signature(&token, &url, &forward), signature(&token, &url, &backward));
        }
    }
}
