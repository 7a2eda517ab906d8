//! Parser of the accounts file: returns the keys of the accounts, or every problem with its path. Pure: it does not
//! know the source of the text or the users of the keys.

use toml::{Table, Value};
use twilio_edge_contract::{AccountKeys, KeyAlgorithm, MAX_ACCOUNTS, MAX_KEYS, SharedKeySecret};

use twilio_edge_domain::tenant::is_account_sid;

use twilio_edge_platform::strict_toml::TomlReader;

/// Parses the text of the file. The accounts are sorted by SID, because their order in the file has no meaning.
pub(super) fn parse(text: &str) -> Result<Vec<AccountKeys>, Vec<String>> {
    let table = twilio_edge_platform::config::parse(text).map_err(|problem| vec![problem])?;
    let mut reading = TomlReader::default();
    let mut accounts = file(&mut reading, &table);
    accounts.sort_by(|one, other| one.sid.cmp(&other.sid));
    reading.outcome(accounts)
}

fn file(reading: &mut TomlReader, table: &Table) -> Vec<AccountKeys> {
    reading.known_fields("", table, &["account"]);
    let tables = reading.list("account", table.get("account"), MAX_ACCOUNTS);
    if tables.is_empty() && reading.is_clean() {
        // An empty file is more often a file that is being written than an intention to have no accounts.
        reading.problem("account", "the file has no account; add at least one [[account]]");
    }
    let accounts: Vec<AccountKeys> = tables
        .iter()
        .enumerate()
        .map(|(n, value)| account(reading, &format!("account[{n}]"), value))
        .collect();
    reading.refuse_repeats("account", "sid", accounts.iter().map(|account| &account.sid));
    accounts
}

fn account(reading: &mut TomlReader, path: &str, value: &Value) -> AccountKeys {
    let table = reading.table(path, value, &["sid", "auth_tokens", "shared_keys"]);
    let sid = reading.text(&format!("{path}.sid"), table.get("sid"));
    if !sid.is_empty() && !is_account_sid(&sid) {
        reading.problem(&format!("{path}.sid"), "must be AC and 32 hexadecimal digits");
    }
    let tokens = format!("{path}.auth_tokens");
    let auth_tokens: Vec<String> = reading
        .list(&tokens, table.get("auth_tokens"), MAX_KEYS)
        .iter()
        .enumerate()
        .map(|(n, token)| reading.text(&format!("{tokens}[{n}]"), Some(token)))
        .collect();
    let shared = format!("{path}.shared_keys");
    let shared_keys: Vec<SharedKeySecret> = reading
        .list(&shared, table.get("shared_keys"), MAX_KEYS)
        .iter()
        .enumerate()
        .map(|(n, key)| shared_key(reading, &format!("{shared}[{n}]"), key))
        .collect();
    reading.refuse_repeats(&shared, "id", shared_keys.iter().map(|key| &key.id));
    if auth_tokens.is_empty() && shared_keys.is_empty() {
        reading.problem(
            path,
            "has neither auth_tokens nor shared_keys; no webhook of it could be verified",
        );
    }
    AccountKeys { sid, auth_tokens, shared_keys }
}

