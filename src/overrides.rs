//! Unsigned headers that would change what the signed bytes mean to a backend.
//!
//! Twilio signs the URL and the parameters, never a header. A copy of a genuine webhook with one header more may thus reach
//! another handler of the application (`X-Original-URL`), as another method (`X-HTTP-Method-Override`), or with other values
//! (`Content-Encoding`, a charset). On guarded routes the filter removes headers that proxies and frameworks use to override
//! the request line or the framing, and refuses requests whose body would be decoded differently from how Twilio signed it.
//!
//! Must not know: routes, states, the host.

use crate::reply::Reason;
use crate::signature::TWILIO_MEDIA_TYPE;

/// Headers that frameworks prefer to the method or the path of the request, and headers that describe the body. Twilio sends
/// none of them, so their removal changes no genuine webhook. `X-Forwarded-For`, `-Proto`, `-Host` and `-Port` stay:
/// gateways set them, and they name neither path nor method.
const REMOVED: [&str; 44] = [
    // The method.
    "x-http-method-override",
    "x-http-method",
    "x-http-override-method",
    "x-method-override",
    "x-method",
    "x-original-method",
    "x-original-http-method",
    "x-forwarded-method",
    "x-request-method",
    "x-rewrite-method",
    "http-method-override",
    "request-method",
    // The path or the query.
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-original-query",
    "x-original-query-string",
    "x-rewrite-url",
    "x-rewrite-uri",
    "x-rewrite-path",
    "x-override-url",
    "x-override-uri",
    "x-override-path",
    "x-http-path-override",
    "x-http-url-override",
    "x-request-uri",
    "x-request-url",
    "x-request-path",
    "x-path-info",
    "path-info",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-query",
    "x-script-name",
    "script-name",
    "x-ms-original-url",
    "x-waws-unencoded-url",
    "x-envoy-original-path",
    // The body.
    "x-content-encoding",
    "content-transfer-encoding",
    "x-http-content-type",
    "content-range",
];

/// Headers of the framing and of the content. They are genuine in this spelling and removed in any other: CGI maps
/// `Content_Length` and `Content-Length` to one variable, and the proxy knows only the latter.
const CANONICAL: [&str; 5] =
    ["content-type", "content-length", "content-encoding", "transfer-encoding", "content-md5"];

/// Length of the longest of these names without its separators.
const LONGEST: usize = 32;

/// Numbers of letters of the names above.
const REMOVED_LETTERS: [usize; REMOVED.len()] = letters(REMOVED);
const CANONICAL_LETTERS: [usize; CANONICAL.len()] = letters(CANONICAL);

/// The slots of all names, one bit each: most headers of a request are in none of them.
const SLOTS: [u64; 8] =
    slots(slots([0; 8], REMOVED, REMOVED_LETTERS), CANONICAL, CANONICAL_LETTERS);

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn letters<const N: usize>(names: [&str; N]) -> [usize; N] {
    let mut letters = [0; N];
    let (mut name, mut at) = (0, 0);
    while name < N {
        if at == names[name].len() {
            (name, at) = (name + 1, 0);
            continue;
        }
        letters[name] += (names[name].as_bytes()[at] != b'-') as usize;
        at += 1;
    }
    letters
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn slots<const N: usize>(
    mut set: [u64; 8],
    names: [&str; N],
    letters: [usize; N],
) -> [u64; 8] {
    let mut name = 0;
    while name < N {
        let bytes = names[name].as_bytes();
        let slot = slot(letters[name], bytes[bytes.len() - 1]);
        set[slot / 64] |= 1 << (slot % 64);
        name += 1;
    }
    set
}

/// Returns the slot of a name with so many letters, the last of which is `last`.
const fn slot(letters: usize, last: u8) -> usize {
    (letters * 32 + last as usize) % 512
}

/// Reports whether a header of this name is removed from requests of guarded routes.
pub fn is_override(name: &[u8]) -> bool {
    // Most headers of a request begin with another letter; no work is done for them.
    let first = name.iter().find(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
    if !matches!(first, Some(b'x' | b'c' | b't' | b'h' | b'r' | b'p' | b's')) {
        return false;
    }
    let mut letters = [0_u8; LONGEST];
    let (mut length, mut last) = (0, 0);
    for byte in name.iter().filter(|byte| byte.is_ascii_alphanumeric()) {
        let Some(place) = letters.get_mut(length) else { return false };
        last = byte.to_ascii_lowercase();
        *place = last;
        length += 1;
    }
    let slot = slot(length, last);
    if SLOTS.get(slot / 64).is_none_or(|slots| slots >> (slot % 64) & 1 == 0) {
        return false;
    }
    let letters = letters.get(..length).unwrap_or_default();
    let has_letters_of = |(known, count): (&&str, &usize)| {
        *count == length && known.bytes().filter(|byte| *byte != b'-').eq(letters.iter().copied())
    };
    REMOVED.iter().zip(&REMOVED_LETTERS).any(has_letters_of)
        || CANONICAL.iter().zip(&CANONICAL_LETTERS).any(|(known, count)| {
            has_letters_of((known, count)) && !name.eq_ignore_ascii_case(known.as_bytes())
        })
}

/// Returns the reason to refuse a request whose body a backend would decode differently from how Twilio signed it, and the
/// header that causes it. Twilio sends bodies without an encoding and in UTF-8.
pub(crate) fn foreign_encoding(
    content_encoding: Option<&[u8]>,
    content_type: Option<&[u8]>,
) -> Option<(Reason, &'static str)> {
    if content_encoding.is_none() && content_type == Some(TWILIO_MEDIA_TYPE) {
        return None;
    }
    let is_identity =
        content_encoding.unwrap_or_default().split(|byte| *byte == b',').all(|coding| {
            let coding = coding.trim_ascii();
            coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
        });
    if !is_identity {
        return Some((Reason::UnsupportedEncoding, "Content-Encoding"));
    }
    let is_utf8 =
        content_type.unwrap_or_default().split(|byte| *byte == b';').skip(1).all(|parameter| {
            let mut parts = parameter.splitn(2, |byte| *byte == b'=');
            let (name, value) =
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let name = name.trim_ascii();
            let names_charset =
                name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"charset"));
            let value = value.trim_ascii();
            let value =
                value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\"")).unwrap_or(value);
            let is_plain = name.len() == 7;
            !names_charset
                || is_plain
                    && (value.eq_ignore_ascii_case(b"utf-8") || value.eq_ignore_ascii_case(b"utf8"))
        });
    (!is_utf8).then_some((Reason::UnsupportedEncoding, "Content-Type"))
}

