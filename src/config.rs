//! The plugin configuration: JSON in, [`Config`] or every problem with its path out.
//!
//! Decides: what is valid. Unknown fields are refused, because a misspelt `on_unavailable` that silently means
//! the default is found out during the outage. Secrets come inline or from Envoy's environment.
//!
//! Must not know: the host; the environment is a function it is given.

use std::cell::RefCell;
use std::fmt;

use serde_json::{Map, Value};
use twilio_edge_contract::Class;

use crate::form::is_account_sid;
use crate::signature::Key;

/// Largest `max_body_bytes`: bodies are held in memory, and the HTTP/1 codec stops at 1 MiB by itself.
const MAX_BODY_LIMIT: u64 = 1 << 20;
const MAX_ORIGINS: usize = 16;
const MAX_ACCOUNTS: usize = 1024;
const MAX_TOKENS: usize = 8;
const MAX_ROUTES: usize = 256;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Public origins (`https://hooks.example.com`) to which the request's path is appended.
    pub origins: Vec<String>,
    /// Accounts whose webhooks are accepted.
    pub accounts: Vec<Account>,
    /// Routes the filter guards; others pass, stripped of our headers.
    pub routes: Vec<Route>,
    /// None: verify and forward, remember nothing.
    pub sidecar: Option<Sidecar>,
    /// Largest body of a webhook, in bytes.
    pub max_body_bytes: usize,
}

/// One Twilio account or subaccount. A subaccount signs with its own token.
#[derive(Debug, Clone)]
pub struct Account {
    /// `AC..`
    pub sid: String,
    /// Tokens that may sign, the current one first.
    pub keys: Vec<Key>,
}

/// One guarded path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Exact path, without query.
    pub path: String,
    /// What arrives there.
    pub class: Class,
    /// What to do when the sidecar gives no verdict.
    pub on_unavailable: OnUnavailable,
}

/// The policy for a missing verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Forward with `x-twilio-edge-dedupe: unknown`: the backend may see a webhook twice, but loses none.
    Forward,
    /// Answer 503 with Retry-After: nothing passes undeduplicated. Twilio retries only if told to (`#rp=5xx`).
    Reject,
}

/// Where verdicts come from.
#[derive(Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Envoy cluster.
    pub cluster: String,
    /// Value of the authorization header.
    pub authorization: String,
    /// Longest wait for one reply, in milliseconds.
    pub timeout_ms: u64,
    /// Longest wait for another copy of the same webhook to settle, in milliseconds. Twilio gives up at 15 s.
    pub in_flight_wait_ms: u64,
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sidecar")
            .field("cluster", &self.cluster)
            .field("timeout_ms", &self.timeout_ms)
            .field("in_flight_wait_ms", &self.in_flight_wait_ms)
            .finish_non_exhaustive()
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as `routes[1].class`.
    pub path: String,
    /// What, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.path, self.message)
        }
    }
}

impl Config {
    /// Reads the plugin configuration. `environment` looks a variable up in Envoy's environment, of which the
    /// plugin sees what `host_env_keys` lists.
    pub fn parse(
        json: &[u8],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Problem>> {
        let value: Value = match serde_json::from_slice(json) {
            Ok(value) => value,
            Err(error) => {
                let message = format!("the plugin configuration is not JSON: {error}");
                return Err(vec![Problem { path: String::new(), message }]);
            }
        };
        let reading = Reading { environment, problems: RefCell::default() };
        let config = reading.config(&value);
        match reading.problems.into_inner() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(problems),
        }
    }

    /// The route of `path`, which is without query.
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.path == path)
    }

    /// The account of `sid`.
    pub fn account(&self, sid: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.sid == sid)
    }
}

/// One pass over the JSON that collects problems instead of stopping at the first.
struct Reading<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<Problem>>,
}

