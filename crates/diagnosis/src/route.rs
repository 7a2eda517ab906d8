//! Verdict of the route of a captured request on its method and its body, and the line of the filter's configuration to
//! change if the route refuses them.
//!
//! The decisions are the filter's own (`Methods::accept`, `Bodies::accept`).

use serde::Serialize;
use twilio_edge_contract::Class;
use twilio_edge_filter::config::{Bodies, Config, Methods, Mode, Route};
use twilio_edge_filter::reply::Reason;
use twilio_edge_filter::signature::BodyRule;

/// Routes of a filter's configuration.
#[derive(Debug)]
pub struct Routes {
    file: String,
    config: Config,
}

/// Properties of a request that a route accepts or refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) class: Class,
    pub(crate) rule: BodyRule,
    pub(crate) is_empty: bool,
}

/// The verdict of a route on the method and the body of a request.
#[derive(Debug, Default, Serialize)]
pub struct RouteVerdict {
    /// Place of the route in the filter's configuration, as `routes[0]`; none if the configuration is not given, or if no route
    /// guards the path.
    pub route: Option<String>,
    /// True if the route accepts both; none if `route` is none or its mode is off.
    pub accepted: Option<bool>,
    /// Refusals: of the route, or of one that sets neither `methods` nor `bodies`.
    pub refusals: Vec<RouteRefusal>,
    /// A route that does not decide, and the reason.
    pub note: Option<String>,
}

/// A refusal for the route's `methods` or `bodies`.
#[derive(Debug, Serialize)]
pub struct RouteRefusal {
    /// Reason of the filter.
    pub reason: &'static str,
    /// The line to change.
    pub fix: String,
}

impl Routes {
    /// Returns the routes of a configuration; `file` is its printable name.
    pub fn new(file: String, config: Config) -> Self {
        Self { file, config }
    }

    fn find(&self, path: &str) -> Option<(usize, &Route)> {
        let found = self.config.route(path)?;
        let place = self.config.routes.iter().position(|route| route == found)?;
        Some((place, found))
    }
}

impl RouteVerdict {
    /// Returns the verdict of the request's route; of a route with the defaults if the configuration is not given.
    pub(crate) fn of(routes: Option<&Routes>, sent: Sent<'_>) -> Self {
        let Some(routes) = routes else {
            let place = format!("the route of {} in the filter's configuration", sent.path);
            let refusals = refusals(sent, Methods::default(), Bodies::default(), &place);
            return Self { refusals, ..Self::default() };
        };
        let Some((place, route)) = routes.find(sent.path) else {
            let note = format!(
                "No route in {} guards {}: the filter lets such requests pass without proof.",
                routes.file, sent.path
            );
            return Self { note: Some(note), ..Self::default() };
        };
        let name = format!("routes[{place}]");
        let note = match route.mode {
            Mode::Enforce => None,
            Mode::Shadow => Some(format!(
                "{name} is in mode shadow: the filter counts refusals and forwards the request."
            )),
            Mode::Off => Some(format!("{name} is in mode off: the filter checks nothing there.")),
        };
        let sent = Sent { class: route.class, ..sent };
        let place = format!("{name} of {}", routes.file);
        let refusals = match route.mode {
            Mode::Off => Vec::new(),
            Mode::Enforce | Mode::Shadow => refusals(sent, route.methods, route.bodies, &place),
        };
        let accepted = (route.mode != Mode::Off).then_some(refusals.is_empty());
        Self { route: Some(name), accepted, refusals, note }
    }
}

fn refusals(sent: Sent<'_>, methods: Methods, bodies: Bodies, place: &str) -> Vec<RouteRefusal> {
    let mut refusals = Vec::new();
    let mut refuse = |reason: Reason, fix: String| {
        refusals.push(RouteRefusal { reason: reason.slug(), fix });
    };
    let is_known = matches!(sent.method, "GET" | "POST");
    if is_known && !methods.accept(sent.method.as_bytes()) {
        let other = if sent.method == "GET" { "POST" } else { "GET" };
        let fix = format!(
            "Set \"methods\": [\"GET\", \"POST\"] in {place}, or select {other} for the webhook at Twilio."
        );
        refuse(Reason::MethodNotEnabled, fix);
    }
    // A GET with a body is refused by every route.
    if sent.method != "GET" && !bodies.accept(sent.rule, sent.is_empty) {
        let fix = match sent.rule {
            BodyRule::Hash if sent.class != Class::Other => format!(
                "Class {} takes forms only, and this content type is none: send the webhook to a route of class other that sets \"bodies\": [\"hash\"], or find what changed the content type.",
                sent.class.as_str()
            ),
            BodyRule::Hash | BodyRule::Form | BodyRule::None => {
                format!("Set \"bodies\": [\"form\", \"hash\"] in {place}.")
            }
        };
        refuse(Reason::BodyNotEnabled, fix);
    }
    refusals
}
