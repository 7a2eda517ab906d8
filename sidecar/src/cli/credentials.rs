//! Credentials for signing and examining webhooks: an account and its auth tokens, from the environment or from files.
//!
//! There is no flag for a token: it would appear in the process list and in the shell's history.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use twilio_edge_diagnosis::Token;
use twilio_edge_filter::form::is_account_sid;

use twilio_edge_demo as demo;
use twilio_edge_platform::file_access;

/// Environment variables of auth tokens; the second one is used during a rotation.
pub(super) const TOKEN_VARIABLES: [&str; 2] = ["TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_NEXT"];

/// Largest token file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Account that signs.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// `AC..`
    pub(super) sid: String,
    /// Its auth token.
    pub(super) token: Token,
}

/// Returns a variable that is set and not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the account that signs: the specified one, or the demo's. A SID without a token, or a token without a SID, is an
/// error.
pub(super) fn account(sid: Option<&str>, token_file: Option<&Path>) -> Result<Account, String> {
    let sid = sid.map(str::to_owned).or_else(|| variable("TWILIO_ACCOUNT_SID"));
    let token = match token_file {
        Some(file) => tokens_in(&[file.to_owned()])?.into_iter().next(),
        None => tokens_in_environment().into_iter().next(),
    };
    match (sid, token) {
        (Some(sid), _) if !is_account_sid(&sid) => {
            Err(format!("{sid}: must be an account SID, AC and 32 hexadecimal digits"))
        }
        (Some(sid), Some(token)) => Ok(Account { sid, token }),
        (None, None) => Ok(Account {
            sid: demo::ACCOUNT_SID.to_owned(),
            token: Token {
                label: "the demo's auth token".to_owned(),
                secret: demo::AUTH_TOKEN.to_owned(),
            },
        }),
        (Some(sid), None) => Err(format!(
            "there is no auth token for {sid}: set TWILIO_AUTH_TOKEN, or use --token-file"
        )),
        (None, Some(token)) => Err(format!(
            "{} has no account: set TWILIO_ACCOUNT_SID or --account too; without both, the demo's account is used",
            token.label
        )),
    }
}

/// Returns the tokens of the environment, the current one first.
pub(super) fn tokens_in_environment() -> Vec<Token> {
    TOKEN_VARIABLES
        .iter()
        .filter_map(|name| variable(name).map(|secret| Token { label: (*name).to_owned(), secret }))
        .collect()
}

/// Returns the tokens of files, one per line; blank lines and lines that begin with `#` are skipped.
pub(super) fn tokens_in(files: &[PathBuf]) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    for file in files {
        let name = file.display();
        let size = fs::metadata(file).map_err(|error| format!("{name}: {error}"))?.len();
        if size > MAX_FILE_BYTES {
            return Err(format!("{name}: too large for a file of tokens ({size} bytes)"));
        }
        let text =
            file_access::read_secret(file).map_err(|problem| format!("{name}: {problem}"))?;
        let before = tokens.len();
        for (number, line) in (1..).zip(text.lines()) {
            let secret = line.trim();
            if !secret.is_empty() && !secret.starts_with('#') {
                let label = format!("{name}:{number}");
                tokens.push(Token { label, secret: secret.to_owned() });
            }
        }
        if tokens.len() == before {
            return Err(format!("{name}: has no token"));
        }
    }
    Ok(tokens)
}
