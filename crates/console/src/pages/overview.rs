//! Overview: webhooks and deliveries of the last hour, messages of the last day, refusals by cause, queues, and the health of the
//! dependencies.

mod refusals;
mod sinks;

use axum::{Router, routing::get};
use maud::{Markup, html};
use serde::Deserialize;
use twilio_edge_domain::{period, window::rfc3339};

use crate::{
    chart::{Series, bars},
    client::Api,
    components::{live, state},
    console::{Console, Page},
    failure::Failure,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: crate::path::ROOT,
    title: "Overview",
    api: Api::Application,
    needs_simulator: false,
    routes,
};

/// Number of intervals in an hour of activity, the current one included.
const INTERVALS: usize = 121;

const HOUR_MS: i64 = 3_600_000;

fn routes() -> Router<Console> {
    Router::new().route("/", get(show))
}

#[derive(Debug, Deserialize)]
struct Activity {
    interval_s: u64,
    intervals: Vec<Interval>,
    queues: Queues,
}

#[derive(Debug, Deserialize)]
struct Interval {
    until: Option<String>,
    new: u64,
    duplicates: u64,
    undecided: u64,
    delivered: u64,
    delivery_failures: u64,
    dead_letters: u64,
}

#[derive(Debug, Deserialize)]
struct Queues {
    unwritten_webhooks: i64,
    unwritten_webhooks_age_s: f64,
    messages_age_s: f64,
    unknown_messages: i64,
}

