//! Tests with Twilio's published vectors, both forms of the port, and requests that must not pass.

use super::*;
use proptest::prelude::*;

/// Vector of Twilio's documentation, with which every official SDK is tested.
const TOKEN: &str = "12345";
const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
const FORM: &[u8] =
    b"CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
const SIGNATURE: &str = "RSOYDt4T1cUTdK1PDd93/VVr8B8=";

fn key(token: &str) -> Key {
    Key::auth_token("test", token).unwrap()
}

fn check(url: &str, body: &[u8], signature: &str, token: &str) -> Result<KeyMatch, Mismatch> {
    let form = Form::parse(body).unwrap();
    verify(url, Payload::Form(&form), Some(signature.as_bytes()), &[key(token)])
}

#[test]
fn twilios_published_form_vector_verifies() {
    assert_eq!(
        check(URL, FORM, SIGNATURE, TOKEN),
        Ok(KeyMatch { key: 0, candidate: Candidate::WithoutPort })
    );
}

#[test]
fn twilios_published_body_hash_vector_verifies() {
    let body = br#"{"property": "value", "boolean": true}"#;
    let url = "https://mycompany.com/myapp.php?foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let signature = "a9nBmqA0ju/hNViExpshrM61xv4=";
    let verdict = |url: &str, body: &[u8]| {
        verify(url, Payload::Opaque(body), Some(signature.as_bytes()), &[key(TOKEN)])
    };
    assert!(verdict(url, body).is_ok());
    assert_eq!(verdict(url, b"{}"), Err(Mismatch::WrongBodyHash));
    assert_eq!(verdict(URL, body), Err(Mismatch::NoBodyHash));
    let upper = url.replace("0a1ff", "0A1FF");
    assert_eq!(verdict(&upper, body), Err(Mismatch::WrongBodyHash));
}

#[test]
fn method_and_content_type_choose_the_rule() {
    let form = "application/x-www-form-urlencoded";
    let cases = [
        ("POST", Some(form), "a=b", BodyRule::Form),
        ("POST", Some(form), "", BodyRule::Form),
        ("PUT", Some("Application/X-WWW-Form-Urlencoded ; charset=UTF-8"), "a", BodyRule::Form),
        ("POST", Some("application/x-www-form-urlencoded2"), "a=b", BodyRule::Hash),
        ("POST", Some("application/x-www-form-urlencoded, text/plain"), "a=b", BodyRule::Hash),
        ("POST", Some("application/json"), "{}", BodyRule::Hash),
        ("POST", Some(""), "a=b", BodyRule::Hash),
        ("POST", None, "a=b", BodyRule::Hash),
        ("POST", None, "", BodyRule::Hash),
        ("GET", None, "", BodyRule::None),
        ("HEAD", Some(form), "", BodyRule::None),
        ("GET", Some(form), "a=b", BodyRule::Hash),
        ("get", None, "", BodyRule::Hash),
    ];
    for (method, content_type, body, want) in cases {
        let content_type = content_type.map(str::as_bytes);
        let got = BodyRule::for_request(method.as_bytes(), content_type, body.as_bytes());
        assert_eq!(got, want, "{method} {content_type:?} {body}");
    }
}

#[test]
fn get_has_its_parameters_in_the_query() {
    let url = "https://h/p?a=1&b#c?d";
    assert_eq!(BodyRule::None.parameters(url, b""), b"a=1&b");
    assert_eq!(BodyRule::None.parameters("https://h/p", b""), b"");
    assert_eq!(BodyRule::Form.parameters(url, b"e=2"), b"e=2");
    assert_eq!(BodyRule::Hash.parameters(url, b"{}"), b"");
}