impl Reading<'_> {
    fn problem(&self, path: &str, message: impl Into<String>) {
        let problem = Problem { path: path.to_owned(), message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    fn config(&self, value: &Value) -> Config {
        const FIELDS: &[&str] =
            &["origins", "accounts", "routes", "on_unavailable", "sidecar", "max_body_bytes"];
        let root = self.object("", value, FIELDS);
        let defaults = self.on_unavailable_by_class(field(root, "on_unavailable"));
        let origins = self
            .list("origins", field(root, "origins"), MAX_ORIGINS)
            .filter_map(|(path, value)| self.origin(&path, value))
            .collect();
        let accounts: Vec<_> = self
            .list("accounts", field(root, "accounts"), MAX_ACCOUNTS)
            .filter_map(|(path, value)| self.account(&path, value))
            .collect();
        let routes: Vec<_> = self
            .list("routes", field(root, "routes"), MAX_ROUTES)
            .filter_map(|(path, value)| self.route(&path, value, defaults))
            .collect();
        self.refuse_repeats("accounts", accounts.iter().map(|account| account.sid.as_str()));
        self.refuse_repeats("routes", routes.iter().map(|route| route.path.as_str()));
        let sidecar = match field(root, "sidecar") {
            None | Some(Value::Null) => None,
            Some(value) => Some(self.sidecar(value)),
        };
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
        }
    }

    /// An origin is matched byte for byte, so only what Twilio could have requested is accepted.
    fn origin(&self, path: &str, value: &Value) -> Option<String> {
        let origin = self.text(path, value)?;
        let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let complaint = match authority {
            None => "must start with https:// or http://",
            Some("") => "names no host",
            Some(authority) if authority.contains(['/', '?', '#']) => {
                "is an origin, so no path, query or slash may follow the host: Twilio's path is appended as received"
            }
            Some(authority)
                if !authority.bytes().all(|byte| byte.is_ascii_graphic())
                    || authority.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}']) =>
            {
                "holds a character no host has; write international names in punycode"
            }
            Some(_) => return Some(origin),
        };
        self.problem(path, format!("{origin:?} {complaint}"));
        None
    }

    fn account(&self, path: &str, value: &Value) -> Option<Account> {
        let account = self.object(path, value, &["sid", "auth_tokens"]);
        let sid_path = format!("{path}.sid");
        let sid = match field(account, "sid") {
            Some(sid) => self.text(&sid_path, sid),
            None => {
                self.problem(&sid_path, "is required: AC and 32 hexadecimal digits");
                None
            }
        };
        if let Some(sid) = sid.as_deref().filter(|sid| !is_account_sid(sid)) {
            self.problem(&sid_path, format!("{sid:?} is not AC and 32 hexadecimal digits"));
        }
        let tokens_path = format!("{path}.auth_tokens");
        let mut keys = Vec::new();
        for (token_path, value) in
            self.list(&tokens_path, field(account, "auth_tokens"), MAX_TOKENS)
        {
            let Some(token) = self.secret(&token_path, value) else { continue };
            let label = match keys.len() {
                0 => "current".to_owned(),
                1 => "next".to_owned(),
                n => format!("key-{}", n + 1),
            };
            keys.extend(Key::auth_token(label, &token));
        }
        if keys.is_empty() {
            self.problem(&tokens_path, "hold no token: without one nothing can be proven");
        }
        Some(Account { sid: sid?, keys })
    }

    fn route(&self, path: &str, value: &Value, defaults: [OnUnavailable; 3]) -> Option<Route> {
        let route = self.object(path, value, &["path", "class", "on_unavailable"]);
        let class_path = format!("{path}.class");
        let class = match field(route, "class").and_then(Value::as_str) {
            Some("inbound") => Some(Class::Inbound),
            Some("status") => Some(Class::Status),
            Some("other") => Some(Class::Other),
            _ => {
                self.problem(&class_path, "is required: \"inbound\", \"status\" or \"other\"");
                None
            }
        };
        let policy_path = format!("{path}.on_unavailable");
        let [inbound, status, other] = defaults;
        let default = match class {
            Some(Class::Inbound) => inbound,
            Some(Class::Status) => status,
            Some(Class::Other) | None => other,
        };
        let on_unavailable = match field(route, "on_unavailable") {
            Some(value) => self.on_unavailable(&policy_path, value),
            None => default,
        };
        let path_path = format!("{path}.path");
        let text = match field(route, "path") {
            Some(value) => self.text(&path_path, value),
            None => {
                self.problem(&path_path, "is required, as \"/twilio/inbound\"");
                None
            }
        };
        if let Some(text) = &text {
            let complaint = if !text.starts_with('/') {
                Some("must start with /")
            } else if text.contains(['?', '#']) {
                Some("is a path: the query is not part of it")
            } else if text.split('/').any(|segment| segment == "." || segment == "..") {
                Some(
                    "holds a dot segment, which proxies remove: no signature over it can be reproduced",
                )
            } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                Some("must be written as it is requested: visible ASCII, the rest percent-escaped")
            } else {
                None
            };
            if let Some(complaint) = complaint {
                self.problem(&path_path, format!("{text:?} {complaint}"));
            }
        }
        Some(Route { path: text?, class: class?, on_unavailable })
    }

    fn on_unavailable_by_class(&self, value: Option<&Value>) -> [OnUnavailable; 3] {
        let Some(value) = value else { return [OnUnavailable::Forward; 3] };
        let by_class = self.object("on_unavailable", value, &["inbound", "status"]);
        let [inbound, status] = ["inbound", "status"].map(|class| {
            field(by_class, class).map_or(OnUnavailable::Forward, |value| {
                self.on_unavailable(&format!("on_unavailable.{class}"), value)
            })
        });
        [inbound, status, OnUnavailable::Forward]
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
        const FIELDS: &[&str] = &["cluster", "token", "timeout_ms", "in_flight_wait_ms"];
        let sidecar = self.object("sidecar", value, FIELDS);
        let cluster = match field(sidecar, "cluster") {
            Some(cluster) => self.text("sidecar.cluster", cluster),
            None => {
                self.problem(
                    "sidecar.cluster",
                    "is required: the name of the sidecar's Envoy cluster",
                );
                None
            }
        };
        let token = match field(sidecar, "token") {
            Some(token) => self.secret("sidecar.token", token),
            None => {
                self.problem(
                    "sidecar.token",
                    "is required: the sidecar's TWILIO_EDGE_TOKEN, best as {\"env\": \"TWILIO_EDGE_TOKEN\"}",
                );
                None
            }
        };
        let timeout_ms =
            self.integer("sidecar.timeout_ms", field(sidecar, "timeout_ms"), 500, 1..=10_000);
        let in_flight_wait_ms = self.integer(
            "sidecar.in_flight_wait_ms",
            field(sidecar, "in_flight_wait_ms"),
            8_000,
            0..=14_000,
        );
        Sidecar {
            cluster: cluster.unwrap_or_default(),
            authorization: format!("Bearer {}", token.unwrap_or_default()),
            timeout_ms,
            in_flight_wait_ms,
        }
    }

    fn refuse_repeats<'s>(&self, list: &str, names: impl Iterator<Item = &'s str>) {
        let mut seen = std::collections::HashSet::new();
        for name in names {
            if !seen.insert(name) {
                self.problem(list, format!("{name:?} is there twice"));
            }
        }
    }

    fn object<'v>(
        &self,
        path: &str,
        value: &'v Value,
        known: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let Some(object) = value.as_object() else {
            self.problem(path, format!("must be an object with {}", known.join(", ")));
            return None;
        };
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            self.problem(&path, format!("is not known here; known are {}", known.join(", ")));
        }
        Some(object)
    }

    fn list<'v>(
        &self,
        path: &str,
        value: Option<&'v Value>,
        most: usize,
    ) -> impl Iterator<Item = (String, &'v Value)> {
        let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if items.is_empty() {
            self.problem(path, "is required: a list with at least one entry");
        } else if items.len() > most {
            self.problem(path, format!("has {} entries; {most} is the most", items.len()));
        }
        let path = path.to_owned();
        items.iter().take(most).enumerate().map(move |(i, value)| (format!("{path}[{i}]"), value))
    }

    fn integer(
        &self,
        path: &str,
        value: Option<&Value>,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let Some(value) = value else { return default };
        match whole(value).filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let (least, most) = (range.start(), range.end());
                self.problem(path, format!("must be a whole number from {least} to {most}"));
                default
            }
        }
    }

    /// Text inline or from the environment; absent optional variables are no text and no problem.
    fn text(&self, path: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Object(object) => {
                let source = self.object(path, value, &["env", "optional"]);
                let optional = match field(source, "optional") {
                    None => false,
                    Some(Value::Bool(optional)) => *optional,
                    Some(_) => {
                        self.problem(&format!("{path}.optional"), "must be true or false");
                        false
                    }
                };
                let Some(name) = object.get("env").and_then(Value::as_str) else {
                    self.problem(&format!("{path}.env"), "is required: the name of a variable");
                    return None;
                };
                let found = (self.environment)(name).filter(|text| !text.is_empty());
                if found.is_none() && !optional {
                    self.problem(
                        path,
                        format!(
                            "{name} is not set: put it into Envoy's environment and list it in vm_config.environment_variables.host_env_keys"
                        ),
                    );
                }
                found
            }
            _ => {
                self.problem(path, "must be text, or {\"env\": \"NAME\"}");
                None
            }
        }
    }

    /// As [`Self::text`], but a secret with a stray space or line break is a mistake worth a word.
    fn secret(&self, path: &str, value: &Value) -> Option<String> {
        let secret = self.text(path, value)?;
        if secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(secret);
        }
        self.problem(path, "holds a space, line break or other character no token has");
        None
    }
}

