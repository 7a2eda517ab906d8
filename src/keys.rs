//! Accounts whose signatures are accepted, and the keys with which each may sign. The configuration or the sidecar
//! provides them.
//!
//! Decides which keys are tried for a request, and which keys of an account are valid. Must not know: the source of the
//! keys, and requests beyond the key that they name.

use std::fmt;

use twilio_edge_contract::{AccountKeys, MAX_ACCOUNTS, MAX_KEYS};

use crate::form::is_account_sid;
use crate::signature::{Key, Settings};

/// One Twilio account or subaccount. A subaccount signs with its own token.
#[derive(Debug, Clone)]
pub struct Account {
    /// `AC..`
    pub sid: String,
    /// Auth tokens with which it may sign, the current one first.
    pub keys: Vec<Key>,
    /// Keys that are used when a request names them.
    pub shared_keys: Vec<SharedKey>,
}

/// Key with which a Webhook Rule signs instead of the auth token.
#[derive(Debug, Clone)]
pub struct SharedKey {
    /// `webhooks_sharedkey_..`
    pub id: String,
    /// Its secret, with its algorithm.
    pub key: Key,
}

twilio_edge_contract::string_enum! {
    /// Slot of the key that signed: a closed list, because it names a counter.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub enum KeySlot {
        /// The first auth token.
        Current = "current",
        /// The second auth token: a rotation is in progress.
        Next = "next",
        /// A later one.
        Later = "later",
        /// A SharedKey.
        Shared = "shared",
    }
}

/// Problem of an account: which part is invalid, and why. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// `sid`, `auth_tokens[1]`, `shared_keys[0].id`, ..
    pub at: String,
    /// Description of the problem.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.at, self.message)
    }
}

impl Account {
    /// Creates the account, with both pads of every key hashed.
    ///
    /// # Errors
    ///
    /// Returns every problem of the account.
    pub fn of(given: &AccountKeys) -> Result<Self, Vec<Complaint>> {
        let mut complaints = Vec::new();
        let mut complain = |at: String, message: &str| {
            complaints.push(Complaint { at, message: message.to_owned() });
        };
        if !is_account_sid(&given.sid) {
            complain("sid".to_owned(), "is not AC and 32 hexadecimal digits");
        }
        for (list, length) in
            [("auth_tokens", given.auth_tokens.len()), ("shared_keys", given.shared_keys.len())]
        {
            if length > MAX_KEYS {
                complain(list.to_owned(), &format!("has more than {MAX_KEYS} entries"));
            }
        }
        let tokens = given.auth_tokens.iter().enumerate();
        let secrets = given.shared_keys.iter().enumerate();
        let all = tokens
            .map(|(i, token)| (format!("auth_tokens[{i}]"), token))
            .chain(secrets.map(|(i, key)| (format!("shared_keys[{i}].secret"), &key.secret)));
        for (at, secret) in all {
            if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                let message =
                    "is empty, or holds a space, line break or other character no key has";
                complain(at, message);
            }
        }
        for (i, key) in given.shared_keys.iter().enumerate() {
            if given.shared_keys.iter().take(i).any(|other| other.id == key.id) {
                complain(format!("shared_keys[{i}].id"), "is there twice");
            }
        }
        if given.auth_tokens.is_empty() && given.shared_keys.is_empty() {
            let message = "hold no token, and there is no shared key: nothing can be proven";
            complain("auth_tokens".to_owned(), message);
        }
        if !complaints.is_empty() {
            return Err(complaints);
        }
        let keys = given.auth_tokens.iter().enumerate();
        let keys = keys.filter_map(|(n, token)| Key::auth_token(label(n), token)).collect();
        let shared_keys = given.shared_keys.iter().filter_map(|shared| {
            let key = Key::shared(shared.id.clone(), &shared.secret, shared.algorithm)?;
            Some(SharedKey { id: shared.id.clone(), key })
        });
        Ok(Self { sid: given.sid.clone(), keys, shared_keys: shared_keys.collect() })
    }

    /// Creates every account of a key ring, in its order.
    ///
    /// # Errors
    ///
    /// Returns the first problem of any of them.
    pub fn all(given: &[AccountKeys]) -> Result<Vec<Self>, Complaint> {
        let refused = |i: usize, complaint: Complaint| Complaint {
            at: format!("accounts[{i}].{}", complaint.at),
            ..complaint
        };
        if given.is_empty() || given.len() > MAX_ACCOUNTS {
            let message = format!("has no entry, or more than {MAX_ACCOUNTS}");
            return Err(Complaint { at: "accounts".to_owned(), message });
        }
        let mut accounts: Vec<Self> = Vec::with_capacity(given.len());
        for (i, keys) in given.iter().enumerate() {
            let account = Self::of(keys).map_err(|complaints| {
                let first = complaints.into_iter().next();
                let unknown = || Complaint { at: String::new(), message: "unusable".to_owned() };
                refused(i, first.unwrap_or_else(unknown))
            })?;
            if accounts.iter().any(|other| other.sid == account.sid) {
                let message = "is there twice".to_owned();
                return Err(refused(i, Complaint { at: "sid".to_owned(), message }));
            }
            accounts.push(account);
        }
        Ok(accounts)
    }

    /// Returns the keys that may have signed a request with these settings; empty if it names an unknown key.
    pub(crate) fn keys_for(&self, settings: Settings<'_>) -> &[Key] {
        match settings {
            Settings::AuthToken => &self.keys,
            Settings::Shared { id, algorithm } => self
                .shared_keys
                .iter()
                .find(|shared| shared.id == id && shared.key.algorithm() == algorithm)
                .map_or(&[], |shared| std::slice::from_ref(&shared.key)),
            Settings::Unsupported => &[],
        }
    }
}

