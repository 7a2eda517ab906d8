//! Deliveries: the sinks, the dead letters with their retry and discard, and replays.

mod dead_letter;
mod replay;

use axum::{
    Router,
    extract::Query,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Page;
use crate::{
    Console,
    client::Api,
    components::{empty, form_key, next_page, success, text, time},
    failure::Failure,
    path::{join, query},
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/deliveries",
    title: "Deliveries",
    api: Api::Administration,
    needs_simulator: false,
    routes,
};

fn routes() -> Router<Console> {
    Router::new()
        .route("/deliveries", get(list))
        .route("/deliveries/decide", post(decide))
        .route("/deliveries/sinks/{name}/test", post(test_sink))
        .merge(dead_letter::routes())
        .merge(replay::routes())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    sink: String,
    cursor: String,
    done: String,
    count: String,
}

#[derive(Debug, Deserialize)]
struct SinkList {
    sinks: Vec<Sink>,
}

#[derive(Debug, Deserialize)]
struct Sink {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
}

#[derive(Debug, Deserialize)]
struct DeadLetterList {
    dead_letters: Vec<DeadLetter>,
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DeadLetter {
    id: i64,
    sink: String,
    event_id: String,
    given_up_at: Option<String>,
    tries: i64,
    reason: Option<String>,
}

async fn list(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Markup, Failure> {
    let count = filter.count.parse::<u64>().unwrap_or_default();
    let notice = match filter.done.as_str() {
        "retry" => success(&format!("{count} dead letters are queued again.")),
        "discard" => success(&format!("{count} dead letters are discarded.")),
        "tested" => success("The sink accepted the test event."),
        _ => Markup::default(),
    };
    page(&viewer, &filter, &notice).await
}

async fn page(viewer: &Viewer, filter: &Filter, notice: &Markup) -> Result<Markup, Failure> {
    let SinkList { sinks } = viewer.client.get(Api::Administration, "/v1/sinks").await?;
    let parameters = [("sink", filter.sink.as_str()), ("cursor", filter.cursor.as_str())];
    let path = of_account(viewer, "/v1/dead-letters", &parameters);
    let letters = match viewer.client.get::<DeadLetterList>(Api::Administration, &path).await {
        Ok(list) => html! {
            (dead_letters(&filter.sink, &list.dead_letters))
            (next_page(PAGE.path, &parameters, list.next_cursor.as_deref()))
        },
        Err(failure) => failure.refusal()?.notice(),
    };
    let body = html! {
        (notice)
        h2 { "Sinks" }
        (table_of_sinks(&sinks))
        h2 { "Dead letters" @if !filter.sink.is_empty() { " of " (filter.sink) " " a.small href=(PAGE.path) { "all sinks" } } }
        (letters)
        @if !sinks.is_empty() { (replay::form(&sinks)) }
    };
    Ok(viewer.page("Deliveries", &body))
}

/// Returns a path of the API of administrators, for the chosen account if there is one.
fn of_account(viewer: &Viewer, path: &str, parameters: &[(&str, &str)]) -> String {
    let account = [("account_sid", viewer.account.as_deref())];
    let parameters = parameters.iter().map(|(name, value)| (*name, Some(*value)));
    query(path, account.into_iter().chain(parameters))
}

fn table_of_sinks(sinks: &[Sink]) -> Markup {
    if sinks.is_empty() {
        return empty(
            "No sink is configured. A sink receives webhooks of routes with delivery: accept, and operational events.",
        );
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Sinks" {
            table {
                thead { tr { th scope="col" { "Name" } th scope="col" { "Type" } th scope="col" { "Dead letters" } th scope="col" { "Test" } } }
                tbody {
                    @for sink in sinks {
                        tr data-row=(sink.name) {
                            td { (sink.name) }
                            td { (sink.type_name) }
                            td { a href=(query(PAGE.path, [("sink", Some(sink.name.as_str()))])) { "show" } }
                            td {
                                form method="post" action={ (join("/console/deliveries/sinks", &sink.name)) "/test" } {
                                    button type="submit" aria-label={ "Send a test event to " (sink.name) } { "Send a test event" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn dead_letters(sink: &str, letters: &[DeadLetter]) -> Markup {
    if letters.is_empty() {
        return empty("No dead letter. Every delivery arrived, or is being retried.");
    }
    html! {
        form method="post" action="/console/deliveries/decide" {
            input type="hidden" name="sink" value=(sink);
            input type="hidden" name="form_key" value=(form_key());
            div.scroll tabindex="0" role="region" aria-label="Dead letters" {
                table {
                    thead { tr {
                        th scope="col" { input type="checkbox" data-all aria-label="Select all of this page"; }
                        th scope="col" { "Given up (UTC)" } th scope="col" { "Sink" } th scope="col" { "Event" } th scope="col" { "Attempts" } th scope="col" { "Reason" }
                    } }
                    tbody {
                        @for letter in letters {
                            tr data-row=(letter.id) {
                                td { input type="checkbox" name="id" value=(letter.id) aria-label={ "Select dead letter " (letter.id) }; }
                                td { a href=(join("/console/deliveries/dead-letters", &letter.id.to_string())) { (time(letter.given_up_at.as_deref())) } }
                                td { (letter.sink) }
                                td.wide { code { (letter.event_id) } }
                                td.number-cell { (letter.tries) }
                                td.wide { (text(letter.reason.as_deref())) }
                            }
                        }
                    }
                }
            }
            div.actions {
                button type="submit" name="action" value="retry-selected" { "Retry the selected" }
                button.danger type="submit" name="action" value="discard-selected" data-confirm="Discard the selected dead letters? They are never delivered." { "Discard the selected" }
                button type="submit" name="action" value="retry-all" { "Retry all" @if !sink.is_empty() { " of " (sink) } }
                button.danger type="submit" name="action" value="discard-all" data-confirm="Discard all of these dead letters, also those of other pages? They are never delivered." { "Discard all" @if !sink.is_empty() { " of " (sink) } }
            }
        }
    }
}

/// Result of a decision about dead letters.
#[derive(Debug, Deserialize)]
struct Decision {
    changed: u64,
    complete: bool,
}

/// Retries or discards dead letters: the selected ones, or all of a filter.
async fn decide(viewer: Viewer, body: String) -> Result<Response, Failure> {
    let (mut ids, mut sink, mut action, mut form_key) =
        (Vec::new(), None, String::new(), String::new());
    for (name, value) in form_urlencoded::parse(body.as_bytes()) {
        match &*name {
            "id" => ids.extend(value.parse::<i64>()),
            "sink" if !value.is_empty() => sink = Some(value.into_owned()),
            "action" => action = value.into_owned(),
            "form_key" => form_key = value.into_owned(),
            _ => {}
        }
    }
    let (verb, selection) = action.split_once('-').unwrap_or_default();
    let verb = if verb == "discard" { "discard" } else { "retry" };
    let filter = Filter { sink: sink.clone().unwrap_or_default(), ..Filter::default() };
    let mut request = json!({});
    if let Some(fields) = request.as_object_mut() {
        let account = viewer.account.clone().map(Value::from);
        let sink = sink.map(Value::from);
        let given = [("account_sid", account), ("sink", sink)];
        fields
            .extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        if selection != "all" {
            fields.insert("ids".to_owned(), json!(ids));
        }
    }
    let path = join("/v1/dead-letters", verb);
    let mut changed = 0;
    // One request changes a bounded number of dead letters.
    loop {
        let decided: Result<Decision, Failure> =
            viewer.client.send_once(Api::Administration, &path, &form_key, &request).await;
        match decided.map_err(Failure::refusal) {
            Ok(decision) => {
                changed += decision.changed;
                if decision.complete || decision.changed == 0 {
                    let count = changed.to_string();
                    let sink = Some(filter.sink.as_str());
                    let done = [("sink", sink), ("done", Some(verb)), ("count", Some(&count))];
                    return Ok(Redirect::to(&query(PAGE.path, done)).into_response());
                }
                form_key = crate::components::form_key();
            }
            Err(refusal) => {
                let refusal = refusal?;
                let page = page(&viewer, &filter, &refusal.notice()).await?;
                return Ok((refusal.status(), page).into_response());
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct SinkTest {
    attempt: dead_letter::Attempt,
}

async fn test_sink(
    viewer: Viewer,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<Response, Failure> {
    let path = format!("{}/test", join("/v1/sinks", &name));
    let tested: Result<SinkTest, Failure> =
        viewer.client.send(Api::Administration, axum::http::Method::POST, &path, &json!({})).await;
    let notice = match tested.map_err(Failure::refusal) {
        Ok(SinkTest { attempt }) if attempt.outcome == "delivered" => {
            let done = query(PAGE.path, [("done", Some("tested"))]);
            return Ok(Redirect::to(&done).into_response());
        }
        Ok(SinkTest { attempt }) => html! {
            div.notice.bad role="alert" { p { "The sink did not accept the test event." } (attempt.render()) }
        },
        Err(refusal) => refusal?.notice(),
    };
    Ok(page(&viewer, &Filter::default(), &notice).await?.into_response())
}