fn field<'v>(object: Option<&'v Map<String, Value>>, name: &str) -> Option<&'v Value> {
    object.and_then(|object| object.get(name))
}

/// A whole number: Envoy hands a Struct configuration over as JSON in which every number may be a double.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        // Exact below 2^53; anything larger is out of every range here.
        (number.fract() == 0.0 && (0.0..9.0e15).contains(&number)).then_some(number as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SID: &str = "AC00112233445566778899aabbccddeeff";

    fn environment(name: &str) -> Option<String> {
        match name {
            "TOKEN" => Some("0123456789abcdef".to_owned()),
            "ORIGIN" => Some("http://127.0.0.1:8080".to_owned()),
            _ => None,
        }
    }

    fn parse(json: &str) -> Result<Config, Vec<String>> {
        Config::parse(json.as_bytes(), &environment)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn complete() -> String {
        format!(
            r#"{{"origins": ["https://hooks.example.com", {{"env": "ORIGIN"}}],
                "accounts": [{{"sid": "{SID}", "auth_tokens": [{{"env": "TOKEN"}}, {{"env": "NEXT", "optional": true}}, "abc"]}}],
                "routes": [{{"path": "/twilio/inbound", "class": "inbound"}},
                           {{"path": "/twilio/status", "class": "status", "on_unavailable": "forward"}}],
                "on_unavailable": {{"inbound": "reject", "status": "reject"}},
                "sidecar": {{"cluster": "sidecar", "token": {{"env": "TOKEN"}}, "timeout_ms": 250.0}}}}"#
        )
    }

    #[test]
    fn a_complete_configuration_is_read() {
        let config = parse(&complete()).unwrap();
        assert_eq!(config.origins, ["https://hooks.example.com", "http://127.0.0.1:8080"]);
        let labels: Vec<_> = config.account(SID).unwrap().keys.iter().map(Key::label).collect();
        assert_eq!(labels, ["current", "next"]);
        assert_eq!(config.route("/twilio/inbound").unwrap().on_unavailable, OnUnavailable::Reject);
        assert_eq!(config.route("/twilio/status").unwrap().on_unavailable, OnUnavailable::Forward);
        assert_eq!(config.route("/twilio/status/"), None);
        let sidecar = config.sidecar.as_ref().unwrap();
        assert_eq!((sidecar.timeout_ms, sidecar.in_flight_wait_ms), (250, 8_000));
        assert_eq!(config.max_body_bytes, 65_536);
        assert!(!format!("{config:?}").contains("0123456789abcdef"), "no secret in Debug");
    }

    #[test]
    fn the_smallest_configuration_has_no_sidecar() {
        let json = format!(
            r#"{{"origins": ["https://h"], "accounts": [{{"sid": "{SID}", "auth_tokens": ["t"]}}],
                "routes": [{{"path": "/in", "class": "inbound"}}]}}"#
        );
        assert!(parse(&json).unwrap().sidecar.is_none());
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_path() {
        let problems = parse(
            r#"{"origins": ["hooks.example.com", "https://h/"], "accounts": [{"sid": "AC1", "auth_tokens": [{"env": "GONE"}, "a b"]}],
                "routes": [{"path": "x", "class": "voice"}, {"path": "/a/../b", "class": "other", "retries": 3}],
                "on_unavailable": {"inbound": "fail"}, "sidecar": {"timeout_ms": 0}, "max_body_bytes": 1.5, "colour": 1}"#,
        )
        .unwrap_err();
        for path in [
            "colour:",
            "origins[0]:",
            "origins[1]:",
            "accounts[0].sid:",
            "accounts[0].auth_tokens[0]: GONE is not set",
            "accounts[0].auth_tokens[1]:",
            "routes[0].path:",
            "routes[0].class:",
            "routes[1].path:",
            "routes[1].retries:",
            "on_unavailable.inbound:",
            "sidecar.cluster:",
            "sidecar.token:",
            "sidecar.timeout_ms:",
            "max_body_bytes:",
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(path)),
                "{path} in {problems:#?}"
            );
        }
        assert_eq!(problems.len(), 16, "{problems:#?}");
    }

    #[test]
    fn what_would_be_ambiguous_is_refused() {
        let twice = complete().replace("/twilio/status", "/twilio/inbound");
        assert_eq!(parse(&twice).unwrap_err(), ["routes: \"/twilio/inbound\" is there twice"]);
        for nothing in ["", "null", "[]", "{", "\"x\"", "{}"] {
            assert!(parse(nothing).is_err(), "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_configuration_or_have_a_problem(json in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(problems) = Config::parse(&json, &environment) {
                prop_assert!(!problems.is_empty());
            }
        }
    }
}