/// Returns the slot of the `n`th key of [`Account::keys_for`] these settings.
pub(crate) fn slot(settings: Settings<'_>, n: usize) -> KeySlot {
    match (settings, n) {
        (Settings::AuthToken, 0) => KeySlot::Current,
        (Settings::AuthToken, 1) => KeySlot::Next,
        (Settings::AuthToken, _) => KeySlot::Later,
        (Settings::Shared { .. } | Settings::Unsupported, _) => KeySlot::Shared,
    }
}

/// Returns the label of the `n`th auth token in headers and logs.
fn label(n: usize) -> String {
    match n {
        0 => "current".to_owned(),
        1 => "next".to_owned(),
        n => format!("key-{}", n + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twilio_edge_contract::{KeyAlgorithm, SharedKeySecret};

    const SID: &str = "AC00112233445566778899aabbccddeeff";

    fn given(tokens: &[&str]) -> AccountKeys {
        AccountKeys {
            sid: SID.to_owned(),
            auth_tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
            shared_keys: Vec::new(),
        }
    }

    fn shared(id: &str) -> SharedKeySecret {
        let (id, secret) = (id.to_owned(), "hush".to_owned());
        SharedKeySecret { id, secret, algorithm: KeyAlgorithm::HmacSha256 }
    }

    #[test]
    fn tokens_are_called_by_their_place() {
        let account = Account::of(&given(&["a", "b", "c"])).unwrap();
        let labels: Vec<_> = account.keys.iter().map(Key::label).collect();
        assert_eq!(labels, ["current", "next", "key-3"]);
    }

    #[test]
    fn everything_wrong_with_an_account_is_said_and_no_secret() {
        let mut bad = given(&["hush hush", ""]);
        bad.sid = "SK1".to_owned();
        bad.shared_keys = vec![shared("a"), shared("a")];
        let told: Vec<_> = Account::of(&bad).unwrap_err().iter().map(|c| c.at.clone()).collect();
        assert_eq!(told, ["sid", "auth_tokens[0]", "auth_tokens[1]", "shared_keys[1].id"]);
        assert!(!format!("{:?}", Account::of(&bad)).contains("hush"));
        assert!(Account::of(&given(&[])).is_err());
    }

    #[test]
    fn a_ring_is_taken_whole_or_not_at_all() {
        assert_eq!(Account::all(&[given(&["a"])]).unwrap().len(), 1);
        let twice = Account::all(&[given(&["a"]), given(&["b"])]).unwrap_err();
        assert_eq!(twice.to_string(), "accounts[1].sid: is there twice");
        let empty = Account::all(&[given(&["a"]), given(&[])]).unwrap_err();
        assert!(empty.at.starts_with("accounts[1].auth_tokens"), "{empty}");
    }
}
