//! Metrics of requests by route: number of answers and duration. The series of a route are looked up once and cached, so
//! that counting a request allocates nothing.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};

use super::catalogue::Catalogue;

/// Upper bounds in seconds: a claim is answered in about a millisecond, a list of the API may take seconds.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];

const CLASSES: [&str; 4] = ["2xx", "4xx", "5xx", "other"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnsweredLabel {
    route: Arc<str>,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: Arc<str>,
}

#[derive(Debug)]
pub(super) struct Requests {
    answered: Family<AnsweredLabel, Counter>,
    seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
    known: RwLock<HashMap<Arc<str>, Arc<Route>>>,
}

/// The series of one route.
#[derive(Debug)]
struct Route {
    answered: [Counter; 4],
    seconds: Histogram,
}

impl Requests {
    pub(super) fn of(catalogue: &mut Catalogue) -> Requests {
        let requests = Requests {
            answered: catalogue.counters(
                "http_requests",
                &["route", "status"],
                "Answered requests by route (`none`: no route matched) and class of status: `2xx`, `4xx`, `5xx`, `other`",
            ),
            seconds: catalogue.histograms(
                "http_request_duration_seconds",
                &["route"],
                "Seconds between a request and its response",
                || Histogram::new(BUCKETS),
            ),
            known: RwLock::default(),
        };
        requests.route("none");
        requests
    }

    /// Records an answer. `route` is a path template, so there are as many series as routes.
    pub(super) fn answered(&self, route: &str, status: u16, took: Duration) {
        let class = match status {
            200..300 => 0,
            400..500 => 1,
            500..600 => 2,
            _ => 3,
        };
        let route = self.route(route);
        if let Some(counter) = route.answered.get(class) {
            counter.inc();
        }
        route.seconds.observe(took.as_secs_f64());
    }

    fn route(&self, name: &str) -> Arc<Route> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| {
            let name: Arc<str> = name.into();
            let answered = CLASSES.map(|status| {
                let label = AnsweredLabel { route: name.clone(), status };
                self.answered.get_or_create(&label).clone()
            });
            let label = RouteLabel { route: name.clone() };
            let seconds = self.seconds.get_or_create(&label).clone();
            let route = Arc::new(Route { answered, seconds });
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.entry(name).or_insert(route).clone()
        })
    }
}
