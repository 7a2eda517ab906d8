//! API keys: their syntax, their stored part and the permissions of their scope. This module knows no store, no clock
//! and no source of random bytes.
//!
//! A key is `twilio_edge_<id>_<secret>`. Scanners for leaked secrets recognize the prefix, and the id finds the row.
//! Only the SHA-256 of the secret is stored. That is enough: a slow password hash protects secrets that people choose,
//! because those can be guessed. A secret of 256 random bits cannot be guessed, and a slow hash would only make every
//! request, forged ones included, expensive.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "twilio_edge_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// Number of random bytes for a new key.
pub const RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;

twilio_edge_contract::string_enum! {
    /// Permissions of a key.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
    pub enum Scope: serde {
        /// A filter: claims, settlements, the keys of the accounts.
        Edge = "edge",
        /// An application: the API of the main listener.
        App = "app",
        /// An administrator: keys and audit log, and everything that an application may do.
        Admin = "admin",
    }
}

impl Scope {
    /// Returns whether a key of this scope has the permissions of `needed`.
    pub fn permits(self, needed: Scope) -> bool {
        self == needed || (self, needed) == (Scope::Admin, Scope::App)
    }
}

/// New key: the only value that contains the whole token.
pub struct NewApiKey {
    /// Public part.
    pub id: String,
    /// Token that its owner sends as `Authorization: Bearer ..`.
    pub token: String,
    /// Stored digest of the secret.
    pub secret_sha256: String,
}

/// Creates a key from random bytes.
pub fn mint(random: [u8; RANDOM_BYTES]) -> NewApiKey {
    let (id, secret) = random.split_at(ID_BYTES);
    let (id, secret) = (hexadecimal(id), hexadecimal(secret));
    let token = format!("{PREFIX}{id}_{secret}");
    NewApiKey { id, token, secret_sha256: hexadecimal(&Sha256::digest(&secret)) }
}

/// Key of a request, parsed but not verified yet.
pub struct KeyToken<'a> {
    /// Public part, which finds the stored key.
    pub id: &'a str,
    secret: &'a str,
}

impl<'a> KeyToken<'a> {
    /// Parses a token. Returns `None` if it does not have the syntax of a key.
    pub fn read(token: &'a [u8]) -> Option<KeyToken<'a>> {
        let token = std::str::from_utf8(token).ok()?;
        let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
        (is_id(id) && is_hexadecimal(secret, SECRET_BYTES)).then_some(KeyToken { id, secret })
    }

    /// Returns whether the secret matches the stored digest, in constant time.
    pub fn matches_digest(&self, secret_sha256: &str) -> bool {
        let digest = hexadecimal(&Sha256::digest(self.secret));
        digest.as_bytes().ct_eq(secret_sha256.as_bytes()).into()
    }
}

/// Returns whether `text` may be the public part of a key.
pub fn is_id(text: &str) -> bool {
    is_hexadecimal(text, ID_BYTES)
}

/// Returns whether `text` is this number of bytes in lower-case hexadecimal digits.
pub(crate) fn is_hexadecimal(text: &str, bytes: usize) -> bool {
    text.len() == bytes * 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn minted_key_matches_its_own_digest_only(a: [u8; 20], b: [u8; 20], c: [u8; 20], d: [u8; 20]) {
            let minted = |left: [u8; 20], right: [u8; 20]| {
                let mut random = [0; RANDOM_BYTES];
                random[..20].copy_from_slice(&left);
                random[20..].copy_from_slice(&right);
                mint(random)
            };
            let (one, other) = (minted(a, b), minted(c, d));
            let shown = KeyToken::read(one.token.as_bytes()).unwrap();
            prop_assert_eq!(shown.id, &one.id);
            prop_assert!(shown.matches_digest(&one.secret_sha256));
            prop_assert_eq!(shown.matches_digest(&other.secret_sha256), a[8..] == c[8..] && b == d);
            prop_assert!(is_id(&one.id));
            // The token does not contain the stored digest.
            prop_assert!(!one.token.contains(&one.secret_sha256));
        }

        #[test]
        fn token_of_any_bytes_is_parsed_without_panic(token: Vec<u8>) {
            let _ = KeyToken::read(&token);
        }
    }

    #[test]
    fn token_must_have_the_exact_form() {
        let token = mint([7; RANDOM_BYTES]).token;
        assert!(KeyToken::read(token.as_bytes()).is_some());
        for other in [
            token.to_uppercase(),
            format!("{token}0"),
            format!(" {token}"),
            token.replacen('_', "-", 1),
            token.chars().rev().collect(),
            token.chars().take(token.len() - 1).collect(),
            String::new(),
        ] {
            assert!(KeyToken::read(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn scopes_permit_what_they_say() {
        let permitted = |scope: Scope| Scope::ALL.map(|needed| scope.permits(needed));
        assert_eq!(permitted(Scope::Edge), [true, false, false]);
        assert_eq!(permitted(Scope::App), [false, true, false]);
        assert_eq!(permitted(Scope::Admin), [false, true, true]);
    }
}
