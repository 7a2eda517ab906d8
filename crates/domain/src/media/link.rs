//! Links to stored media: they expire, and cannot be forged, because they carry an HMAC over the id and the time of
//! expiry. Pure.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Prefix of the id of an upload.
const PREFIX: &str = "md_";

/// Prefix of the id of a medium of an inbound message.
const INBOUND_PREFIX: &str = "mi_";

/// Domain separator: the key signs nothing else with this text.
const PURPOSE: &[u8] = b"twilio-edge media link 1\n";

/// Domain separator of the digest that is the id of a medium of an inbound message.
const INBOUND_PURPOSE: &[u8] = b"twilio-edge inbound media 1\n";

/// Minimum length of a key, in bytes.
pub const MIN_KEY_BYTES: usize = 32;

/// Returns the id of an upload for 128 bits.
pub fn id(bits: u128) -> String {
    format!("{PREFIX}{bits:032x}")
}

/// Returns the id of a medium of an inbound message. It depends only on these names.
pub fn inbound_id(names: &[&str]) -> String {
    let mut all = Sha256::new_with_prefix(INBOUND_PURPOSE);
    for name in names {
        all.update((name.len() as u64).to_be_bytes());
        all.update(name);
    }
    let digest = all.finalize();
    let bits = digest.iter().take(16).fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
    format!("{INBOUND_PREFIX}{bits:032x}")
}

/// Returns whether a text has the syntax of an id, of an upload or of a medium of an inbound message.
pub fn is_id(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(is_digits) || is_inbound_id(text)
}

/// Returns whether a text has the syntax of the id of a medium of an inbound message.
pub fn is_inbound_id(text: &str) -> bool {
    text.strip_prefix(INBOUND_PREFIX).is_some_and(is_digits)
}

fn is_digits(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn mac(key: &str, id: &str, expires_s: i64) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(PURPOSE);
    mac.update(format!("{id}\n{expires_s}").as_bytes());
    Some(mac)
}

/// Returns path and query of a link that expires at `expires_s`, in seconds since 1970.
pub fn path(key: &str, id: &str, expires_s: i64) -> String {
    let signature = mac(key, id, expires_s).map(|mac| mac.finalize().into_bytes());
    let signature: String = signature.iter().flatten().map(|byte| format!("{byte:02x}")).collect();
    format!("/media/{id}?expires={expires_s}&sig={signature}")
}

/// Returns whether a link has a valid signature and has not expired.
pub fn is_valid(key: &str, id: &str, query: &str, now_ms: i64) -> bool {
    expires_at_ms(key, id, query).is_some_and(|expires_ms| now_ms < expires_ms)
}

/// Returns the expiry of a link, in milliseconds since 1970; `None` if its signature is invalid. Takes constant time for
/// each key.
pub fn expires_at_ms(key: &str, id: &str, query: &str) -> Option<i64> {
    let (expires, signature) = read(query)?;
    let mac = mac(key, id, expires)?;
    let is_signed = is_id(id) && key.len() >= MIN_KEY_BYTES && mac.verify_slice(&signature).is_ok();
    is_signed.then(|| expires.saturating_mul(1000))
}

/// Parses a query exactly as [`path`] writes it; no other form has a signature.
fn read(query: &str) -> Option<(i64, Vec<u8>)> {
    let (written, signature) = query.strip_prefix("expires=")?.split_once("&sig=")?;
    let expires: i64 = written.parse().ok()?;
    if expires.to_string() != written {
        return None;
    }
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if signature.len() != 64 {
        return None;
    }
    let pairs = signature.as_bytes().chunks_exact(2);
    let bytes = pairs.map(|pair| match pair {
        [high, low] => Some((digit(high)? << 4) | digit(low)?),
        _ => None,
    });
    Some((expires, bytes.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn link_is_valid_unchanged_and_until_its_expiry() {
        let id = id(7);
        let link = path(KEY, &id, 1_800_000_000);
        let (at, query) = link.split_once('?').unwrap();
        assert_eq!(at, format!("/media/{id}"));
        assert!(is_valid(KEY, &id, query, 1_799_999_999_999));
        assert!(!is_valid(KEY, &id, query, 1_800_000_000_000), "it is over");
        assert!(!is_valid(KEY, &super::id(8), query, 0), "another one");
        assert!(!is_valid(&KEY.replace('0', "1"), &id, query, 0), "another key");
        assert!(!is_valid("short", &id, path("short", &id, 9).split_once('?').unwrap().1, 0));
        for wrong in [
            query.replace("expires=1", "expires=2"),
            query.replace("expires=", "expires=0"),
            query.replace("expires=", "expires=+"),
            query.to_ascii_uppercase(),
            format!("{query}&a=b"),
            format!("{query}0"),
            format!("a=b&{query}"),
            query.trim_end_matches(|c| c != '=').to_owned(),
            String::new(),
        ] {
            assert!(!is_valid(KEY, &id, &wrong, 0), "{wrong}");
        }
        assert!(is_id(&id) && !is_id("md_1") && !is_id(&id.to_uppercase()));
    }

    proptest! {
        #[test]
        fn invented_link_is_refused(id: String, query: String, bits: u128, sig in "[0-9a-f]{64}", expires: u32) {
            prop_assert!(!is_valid(KEY, &id, &query, 0));
            let query = format!("expires={expires}&sig={sig}");
            prop_assert!(!is_valid(KEY, &super::id(bits), &query, 0));
        }
    }
}
