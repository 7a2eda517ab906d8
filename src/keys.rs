//! Accounts whose signatures are accepted, and the keys with which each may sign. The configuration or the sidecar
//! provides them.
//!
//! Decides which keys are tried for a request, and which keys of an account are valid. Must not know: the source of the
//! keys, and requests beyond the key that they name.

use std::fmt;

use twilio_edge_contract::{AccountKeys, MAX_ACCOUNTS, MAX_KEYS};

use crate::form::is_account_sid;
use crate::signature::{Key, SignatureSettings};

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
pub struct AccountProblem {
    /// `sid`, `auth_tokens[1]`, `shared_keys[0].id`, ..
    pub field: String,
    /// Description of the problem.
    pub message: String,
}

impl fmt::Display for AccountProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

impl Account {
    /// Creates the account, with both pads of every key hashed.
    ///
    /// # Errors
    ///
    /// Returns every problem of the account.
    pub fn new(source: &AccountKeys) -> Result<Self, Vec<AccountProblem>> {
        let mut problems = Vec::new();
        let mut add_problem = |field: String, message: &str| {
            problems.push(AccountProblem { field, message: message.to_owned() });
        };
        if !is_account_sid(&source.sid) {
            add_problem("sid".to_owned(), "is not AC and 32 hexadecimal digits");
        }
        for (list, length) in
            [("auth_tokens", source.auth_tokens.len()), ("shared_keys", source.shared_keys.len())]
        {
            if length > MAX_KEYS {
                add_problem(list.to_owned(), &format!("has more than {MAX_KEYS} entries"));
            }
        }
        let tokens = source.auth_tokens.iter().enumerate();
        let secrets = source.shared_keys.iter().enumerate();
        let all = tokens
            .map(|(i, token)| (format!("auth_tokens[{i}]"), token))
            .chain(secrets.map(|(i, key)| (format!("shared_keys[{i}].secret"), &key.secret)));
        for (field, secret) in all {
            if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                let message = "is empty, or contains a character that no key has, for instance a space or a line break";
                add_problem(field, message);
            }
        }
        for (i, key) in source.shared_keys.iter().enumerate() {
            if source.shared_keys.iter().take(i).any(|other| other.id == key.id) {
                add_problem(format!("shared_keys[{i}].id"), "occurs twice");
            }
        }
        if source.auth_tokens.is_empty() && source.shared_keys.is_empty() {
            let message =
                "are empty, and there is no shared key: an account needs at least one key";
            add_problem("auth_tokens".to_owned(), message);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let keys = source.auth_tokens.iter().enumerate();
        let keys = keys.filter_map(|(n, token)| Key::auth_token(label(n), token)).collect();
        let shared_keys = source.shared_keys.iter().filter_map(|shared| {
            let key = Key::shared(shared.id.clone(), &shared.secret, shared.algorithm)?;
            Some(SharedKey { id: shared.id.clone(), key })
        });
        Ok(Self { sid: source.sid.clone(), keys, shared_keys: shared_keys.collect() })
    }

    /// Creates every account of a key ring, in its order.
    ///
    /// # Errors
    ///
    /// Returns the first problem of any of them.
    pub fn all(source: &[AccountKeys]) -> Result<Vec<Self>, AccountProblem> {
        let in_ring = |i: usize, problem: AccountProblem| AccountProblem {
            field: format!("accounts[{i}].{}", problem.field),
            ..problem
        };
        if source.is_empty() || source.len() > MAX_ACCOUNTS {
            let message = format!("has no entry, or more than {MAX_ACCOUNTS}");
            return Err(AccountProblem { field: "accounts".to_owned(), message });
        }
        let mut accounts: Vec<Self> = Vec::with_capacity(source.len());
        for (i, keys) in source.iter().enumerate() {
            let account = Self::new(keys).map_err(|problems| {
                let first = problems.into_iter().next();
                let unknown =
                    || AccountProblem { field: String::new(), message: "unusable".to_owned() };
                in_ring(i, first.unwrap_or_else(unknown))
            })?;
            if accounts.iter().any(|other| other.sid == account.sid) {
                let message = "occurs twice".to_owned();
                return Err(in_ring(i, AccountProblem { field: "sid".to_owned(), message }));
            }
            accounts.push(account);
        }
        Ok(accounts)
    }

    /// Returns the keys that may have signed a request with these settings; empty if it names an unknown key.
    pub(crate) fn keys_for(&self, settings: SignatureSettings<'_>) -> &[Key] {
        match settings {
            SignatureSettings::AuthToken => &self.keys,
            SignatureSettings::Shared { id, algorithm } => self
                .shared_keys
                .iter()
                .find(|shared| shared.id == id && shared.key.algorithm() == algorithm)
                .map_or(&[], |shared| std::slice::from_ref(&shared.key)),
            SignatureSettings::Unsupported => &[],
        }
    }
}

/// Returns the slot of the `n`th key of [`Account::keys_for`] these settings.
pub(crate) fn slot(settings: SignatureSettings<'_>, n: usize) -> KeySlot {
    match (settings, n) {
        (SignatureSettings::AuthToken, 0) => KeySlot::Current,
        (SignatureSettings::AuthToken, 1) => KeySlot::Next,
        (SignatureSettings::AuthToken, _) => KeySlot::Later,
        (SignatureSettings::Shared { .. } | SignatureSettings::Unsupported, _) => KeySlot::Shared,
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

    fn account_keys(tokens: &[&str]) -> AccountKeys {
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
    fn tokens_are_labelled_by_their_position() {
        let account = Account::new(&account_keys(&["a", "b", "c"])).unwrap();
        let labels: Vec<_> = account.keys.iter().map(Key::label).collect();
        assert_eq!(labels, ["current", "next", "key-3"]);
    }

    #[test]
    fn account_error_names_every_problem_and_no_secret() {
        let mut bad = account_keys(&["hush hush", ""]);
        bad.sid = "SK1".to_owned();
        bad.shared_keys = vec![shared("a"), shared("a")];
        let fields: Vec<_> =
            Account::new(&bad).unwrap_err().iter().map(|problem| problem.field.clone()).collect();
        assert_eq!(fields, ["sid", "auth_tokens[0]", "auth_tokens[1]", "shared_keys[1].id"]);
        assert!(!format!("{:?}", Account::new(&bad)).contains("hush"));
        assert!(Account::new(&account_keys(&[])).is_err());
    }

    #[test]
    fn ring_is_read_completely_or_refused() {
        assert_eq!(Account::all(&[account_keys(&["a"])]).unwrap().len(), 1);
        let twice = Account::all(&[account_keys(&["a"]), account_keys(&["b"])]).unwrap_err();
        assert_eq!(twice.to_string(), "accounts[1].sid: occurs twice");
        let empty = Account::all(&[account_keys(&["a"]), account_keys(&[])]).unwrap_err();
        assert!(empty.field.starts_with("accounts[1].auth_tokens"), "{empty}");
    }
}
