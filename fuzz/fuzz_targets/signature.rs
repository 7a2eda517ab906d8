//! Requests with any URL and headers. A signed one verifies, with and without port; an unsigned one does not.
//!
//! An input is five lines and a body: method, URL, content type, `X-Twilio-Webhooks-Signature-Settings` and
//! `X-Twilio-Signature`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twilio_edge_filter::form::Form;
use twilio_edge_filter::signature::{
    Algorithm, BodyRule, Key, SignatureSettings, candidate_urls, has_body_hash, sign, verify,
};

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(6, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (method, url, content_type) = (line(), line(), line());
    let (settings, signature, body) = (line(), line(), line());
    let Ok(url) = std::str::from_utf8(url) else { return };
    let _ = SignatureSettings::parse(Some(settings));
    let keys = [
        Key::auth_token("token", "0123456789abcdef").unwrap(),
        Key::shared("shared", "secret", Algorithm::HmacSha256).unwrap(),
    ];
    let rule = BodyRule::for_request(method, Some(content_type), body);
    let Ok(form) = Form::parse(rule.parameters(url, body)) else { return };
    let payload = rule.payload(&form, body);
    // A fuzzer cannot guess an HMAC, and the seeds are signed with other keys.
    assert!(verify(url, payload, Some(signature), &keys).is_err());
    let bound = rule != BodyRule::Hash || body.is_empty();
    if bound && !has_body_hash(url) {
        for candidate in candidate_urls(url) {
            for (index, key) in keys.iter().enumerate() {
                let signed = sign(&candidate, payload, key);
                let found = verify(url, payload, Some(signed.as_bytes()), &keys);
                assert_eq!(found.map(|found| found.key), Ok(index), "{url:?}");
            }
        }
    }
});
