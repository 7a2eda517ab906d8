//! Reader of the plugin configuration: reads each JSON object into its type and notes every problem under its path. Module
//! `reading` reads single values and collects the problems.

use std::sync::Arc;

use serde_json::Value;
use twilio_edge_contract::{
    AccountKeys, Class, Delivery, KeyAlgorithm, MAX_ACCOUNTS, MAX_KEYS, SharedKeySecret,
};

use super::reader::{Reader, field};
use super::{Bodies, BodyFormat, Config, Methods, Mode, OnUnavailable, Route, Sidecar, twiml};
use crate::form::{is_account_sid, is_parameter_name};
use crate::keys::Account;

/// Largest `max_body_bytes`: bodies are buffered in memory, and the HTTP/1 codec stops at 1 MiB by itself.
const MAX_BODY_LIMIT: u64 = 1 << 20;
const MAX_ORIGINS: usize = 16;
const MAX_ROUTES: usize = 256;
const MAX_PARAMETERS: usize = 64;
/// Largest `answer` of a route, in bytes: it is in the configuration, and in each answer.
const MAX_ANSWER_BYTES: usize = 4096;
const DEFAULT_TIMEOUT_MS: u64 = 500;

/// Fields of each object. `reference` documents each of them; a test verifies it.
pub(super) const ROOT: &[&str] =
    &["origins", "accounts", "routes", "on_unavailable", "sidecar", "max_body_bytes", "parameters"];
