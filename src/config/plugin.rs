//! Reader of the plugin configuration: reads each JSON object into its type and notes every problem under its path. Module
//! `reader` reads single values and collects the problems.

use serde_json::Value;
use twilio_edge_contract::{AccountKeys, KeyAlgorithm, MAX_ACCOUNTS, MAX_KEYS, SharedKeySecret};

use super::reader::{Reader, field};
use super::route::RouteDefaults;
use super::{Config, ReportedBody, Reports, Route, Sidecar};
use crate::form::{is_account_sid, is_parameter_name};
use crate::keys::Account;

/// Largest `max_body_bytes`: bodies are buffered in memory, and the HTTP/1 codec stops at 1 MiB by itself.
const MAX_BODY_LIMIT: u64 = 1 << 20;
const MAX_ORIGINS: usize = 16;
const MAX_ROUTES: usize = 256;
const MAX_PARAMETERS: usize = 64;
const DEFAULT_TIMEOUT_MS: u64 = 500;

/// Fields of each object. `reference` documents each of them; a test verifies it.
pub(super) const ROOT: &[&str] = &[
    "origins",
    "accounts",
    "routes",
    "on_unavailable",
    "sidecar",
    "max_body_bytes",
    "parameters",
    "access_log",
    "refused_requests",
];
pub(super) const ACCOUNT: &[&str] = &["sid", "auth_tokens", "shared_keys"];
pub(super) const SHARED_KEY: &[&str] = &["id", "secret", "algorithm"];
pub(super) const SIDECAR: &[&str] =
    &["cluster", "token", "timeout_ms", "in_flight_wait_ms", "accounts_refresh_ms"];
pub(super) const REFUSED_REQUESTS: &[&str] = &["report", "body", "max_body_bytes", "per_minute"];

