//! The plugin configuration: JSON in, [`Config`] or every problem with its path out.
//!
//! Decides: what is valid. Unknown fields are refused, because a misspelt `on_unavailable` that silently means
//! the default is found out during the outage. Secrets come inline or from Envoy's environment.
//!
//! Must not know: the host; the environment is a function it is given.

mod reading;

use std::cell::RefCell;
use std::fmt;

use serde_json::Value;
use twilio_edge_contract::Class;

pub use self::reading::Problem;
use self::reading::{Reading, field};
use crate::form::is_account_sid;
use crate::signature::{Algorithm, Key, Settings};

/// Largest `max_body_bytes`: bodies are held in memory, and the HTTP/1 codec stops at 1 MiB by itself.
const MAX_BODY_LIMIT: u64 = 1 << 20;
const MAX_ORIGINS: usize = 16;
const MAX_ACCOUNTS: usize = 1024;
const MAX_KEYS: usize = 8;
const DEFAULT_TIMEOUT_MS: u64 = 500;
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
    /// Keys that sign when a request names them.
    pub shared_keys: Vec<SharedKey>,
}

impl Account {
    /// The keys that may have signed a request with these settings; none when it names one we do not have.
    pub fn keys_for(&self, settings: Settings<'_>) -> &[Key] {
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

/// A key a Webhook Rule signs with instead of the auth token.
#[derive(Debug, Clone)]
pub struct SharedKey {
    /// `webhooks_sharedkey_..`
    pub id: String,
    /// Its secret, with its algorithm.
    pub key: Key,
}

/// A guarded path, or everything below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Path without query: all of it, or its beginning.
    pub path: String,
    /// Whether `path` is the beginning of paths; it ends with a slash then.
    pub is_prefix: bool,
    /// What arrives there.
    pub class: Class,
    /// What is done about what was decided.
    pub mode: Mode,
    /// Whose webhooks are accepted here; none means every account's.
    pub accounts: Option<Vec<String>>,
    /// What to do when the sidecar gives no verdict.
    pub on_unavailable: OnUnavailable,
    /// Longest wait for a verdict, in milliseconds.
    pub timeout_ms: u64,
}

/// How far a route's decisions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Refuse what is not proven, answer duplicates.
    Enforce,
    /// Decide, count and log all of it, but forward everything: for finding out what would happen.
    Shadow,
    /// Only remove headers in our name.
    Off,
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
                let message = format!(
                    "the plugin configuration is not JSON: {error}. Write it as a google.protobuf.StringValue: a Struct arrives as protobuf"
                );
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

    /// The route of `path`, which is without query: the exact one, else the longest prefix.
    pub fn route(&self, path: &str) -> Option<&Route> {
        let exact = self.routes.iter().find(|route| !route.is_prefix && route.path == path);
        exact.or_else(|| {
            let prefixes =
                self.routes.iter().filter(|it| it.is_prefix && path.starts_with(&it.path));
            prefixes.max_by_key(|route| route.path.len())
        })
    }

    /// The account of `sid`.
    pub fn account(&self, sid: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.sid == sid)
    }
}