#[test]
fn body_cannot_be_removed_or_added() {
    let empty = Form::parse(b"").unwrap();
    let payloads = [Payload::Opaque(b""), Payload::Form(&empty), Payload::Empty];
    let verdict = |url: &str, payload| {
        let signature = sign(url, Payload::Empty, &key(TOKEN));
        verify(url, payload, Some(signature.as_bytes()), &[key(TOKEN)])
    };
    let with_hash = |body: &[u8]| format!("{URL}&{BODY_HASH}={}", hash_body(body));
    for payload in payloads {
        assert!(verdict(URL, payload).is_ok(), "{payload:?}");
        assert!(verdict(&with_hash(b""), payload).is_ok(), "{payload:?}");
        assert_eq!(verdict(&with_hash(b"{}"), payload), Err(Mismatch::WrongBodyHash));
    }
    assert_eq!(verdict(URL, Payload::Opaque(b"{}")), Err(Mismatch::NoBodyHash));
    assert!(verdict(&with_hash(b"{}"), Payload::Opaque(b"{}")).is_ok());
    let padded = format!("{URL}{}&{BODY_HASH}={}", "&a=b".repeat(2000), hash_body(b"{}"));
    assert!(verdict(&padded, Payload::Opaque(b"{}")).is_ok(), "a long query still has its hash");
}

#[test]
fn url_is_tried_with_and_without_port() {
    let cases = [
        ("https://h/p", ["https://h/p", "https://h:443/p"]),
        ("http://h/p?q", ["http://h/p?q", "http://h:80/p?q"]),
        ("https://h:8443/p", ["https://h/p", "https://h:8443/p"]),
        ("https://h:443", ["https://h", "https://h:443"]),
        ("https://h?a=b:1", ["https://h?a=b:1", "https://h:443?a=b:1"]),
        ("https://u:p@h/p", ["https://u:p@h/p", "https://u:p@h:443/p"]),
        ("https://u:p@h:1/p", ["https://u:p@h/p", "https://u:p@h:1/p"]),
        ("https://[::1]/p", ["https://[::1]/p", "https://[::1]:443/p"]),
        ("https://[::1]:9/p", ["https://[::1]/p", "https://[::1]:9/p"]),
        ("https://h/p?", ["https://h/p?", "https://h:443/p?"]),
        ("https://h//a/../b%2f", ["https://h//a/../b%2f", "https://h:443//a/../b%2f"]),
        ("HTTPS://H/p", ["HTTPS://H/p", "HTTPS://H:443/p"]),
    ];
    for (url, want) in cases {
        assert_eq!(candidate_urls(url), want, "{url}");
    }
}

#[test]
fn key_that_signed_is_named() {
    let form = Form::parse(FORM).unwrap();
    let keys = [key("other"), key(TOKEN)];
    let found = verify(URL, Payload::Form(&form), Some(SIGNATURE.as_bytes()), &keys);
    assert_eq!(found, Ok(KeyMatch { key: 1, candidate: Candidate::WithoutPort }));
    assert!(!format!("{keys:?}").contains(TOKEN), "a key must not print its token");
}

#[test]
fn signature_is_compared_as_exact_text() {
    let form = Form::parse(FORM).unwrap();
    let wrong: [&[u8]; 8] = [
        b"RSOYDt4T1cUTdK1PDd93/VVr8B9=",
        b"RSOYDt4T1cUTdK1PDd93_VVr8B8=",
        b"RSOYDt4T1cUTdK1PDd93/VVr8B8",
        b"RSOYDt4T1cUTdK1PDd93/VVr8B8==",
        b" RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        b"rsoydt4t1cutdk1pdd93/vvr8b8=",
        b"\xff\xfe",
        b"44e3980ede13d5c51374ad4f0ddf77fd556bf01f",
    ];
    for signature in wrong {
        assert_eq!(
            verify(URL, Payload::Form(&form), Some(signature), &[key(TOKEN)]),
            Err(Mismatch::WrongSignature),
            "{}",
            String::from_utf8_lossy(signature)
        );
    }
    for absent in [None, Some(&b""[..])] {
        assert_eq!(
            verify(URL, Payload::Form(&form), absent, &[key(TOKEN)]),
            Err(Mismatch::NoSignature)
        );
    }
}

