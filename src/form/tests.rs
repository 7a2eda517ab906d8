//! Tests of the decoding of bytes, and of the cuts of a signed request that must be refused.

use super::*;
use crate::form::value_shapes::address;
use proptest::prelude::*;
use twilio_edge_contract::Class;

const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";
const MESSAGE: &str = "SM00112233445566778899aabbccddeeff";

fn pairs(body: &str) -> Vec<(String, String)> {
    let form = Form::parse(body.as_bytes()).unwrap();
    form.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn decodes_as_twilios_validators_do() {
    let cases: [(&str, &[(&str, &str)]); 10] = [
        ("a=1&b=2", &[("a", "1"), ("b", "2")]),
        ("a=1&a=0", &[("a", "1"), ("a", "0")]),
        ("a=+b+", &[("a", " b ")]),
        ("a=%2B%2b", &[("a", "++")]),
        ("a=&b&=c", &[("a", ""), ("b", ""), ("", "c")]),
        ("&&a=1&&", &[("a", "1")]),
        ("a=%&b=%zz&c=%4", &[("a", "%"), ("b", "%zz"), ("c", "%4")]),
        ("a=b=c", &[("a", "b=c")]),
        ("a;b=c;d", &[("a;b", "c;d")]),
        ("%C3%A9=%ff", &[("é", "\u{fffd}")]),
    ];
    for (body, want) in cases {
        let want: Vec<_> = want.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(pairs(body), want, "{body}");
    }
}

#[test]
fn raw_bytes_are_decoded_before_escapes() {
    let form = Form::parse(b"a=\xc3%A9&\xff=b").unwrap();
    let pairs: Vec<_> = form.iter().collect();
    assert_eq!(pairs, [("a", "\u{fffd}\u{fffd}"), ("\u{fffd}", "b")]);
}

#[test]
fn too_many_parameters_are_refused() {
    assert!(Form::parse("a&".repeat(MAX_PARAMETERS - 1).as_bytes()).is_ok());
    assert_eq!(Form::parse("a&".repeat(MAX_PARAMETERS).as_bytes()), Err(TooManyParameters));
}

#[test]
fn signed_order_is_by_name_then_value_in_bytes_and_equal_pairs_count_once() {
    let form = Form::parse(b"b=2&B=1&a=2&a=10&a=2&ab=0").unwrap();
    let order: Vec<_> = form.canonical().map(|p| format!("{}{}", p.0, p.1)).collect();
    assert_eq!(order, ["B1", "a10", "a2", "ab0", "b2"]);
}

fn inbound(extra: &str) -> String {
    format!(
        "AccountSid={ACCOUNT}&MessageSid={MESSAGE}&From=whatsapp%3A%2B14155550123&To=whatsapp%3A%2B14155238886{extra}"
    )
}

fn read(class: Class, body: &str) -> Result<Webhook, ShapeError> {
    let form = Form::parse(body.as_bytes()).unwrap();
    Webhook::read(class, &SignedParameters::posted(&form, body.as_bytes(), "/in"))
}

#[test]
fn inbound_message_is_identified_by_account_and_message() {
    let webhook =
        read(Class::Inbound, &inbound("&Body=hi&ErrorCode=11200&ErrorUrl=https://example.com/in"))
            .unwrap();
    assert_eq!(webhook.identity.unwrap().dedupe_key(), format!("inbound:{ACCOUNT}:{MESSAGE}"));
    assert_eq!(webhook.from.as_deref(), Some("+14155550123"));
    assert_eq!(webhook.to.as_deref(), Some("+14155238886"));
    assert_eq!(webhook.channel.as_deref(), Some("whatsapp"));
}

#[test]
fn status_is_identified_by_its_status_and_error_too() {
    let webhook =
        read(Class::Status, &inbound("&MessageStatus=undelivered&ErrorCode=30003")).unwrap();
    assert_eq!(
        webhook.identity.unwrap().dedupe_key(),
        format!("status:{ACCOUNT}:{MESSAGE}:undelivered:30003")
    );
}

#[test]
fn recut_request_is_refused() {
    let cases = [
        (Class::Inbound, inbound("&From=%2B1"), ShapeError::Repeated("From")),
        (Class::Inbound, inbound("&Body=a&Body=b"), ShapeError::Repeated("Body")),
        (
            Class::Inbound,
            format!("AccountSid={ACCOUNT}MessageSid{MESSAGE}"),
            ShapeError::Malformed("AccountSid"),
        ),
        (
            Class::Inbound,
            format!("MessageSid={MESSAGE}&From=123&To=%2B4512345678"),
            ShapeError::Missing("AccountSid"),
        ),
        (
            Class::Inbound,
            format!("AccountSid={ACCOUNT}&From=123&To=%2B4512345678"),
            ShapeError::Missing("MessageSid"),
        ),
        (
            Class::Inbound,
            format!("AccountSid={ACCOUNT}&MessageSid=SM1&From=123&To=%2B4512345678"),
            ShapeError::Malformed("MessageSid"),
        ),
        (
            Class::Inbound,
            format!("AccountSid={ACCOUNT}&MessageSid={MESSAGE}&From=&To=123"),
            ShapeError::Missing("From"),
        ),
        (
            Class::Inbound,
            format!("AccountSid={ACCOUNT}&MessageSid={MESSAGE}&From=123%0D%0A&To=123"),
            ShapeError::Malformed("From"),
        ),
        (Class::Inbound, inbound("&MessageStatus=sent"), ShapeError::WrongClass),
        (Class::Status, inbound("&SmsStatus=received"), ShapeError::WrongClass),
        (Class::Status, inbound("&MessageStatus=Se%3Ant"), ShapeError::Malformed("MessageStatus")),
        (
            Class::Status,
            inbound("&MessageStatus=failed&ErrorCode=1:2"),
            ShapeError::Malformed("ErrorCode"),
        ),
        (Class::Inbound, inbound("&Body=%ff"), ShapeError::NotUtf8),
        (Class::Other, "a=%fe".to_owned(), ShapeError::NotUtf8),
    ];
    for (class, body, want) in cases {
        assert_eq!(read(class, &body), Err(want), "{body}");
    }
}

#[test]
fn addresses_are_as_narrow_as_twilio_documents_them() {
    for good in [
        "+14155550123",
        "12345",
        "447700900123",
        "Google",
        "My Shop 24",
        "whatsapp:+14155550123",
        "whatsapp:US.13491208655302741918",
        "messenger:1234567890123456789",
        "rcs:brand_agent",
        "50",
        "1234567890123456",
        "St Mary's",
        "Västtrafik",
        "*INFO*",
        "A/B & Co.",
        "...",
    ] {
        assert!(address(good).is_some(), "{good}");
    }
    for bad in [
        "",
        "+",
        "1",
        "+14155550123FromCityX",
        "+14155550123456789",
        "whatsapp:",
        ":+14155550123",
        "whatsapp:+14155550123FromCityX",
        "whatsapp:+1 415",
        "a b c d e f g",
        "twelve chars",
        "a\tb",
        "WhatsApp:+14155550123",
    ] {
        assert!(address(bad).is_none(), "{bad}");
    }
}

#[test]
fn replacement_character_in_a_message_is_text() {
    assert!(read(Class::Inbound, &inbound("&Body=%EF%BF%BD")).is_ok());
}

proptest! {
    #[test]
    fn form_of_any_bytes_is_read_without_panic(raw in proptest::collection::vec(any::<u8>(), 0..2048)) {
        if let Ok(form) = Form::parse(&raw) {
            prop_assert!(form.canonical().count() <= form.len());
            for class in [Class::Inbound, Class::Status, Class::Other] {
                let _ = Webhook::read(class, &SignedParameters::posted(&form, &raw, "/in"));
            }
        }
    }

    #[test]
    fn form_of_an_encoder_is_read_back(want in proptest::collection::vec((".{0,20}", ".{0,40}"), 0..20)) {
        let body = serde_urlencoded::to_string(&want).unwrap();
        prop_assert_eq!(pairs(&body), want);
    }
}

proptest! {
    /// A borrowed value equals the decoded value.
    #[test]
    fn form_decoded_by_pairs_equals_form_decoded_whole(
        body in "([a-z%+=&0-9A-F]|%[0-9A-F]{2}|é|&)*",
    ) {
        let whole: Vec<(String, String)> = serde_urlencoded::from_str(&body).unwrap();
        prop_assert_eq!(pairs(&body), whole);
    }

    /// The shortcut for plain ASCII always agrees with the check of every byte.
    #[test]
    fn utf8_is_judged_alike_with_and_without_the_shortcut(body in "([a-z&=]|%[0-9A-F]{2}|%[0-9A-F]?|\u{fffd})*") {
        let form = Form::parse(body.as_bytes()).unwrap();
        let decoded: Vec<u8> = percent_encoding::percent_decode(body.as_bytes()).collect();
        let invented = form.iter().any(|(n, v)| n.contains('\u{fffd}') || v.contains('\u{fffd}'));
        let want = !invented || std::str::from_utf8(&decoded).is_ok();
        prop_assert_eq!(is_utf8_once_decoded(&form, body.as_bytes()), want);
    }
}

#[test]
fn field_that_was_cut_out_of_a_name_or_a_text_is_refused() {
    let status = |fields: &str| {
        format!(
            "AccountSid={ACCOUNT}&MessageSid={MESSAGE}&To=%2B14155550123&MessageStatus=failed{fields}"
        )
    };
    for (class, body, want) in [
        (Class::Status, status("&F=romSt+Mary%27s"), ShapeError::Ambiguous("From")),
        (
            Class::Status,
            status("&Channe=lStatusMessagehi&From=Statetrue"),
            ShapeError::Ambiguous("From"),
        ),
        (
            Class::Status,
            status("&ChannelStatusMessage=hi&From=ACME"),
            ShapeError::Ambiguous("From"),
        ),
        (
            Class::Inbound,
            inbound("&Body=hi&ErrorCode=30003"),
            ShapeError::Contradictory("ErrorCode"),
        ),
        (
            Class::Inbound,
            inbound("&Body=hi&OptOutType=&STOP="),
            ShapeError::Ambiguous("OptOutType"),
        ),
        (
            Class::Inbound,
            format!(
                "AccountSid={ACCOUNT}&MessageSid={MESSAGE}&From=whatsapp:%2B14155550123\
                 &To=whatsapp:%2B14155238886&Body=STOP&ButtonPayload="
            ),
            ShapeError::Contradictory("Body"),
        ),
    ] {
        assert_eq!(read(class, &body), Err(want), "{body}");
    }
    for genuine in ["&From=Statetrue", "&ChannelStatusMessage=hi&From=whatsapp%3A%2B14155238886"] {
        assert!(read(Class::Status, &status(genuine)).is_ok(), "{genuine}");
    }
    let fallback = "&Body=hi&ErrorCode=11200&ErrorUrl=https%3A%2F%2Fexample.com%2Fin";
    assert!(read(Class::Inbound, &inbound(fallback)).is_ok());
}
