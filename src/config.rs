//! The plugin configuration: parses JSON into a [`Config`], or into every problem with its path.
//!
//! Decides which configurations are valid. Unknown fields are refused: a misspelt `on_unavailable` would silently have its
//! default value, and the operator would only notice it during an outage. Secrets come inline or from Envoy's environment.
//!
//! Must not know: the host; the environment is a function that the caller passes.

mod plugin;
mod reader;
#[cfg(not(target_arch = "wasm32"))]
mod reference;
mod route;
mod twiml;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use twilio_edge_contract::{Class, Delivery, Opt};

pub use self::reader::Problem;
use self::reader::Reader;
#[cfg(not(target_arch = "wasm32"))]
pub use self::reference::{FIELDS, Field, reference};
pub use crate::keys::{Account, KeySlot, SharedKey};
use crate::signature::BodyRule;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Public origins (`https://hooks.example.com`) to which the request's path is appended.
    pub origins: Vec<String>,
    /// Accounts whose webhooks are accepted. Empty only until the sidecar provides them.
    pub accounts: Vec<Account>,
    /// Routes the filter guards. Other requests pass without headers in the filter's name.
    pub routes: Vec<Route>,
    /// `None`: verify and forward, without deduplication.
    pub sidecar: Option<Sidecar>,
    /// Largest body of a webhook, in bytes.
    pub max_body_bytes: usize,
    /// Names of parameters that Twilio sends and this version does not know.
    pub parameters: Vec<String>,
    /// True if each request gets a word for the access log.
    pub access_log: bool,
    /// Reports of refused requests; `None` if the sidecar gets none.
    pub reports: Option<Reports>,
}

/// Reports of refused requests to the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reports {
    /// Part of the body that is reported.
    pub body: ReportedBody,
    /// Longest body that is reported, in bytes.
    pub max_body_bytes: u32,
    /// Most reports of one worker per minute.
    pub per_minute: u32,
}

/// Part of a refused request's body that is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedBody {
    /// The whole body. The sidecar computes signatures with it and stores the names of its parameters.
    Full,
    /// The names of the parameters. The signature of a form cannot be examined then.
    Names,
    /// Nothing.
    None,
}

/// Answers of a route to accepted messages: TwiML each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteAnswers {
    /// Answer to every message that has none of its own.
    pub usual: Option<String>,
    /// Answer to an opt-out keyword.
    pub stop: Option<String>,
    /// Answer to an opt-in keyword.
    pub start: Option<String>,
    /// Answer to a request for help.
    pub help: Option<String>,
}

impl RouteAnswers {
    /// Returns the answer to a message with this keyword, or without one; `None` answers without content.
    pub fn of(&self, opt: Option<Opt>) -> Option<&str> {
        let own = opt.and_then(|opt| match opt {
            Opt::Stop => self.stop.as_deref(),
            Opt::Start => self.start.as_deref(),
            Opt::Help => self.help.as_deref(),
        });
        own.or(self.usual.as_deref())
    }
}

/// A guarded path, or everything below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Path without query: the complete path, or its beginning.
    pub path: String,
    /// True if `path` is the beginning of paths; it ends with a slash then.
    pub is_prefix: bool,
    /// Class of the webhooks that arrive there.
    pub class: Class,
    /// Effect of the decisions.
    pub mode: Mode,
    /// The component that delivers the webhook to the backend.
    pub delivery: Delivery,
    /// Answers to accepted messages; `None` answers without content.
    pub answers: Option<Arc<RouteAnswers>>,
    /// Methods that Twilio may use here.
    pub methods: Methods,
    /// Kinds of bodies that Twilio may send here.
    pub bodies: Bodies,
    /// True if the backend gets the headers of the signature.
    pub forward_signature: bool,
    /// Format of the body for the backend.
    pub body: BodyFormat,
    /// SIDs of the accounts whose webhooks are accepted here; `None` accepts every account.
    pub accounts: Option<Vec<String>>,
    /// Policy when the sidecar gives no verdict.
    pub on_unavailable: OnUnavailable,
    /// Longest wait for a verdict, in milliseconds.
    pub timeout_ms: u64,
}

