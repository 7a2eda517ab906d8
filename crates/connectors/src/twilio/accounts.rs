//! Parser of the file with Twilio credentials. For each account it holds the credentials, the status callback URL, and
//! the rates of senders. The file contains secrets and is read once, at start. This module knows nothing of HTTP.

use std::collections::BTreeMap;

use toml::Value;

use twilio_edge_domain::{
    address::Address,
    sending::{
        rate_limit::Rate,
        sender::{is_alphanumeric_id, is_service},
        verification::is_service_sid,
    },
    tenant::is_account_sid,
};
use twilio_edge_platform::strict_toml::TomlReader;

/// Upper bounds of accounts in a file, and of senders with a rate in an account.
const MAX_ACCOUNTS: usize = 1024;
const MAX_SENDERS: usize = 1024;

/// Credentials and settings of one account.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) secret: String,
    /// Status callback URL of the account; `None` for the global one.
    pub(super) status_callback_url: Option<String>,
    /// Verify Service of the account.
    pub(super) verify_service_sid: Option<String>,
    /// Rates of individual senders and Messaging Services.
    pub(super) rates: BTreeMap<String, Rate>,
}

/// Returns every problem of the file at `path`.
pub fn problems(path: &str) -> Vec<String> {
    match twilio_edge_platform::file_access::read_secret(path.as_ref()) {
        Ok(text) => read(&text).err().unwrap_or_default(),
        Err(problem) => vec![problem],
    }
}

pub(super) fn read(text: &str) -> Result<BTreeMap<String, Account>, Vec<String>> {
    let table = twilio_edge_platform::config::parse(text).map_err(|problem| vec![problem])?;
    let mut reading = TomlReader::default();
    reading.known_fields("", &table, &["account"]);
    let mut accounts = BTreeMap::new();
    let listed = reading.list("account", table.get("account"), MAX_ACCOUNTS);
    for (n, value) in listed.iter().enumerate() {
        let path = format!("account[{n}]");
        let table = reading.table(
            &path,
            value,
            &[
                "sid",
                "api_key",
                "api_secret",
                "auth_token",
                "status_callback_url",
                "verify_service_sid",
                "sender",
            ],
        );
        let sid = reading.text(&format!("{path}.sid"), table.get("sid"));
        if !sid.is_empty() && !is_account_sid(&sid) {
            reading.problem(&format!("{path}.sid"), "must be AC and 32 hexadecimal digits");
        }
        let key = |name: &str| format!("{path}.{name}");
        let callback = table.get("status_callback_url");
        let status_callback_url = callback
            .is_some()
            .then(|| reading.text(&key("status_callback_url"), callback))
            .filter(|url| !url.is_empty());
        if status_callback_url.as_ref().is_some_and(|url| !url.starts_with("http")) {
            reading.problem(&key("status_callback_url"), "must start with https://");
        }
        let service = table.get("verify_service_sid");
        let verify_service_sid = service
            .is_some()
            .then(|| reading.text(&key("verify_service_sid"), service))
            .filter(|sid| !sid.is_empty());
        if verify_service_sid.as_deref().is_some_and(|sid| !is_service_sid(sid)) {
            reading.problem(&key("verify_service_sid"), "must be VA and 32 hexadecimal digits");
        }
        let rates = rates(&mut reading, &key("sender"), table.get("sender"));
        let account = match (table.get("api_key"), table.get("auth_token")) {
            (None, token @ Some(_)) => Account {
                user: sid.clone(),
                secret: reading.text(&key("auth_token"), token),
                status_callback_url,
                verify_service_sid,
                rates,
            },
            (user, None) => Account {
                user: reading.text(&key("api_key"), user),
                secret: reading.text(&key("api_secret"), table.get("api_secret")),
                status_callback_url,
                verify_service_sid,
                rates,
            },
            (Some(_), Some(_)) => {
                reading.problem(&path, "has both api_key and auth_token; remove one of them");
                continue;
            }
        };
        if accounts.insert(sid, account).is_some() {
            reading.problem(&format!("{path}.sid"), "repeats that of an earlier account or sender");
        }
    }
    reading.outcome(accounts)
}