#[test]
fn form_body_is_never_verified_by_the_url_alone() {
    let url_only = sign(URL, Payload::Empty, &key(TOKEN));
    assert_eq!(check(URL, FORM, &url_only, TOKEN), Err(Mismatch::WrongSignature));
    assert!(check(URL, b"", &url_only, TOKEN).is_ok());
}

#[test]
fn shared_key_signs_with_its_own_algorithm() {
    let form = Form::parse(FORM).unwrap();
    let keys = [key("secret"), Key::shared("shared", "secret", Algorithm::HmacSha256).unwrap()];
    // Computed with PyPI twilio 9.13.0: compute_signature(url, params, "HMAC_SHA256").
    let signature = "URweRwxe8s99gM7bKJ2P7Q0dplvm0Oi0SIeBzkJ7akI=";
    assert_eq!(sign(URL, Payload::Form(&form), &keys[1]), signature);
    let found = verify(URL, Payload::Form(&form), Some(signature.as_bytes()), &keys);
    assert_eq!(found, Ok(KeyMatch { key: 1, candidate: Candidate::WithoutPort }));
    let sha1 = sign(URL, Payload::Form(&form), &keys[0]);
    let only_shared = &keys[1..];
    assert!(verify(URL, Payload::Form(&form), Some(sha1.as_bytes()), only_shared).is_err());
}

#[test]
fn settings_header_only_selects_a_key() {
    let shared = |algorithm| SignatureSettings::Shared { id: "webhooks_sharedkey_1", algorithm };
    for (header, want) in [
        ("", SignatureSettings::AuthToken),
        ("key=webhooks_sharedkey_1", SignatureSettings::AuthToken),
        ("algorithm=", SignatureSettings::AuthToken),
        ("algorithm=HMAC_SHA1", SignatureSettings::AuthToken),
        ("algorithm=HMAC_SHA256", SignatureSettings::Unsupported),
        ("key=webhooks_sharedkey_1,algorithm=HMAC_SHA512", SignatureSettings::Unsupported),
        ("key=webhooks_sharedkey_1,algorithm=HMAC_SHA256", shared(Algorithm::HmacSha256)),
        (" algorithm = hmac_sha256 , key = webhooks_sharedkey_1 ", shared(Algorithm::HmacSha256)),
        ("algorithm=HMAC_SHA1,key=webhooks_sharedkey_1", shared(Algorithm::HmacSha1)),
    ] {
        assert_eq!(SignatureSettings::parse(Some(header.as_bytes())), want, "{header}");
    }
    assert_eq!(SignatureSettings::parse(None), SignatureSettings::AuthToken);
    assert_eq!(SignatureSettings::parse(Some(b"key=\xff")), SignatureSettings::Unsupported);
}

proptest! {
    #[test]
    fn signed_request_verifies_and_a_changed_byte_does_not(
        path in "(/[ -~&&[^#]]{0,20}){1,3}",
        parameters in proptest::collection::vec((".{0,12}", ".{0,30}"), 1..12),
        token in "[0-9a-f]{32}",
        flip in any::<prop::sample::Index>(),
    ) {
        let url = format!("https://hooks.example.com{path}");
        let body = serde_urlencoded::to_string(&parameters).unwrap();
        let form = Form::parse(body.as_bytes()).unwrap();
        let signature = sign(&url, Payload::Form(&form), &key(&token));
        prop_assert!(check(&url, body.as_bytes(), &signature, &token).is_ok());
        let with_port = sign(&candidate_urls(&url)[1], Payload::Form(&form), &key(&token));
        let found = check(&url, body.as_bytes(), &with_port, &token);
        prop_assert_eq!(found, Ok(KeyMatch { key: 0, candidate: Candidate::WithPort }));

        let mut tampered = signature.into_bytes();
        let at = flip.index(tampered.len() - 1);
        tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(tampered).unwrap();
        prop_assert_eq!(check(&url, body.as_bytes(), &tampered, &token), Err(Mismatch::WrongSignature));
    }

    #[test]
    fn url_of_any_text_has_candidates(url in ".{0,80}") {
        let [without, with] = candidate_urls(&url);
        prop_assert!(with.len() > without.len());
    }
}