impl Reading<'_> {
    fn config(&self, value: &Value) -> Config {
        const FIELDS: &[&str] =
            &["origins", "accounts", "routes", "on_unavailable", "sidecar", "max_body_bytes"];
        let root = self.object("", value, FIELDS);
        let origins = self
            .list("origins", field(root, "origins"), MAX_ORIGINS)
            .filter_map(|(path, value)| self.origin(&path, value))
            .collect();
        let accounts: Vec<_> = self
            .list("accounts", field(root, "accounts"), MAX_ACCOUNTS)
            .filter_map(|(path, value)| self.account(&path, value))
            .collect();
        let mut sidecar = match field(root, "sidecar") {
            None | Some(Value::Null) => None,
            Some(value) => Some(self.sidecar(value)),
        };
        let defaults = RouteDefaults {
            on_unavailable: self.on_unavailable_by_class(field(root, "on_unavailable")),
            timeout_ms: sidecar.as_ref().map_or(DEFAULT_TIMEOUT_MS, |sidecar| sidecar.timeout_ms),
            accounts: &accounts,
        };
        let routes: Vec<_> = self
            .list("routes", field(root, "routes"), MAX_ROUTES)
            .filter_map(|(path, value)| self.route(&path, value, &defaults))
            .collect();
        self.refuse_repeats("accounts", accounts.iter().map(|account| &account.sid));
        let shown =
            |route: &Route| format!("{}{}", route.path, if route.is_prefix { "*" } else { "" });
        self.refuse_repeats("routes", routes.iter().map(shown));
        if let Some(sidecar) = &mut sidecar {
            // Callouts are shared by routes, so they wait as long as the most patient of them.
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
        let account = self.object(path, value, &["sid", "auth_tokens", "shared_keys"]);
        let sid = self.required_text(path, account, "sid", "AC and 32 hexadecimal digits");
        if let Some(sid) = sid.as_deref().filter(|sid| !is_account_sid(sid)) {
            let problem = format!("{sid:?} is not AC and 32 hexadecimal digits");
            self.problem(&format!("{path}.sid"), problem);
        }
        let shared_keys: Vec<_> = self
            .optional_list(&format!("{path}.shared_keys"), field(account, "shared_keys"), MAX_KEYS)
            .filter_map(|(path, value)| self.shared_key(&path, value))
            .collect();
        self.refuse_repeats(
            &format!("{path}.shared_keys"),
            shared_keys.iter().map(|shared| &shared.id),
        );
        let tokens_path = format!("{path}.auth_tokens");
        let mut keys = Vec::new();
        for (token_path, value) in
            self.optional_list(&tokens_path, field(account, "auth_tokens"), MAX_KEYS)
        {
            let Some(token) = self.secret(&token_path, value) else { continue };
            let label = match keys.len() {
                0 => "current".to_owned(),
                1 => "next".to_owned(),
                n => format!("key-{}", n + 1),
            };
            keys.extend(Key::auth_token(label, &token));
        }
        if keys.is_empty() && shared_keys.is_empty() {
            let problem = "hold no token, and there is no shared key: nothing can be proven";
            self.problem(&tokens_path, problem);
        }
        Some(Account { sid: sid?, keys, shared_keys })
    }

    fn shared_key(&self, path: &str, value: &Value) -> Option<SharedKey> {
        let shared = self.object(path, value, &["id", "secret", "algorithm"]);
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
            None => Some(Algorithm::HmacSha256),
            Some(name) => name.as_str().and_then(Algorithm::named),
        };
        if algorithm.is_none() {
            let problem = "must be \"HMAC_SHA256\" or \"HMAC_SHA1\"";
            self.problem(&format!("{path}.algorithm"), problem);
        }
        let id = id?;
        let key = Key::shared(id.clone(), &secret?, algorithm?)?;
        Some(SharedKey { id, key })
    }

    fn route(&self, path: &str, value: &Value, defaults: &RouteDefaults<'_>) -> Option<Route> {
        const FIELDS: &[&str] =
            &["path", "prefix", "class", "mode", "accounts", "on_unavailable", "timeout_ms"];
        let route = self.object(path, value, FIELDS);
        let at = |field: &str| format!("{path}.{field}");
        let class = match field(route, "class").and_then(Value::as_str) {
            Some("inbound") => Some(Class::Inbound),
            Some("status") => Some(Class::Status),
            Some("other") => Some(Class::Other),
            _ => {
                self.problem(&at("class"), "is required: \"inbound\", \"status\" or \"other\"");
                None
            }
        };
        let mode = match field(route, "mode").map(Value::as_str) {
            None | Some(Some("enforce")) => Mode::Enforce,
            Some(Some("shadow")) => Mode::Shadow,
            Some(Some("off")) => Mode::Off,
            Some(_) => {
                self.problem(&at("mode"), "must be \"enforce\", \"shadow\" or \"off\"");
                Mode::Enforce
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
            let known = |sid: &str| defaults.accounts.iter().any(|account| account.sid == sid);
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
                let problem =
                    "needs either \"path\", as \"/twilio/inbound\", or \"prefix\", as \"/twilio/\"";
                self.problem(path, problem);
                return None;
            }
        };
        let text = self.text(&at(name), field(route, name)?);
        if let Some(complaint) = text.as_deref().and_then(|text| path_complaint(text, is_prefix)) {
            self.problem(&at(name), complaint);
        }
        let path = text?;
        let class = class?;
        Some(Route { path, is_prefix, class, mode, accounts, on_unavailable, timeout_ms })
    }

    /// For messages and for statuses. What is neither is never claimed.
    fn on_unavailable_by_class(&self, value: Option<&Value>) -> [OnUnavailable; 2] {
        let Some(value) = value else { return [OnUnavailable::Forward; 2] };
        let by_class = self.object("on_unavailable", value, &["inbound", "status"]);
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
        const FIELDS: &[&str] = &["cluster", "token", "timeout_ms", "in_flight_wait_ms"];
        let sidecar = self.object("sidecar", value, FIELDS);
        let cluster =
            self.required_text("sidecar", sidecar, "cluster", "the name of the sidecar's cluster");
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
        Sidecar {
            cluster: cluster.unwrap_or_default(),
            authorization: format!("Bearer {}", token.unwrap_or_default()),
            timeout_ms,
            in_flight_wait_ms,
        }
    }
}

/// A path that no proxy in between changes, and no reader takes for another.
fn path_complaint(path: &str, is_prefix: bool) -> Option<String> {
    let complaint = if !path.starts_with('/') {
        "must start with /"
    } else if is_prefix && !path.ends_with('/') {
        "must end with /: a prefix is a folder, not the beginning of a name"
    } else if path.contains(['?', '#']) {
        "is a path: the query is not part of it"
    } else if path.split('/').any(is_dot_segment) {
        "holds a dot segment, which proxies remove: no signature over it can be reproduced"
    } else if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        "must be written as it is requested: visible ASCII, the rest percent-escaped"
    } else {
        return None;
    };
    Some(format!("{path:?} {complaint}"))
}

/// `.` and `..`, escaped or not: proxies that normalize paths decode `%2e` first.
fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// What a route has when it does not say otherwise.
struct RouteDefaults<'a> {
    on_unavailable: [OnUnavailable; 2],
    timeout_ms: u64,
    accounts: &'a [Account],
}

#[cfg(test)]
mod tests;
