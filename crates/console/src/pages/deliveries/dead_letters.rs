//! Dead letters: the list with its filter, decisions about one, selected or all of a filter, and one dead letter.

use axum::{
    Router,
    extract::Path,
    response::Response,
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{PAGE, Sink};
use crate::{
    action::{answer, given},
    client::Api,
    components::{
        Field, copyable, empty, facts, form_key, next_page, search, state, success, text, time,
    },
    console::Console,
    failure::Failure,
    path::{join, query},
    viewer::Viewer,
};

const PATH: &str = "/console/deliveries/dead-letters";

/// Question before dead letters are discarded.
const DISCARD: &str = "Discard the dead letters? They are never delivered.";

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/deliveries/dead-letters", post(decide))
        .route("/deliveries/dead-letters/{id}", get(show))
}

/// Search of the dead letters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    sink: String,
    cursor: String,
}

#[derive(Debug, Deserialize)]
struct DeadLetterList {
    dead_letters: Vec<DeadLetterSummary>,
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DeadLetterSummary {
    id: i64,
    sink: String,
    account_sid: String,
    event_id: String,
    given_up_at: Option<String>,
    tries: u64,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DeadLetter {
    id: i64,
    sink: String,
    account_sid: String,
    event_id: String,
    delivery_id: String,
    state: String,
    ended_at: Option<String>,
    recorded_at: Option<String>,
    tries: u64,
    reason: Option<String>,
    attempts: Vec<Attempt>,
    event: Option<Value>,
}

/// Attempt to deliver.
#[derive(Debug, Deserialize)]
pub(super) struct Attempt {
    at: Option<String>,
    pub(super) outcome: String,
    status: Option<u16>,
    latency_ms: u64,
    reason: Option<String>,
    answer: String,
}

/// Decision that the list confirms, after the redirect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Decided {
    done: String,
    changed: Option<u64>,
    more: bool,
}

impl Decided {
    /// Renders the result of the decision.
    pub(super) fn notice(&self) -> Markup {
        let result = match self.done.as_str() {
            "retried" => "queued for delivery again",
            "discarded" => "discarded",
            _ => return Markup::default(),
        };
        let changed = match self.changed {
            Some(1) => "One dead letter is".to_owned(),
            changed => format!("{} dead letters are", changed.unwrap_or_default()),
        };
        let more = if self.more { " More of them match: repeat the action." } else { "" };
        success(&format!("{changed} {result}.{more}"))
    }
}

/// Renders the facts of an attempt.
pub(super) fn attempt_facts(attempt: &Attempt) -> Markup {
    html! {
        p {
            (time(attempt.at.as_deref())) ", " (attempt.latency_ms) " ms"
            @if let Some(status) = attempt.status { ", HTTP " (status) }
            @if let Some(reason) = &attempt.reason { ": " (reason) }
        }
        @if !attempt.answer.is_empty() { p { "Answer: " code { (attempt.answer) } } }
    }
}

/// Renders the search, the list and the forms for decisions.
pub(super) async fn section(
    viewer: &Viewer,
    filter: &Filter,
    sinks: &[Sink],
) -> Result<Markup, Failure> {
    let parameters: [(&str, &str); 2] = [("sink", &filter.sink), ("cursor", &filter.cursor)];
    let path =
        viewer.of_account("/v1/dead-letters", parameters.map(|(name, value)| (name, Some(value))));
    let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
    let field = Field::Choice { name: "sink", label: "Sink", options: &names, value: &filter.sink };
    let found = match viewer.client.get::<DeadLetterList>(Api::Administration, &path).await {
        Ok(list) if list.dead_letters.is_empty() => empty(
            "There is no dead letter. A delivery becomes one when its sink refuses it, or does not accept it in time.",
        ),
        Ok(list) => html! {
            (decisions(viewer, filter, &list.dead_letters))
            (next_page(PAGE.path, &parameters, list.next_cursor.as_deref()))
        },
        Err(failure) => failure.refusal()?.notice(),
    };
    Ok(html! { (search(PAGE.path, &[field])) (found) })
}

fn decisions(viewer: &Viewer, filter: &Filter, dead_letters: &[DeadLetterSummary]) -> Markup {
    let all_of = match (given(&filter.sink), viewer.account.as_deref()) {
        (Some(sink), Some(account)) => Some(format!("of sink {sink} and account {account}")),
        (Some(sink), None) => Some(format!("of sink {sink}")),
        (None, Some(account)) => Some(format!("of account {account}")),
        (None, None) => None,
    };
    html! {
        form method="post" action=(PATH) {
            input type="hidden" name="form_key" value=(form_key());
            input type="hidden" name="sink" value=(filter.sink);
            (table(dead_letters, viewer.account.is_none()))
            div.actions {
                button.primary type="submit" name="action" value="retry" { "Retry the selected ones" }
                button.danger type="submit" name="action" value="discard" data-confirm=(DISCARD) { "Discard the selected ones" }
            }
        }
        @match all_of {
            Some(all_of) => {
                form method="post" action=(PATH) {
                    input type="hidden" name="form_key" value=(form_key());
                    input type="hidden" name="sink" value=(filter.sink);
                    input type="hidden" name="all" value="true";
                    div.actions {
                        button type="submit" name="action" value="retry"
                            data-confirm={ "Retry all dead letters " (all_of) "?" } { "Retry all " (all_of) }
                        button.danger type="submit" name="action" value="discard" data-confirm=(DISCARD) { "Discard all " (all_of) }
                    }
                }
            }
            None => p.small { "To retry or discard all of a sink or of an account, choose the sink here or the account above." },
        }
    }
}

/// Renders the dead letters; those of one account need no column for it.
fn table(dead_letters: &[DeadLetterSummary], has_accounts: bool) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Dead letters" {
            table {
                caption { "Dead letters, the latest first" }
                thead {
                    tr {
                        th scope="col" { input type="checkbox" data-all aria-label="Select all on this page"; }
                        th scope="col" { "Given up (UTC)" }
                        th scope="col" { "Sink" }
                        @if has_accounts { th scope="col" { "Account" } }
                        th scope="col" { "Event" }
                        th scope="col" { "Attempts" }
                        th scope="col" { "Reason" }
                    }
                }
                tbody {
                    @for letter in dead_letters {
                        tr data-row=(letter.id) {
                            td { input type="checkbox" name="id" value=(letter.id) aria-label={ "Select dead letter " (letter.id) }; }
                            td { a href=(join(PATH, &letter.id.to_string())) { (time(letter.given_up_at.as_deref())) } }
                            td { (letter.sink) }
                            @if has_accounts { td { code { (letter.account_sid) } } }
                            td.wide { code { (letter.event_id) } }
                            td.number-cell { (letter.tries) }
                            td.wide { (text(letter.reason.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}

async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Markup, Failure> {
    let path = join("/v1/dead-letters", &id);
    let letter: DeadLetter = viewer.client.get(Api::Administration, &path).await?;
    let event = letter.event.as_ref().and_then(|event| serde_json::to_string_pretty(event).ok());
    let body = html! {
        p { a href=(PAGE.path) { "Sinks and dead letters" } }
        div.panel {
            (facts([
                ("State", state(&letter.state)),
                ("Sink", text(Some(&letter.sink))),
                ("Attempts", html! { (letter.tries) }),
                ("Reason", text(letter.reason.as_deref())),
                ("Queued (UTC)", time(letter.recorded_at.as_deref())),
                ("Ended (UTC)", time(letter.ended_at.as_deref())),
                ("Account", text(Some(&letter.account_sid))),
                ("Event", text(Some(&letter.event_id))),
                ("Delivery", text(Some(&letter.delivery_id))),
            ]))
        }
        @if letter.state == "dead" {
            form method="post" action=(PATH) {
                input type="hidden" name="form_key" value=(form_key());
                input type="hidden" name="id" value=(letter.id);
                div.actions {
                    button.primary type="submit" name="action" value="retry" { "Retry" }
                    button.danger type="submit" name="action" value="discard" data-confirm=(DISCARD) { "Discard" }
                }
            }
        }
        h2 { "Attempts" }
        @if letter.attempts.is_empty() {
            (empty("No attempt is stored. Retention removes them, because an answer may repeat a message."))
        } @else {
            ol.timeline {
                @for attempt in &letter.attempts { li { (state(&attempt.outcome)) (attempt_facts(attempt)) } }
            }
        }
        h2 { "Event" }
        @match event {
            Some(event) => (copyable("event", "Event that the sink receives", &event)),
            None => (empty("The database no longer has the event. Retention has removed it.")),
        }
    };
    Ok(viewer.page(&format!("Dead letter {}", letter.id), &body))
}

/// Form of a decision. A body is read by hand, because a list of boxes repeats its name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decision {
    is_discard: bool,
    is_all: bool,
    ids: Vec<i64>,
    sink: String,
    form_key: String,
}

impl Decision {
    fn read(body: &str) -> Result<Decision, Failure> {
        let mut decision = Decision::default();
        for (name, value) in form_urlencoded::parse(body.as_bytes()) {
            match name.as_ref() {
                "action" => decision.is_discard = value == "discard",
                "all" => decision.is_all = true,
                "sink" => decision.sink = value.into_owned(),
                "form_key" => decision.form_key = value.into_owned(),
                "id" => {
                    let wrong = |_| Failure::Invalid("id: must be a number".to_owned());
                    decision.ids.push(value.parse().map_err(wrong)?);
                }
                _ => {}
            }
        }
        if decision.ids.is_empty() && !decision.is_all {
            return Err(Failure::Invalid("Select at least one dead letter.".to_owned()));
        }
        Ok(decision)
    }
}

/// Result of a decision.
#[derive(Debug, Deserialize)]
struct DecisionResult {
    changed: usize,
    complete: bool,
}

async fn decide(viewer: Viewer, body: String) -> Result<Response, Failure> {
    let (sink, decided) = match Decision::read(&body) {
        Ok(decision) => {
            let action = if decision.is_discard { "discard" } else { "retry" };
            let selection = match decision.is_all {
                true => json!({ "sink": given(&decision.sink), "account_sid": viewer.account }),
                false => json!({ "ids": decision.ids }),
            };
            let path = format!("/v1/dead-letters/{action}");
            let key = &decision.form_key;
            let sent = viewer
                .client
                .send_once::<DecisionResult>(Api::Administration, &path, key, &selection)
                .await;
            let word = if decision.is_discard { "discarded" } else { "retried" };
            (decision.sink, sent.map(|result| (word, result)))
        }
        Err(failure) => (String::new(), Err(failure)),
    };
    let filter = Filter { sink: sink.clone(), cursor: String::new() };
    let next = |(word, result): (&str, DecisionResult)| {
        let changed = result.changed.to_string();
        let more = (!result.complete).then_some("true");
        query(
            PAGE.path,
            [
                ("sink", Some(sink.as_str())),
                ("done", Some(word)),
                ("changed", Some(&changed)),
                ("more", more),
            ],
        )
    };
    answer(decided, next, async |notice| super::page(&viewer, &filter, notice).await).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_selects_boxes_or_all_of_a_filter() {
        let read = |body| Decision::read(body).unwrap();
        let selected = read("form_key=k&sink=app&id=1&id=2&action=discard");
        assert_eq!((selected.ids, selected.is_discard, selected.is_all), (vec![1, 2], true, false));
        assert!(read("sink=app&all=true&action=retry").is_all);
        for wrong in ["action=retry", "id=x&action=retry"] {
            assert!(matches!(Decision::read(wrong), Err(Failure::Invalid(_))), "{wrong}");
        }
    }
}