fn shared_key(reading: &mut TomlReader, path: &str, value: &Value) -> SharedKeySecret {
    let table = reading.table(path, value, &["id", "secret", "algorithm"]);
    let algorithm = match table.get("algorithm").map(Value::as_str) {
        None | Some(Some("HMAC_SHA256")) => KeyAlgorithm::HmacSha256,
        Some(Some("HMAC_SHA1")) => KeyAlgorithm::HmacSha1,
        Some(_) => {
            reading.problem(&format!("{path}.algorithm"), "must be HMAC_SHA256 or HMAC_SHA1");
            KeyAlgorithm::HmacSha256
        }
    };
    SharedKeySecret {
        id: reading.text(&format!("{path}.id"), table.get("id")),
        secret: reading.text(&format!("{path}.secret"), table.get("secret")),
        algorithm,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use twilio_edge_platform::strict_toml::LISTED_PROBLEMS;

    const GOOD: &str = r#"
[[account]]
sid = "AC00112233445566778899aabbccddeeff"
auth_tokens = ["hush-current", "hush-next"]

[[account]]
sid = "AC000000000000000000000000000000aa"
[[account.shared_keys]]
id = "webhooks_sharedkey_a"
secret = "hush-shared"
algorithm = "HMAC_SHA1"
[[account.shared_keys]]
id = "webhooks_sharedkey_b"
secret = "hush-other"
"#;

    #[test]
    fn valid_file_is_read_completely() {
        let accounts = parse(GOOD).unwrap();
        let [shared, tokens] = accounts.as_slice() else { panic!("{accounts:?}") };
        assert_eq!(tokens.auth_tokens, ["hush-current", "hush-next"]);
        assert!(tokens.shared_keys.is_empty());
        assert_eq!(shared.sid, "AC000000000000000000000000000000aa");
        let algorithms: Vec<_> = shared.shared_keys.iter().map(|key| key.algorithm).collect();
        assert_eq!(algorithms, [KeyAlgorithm::HmacSha1, KeyAlgorithm::HmacSha256]);
    }

    #[test]
    fn invalid_file_has_all_problems_listed_without_a_value() {
        let file = r#"
acount = "hush"
[[account]]
sid = "hush"
auth_tokens = ["hush 1", 7, ""]
token = "hush"
[[account]]
sid = "AC00112233445566778899aabbccddeeff"
[[account]]
sid = "AC00112233445566778899aabbccddeeff"
auth_tokens = "hush"
[[account.shared_keys]]
secret = "hush"
algorithm = "hush"
[[account.shared_keys]]
id = "a"
secret = "hush"
[[account.shared_keys]]
id = "a"
"#;
        let problems = parse(file).unwrap_err();
        assert_eq!(
            problems,
            [
                "acount: there is no such field",
                "account[0].token: there is no such field",
                "account[0].sid: must be AC and 32 hexadecimal digits",
                "account[0].auth_tokens[0]: holds a blank, a line break or another character no key has",
                "account[0].auth_tokens[1]: must be a text",
                "account[0].auth_tokens[2]: must not be empty",
                "account[1]: has neither auth_tokens nor shared_keys; no webhook of it could be verified",
                "account[2].auth_tokens: must be a list",
                "account[2].shared_keys[0].algorithm: must be HMAC_SHA256 or HMAC_SHA1",
                "account[2].shared_keys[0].id: is required",
                "account[2].shared_keys[2].secret: is required",
                "account[2].shared_keys[2].id: is that of an earlier one",
                "account[2].sid: is that of an earlier one",
            ]
        );
    }

    #[test]
    fn file_without_accounts_is_refused() {
        for file in
            ["", "# later\n", "account = []\n", "account = 7\n", "account = [7]\n", "[account]\n"]
        {
            assert!(!parse(file).unwrap_err().is_empty(), "{file:?}");
        }
        assert_eq!(parse("[[account]\n").unwrap_err().len(), 1);
    }

    #[test]
    fn lists_and_problems_are_bounded() {
        let token = "\"t\",";
        let sid = "AC00112233445566778899aabbccddeeff";
        let file = |tokens: usize| {
            format!("[[account]]\nsid = \"{sid}\"\nauth_tokens = [{}]\n", token.repeat(tokens))
        };
        assert!(parse(&file(MAX_KEYS)).is_ok());
        let problems = parse(&file(MAX_KEYS + 1)).unwrap_err();
        assert!(
            problems[0].ends_with("auth_tokens: has 9 entries, at most 8 are taken"),
            "{problems:?}"
        );
        assert!(parse(&"[[account]]\n".repeat(MAX_ACCOUNTS + 1)).unwrap_err()[0].contains("1025"));
        let problems = parse(&"[[account]]\n".repeat(MAX_ACCOUNTS)).unwrap_err();
        assert_eq!(problems.len(), LISTED_PROBLEMS + 1);
        assert_eq!(problems.last().unwrap(), "and 2028 more");
    }

    proptest! {
        /// A damaged file never causes a panic, and its problems never contain a secret.
        #[test]
        fn damaged_file_reveals_no_secret(
            at in 0..GOOD.len(),
            removed in 0..60_usize,
            inserted in "[\\[\\]\"'=,.#\\\\\n a\u{e9}]{0,3}",
        ) {
            let end = (at + removed).min(GOOD.len());
            let file = [GOOD.split_at(at).0, &inserted, GOOD.split_at(end).1].concat();
            if let Err(problems) = parse(&file) {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!(!problem.contains("hush"), "{problem}");
                }
            }
        }
    }
}