/// Reads the rates of senders that differ from the default rate.
fn rates(reading: &mut TomlReader, path: &str, value: Option<&Value>) -> BTreeMap<String, Rate> {
    let mut rates = BTreeMap::new();
    for (n, value) in reading.list(path, value, MAX_SENDERS).iter().enumerate() {
        let path = format!("{path}[{n}]");
        let table = reading.table(&path, value, &["name", "per_second"]);
        let name = reading.text(&format!("{path}.name"), table.get("name"));
        let is_number = Address::parse(&name).is_some_and(|address| {
            let digits = address.number.strip_prefix('+').unwrap_or(&address.number);
            address.written() == name && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
        let is_sender = is_number || is_service(&name) || is_alphanumeric_id(&name);
        if !name.is_empty() && !is_sender {
            let problem = "must be MG and 32 hexadecimal digits, a number as Twilio writes it, or an alphanumeric sender id";
            reading.problem(&format!("{path}.name"), problem);
        }
        let value = table.get("per_second");
        #[expect(clippy::cast_precision_loss, reason = "a larger one is refused")]
        let number = value
            .and_then(|value| value.as_float().or(value.as_integer().map(|whole| whole as f64)));
        let Some(rate) = number.and_then(Rate::per_second) else {
            let problem = format_args!("must be a number from 0.001 to {}", Rate::MAX);
            reading.problem(&format!("{path}.per_second"), problem);
            continue;
        };
        if rates.insert(name, rate).is_some() {
            reading
                .problem(&format!("{path}.name"), "repeats that of an earlier account or sender");
        }
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::read as accounts;

    #[test]
    fn account_has_an_api_key_or_a_token() {
        let sid = "AC00112233445566778899aabbccddeeff";
        let read = |rest: &str| {
            accounts(&format!("[[account]]\nsid = \"{sid}\"\n{rest}"))
                .map(|accounts| accounts[sid].user.clone())
        };
        assert_eq!(read("api_key = \"SK1\"\napi_secret = \"hush\"").unwrap(), "SK1");
        assert_eq!(read("auth_token = \"hush\"").unwrap(), sid);
        for (rest, problem) in [
            ("", "account[0].api_key: is required"),
            ("api_key = \"SK1\"", "account[0].api_secret: is required"),
            ("tokn = \"hush\"\nauth_token = \"hush\"", "account[0].tokn: there is no such field"),
            (
                "auth_token = \"hush\"\napi_key = \"hush\"",
                "account[0]: has both api_key and auth_token; remove one of them",
            ),
        ] {
            assert_eq!(read(rest).unwrap_err().first().unwrap(), problem);
        }
    }

    #[test]
    fn sender_has_the_rate_of_the_file() {
        let sid = "AC00112233445566778899aabbccddeeff";
        let account = format!("[[account]]\nsid = \"{sid}\"\nauth_token = \"hush\"\n");
        let service = format!("MG{}", "1".repeat(32));
        let two = format!(
            "[[account.sender]]\nname = \"{service}\"\nper_second = 400\n\
             [[account.sender]]\nname = \"whatsapp:+14155238886\"\nper_second = 0.333\n"
        );
        let rates = accounts(&format!("{account}{two}")).unwrap()[sid].rates.clone();
        assert_eq!(rates[&service].as_per_second(), 400.0);
        assert_eq!(rates["whatsapp:+14155238886"].as_per_second(), 0.333);
        for (sender, problem) in [
            ("name = \"+1 555\"\nper_second = 1", "account[0].sender[0].name: holds a blank"),
            ("name = \"wholesaleshop\"\nper_second = 1", "account[0].sender[0].name: must be MG"),
            ("name = \"+14155238886\"", "account[0].sender[0].per_second: must be a number"),
            ("name = \"+14155238886\"\nper_second = 0", "account[0].sender[0].per_second: must"),
            ("name = \"+14155238886\"\nper_second = nan", "account[0].sender[0].per_second: must"),
            ("name = \"+14155238886\"\nper_second = 1\nx = 1", "account[0].sender[0].x: there is"),
        ] {
            let problems = accounts(&format!("{account}[[account.sender]]\n{sender}\n"));
            let problems = problems.err().unwrap();
            assert!(problems[0].starts_with(problem), "{sender}: {problems:?}");
        }
    }
}
