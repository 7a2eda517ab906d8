//! What an API key looks like, what is kept of it, and what its scope permits. Knows no store, no clock and no source of
//! random bytes.
//!
//! `twilio_edge_<id>_<secret>`: the prefix is found by scanners for leaked secrets, the id finds the row, and of the
//! secret only SHA-256 is kept. That is enough: a slow password hash protects what people choose, which can be guessed;
//! nobody guesses 256 random bits, and a slow hash would only make every request, and every forged one, expensive.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "twilio_edge_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// Random bytes a new key takes.
pub const RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;

/// What a key permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// A filter: claims, settlements, the accounts' keys.
    Edge,
    /// An application: the API of the main listener.
    App,
    /// An administrator: keys and audit, and what an application may.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 3] = [Scope::Edge, Scope::App, Scope::Admin];

    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Edge => "edge",
            Scope::App => "app",
            Scope::Admin => "admin",
        }
    }

    /// Whether a key of this scope may do what takes `needed`.
    pub fn permits(self, needed: Scope) -> bool {
        self == needed || (self, needed) == (Scope::Admin, Scope::App)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Scope, String> {
        let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no scope"))
    }
}

/// A new key: the only time all of it is known.
pub struct Minted {
    /// Its public part.
    pub id: String,
    /// What its owner sends as `Authorization: Bearer ..`.
    pub token: String,
    /// What is kept of the secret.
    pub secret_sha256: String,
}

/// Makes a key of random bytes.
pub fn mint(random: [u8; RANDOM_BYTES]) -> Minted {
    let (id, secret) = random.split_at(ID_BYTES);
    let (id, secret) = (hexadecimal(id), hexadecimal(secret));
    let token = format!("{PREFIX}{id}_{secret}");
    Minted { id, token, secret_sha256: hexadecimal(&Sha256::digest(&secret)) }
}

/// A key somebody shows; whether it is one of ours is not known yet.
pub struct Shown<'a> {
    /// Finds it.
    pub id: &'a str,
    secret: &'a str,
}

impl<'a> Shown<'a> {
    /// None if it does not even look like a key.
    pub fn read(token: &'a [u8]) -> Option<Shown<'a>> {
        let token = std::str::from_utf8(token).ok()?;
        let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
        let well_formed = |text: &str, bytes: usize| {
            text.len() == bytes * 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        (well_formed(id, ID_BYTES) && well_formed(secret, SECRET_BYTES))
            .then_some(Shown { id, secret })
    }

    /// Whether this is the secret, in constant time.
    pub fn proves(&self, secret_sha256: &str) -> bool {
        let digest = hexadecimal(&Sha256::digest(self.secret));
        digest.as_bytes().ct_eq(secret_sha256.as_bytes()).into()
    }
}

/// Whether `text` may be a key's public part.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_BYTES * 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_minted_key_proves_itself_and_no_other(a: [u8; 20], b: [u8; 20], c: [u8; 20], d: [u8; 20]) {
            let minted = |left: [u8; 20], right: [u8; 20]| {
                let mut random = [0; RANDOM_BYTES];
                random[..20].copy_from_slice(&left);
                random[20..].copy_from_slice(&right);
                mint(random)
            };
            let (one, other) = (minted(a, b), minted(c, d));
            let shown = Shown::read(one.token.as_bytes()).unwrap();
            prop_assert_eq!(shown.id, &one.id);
            prop_assert!(shown.proves(&one.secret_sha256));
            prop_assert_eq!(shown.proves(&other.secret_sha256), a[8..] == c[8..] && b == d);
            prop_assert!(is_id(&one.id));
            // What is kept is not what is shown.
            prop_assert!(!one.token.contains(&one.secret_sha256));
        }

        #[test]
        fn what_is_shown_never_panics(token: Vec<u8>) {
            let _ = Shown::read(&token);
        }
    }

    #[test]
    fn only_the_exact_form_is_a_key() {
        let token = mint([7; RANDOM_BYTES]).token;
        assert!(Shown::read(token.as_bytes()).is_some());
        for other in [
            token.to_uppercase(),
            format!("{token}0"),
            format!(" {token}"),
            token.replacen('_', "-", 1),
            token.chars().rev().collect(),
            token.chars().take(token.len() - 1).collect(),
            String::new(),
        ] {
            assert!(Shown::read(other.as_bytes()).is_none(), "{other}");
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