/// Returns every removed header as a list in Markdown, in the order of the table.
#[cfg(not(target_arch = "wasm32"))]
pub fn reference() -> String {
    let list = |names: &[&str]| {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    format!(
        "Removed, in any case and with any separators: {}.\n\nRemoved in every spelling but this one: {}.\n",
        list(&REMOVED),
        list(&CANONICAL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn override_headers_are_found_in_any_spelling() {
        for known in REMOVED {
            assert!(known.len() <= LONGEST, "{known} is longer than {LONGEST}");
            for separator in ["-", "_", ".", "", "--"] {
                let name = known.replace('-', separator);
                assert!(is_override(name.as_bytes()), "{name}");
                assert!(is_override(name.to_ascii_uppercase().as_bytes()), "{name}");
            }
        }
        for known in CANONICAL {
            assert!(
                !is_override(known.as_bytes())
                    && !is_override(known.to_ascii_uppercase().as_bytes()),
                "{known}"
            );
            for separator in ["_", ".", "", "--"] {
                assert!(is_override(known.replace('-', separator).as_bytes()), "{known}");
            }
        }
    }

    #[test]
    fn headers_of_twilio_and_of_gateways_are_no_overrides() {
        for name in [
            ":method",
            ":path",
            ":scheme",
            ":authority",
            "host",
            "accept",
            "user-agent",
            "cookie",
            "authorization",
            "x-twilio-signature",
            "x-twilio-webhooks-signature-settings",
            "i-twilio-idempotency-token",
            "x-home-region",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-client-cert",
            "x-request-id",
            "x-real-ip",
            "x-envoy-external-address",
            "x-envoy-attempt-count",
            "x-envoy-expected-rq-timeout-ms",
            "x-envoy-decorator-operation",
            "traceparent",
            "tracestate",
            "x-b3-traceid",
            "cf-connecting-ip",
            "via",
            "te",
            "accept-encoding",
            "accept-charset",
            "",
            "-",
            "x",
            "content-language",
            "x-amzn-trace-id",
            "x-scheme",
        ] {
            assert!(!is_override(name.as_bytes()), "{name}");
        }
        assert!(!is_override(&b"x".repeat(10_000)));
    }

    #[test]
    fn bodies_in_another_encoding_are_refused() {
        let form = "application/x-www-form-urlencoded";
        let foreign = |encoding: Option<&str>, kind: &str| {
            foreign_encoding(encoding.map(str::as_bytes), Some(kind.as_bytes()))
                .map(|(_, field)| field)
        };
        for encoding in
            [None, Some(""), Some("identity"), Some("Identity"), Some("identity, identity")]
        {
            assert_eq!(foreign(encoding, form), None, "{encoding:?}");
        }
        for encoding in [
            "gzip",
            "GZIP",
            "br",
            "deflate",
            "identity, gzip",
            "gzip,identity",
            "x-gzip",
            "aws-chunked",
        ] {
            assert_eq!(foreign(Some(encoding), form), Some("Content-Encoding"), "{encoding}");
        }
        for rest in [
            "",
            "; charset=utf-8",
            ";charset=UTF-8",
            "; charset=\"utf-8\"",
            "; charset = utf-8 ",
            "; Charset=utf8",
            "; boundary=x",
            ";",
            "; charset=utf-8; charset=UTF-8",
        ] {
            assert_eq!(foreign(None, &format!("{form}{rest}")), None, "{rest}");
        }
        for rest in [
            "; charset=utf-7",
            "; charset=UTF-16",
            "; charset=iso-8859-1",
            ";charset=\"utf-16\"",
            "; CHARSET=shift_jis",
            "; charset=utf-8; charset=utf-16",
            "; charset=utf-16; charset=utf-8",
            "; charset*=utf-16''x",
            "; charset",
            "; charset=",
            "; charset=utf-8 utf-16",
            "; charset*0=utf-16",
            "; a=b; charset=ebcdic",
            "; charset='utf-8'",
        ] {
            assert_eq!(foreign(None, &format!("{form}{rest}")), Some("Content-Type"), "{rest}");
        }
        assert_eq!(foreign(None, "application/json;charset=utf-16"), Some("Content-Type"));
        assert_eq!(foreign(None, "application/json; charset=UTF-8"), None);
    }

    #[test]
    fn document_lists_every_removed_header() {
        let document = include_str!("../docs/CONFIG.md");
        assert!(
            document.contains(&reference()),
            "docs/CONFIG.md: put in `twilio-edge reference overrides`"
        );
    }
}
