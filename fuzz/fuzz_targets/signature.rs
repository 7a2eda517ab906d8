//! What is signed verifies, in both forms of the port; what is not does not; no URL or header is too odd.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twilio_edge_filter::form::Form;
use twilio_edge_filter::signature::{
    Algorithm, BodyRule, Key, Settings, candidate_urls, has_body_hash, sign, verify,
};

fuzz_target!(|input: (String, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>, bool)| {
    let (url, body, content_type, signature, settings, is_post) = input;
    let _ = Settings::of(Some(&settings));
    let keys = [
        Key::auth_token("token", "0123456789abcdef").unwrap(),
        Key::shared("shared", "secret", Algorithm::HmacSha256).unwrap(),
    ];
    let method: &[u8] = if is_post { b"POST" } else { b"GET" };
    let rule = BodyRule::of(method, Some(&content_type), &body);
    let Ok(form) = Form::parse(rule.parameters(&url, &body)) else { return };
    let payload = rule.payload(&form, &body);
    // Nobody guesses an HMAC, least of all a fuzzer.
    assert!(verify(&url, payload, Some(&signature), &keys).is_err());
    let bound = rule != BodyRule::Hash || body.is_empty();
    if bound && !has_body_hash(&url) {
        for candidate in candidate_urls(&url) {
            for (index, key) in keys.iter().enumerate() {
                let signed = sign(&candidate, payload, key);
                let found = verify(&url, payload, Some(signed.as_bytes()), &keys);
                assert_eq!(found.map(|found| found.key), Ok(index), "{url:?}");
            }
        }
    }
});
