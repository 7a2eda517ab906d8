//! Sessions: tokens that stand for an API key for a limited time, for instance in the cookie of a browser. This module knows
//! no store, no clock and no source of random bytes.
//!
//! A token is `twilio_edge_session_<key id>_<secret>`. The key id shows whose session it is. The SHA-256 of the secret finds
//! the stored session; the secret itself is not stored ([`crate::api_key`] has the reason).

use sha2::{Digest, Sha256};

use crate::api_key::{hexadecimal, is_hexadecimal, is_id};

const PREFIX: &str = "twilio_edge_session_";

/// Number of random bytes for a new session.
pub const RANDOM_BYTES: usize = 32;

/// Most sessions of one key; a further one replaces the oldest.
pub const MOST_PER_KEY: u32 = 20;

/// New session: the only value that contains the whole token.
pub struct NewSession {
    /// Token that its owner sends as `Authorization: Bearer ..`.
    pub token: String,
    /// Stored digest of the secret.
    pub secret_sha256: String,
}

/// Creates the session of a key from random bytes.
pub fn mint(key_id: &str, random: [u8; RANDOM_BYTES]) -> NewSession {
    let secret = hexadecimal(&random);
    let token = format!("{PREFIX}{key_id}_{secret}");
    NewSession { token, secret_sha256: hexadecimal(&Sha256::digest(&secret)) }
}

/// Session of a request, parsed but not verified yet.
pub struct SessionToken<'a> {
    /// Public part of the key.
    pub key_id: &'a str,
    secret: &'a str,
}

impl<'a> SessionToken<'a> {
    /// Parses a token. Returns `None` if it does not have the syntax of a session.
    pub fn read(token: &'a [u8]) -> Option<SessionToken<'a>> {
        let token = std::str::from_utf8(token).ok()?;
        let (key_id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
        (is_id(key_id) && is_hexadecimal(secret, RANDOM_BYTES))
            .then_some(SessionToken { key_id, secret })
    }

    /// Returns the digest under which the session is stored.
    pub fn secret_sha256(&self) -> String {
        hexadecimal(&Sha256::digest(self.secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::KeyToken;

    const KEY_ID: &str = "0123456789abcdef";

    #[test]
    fn session_is_found_by_the_digest_of_its_secret() {
        let new = mint(KEY_ID, [7; RANDOM_BYTES]);
        let read = SessionToken::read(new.token.as_bytes()).unwrap();
        assert_eq!((read.key_id, read.secret_sha256()), (KEY_ID, new.secret_sha256.clone()));
        assert!(!new.token.contains(&new.secret_sha256));
        assert_ne!(mint(KEY_ID, [8; RANDOM_BYTES]).secret_sha256, new.secret_sha256);
    }

    #[test]
    fn session_is_no_key_and_a_key_is_no_session() {
        let session = mint(KEY_ID, [7; RANDOM_BYTES]).token;
        assert!(KeyToken::read(session.as_bytes()).is_none());
        let key = crate::api_key::mint([7; crate::api_key::RANDOM_BYTES]).token;
        assert!(SessionToken::read(key.as_bytes()).is_none());
    }

    #[test]
    fn session_must_have_the_exact_form() {
        let token = mint(KEY_ID, [7; RANDOM_BYTES]).token;
        for other in [
            token.to_uppercase(),
            format!("{token}0"),
            format!(" {token}"),
            token.replace(KEY_ID, ""),
            token.chars().take(token.len() - 1).collect(),
        ] {
            assert!(SessionToken::read(other.as_bytes()).is_none(), "{other}");
        }
        assert!(SessionToken::read(&[0xff, 0xfe]).is_none());
    }
}
