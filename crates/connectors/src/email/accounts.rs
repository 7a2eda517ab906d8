//! Parser of the file with the accounts that send e-mails. For each account it has the provider with its credentials, the
//! senders, and the rate. The file contains secrets and is read once, at start. This module knows no protocol.

use std::collections::BTreeMap;

use toml::Value;

use twilio_edge_domain::{
    email::{EmailAddress, content::Mailbox, signature::EventKey},
    sending::rate_limit::Rate,
    tenant::is_account_sid,
};
use twilio_edge_platform::strict_toml::{Fields, TomlReader};

/// Upper bounds of accounts in a file, and of further senders of an account.
const MAX_ACCOUNTS: usize = 1024;
const MAX_SENDERS: usize = 1024;
/// Longest name, user and password, in bytes.
const MAX_LINE_BYTES: usize = 255;

const FIELDS: [&str; 14] = [
    "sid",
    "provider",
    "from",
    "from_name",
    "senders",
    "per_second",
    "api_key",
    "region",
    "event_public_key",
    "host",
    "port",
    "tls",
    "user",
    "password",
];

/// Fields of the other provider, which an account must not have.
const OF_SMTP: [&str; 5] = ["host", "port", "tls", "user", "password"];
const OF_SEND_GRID: [&str; 3] = ["api_key", "region", "event_public_key"];

/// Settings of one account.
pub(super) struct Account {
    pub(super) service: Service,
    /// Default sender.
    pub(super) from: Mailbox,
    /// Further addresses that the account may send from.
    pub(super) senders: Vec<String>,
    /// E-mails a second of each sender; `None` for the default.
    pub(super) rate: Option<Rate>,
}

/// Provider of an account, with its credentials.
pub(super) enum Service {
    SendGrid(SendGridAccount),
    Smtp(SmtpServer),
}

/// Account of SendGrid.
pub(super) struct SendGridAccount {
    pub(super) api_key: String,
    /// True for a subuser in the EU, which has a host of its own.
    pub(super) is_eu: bool,
    pub(super) event_key: Option<EventKey>,
}

/// Mail server.
pub(super) struct SmtpServer {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    /// User and password; `None` for a server that asks for none.
    pub(super) credentials: Option<(String, String)>,
}

twilio_edge_contract::string_enum! {
    /// Encryption of the connection to a mail server.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Tls {
        /// TLS from the first byte, usually at port 465.
        Implicit = "implicit",
        /// TLS after STARTTLS, usually at port 587. Without it the connection is closed.
        Starttls = "starttls",
        /// No encryption, for a server on the same machine or behind a mesh.
        None = "none",
    }
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
        let fields = reading.table(&path, value, &FIELDS);
        let sid = reading.text(&format!("{path}.sid"), fields.get("sid"));
        if !sid.is_empty() && !is_account_sid(&sid) {
            reading.problem(&format!("{path}.sid"), "must be AC and 32 hexadecimal digits");
        }
        let service = service(&mut reading, &path, &fields);
        let from = address(&mut reading, &format!("{path}.from"), fields.get("from"));
        let name = line(&mut reading, &format!("{path}.from_name"), fields.get("from_name"));
        let list = reading.list(&format!("{path}.senders"), fields.get("senders"), MAX_SENDERS);
        let senders = list
            .iter()
            .enumerate()
            .map(|(n, value)| address(&mut reading, &format!("{path}.senders[{n}]"), Some(value)));
        let senders = senders.collect();
        let rate = rate(&mut reading, &format!("{path}.per_second"), fields.get("per_second"));
        let Some(service) = service else { continue };
        let from = Mailbox { address: from, name: name.unwrap_or_default() };
        let account = Account { service, from, senders, rate };
        if accounts.insert(sid, account).is_some() {
            reading.problem(&format!("{path}.sid"), "repeats that of an earlier account");
        }
    }
    reading.outcome(accounts)
}

fn service(reading: &mut TomlReader, path: &str, fields: &Fields<'_>) -> Option<Service> {
    let key = |name: &str| format!("{path}.{name}");
    let provider = reading.text(&key("provider"), fields.get("provider"));
    let others: &[&str] = match provider.as_str() {
        "sendgrid" => &OF_SMTP,
        "smtp" => &OF_SEND_GRID,
        "" => return None,
        _ => {
            reading.problem(&key("provider"), "must be sendgrid or smtp");
            return None;
        }
    };
    for name in others.iter().filter(|name| fields.get(name).is_some()) {
        reading.problem(&key(name), format_args!("is no field of the provider {provider}"));
    }
    if provider == "sendgrid" {
        let api_key = reading.text(&key("api_key"), fields.get("api_key"));
        let region = optional(reading, &key("region"), fields.get("region"));
        let is_eu = match region.as_deref() {
            Some("eu") => true,
            None | Some("global") => false,
            Some(_) => {
                reading.problem(&key("region"), "must be global or eu");
                false
            }
        };
        let field = "event_public_key";
        let event_key = optional(reading, &key(field), fields.get(field));
        let event_key = event_key.and_then(|text| match EventKey::parse(&text) {
            Ok(event_key) => Some(event_key),
            Err(problem) => {
                reading.problem(&key(field), problem);
                None
            }
        });
        return Some(Service::SendGrid(SendGridAccount { api_key, is_eu, event_key }));
    }
    let host = reading.text(&key("host"), fields.get("host"));
    let tls = optional(reading, &key("tls"), fields.get("tls"));
    let tls = tls.map_or(Ok(Tls::Starttls), |text| text.parse()).unwrap_or_else(|problem| {
        reading.problem(&key("tls"), problem);
        Tls::Starttls
    });
    let usual = if tls == Tls::Implicit { 465 } else { 587 };
    let port = fields.get("port").map_or(Some(usual), Value::as_integer);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    if port.is_none() {
        reading.problem(&key("port"), "must be a number from 1 to 65535");
    }
    let user = line(reading, &key("user"), fields.get("user"));
    let password = line(reading, &key("password"), fields.get("password"));
    let credentials = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            reading.problem(path, "must have both user and password, or neither");
            None
        }
    };
    if credentials.is_some() && tls == Tls::None {
        reading.problem(&key("tls"), "must not be none with a password, which would be readable");
    }
    Some(Service::Smtp(SmtpServer { host, port: port.unwrap_or_default(), tls, credentials }))
}

