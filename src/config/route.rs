//! Reader of one route of the plugin configuration, and of the policies that routes inherit.

use std::sync::Arc;

use serde_json::{Map, Value};
use twilio_edge_contract::{Class, Delivery, MAX_ACCOUNTS};

use super::reader::{Reader, field};
use super::{Bodies, BodyFormat, Methods, Mode, OnUnavailable, Route, RouteAnswers, twiml};
use crate::form::is_account_sid;
use crate::keys::Account;

/// Largest `answer` of a route, in bytes: it is in the configuration, and in each answer.
const MAX_ANSWER_BYTES: usize = 4096;

/// Fields of a route, and of the policies by class.
pub(super) const ROUTE: &[&str] = &[
    "path",
    "prefix",
    "class",
    "mode",
    "delivery",
    "answer",
    "keyword_answers",
    "methods",
    "bodies",
    "forward_signature",
    "body",
    "accounts",
    "on_unavailable",
    "timeout_ms",
];
pub(super) const ON_UNAVAILABLE: &[&str] = &["inbound", "status"];
const KEYWORD_ANSWERS: &[&str] = &["stop", "start", "help"];

impl Reader<'_> {
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

    /// Reads the answers to accepted messages; `None` if the route configures none.
    fn answers(
        &self,
        at: impl Fn(&str) -> String,
        route: Option<&Map<String, Value>>,
        is_allowed: bool,
    ) -> Option<Arc<RouteAnswers>> {
        let by_keyword = field(route, "keyword_answers");
        let keyword_path = at("keyword_answers");
        let keywords =
            by_keyword.and_then(|value| self.object(&keyword_path, value, KEYWORD_ANSWERS));
        let of_keyword = |name: &str| {
            self.answer(&format!("{keyword_path}.{name}"), field(keywords, name)?, is_allowed)
        };
        let answers = RouteAnswers {
            usual: field(route, "answer")
                .and_then(|value| self.answer(&at("answer"), value, is_allowed)),
            stop: of_keyword("stop"),
            start: of_keyword("start"),
            help: of_keyword("help"),
        };
        (answers != RouteAnswers::default()).then(|| Arc::new(answers))
    }

    fn answer(&self, path: &str, value: &Value, is_allowed: bool) -> Option<String> {
        let answer = self.text(path, value)?;
        if !is_allowed {
            let problem = "is only for class inbound with delivery accept: the backend answers other messages, and a status gets an empty answer";
            self.problem(path, problem);
        } else if answer.len() > MAX_ANSWER_BYTES {
            self.problem(path, format!("has more than {MAX_ANSWER_BYTES} bytes"));
        } else if let Some(problem) = twiml::problem(&answer) {
            self.problem(path, format!("is not valid TwiML: it {problem}"));
        }
        Some(answer)
    }

    pub(super) fn route(
        &self,
        path: &str,
        value: &Value,
        defaults: &RouteDefaults<'_>,
    ) -> Option<Route> {
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
        let has_answers = delivery == Delivery::Accept && class == Some(Class::Inbound);
        let answers = self.answers(at, route, has_answers);
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
        let forward_signature =
            self.boolean(&at("forward_signature"), field(route, "forward_signature"), true);
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
            answers,
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
    pub(super) fn on_unavailable_by_class(&self, value: Option<&Value>) -> [OnUnavailable; 2] {
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
pub(super) struct RouteDefaults<'a> {
    pub(super) on_unavailable: [OnUnavailable; 2],
    pub(super) timeout_ms: u64,
    /// `None` if the sidecar may know more accounts.
    pub(super) accounts: Option<&'a [Account]>,
    pub(super) has_sidecar: bool,
}