/// Methods of a route. Only POST by default: if both are accepted, the text of one can imitate the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods {
    /// `GET`, with the parameters in the query.
    pub get: bool,
    /// `POST`
    pub post: bool,
}

impl Methods {
    /// Returns the value of the `allow` header.
    pub(crate) fn allow(self) -> &'static str {
        match (self.get, self.post) {
            (true, true) => "GET, POST",
            (true, false) => "GET",
            (false, _) => "POST",
        }
    }

    /// Reports whether `method`, GET or POST, is accepted.
    pub fn accept(self, method: &[u8]) -> bool {
        if method == b"GET" { self.get } else { self.post }
    }
}

impl Default for Methods {
    fn default() -> Self {
        Self { get: false, post: true }
    }
}

/// Kinds of bodies of a route. Only forms by default: a form's text could contain the hash that proves another body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bodies {
    /// Forms, whose parameters are signed.
    pub form: bool,
    /// Any other body, whose hash is in the URL.
    pub hash: bool,
}

impl Bodies {
    /// Reports whether a body of this kind is accepted. An empty body always is.
    pub fn accept(self, rule: BodyRule, is_empty: bool) -> bool {
        is_empty
            || match rule {
                BodyRule::None => true,
                BodyRule::Form => self.form,
                BodyRule::Hash => self.hash,
            }
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Self { form: true, hash: false }
    }
}

/// Effect of a route's decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Refuse requests that are not proven, answer duplicates.
    Enforce,
    /// Decide, count and log, but forward every request: for a trial without effect.
    Shadow,
    /// Only remove headers in the filter's name.
    Off,
}

/// Format of the body of a forwarded form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// The bytes Twilio sent.
    Form,
    /// The webhook as a JSON event.
    Json,
}

/// Policy for a missing verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Forward with `x-twilio-edge-dedupe: unknown`: the backend may see a webhook twice, but loses none.
    Forward,
    /// Answer 503 with Retry-After: nothing passes undeduplicated. Twilio retries only if configured to (`#rp=5xx`).
    Reject,
}

/// The sidecar, which gives the verdicts.
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
    /// Interval of requests for the accounts' keys, in milliseconds; `None` disables them.
    pub accounts_refresh_ms: Option<u64>,
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sidecar")
            .field("cluster", &self.cluster)
            .field("timeout_ms", &self.timeout_ms)
            .field("in_flight_wait_ms", &self.in_flight_wait_ms)
            .field("accounts_refresh_ms", &self.accounts_refresh_ms)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Parses the plugin configuration. `environment` looks up a variable in Envoy's environment, of which the plugin sees
    /// the variables that `host_env_keys` lists.
    ///
    /// # Errors
    ///
    /// Returns every problem of the configuration.
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
        let reader = Reader { environment, problems: RefCell::default() };
        let config = reader.config(&value);
        match reader.problems.into_inner() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(problems),
        }
    }

    /// Returns the route of `path`, which is without query: the exact route, else the one with the longest prefix.
    pub fn route(&self, path: &str) -> Option<&Route> {
        let exact = self.routes.iter().find(|route| !route.is_prefix && route.path == path);
        exact.or_else(|| {
            let prefixes =
                self.routes.iter().filter(|it| it.is_prefix && path.starts_with(&it.path));
            prefixes.max_by_key(|route| route.path.len())
        })
    }

    /// Returns the configuration with the accounts of a key ring. An account of both has the ring's keys. An account of the
    /// configuration alone stays: it may be needed before the ring is available.
    pub fn with_key_ring(&self, ring: Vec<Account>) -> Self {
        let is_in_ring = |sid: &str| ring.iter().any(|account| account.sid == sid);
        let own = self.accounts.iter().filter(|own| !is_in_ring(&own.sid));
        let own: Vec<Account> = own.cloned().collect();
        Self { accounts: ring.into_iter().chain(own).collect(), ..self.clone() }
    }

    /// Returns the account of `sid`.
    pub fn account(&self, sid: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.sid == sid)
    }
}

#[cfg(test)]
mod tests;