pub(super) const ACCOUNT: &[&str] = &["sid", "auth_tokens", "shared_keys"];
pub(super) const SHARED_KEY: &[&str] = &["id", "secret", "algorithm"];
pub(super) const ROUTE: &[&str] = &[
    "path",
    "prefix",
    "class",
    "mode",
    "delivery",
    "answer",
    "methods",
    "bodies",
    "forward_signature",
    "body",
    "accounts",
    "on_unavailable",
    "timeout_ms",
];
pub(super) const ON_UNAVAILABLE: &[&str] = &["inbound", "status"];
pub(super) const SIDECAR: &[&str] =
    &["cluster", "token", "timeout_ms", "in_flight_wait_ms", "accounts_refresh_ms"];

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
        Config {
            origins,
            accounts,
            routes,
            sidecar,
            max_body_bytes: usize::try_from(max_body_bytes).unwrap_or(usize::MAX),
            parameters: self.parameters(field(root, "parameters")),
        }
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

    /// Reads a list of words, each at most once; `None` if it is absent or invalid.
    fn word_set(&self, path: &str, value: Option<&Value>, known: &[&str]) -> Option<Vec<bool>> {
        let words = value?;
        let listed: Vec<&str> = self
            .list(path, Some(words), known.len())
            .filter_map(|(at, word)| {
                let word = word.as_str().filter(|word| known.contains(word));
                if word.is_none() {
                    self.problem(&at, format!("must be one of {}", known.join(", ")));
                }
                word
            })
            .collect();
        self.refuse_repeats(path, listed.iter());
        Some(known.iter().map(|word| listed.contains(word)).collect())
    }

    fn methods(&self, path: &str, value: Option<&Value>) -> Methods {
        match self.word_set(path, value, &["GET", "POST"]).as_deref() {
            Some([get, post]) => Methods { get: *get, post: *post },
            _ => Methods::default(),
        }
    }

    fn bodies(&self, path: &str, value: Option<&Value>, class: Option<Class>) -> Bodies {
        let bodies = match self.word_set(path, value, &["form", "hash"]).as_deref() {
            Some([form, hash]) => Bodies { form: *form, hash: *hash },
            _ => Bodies::default(),
        };
        if class != Some(Class::Other) && bodies.hash {
            let problem =
                "hash is only for class other: Twilio sends messages and statuses as forms";
            self.problem(path, problem);
        }
        bodies
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

    fn route(&self, path: &str, value: &Value, defaults: &RouteDefaults<'_>) -> Option<Route> {
        let route = self.object(path, value, ROUTE);
        let at = |field: &str| format!("{path}.{field}");
        let word = |name: &str| field(route, name).map(|value| value.as_str().unwrap_or_default());
        let class = word("class").and_then(|word| word.parse::<Class>().ok());
        if class.is_none() {
            self.problem(&at("class"), "is required: \"inbound\", \"status\" or \"other\"");
        }
        let mode = match word("mode") {
            None | Some("enforce") => Mode::Enforce,
            Some("shadow") => Mode::Shadow,
            Some("off") => Mode::Off,
            Some(_) => {
                self.problem(&at("mode"), "must be \"enforce\", \"shadow\" or \"off\"");
                Mode::Enforce
            }
        };
        let delivery = match word("delivery") {
            None | Some("forward") => Delivery::Forward,
            Some("accept") => Delivery::Accept,
            Some(_) => {
                self.problem(&at("delivery"), "must be \"forward\" or \"accept\"");
                Delivery::Forward
            }
        };
        if delivery == Delivery::Accept && !defaults.has_sidecar {
            self.problem(&at("delivery"), "accept needs a sidecar, which delivers the accepted webhooks: configure sidecar, or use forward");
        }
        if delivery == Delivery::Accept && class == Some(Class::Other) {
            let problem = "accept is only for classes inbound and status: a webhook of class other has no identity";
            self.problem(&at("delivery"), problem);
        }
        let answer = field(route, "answer").and_then(|value| {
            let at = at("answer");
            let answer = self.text(&at, value)?;
            if delivery != Delivery::Accept || class != Some(Class::Inbound) {
                let problem = "is only for class inbound with delivery accept: the backend answers other messages, and a status gets an empty answer";
                self.problem(&at, problem);
            } else if answer.len() > MAX_ANSWER_BYTES {
                self.problem(&at, format!("has more than {MAX_ANSWER_BYTES} bytes"));
            } else if let Some(problem) = twiml::problem(&answer) {
                self.problem(&at, format!("is not valid TwiML: it {problem}"));
            }
            Some(Arc::from(answer))
        });
        let body = match word("body") {
            None | Some("form") => BodyFormat::Form,
            Some("json") => BodyFormat::Json,
            Some(_) => {
                self.problem(&at("body"), "must be \"form\" or \"json\"");
                BodyFormat::Form
            }
        };
        let methods = self.methods(&at("methods"), field(route, "methods"));
        let bodies = self.bodies(&at("bodies"), field(route, "bodies"), class);
        let forward_signature = match field(route, "forward_signature") {
            None => true,
            Some(Value::Bool(forward)) => *forward,
            Some(_) => {
                self.problem(&at("forward_signature"), "must be true or false");
                false
            }
        };
        let [inbound, status] = defaults.on_unavailable;
        let on_unavailable = match (field(route, "on_unavailable"), class) {
            (Some(value), _) => self.on_unavailable(&at("on_unavailable"), value),
            (None, Some(Class::Inbound)) => inbound,
            (None, Some(Class::Status)) => status,
            (None, Some(Class::Other) | None) => OnUnavailable::Forward,
        };
        let timeout_ms = self.integer(
            &at("timeout_ms"),
            field(route, "timeout_ms"),
            defaults.timeout_ms,
            1..=10_000,
        );
        let accounts = field(route, "accounts").map(|list| {
            let accounts_path = at("accounts");
            let sids = self.list(&accounts_path, Some(list), MAX_ACCOUNTS);
            let sids =
                sids.filter_map(|(path, value)| self.text(&path, value).map(|sid| (path, sid)));
            // The accounts that only the sidecar knows cannot be looked up, so only the form of the SID is checked.
            let known = |sid: &str| match defaults.accounts {
                Some(accounts) => accounts.iter().any(|account| account.sid == sid),
                None => is_account_sid(sid),
            };
            sids.inspect(|(path, sid)| {
                if !known(sid) {
                    self.problem(path, format!("{sid:?} is not among the accounts"));
                }
            })
            .map(|(_, sid)| sid)
            .collect()
        });
        let (is_prefix, name) = match (field(route, "path"), field(route, "prefix")) {
            (Some(_), None) => (false, "path"),
            (None, Some(_)) => (true, "prefix"),
            _ => {
                let problem = "needs either \"path\", for instance \"/twilio/inbound\", or \"prefix\", for instance \"/twilio/\"";
                self.problem(path, problem);
                return None;
            }
        };
        let text = self.text(&at(name), field(route, name)?);
        if let Some(problem) = text.as_deref().and_then(|text| path_problem(text, is_prefix)) {
            self.problem(&at(name), problem);
        }
        let path = text?;
        let class = class?;
        Some(Route {
            path,
            is_prefix,
            class,
            mode,
            delivery,
            answer,
            methods,
            bodies,
            forward_signature,
            body,
            accounts,
            on_unavailable,
            timeout_ms,
        })
    }

    /// Reads the policies for messages and for statuses. Webhooks of class other are never claimed.
    fn on_unavailable_by_class(&self, value: Option<&Value>) -> [OnUnavailable; 2] {
        let Some(value) = value else { return [OnUnavailable::Forward; 2] };
        let by_class = self.object("on_unavailable", value, ON_UNAVAILABLE);
        ["inbound", "status"].map(|class| {
            field(by_class, class).map_or(OnUnavailable::Forward, |value| {
                self.on_unavailable(&format!("on_unavailable.{class}"), value)
            })
        })
    }

    fn on_unavailable(&self, path: &str, value: &Value) -> OnUnavailable {
        match value.as_str() {
            Some("forward") => OnUnavailable::Forward,
            Some("reject") => OnUnavailable::Reject,
            _ => {
                self.problem(path, "must be \"forward\" or \"reject\"");
                OnUnavailable::Reject
            }
        }
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

/// Returns the problem of a path that a proxy could change or that two parsers could read differently.
fn path_problem(path: &str, is_prefix: bool) -> Option<String> {
    let problem = if !path.starts_with('/') {
        "must start with /"
    } else if is_prefix && !path.ends_with('/') {
        "must end with /: a prefix is a folder, not the beginning of a name"
    } else if path.contains(['?', '#']) {
        "must have no query and no fragment"
    } else if path.split('/').any(is_dot_segment) {
        "contains a dot segment, which proxies remove, so that no signature matches: use the path without it"
    } else if path.contains("//") {
        "contains an empty segment, which proxies remove, so that no signature matches: use the path without it"
    } else if path.contains('\\') {
        "contains a backslash, which proxies replace by a slash: use /"
    } else if has_needless_escape(path) {
        "escapes a letter, a digit or one of -._~, which proxies decode, so that no signature matches: write it unescaped"
    } else if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        "must be visible ASCII: percent-escape other characters, as Twilio requests them"
    } else {
        return None;
    };
    Some(format!("{path:?} {problem}"))
}

/// Reports whether a segment is `.` or `..`, escaped or not: proxies that normalize paths decode `%2e` first.
fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// Reports whether a path escapes a character that needs no escape (RFC 3986, section 2.3).
fn has_needless_escape(path: &str) -> bool {
    path.split('%').skip(1).any(|after| {
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    })
}

/// Defaults of a route.
struct RouteDefaults<'a> {
    on_unavailable: [OnUnavailable; 2],
    timeout_ms: u64,
    /// `None` if the sidecar may know more accounts.
    accounts: Option<&'a [Account]>,
    has_sidecar: bool,
}
