//! Twilio Studio's REST API as its SDKs call it: executions of flows. Every flow sends one message to its contact, and ends.

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answer::{Answer, App, Json, after_fault, allowed, before_fault, finish, origin, pairs};
use super::executions::{Execution, Period, Start};
use super::faults::Fault;
use super::line::Cut;
use super::refusal::Refusal;
use super::request::{Request, is_sid};
use crate::state::{Shared, fresh_sid, now_ms};

/// Usual and largest number of executions in one page.
const PAGE: (usize, usize) = (50, 1000);

pub(super) async fn start(
    State(shared): App,
    Path(flow): Path<String>,
    ConnectInfo(line): ConnectInfo<Cut>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pairs = pairs(&body);
    let to = pairs.iter().find(|(name, _)| name == "To").map_or("", |(_, to)| to.as_str());
    // Refusals with a code of messages do not exist here.
    let fault = Fault::of(to).filter(|fault| !matches!(fault, Fault::Refused(_)));
    let path = format!("/v2/Flows/{flow}/Executions");
    let answer = match before_fault(fault, &path, &line) {
        Some(answer) => allowed(&shared, &headers, None).and(answer),
        None => match started(&shared, &headers, &flow, &pairs) {
            Ok(answer) => after_fault(fault, answer, &line).await,
            Err(refusal) => Err(refusal),
        },
    };
    finish(&shared, "execution", answer)
}

fn started(shared: &Shared, headers: &HeaderMap, flow: &str, pairs: &[(String, String)]) -> Answer {
    let account = allowed(shared, headers, None)?;
    known(flow)?;
    let (start, now) = (Start::read(pairs)?, now_ms());
    let settings = &shared.settings;
    let life_ms = i64::from(settings.step_ms) / i64::from(settings.speed.max(1)) * 4;
    let execution = Execution {
        sid: fresh_sid("FN"),
        account: account.sid.clone(),
        flow: flow.to_owned(),
        message: send(shared, &account.sid, &start, now),
        start,
        created_ms: now,
        ends_ms: now.saturating_add(life_ms),
    };
    let shown = execution.to_json(&origin(headers), now);
    shared.executions().add(execution);
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// Sends the message of a flow. Returns its SID, or the code of the refusal, which only the context shows.
fn send(shared: &Shared, account: &str, start: &Start, now: i64) -> Result<String, u32> {
    let pairs = [("To", &start.to), ("From", &start.from), ("Body", &start.text())]
        .map(|(name, value)| (name.to_owned(), value.clone()));
    let request = Request::read(&pairs, now).map_err(|refusal| refusal.code)?;
    let sid = fresh_sid("SM");
    let accepted = shared.ledger().accept(account, sid, request, &shared.catalogue(), now);
    let message = accepted.map_err(|refusal| refusal.code)?;
    shared.planned.notify_one();
    Ok(message.sid)
}

pub(super) async fn list(
    State(shared): App,
    Path(flow): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = query.unwrap_or_default();
    let answer = allowed(&shared, &headers, None).and_then(|account| {
        known(&flow)?;
        let Listing { period, size, number, others } = Listing::read(&query)?;
        let (origin, now) = (origin(&headers), now_ms());
        let executions = shared.executions();
        let mut found: Vec<Value> = executions
            .list(&account.sid, &flow, period)
            .skip(number.saturating_mul(size))
            .take(size.saturating_add(1))
            .map(|execution| execution.to_json(&origin, now))
            .collect();
        let has_more = found.len() > size;
        found.truncate(size);
        let at = |number: usize| {
            format!("{origin}/v2/Flows/{flow}/Executions?{others}PageSize={size}&Page={number}&PageToken=PT{number}")
        };
        Ok(Json(json!({
            "executions": found,
            "meta": {
                "key": "executions", "page": number, "page_size": size,
                "url": at(number), "first_page_url": at(0),
                "next_page_url": has_more.then(|| at(number.saturating_add(1))),
                "previous_page_url": number.checked_sub(1).map(at),
            },
        }))
        .into_response())
    });
    finish(&shared, "execution_list", answer)
}

/// Query of a list.
struct Listing {
    period: Period,
    size: usize,
    number: usize,
    /// Conditions, for the URLs of other pages.
    others: String,
}

impl Listing {
    fn read(query: &str) -> Result<Listing, Refusal> {
        let mut listing =
            Listing { period: Period::default(), size: PAGE.0, number: 0, others: String::new() };
        let mut others = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let time = || {
                let time: Result<jiff::Timestamp, _> = value.parse();
                time.map_err(|_| Refusal::bad(20001, format!("{name} is no ISO 8601 time")))
            };
            match &*name {
                "DateCreatedFrom" => listing.period.from_ms = Some(time()?.as_millisecond()),
                "DateCreatedTo" => listing.period.to_ms = Some(time()?.as_millisecond()),
                "PageSize" => listing.size = value.parse().unwrap_or(PAGE.0).clamp(1, PAGE.1),
                "Page" => listing.number = value.parse().unwrap_or(0),
                "PageToken" => {}
                _ => {
                    return Err(Refusal::bad(20001, format!("{name} is no parameter of a list")));
                }
            }
            if name.starts_with("Date") {
                others.append_pair(&name, &value);
            }
        }
        listing.others = others.finish();
        if !listing.others.is_empty() {
            listing.others.push('&');
        }
        Ok(listing)
    }
}

pub(super) async fn fetch(
    State(shared): App,
    Path((flow, sid)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = with_execution(&shared, &headers, (&flow, &sid), |execution| {
        Ok(execution.to_json(&origin(&headers), now_ms()))
    });
    finish(&shared, "execution_fetch", answer)
}

pub(super) async fn context(
    State(shared): App,
    Path((flow, sid)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = with_execution(&shared, &headers, (&flow, &sid), |execution| {
        Ok(execution.context(&origin(&headers)))
    });
    finish(&shared, "execution_context", answer)
}

/// Ends an execution; no other change exists.
pub(super) async fn update(
    State(shared): App,
    Path((flow, sid)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pairs = pairs(&body);
    let answer =
        with_execution(&shared, &headers, (&flow, &sid), |execution| match pairs.as_slice() {
            [(name, value)] if (name.as_str(), value.as_str()) == ("Status", "ended") => {
                execution.ends_ms = execution.ends_ms.min(now_ms());
                Ok(execution.to_json(&origin(&headers), now_ms()))
            }
            _ => Err(Refusal::bad(20001, "only Status=ended can be set")),
        });
    finish(&shared, "execution_update", answer)
}

fn with_execution(
    shared: &Shared,
    headers: &HeaderMap,
    (flow, sid): (&str, &str),
    act: impl FnOnce(&mut Execution) -> Result<Value, Refusal>,
) -> Answer {
    let account = allowed(shared, headers, None)?;
    let mut executions = shared.executions();
    let found = executions.get(&account.sid, flow, sid);
    let missing = || Refusal::not_found(&format!("/v2/Flows/{flow}/Executions/{sid}"));
    Ok(Json(act(found.ok_or_else(missing)?)?).into_response())
}

fn known(flow: &str) -> Result<(), Refusal> {
    match is_sid(flow, "FW") {
        true => Ok(()),
        false => Err(Refusal::not_found(&format!("/v2/Flows/{flow}"))),
    }
}