impl Reader<'_> {
    pub(super) fn config(&self, value: &Value) -> Config {
        let root = self.object("", value, ROOT);
        let origins = self
            .list("origins", field(root, "origins"), MAX_ORIGINS)
            .filter_map(|(path, value)| self.origin(&path, value))
            .collect();
        let mut sidecar = match field(root, "sidecar") {
            None | Some(Value::Null) => None,
            Some(value) => Some(self.sidecar(value)),
        };
        let has_key_ring = sidecar.as_ref().is_some_and(|it| it.accounts_refresh_ms.is_some());
        let accounts: Vec<_> = self
            .accounts(field(root, "accounts"), has_key_ring)
            .filter_map(|(path, value)| self.account(&path, value))
            .collect();
        let defaults = RouteDefaults {
            on_unavailable: self.on_unavailable_by_class(field(root, "on_unavailable")),
            timeout_ms: sidecar.as_ref().map_or(DEFAULT_TIMEOUT_MS, |sidecar| sidecar.timeout_ms),
            accounts: (!has_key_ring).then_some(accounts.as_slice()),
            has_sidecar: sidecar.is_some(),
        };
        let routes: Vec<_> = self
            .list("routes", field(root, "routes"), MAX_ROUTES)
            .filter_map(|(path, value)| self.route(&path, value, &defaults))
            .collect();
        self.refuse_repeats("accounts", accounts.iter().map(|account| &account.sid));
        let display =
            |route: &Route| format!("{}{}", route.path, if route.is_prefix { "*" } else { "" });
        self.refuse_repeats("routes", routes.iter().map(display));
        if let Some(sidecar) = &mut sidecar {
            // Routes share callouts, so a callout waits as long as the longest timeout of a route.
            let longest = routes.iter().map(|route| route.timeout_ms).max();
            sidecar.timeout_ms = sidecar.timeout_ms.max(longest.unwrap_or_default());
        }
        let max_body_bytes = self.integer(
            "max_body_bytes",
            field(root, "max_body_bytes"),
            65_536,
            1..=MAX_BODY_LIMIT,
        );
        let reports = self.reports(field(root, "refused_requests"), sidecar.is_some());
        Config {
            origins,
            accounts,
            routes,
            sidecar,
            reports,
            max_body_bytes: usize::try_from(max_body_bytes).unwrap_or(usize::MAX),
            parameters: self.parameters(field(root, "parameters")),
            access_log: self.boolean("access_log", field(root, "access_log"), true),
        }
    }

    fn reports(&self, value: Option<&Value>, has_sidecar: bool) -> Option<Reports> {
        let object =
            value.and_then(|value| self.object("refused_requests", value, REFUSED_REQUESTS));
        let is_enabled =
            self.boolean("refused_requests.report", field(object, "report"), has_sidecar);
        if is_enabled && !has_sidecar {
            let problem =
                "needs a sidecar, which gets the reports: configure one, or remove this field";
            self.problem("refused_requests.report", problem);
        }
        let body = match field(object, "body").map(Value::as_str) {
            None | Some(Some("full")) => ReportedBody::Full,
            Some(Some("names")) => ReportedBody::Names,
            Some(Some("none")) => ReportedBody::None,
            Some(_) => {
                let problem = "must be \"full\", \"names\" or \"none\"";
                self.problem("refused_requests.body", problem);
                ReportedBody::None
            }
        };
        let (path, value) = ("refused_requests.max_body_bytes", field(object, "max_body_bytes"));
        let max_body_bytes = self.integer(path, value, 16_384, 0..=65_536);
        let (path, value) = ("refused_requests.per_minute", field(object, "per_minute"));
        let per_minute = self.integer(path, value, 60, 1..=600);
        is_enabled.then_some(Reports {
            body,
            max_body_bytes: u32::try_from(max_body_bytes).unwrap_or_default(),
            per_minute: u32::try_from(per_minute).unwrap_or(1),
        })
    }

    fn parameters(&self, value: Option<&Value>) -> Vec<String> {
        let names = self.optional_list("parameters", value, MAX_PARAMETERS);
        let names = names.filter_map(|(path, value)| Some((self.text(&path, value)?, path)));
        names
            .inspect(|(name, path)| {
                if !is_parameter_name(name) {
                    let problem = format!(
                        "{name:?} is not a parameter name: use letters, digits and underscores"
                    );
                    self.problem(path, problem);
                }
            })
            .map(|(name, _)| name)
            .collect()
    }

    /// Reads an origin. It is matched byte for byte, so only an origin that Twilio could have requested is accepted.
    fn origin(&self, path: &str, value: &Value) -> Option<String> {
        let origin = self.text(path, value)?;
        let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let problem = match authority {
            None => "must start with https:// or http://",
            Some("") => "has no host",
            Some(authority) if authority.contains(['/', '?', '#']) => {
                "is an origin: remove the path, query or slash after the host; the filter appends the path of the request"
            }
            Some(authority)
                if !authority.bytes().all(|byte| byte.is_ascii_graphic())
                    || authority.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}']) =>
            {
                "contains a character that no host has; write international names in punycode"
            }
            Some(_) => return Some(origin),
        };
        self.problem(path, format!("{origin:?} {problem}"));
        None
    }

    /// Reads the accounts. The list may be empty if the sidecar provides a key ring.
    fn accounts<'v>(
        &self,
        value: Option<&'v Value>,
        has_key_ring: bool,
    ) -> impl Iterator<Item = (String, &'v Value)> {
        if !has_key_ring && value.and_then(Value::as_array).is_none_or(Vec::is_empty) {
            let problem = "is required: a list with at least one entry, unless sidecar.accounts_refresh_ms makes the sidecar provide the accounts";
            self.problem("accounts", problem);
        }
        self.optional_list("accounts", value, MAX_ACCOUNTS)
    }

    fn account(&self, path: &str, value: &Value) -> Option<Account> {
        let account = self.object(path, value, ACCOUNT);
        let sid = self.required_text(path, account, "sid", "AC and 32 hexadecimal digits");
        if let Some(sid) = sid.as_deref().filter(|sid| !is_account_sid(sid)) {
            let problem = format!("{sid:?} is not AC and 32 hexadecimal digits");
            self.problem(&format!("{path}.sid"), problem);
        }
        let before = self.problems.borrow().len();
        let tokens_path = format!("{path}.auth_tokens");
        let auth_tokens: Vec<String> = self
            .optional_list(&tokens_path, field(account, "auth_tokens"), MAX_KEYS)
            .filter_map(|(path, value)| self.secret(&path, value))
            .collect();
        let shared_path = format!("{path}.shared_keys");
        let shared_keys: Vec<SharedKeySecret> = self
            .optional_list(&shared_path, field(account, "shared_keys"), MAX_KEYS)
            .filter_map(|(path, value)| self.shared_key(&path, value))
            .collect();
        let keys = AccountKeys { sid: sid?, auth_tokens, shared_keys };
        match Account::new(&keys) {
            Ok(account) => Some(account),
            Err(problems) => {
                // Invalid values were reported where they were read; the remaining problems concern all keys together.
                let has_invalid_values = self.problems.borrow().len() > before;
                for problem in problems.iter().filter(|it| it.field != "sid" && !has_invalid_values)
                {
                    self.problem(&format!("{path}.{}", problem.field), problem.message.as_str());
                }
                None
            }
        }
    }

    fn shared_key(&self, path: &str, value: &Value) -> Option<SharedKeySecret> {
        let shared = self.object(path, value, SHARED_KEY);
        let id = self.required_text(path, shared, "id", "webhooks_sharedkey_..");
        let secret_path = format!("{path}.secret");
        let secret = match field(shared, "secret") {
            Some(secret) => self.secret(&secret_path, secret),
            None => {
                self.problem(&secret_path, "is required");
                None
            }
        };
        let algorithm = match field(shared, "algorithm") {
            None => Some(KeyAlgorithm::HmacSha256),
            Some(name) => name.as_str().and_then(KeyAlgorithm::named),
        };
        if algorithm.is_none() {
            let problem = "must be \"HMAC_SHA256\" or \"HMAC_SHA1\"";
            self.problem(&format!("{path}.algorithm"), problem);
        }
        Some(SharedKeySecret { id: id?, secret: secret?, algorithm: algorithm? })
    }

    fn sidecar(&self, value: &Value) -> Sidecar {
        let sidecar = self.object("sidecar", value, SIDECAR);
        let cluster =
            self.required_text("sidecar", sidecar, "cluster", "the name of the sidecar's cluster");
        let token = match field(sidecar, "token") {
            Some(token) => self.secret("sidecar.token", token),
            None => {
                self.problem(
                    "sidecar.token",
                    "is required: the sidecar's TWILIO_EDGE_TOKEN, preferably as {\"env\": \"TWILIO_EDGE_TOKEN\"}",
                );
                None
            }
        };
        let timeout_ms = self.integer(
            "sidecar.timeout_ms",
            field(sidecar, "timeout_ms"),
            DEFAULT_TIMEOUT_MS,
            1..=10_000,
        );
        let in_flight_wait_ms = self.integer(
            "sidecar.in_flight_wait_ms",
            field(sidecar, "in_flight_wait_ms"),
            8_000,
            0..=14_000,
        );
        let accounts_refresh_ms = field(sidecar, "accounts_refresh_ms").map(|value| {
            let range = 1_000..=3_600_000;
            self.integer("sidecar.accounts_refresh_ms", Some(value), 30_000, range)
        });
        Sidecar {
            cluster: cluster.unwrap_or_default(),
            authorization: format!("Bearer {}", token.unwrap_or_default()),
            timeout_ms,
            in_flight_wait_ms,
            accounts_refresh_ms,
        }
    }
}
