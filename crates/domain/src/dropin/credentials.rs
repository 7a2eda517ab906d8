//! Credentials of a caller in the form of Twilio's clients: a user and a password. The password is an API key of ours. The
//! user is the account SID, as in `Client(account_sid, auth_token)`, or the id of the key, as in `Client(api_key,
//! api_secret, account_sid)`. This module does not verify the key.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::api_key::{self, KeyToken};

/// Prefix of every key.
const PREFIX: &str = "twilio_edge_";

/// Returns the user in `Authorization: Basic ..`.
pub fn user(authorization: &[u8]) -> Option<String> {
    shown(authorization)?.split_once(':').map(|(user, _)| user.to_owned())
}

/// Returns the decoded user and password.
fn shown(authorization: &[u8]) -> Option<String> {
    let (scheme, shown) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    String::from_utf8(STANDARD.decode(shown.trim_ascii()).ok()?).ok()
}

/// Returns the key in `Authorization: Basic ..` for a resource of this account; `None` if the user and the key do not fit.
pub fn token(authorization: &[u8], account_sid: &str) -> Option<String> {
    let shown = shown(authorization)?;
    let (user, password) = shown.split_once(':')?;
    if user == account_sid {
        return Some(password.to_owned());
    }
    if !api_key::is_id(user) {
        return None;
    }
    // The password is the whole key, or only its secret part.
    let whole = match password.starts_with(PREFIX) {
        true => password.to_owned(),
        false => format!("{PREFIX}{user}_{password}"),
    };
    let is_theirs = KeyToken::read(whole.as_bytes()).is_some_and(|shown| shown.id == user);
    is_theirs.then_some(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";

    fn basic(user: &str, password: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into_bytes()
    }

    #[test]
    fn both_ways_of_twilios_clients_show_the_same_key() {
        let (id, secret) = ("0011223344556677", "ab".repeat(32));
        let key = format!("{PREFIX}{id}_{secret}");
        for (user, password) in [(ACCOUNT, key.as_str()), (id, key.as_str()), (id, &secret)] {
            assert_eq!(token(&basic(user, password), ACCOUNT).as_ref(), Some(&key), "{user}");
        }
        // Another account's SID, another key's id or a missing secret gives no token.
        let other = format!("AC{}", "f".repeat(32));
        for (user, password) in
            [(other.as_str(), key.as_str()), ("7766554433221100", &key), (id, "hush"), ("", &key)]
        {
            assert_eq!(token(&basic(user, password), ACCOUNT), None, "{user} {password}");
        }
        assert_eq!(token(format!("Bearer {key}").as_bytes(), ACCOUNT), None);
    }

    proptest! {
        #[test]
        fn credentials_of_any_bytes_are_read_without_panic(bytes: Vec<u8>, text: String) {
            let _ = token(&bytes, ACCOUNT);
            let _ = token(&basic(&text, &text), ACCOUNT);
            let _ = token(&[b"Basic ".as_slice(), &bytes].concat(), ACCOUNT);
        }
    }
}