/// Reads a text that may be missing.
fn optional(reading: &mut TomlReader, path: &str, value: Option<&Value>) -> Option<String> {
    value.map(|value| reading.text(path, Some(value)))
}

/// Reads a name, a user or a password: any text of one line.
fn line(reading: &mut TomlReader, path: &str, value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if text.is_empty() => {
            reading.problem(path, "must not be empty");
            None
        }
        Value::String(text)
            if text.len() > MAX_LINE_BYTES || text.chars().any(char::is_control) =>
        {
            reading
                .problem(path, format_args!("must be one line of at most {MAX_LINE_BYTES} bytes"));
            None
        }
        Value::String(text) => Some(text.clone()),
        _ => {
            reading.problem(path, "must be a text");
            None
        }
    }
}

fn address(reading: &mut TomlReader, path: &str, value: Option<&Value>) -> String {
    let text = reading.text(path, value);
    match EmailAddress::parse(&text) {
        Ok(address) => address.as_str().to_owned(),
        Err(problem) => {
            if !text.is_empty() {
                reading.problem(path, problem);
            }
            String::new()
        }
    }
}

fn rate(reading: &mut TomlReader, path: &str, value: Option<&Value>) -> Option<Rate> {
    let value = value?;
    #[expect(clippy::cast_precision_loss, reason = "a larger one is refused")]
    let number = value.as_float().or(value.as_integer().map(|whole| whole as f64));
    let rate = number.and_then(Rate::per_second);
    if rate.is_none() {
        reading.problem(path, format_args!("must be a number from 0.001 to {}", Rate::MAX));
    }
    rate
}

#[cfg(test)]
mod tests {
    use super::read as accounts;

    const SID: &str = "AC00112233445566778899aabbccddeeff";
    const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";

    fn account(rest: &str) -> String {
        format!("[[account]]\nsid = \"{SID}\"\nfrom = \"Shop@Example.com\"\n{rest}")
    }

    #[test]
    fn account_has_one_provider() {
        let sendgrid = format!(
            "provider = \"sendgrid\"\napi_key = \"SG.1\"\nregion = \"eu\"\nevent_public_key = \"{KEY}\"\nper_second = 5"
        );
        let read = accounts(&account(&sendgrid)).unwrap();
        assert_eq!(read[SID].from.address, "shop@example.com");
        let smtp = "provider = \"smtp\"\nhost = \"mail.example.com\"\nuser = \"u\"\npassword = \"p q\"\nfrom_name = \"Café & Shop\"";
        assert!(accounts(&account(smtp)).is_ok());
        for (rest, problem) in [
            ("", "account[0].provider: is required"),
            ("provider = \"x\"", "account[0].provider: must be sendgrid or smtp"),
            ("provider = \"sendgrid\"", "account[0].api_key: is required"),
            (
                "provider = \"sendgrid\"\napi_key = \"k\"\nhost = \"h\"",
                "account[0].host: is no field",
            ),
            (
                "provider = \"sendgrid\"\napi_key = \"k\"\nregion = \"us\"",
                "account[0].region: must be",
            ),
            (
                "provider = \"sendgrid\"\napi_key = \"k\"\nevent_public_key = \"k\"",
                "account[0].event_public_key: must be",
            ),
            ("provider = \"smtp\"", "account[0].host: is required"),
            ("provider = \"smtp\"\nhost = \"h\"\nport = 0", "account[0].port: must be"),
            ("provider = \"smtp\"\nhost = \"h\"\ntls = \"ssl\"", "account[0].tls: "),
            ("provider = \"smtp\"\nhost = \"h\"\nuser = \"u\"", "account[0]: must have both"),
            (
                "provider = \"smtp\"\nhost = \"h\"\ntls = \"none\"\nuser = \"u\"\npassword = \"p\"",
                "account[0].tls: must not be none",
            ),
            ("provider = \"smtp\"\nhost = \"h\"\nper_second = 0", "account[0].per_second: must be"),
            (
                "provider = \"smtp\"\nhost = \"h\"\nsenders = [\"x\"]",
                "account[0].senders[0]: it must",
            ),
            (
                "provider = \"smtp\"\nhost = \"h\"\nfrom_name = \"Shop\\nBcc: x\"",
                "account[0].from_name: must be one line",
            ),
        ] {
            let problems = accounts(&account(rest)).err().unwrap();
            assert!(problems[0].starts_with(problem), "{rest}: {problems:?}");
        }
    }
}