#[derive(Debug, Deserialize)]
struct Statistics {
    since: Option<String>,
    until: Option<String>,
    totals: Totals,
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Totals {
    accepted: u64,
    read: u64,
}

#[derive(Debug, Deserialize)]
struct Group {
    hour: Option<String>,
    sent: u64,
    delivered: u64,
    failed: u64,
    refused: u64,
}

#[derive(Debug, Deserialize)]
struct Readiness {
    database: String,
    redis: Option<String>,
    accounts: Option<String>,
}

async fn show(viewer: Viewer) -> Result<Markup, Failure> {
    let activity: Activity = viewer.client.get(Api::Application, "/v1/activity").await?;
    let path = viewer.of_account("/v1/statistics", [("by", Some("hour"))]);
    let messages = match viewer.client.get::<Statistics>(Api::Application, &path).await {
        Ok(statistics) => messages(&statistics),
        Err(failure) => failure.refusal()?.notice(),
    };
    let refusals = refusals::section(&viewer).await?;
    let sinks = sinks::fetch(&viewer).await?;
    let health: Readiness = viewer.client.get(Api::Application, "/readyz").await?;
    let body = html! {
        div.columns { (webhooks(&activity.intervals)) (deliveries(&activity.intervals)) }
        p { strong { (rate(&activity)) " webhooks a minute" } " in the last complete minute." }
        p.small { "Webhooks and deliveries are those of this sidecar, of all accounts, since its start." }
        h2 { "Messages of the last day" }
        (messages)
        h2 { "Refused webhooks by cause" }
        (refusals)
        h2 { "Queues" }
        (queues(&activity.queues))
        (sinks::queues(&sinks))
        h2 { "Dependencies" }
        div.cards {
            (dependency("Database", Some(&health.database)))
            (dependency("Redis", health.redis.as_deref()))
            (dependency("Accounts file", health.accounts.as_deref()))
            (sinks::dependencies(&sinks))
        }
    };
    let hint = html! {
        @if viewer.console.simulator().is_some() {
            div.notice.hint {
                p { "This is a demo. " a href="/console/phone" { "Open the phone" } " to write as a customer, and to answer as the business." }
            }
        }
    };
    Ok(viewer.page("Overview", &html! { (hint) (live("overview", &body)) }))
}

/// Returns the number of webhooks of the last complete minute.
fn rate(activity: &Activity) -> u64 {
    let complete = activity.intervals.iter().rev().skip(1);
    let minute = 60_u64.checked_div(activity.interval_s).unwrap_or(1).max(1);
    let latest = complete.take(usize::try_from(minute).unwrap_or(usize::MAX));
    latest.map(|interval| interval.new + interval.duplicates + interval.undecided).sum()
}

fn webhooks(intervals: &[Interval]) -> Markup {
    of_last_hour(
        "Webhooks of the last hour",
        intervals,
        [
            ("new", "good", |interval| interval.new),
            ("duplicates", "plain", |interval| interval.duplicates),
            ("without a verdict", "bad", |interval| interval.undecided),
        ],
    )
}

fn deliveries(intervals: &[Interval]) -> Markup {
    of_last_hour(
        "Deliveries of the last hour",
        intervals,
        [
            ("delivered", "good", |interval| interval.delivered),
            ("failed, will be retried", "wait", |interval| interval.delivery_failures),
            ("given up", "bad", |interval| interval.dead_letters),
        ],
    )
}

/// Series of an interval: its name, its class, and its value.
type Column = (&'static str, &'static str, fn(&Interval) -> u64);

fn of_last_hour(title: &str, intervals: &[Interval], columns: [Column; 3]) -> Markup {
    let missing = INTERVALS.saturating_sub(intervals.len());
    let mut times: Vec<String> = std::iter::repeat_n(String::new(), missing)
        .chain(intervals.iter().map(|interval| clock(interval.until.as_deref(), 8)))
        .collect();
    // The chart begins an hour before its end, also if the sidecar has started since then.
    if let (Some(first), Some(last)) = (times.first_mut(), intervals.last()) {
        let end = last.until.as_deref().and_then(|until| period::instant(until).ok());
        *first = clock(end.and_then(|end| rfc3339(end.saturating_sub(HOUR_MS))).as_deref(), 8);
    }
    let series = columns.map(|(name, class, value)| Series {
        name,
        class,
        values: std::iter::repeat_n(0, missing).chain(intervals.iter().map(value)).collect(),
    });
    bars(title, &times, &series)
}

fn messages(statistics: &Statistics) -> Markup {
    let Statistics { since, until, totals, groups } = statistics;
    // An hour without messages has no group.
    let hours = hours(since.as_deref(), until.as_deref());
    let times: Vec<String> = hours.iter().map(|hour| clock(Some(hour), 5)).collect();
    let series = |name, class, value: fn(&Group) -> u64| {
        let of_hour = |hour: &String| groups.iter().find(|group| group.hour.as_ref() == Some(hour));
        let values = hours.iter().map(|hour| of_hour(hour).map_or(0, value)).collect();
        Series { name, class, values }
    };
    let series = [
        series("delivered", "good", |group| group.delivered),
        series("sent", "plain", |group| group.sent),
        series("failed", "bad", |group| group.failed),
        series("refused", "wait", |group| group.refused),
    ];
    html! {
        (bars("By hour (UTC)", &times, &series))
        p.small { (totals.accepted) " accepted, " (totals.read) " read." }
    }
}

/// Returns the hours of a period, at most those of two days.
fn hours(since: Option<&str>, until: Option<&str>) -> Vec<String> {
    let instant = |at: Option<&str>| at.and_then(|at| period::instant(at).ok()).unwrap_or_default();
    let (since_ms, until_ms) = (instant(since), instant(until));
    let starts = (0..48).map(|hour| since_ms.saturating_add(hour * HOUR_MS));
    starts.take_while(|at| *at < until_ms).filter_map(rfc3339).collect()
}

/// Returns the first characters of the clock time of an instant.
fn clock(at: Option<&str>, length: usize) -> String {
    at.unwrap_or_default().chars().skip(11).take(length).collect()
}

fn queues(queues: &Queues) -> Markup {
    let card = |name: &str, value: Markup, is_good: bool| {
        html! {
            div.panel {
                div.number { (value) }
                (name) " " @if !is_good { span.badge.wait { "look at it" } }
            }
        }
    };
    let unwritten = html! { (queues.unwritten_webhooks) };
    let age = html! { (seconds(queues.messages_age_s)) };
    html! {
        div.cards {
            (card("webhooks wait to be written", unwritten, queues.unwritten_webhooks_age_s < 10.0))
            (card("age of the oldest due message", age, queues.messages_age_s < 60.0))
            (card("messages with an unknown outcome", html! { (queues.unknown_messages) }, queues.unknown_messages == 0))
        }
        @if queues.unknown_messages > 0 {
            p { a href="/console/messages?state=unknown" { "Show the messages with an unknown outcome" } }
        }
    }
}

fn seconds(age: f64) -> String {
    match age {
        age if age < 1.0 => "0 s".to_owned(),
        age if age < 120.0 => format!("{age:.0} s"),
        age => format!("{:.0} min", age / 60.0),
    }
}

fn dependency(name: &str, health: Option<&str>) -> Markup {
    html! {
        div.panel {
            (name) " "
            @match health {
                Some(health) => (state(health)),
                None => span.none { "not configured" },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_that_of_the_last_complete_minute() {
        let interval = |new| {
            let counts = serde_json::json!({
                "until": null, "new": new, "duplicates": 1, "undecided": 0, "delivered": 0,
                "delivery_failures": 0, "dead_letters": 0,
            });
            serde_json::from_value::<Interval>(counts).unwrap()
        };
        let queues = Queues {
            unwritten_webhooks: 0,
            unwritten_webhooks_age_s: 0.0,
            messages_age_s: 0.0,
            unknown_messages: 0,
        };
        let intervals = [100, 2, 3, 50].map(interval).into();
        assert_eq!(rate(&Activity { interval_s: 30, intervals, queues }), 7);
    }

    #[test]
    fn chart_of_a_day_has_every_hour() {
        let day = hours(Some("2026-11-29T22:00:00.000Z"), Some("2026-11-30T22:00:00.000Z"));
        assert_eq!(day.len(), 24);
        assert_eq!(day[2], "2026-11-30T00:00:00.000Z");
        assert!(hours(None, None).is_empty());
    }
}
