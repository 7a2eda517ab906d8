//! Records of a run: from the database, from each sink with an independent client, and from the applications' journals.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use twilio_edge_contract::{Class, Identity};
use twilio_edge_wasm_tests::application::Note;
use twilio_edge_wasm_tests::audit::{Arrival, BackendRequest, Event, Evidence, OutboxRow, Webhook};
use twilio_edge_wasm_tests::webhook::ACCOUNT;

use crate::plan::{FORWARDED_STATUS, Harm, Part};
use crate::stage::{SLACK, Stage, TOPICS, now_ms};

/// Longest wait for everything to arrive: what a killed courier held is held for a minute.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// For how long a courier takes a lane, and longer than any of its tries takes here.
const HOLD_MS: i64 = 60_000;
const LONGEST_TRY_MS: i64 = 8_000;

type Logs = BTreeMap<String, Vec<Arrival>>;

/// Waits until no sink is owed anything, or for ever so long. `impatient`: what a courier took more than some seconds ago is
/// taken from it, as it would be after a minute: no try takes so long here.
pub(crate) async fn delivered(stage: &Stage, impatient: bool) -> Result<()> {
    let started = Instant::now();
    loop {
        let mut connection = stage.postgres.connect().await?;
        if impatient {
            let over =
                "UPDATE lanes SET due_at_ms = 0 WHERE held_by IS NOT NULL AND due_at_ms < $1";
            let taken_before = now_ms() + HOLD_MS - LONGEST_TRY_MS;
            sqlx::query(over).bind(taken_before).execute(&mut connection).await?;
        }
        let outbox = "SELECT count(*) FROM lanes";
        let outbox: i64 = sqlx::query_scalar(outbox).fetch_one(&mut connection).await?;
        if outbox == 0 || started.elapsed() > TIME_LIMIT {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Checks all invariants.
pub(crate) async fn gather(stage: &Stage, webhooks: Vec<Webhook>) -> Result<Evidence> {
    let mut connection = stage.postgres.connect().await?;
    let query = "SELECT dedupe_key, outcome, settled_at_ms FROM events";
    let events: Vec<(String, Option<String>, Option<i64>)> =
        sqlx::query_as(query).fetch_all(&mut connection).await?;
    let query = "SELECT sink, delivery_id, seq, state FROM deliveries";
    let outbox: Vec<(String, String, i64, String)> =
        sqlx::query_as(query).fetch_all(&mut connection).await?;
    let application = stage.application.notes()?;
    let is_accepted = application.iter().filter(|note| note.answer != 503);
    let is_accepted: Result<Vec<Arrival>> =
        is_accepted.map(|note| arrival(&serde_json::from_str(&note.body)?, None)).collect();
    let sinks = [
        ("app".to_owned(), Logs::from([("journal".to_owned(), is_accepted?)])),
        ("bus".to_owned(), topics(stage).await?),
        ("live".to_owned(), streams(stage).await?),
    ];
    let backend_requests = stage.backend.notes()?.iter().map(backend_requests).collect();
    let done = stage.done().into_iter();
    let edge_kills = done.filter(|done| (done.part, done.harm) == (Part::Edge, Harm::Killed));
    Ok(Evidence {
        webhooks,
        ledger: events
            .into_iter()
            .map(|(key, outcome, settled_ms)| (key, Event { outcome, settled_ms }))
            .collect(),
        outbox: outbox
            .into_iter()
            .map(|(sink, key, seq, state)| OutboxRow { sink, key, seq, state })
            .collect(),
        sinks: BTreeMap::from(sinks),
        backend_requests,
        edge_killed_ms: edge_kills.map(|done| done.at_ms).collect(),
        slack_ms: i64::try_from(SLACK.as_millis())?,
    })
}

async fn topics(stage: &Stage) -> Result<Logs> {
    let mut logs = Logs::new();
    for record in stage.broker.read(&TOPICS).await? {
        let log = format!("{}/{}", record["topic"].as_str().context("topic")?, record["partition"]);
        let arrival = arrival(&record["event"], record["key"].as_str())?;
        logs.entry(log).or_default().push(arrival);
    }
    Ok(logs)
}

async fn streams(stage: &Stage) -> Result<Logs> {
    let mut logs = Logs::new();
    for stream in TOPICS {
        for fields in stage.streams.stream(stream).await? {
            let fields: BTreeMap<String, String> = fields.into_iter().collect();
            let event = serde_json::from_str(fields.get("event").context("event")?)?;
            let arrival = arrival(&event, fields.get("key").map(String::as_str))?;
            logs.entry(stream.to_owned()).or_default().push(arrival);
        }
    }
    Ok(logs)
}

/// Text of an event, and its key.
fn arrival(event: &Value, kept_under: Option<&str>) -> Result<Arrival> {
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    let (text_of, person) = match event["event_type"].as_str() {
        Some("twilio_status") => ("status", "to"),
        _ => ("body", "from"),
    };
    Ok(Arrival {
        key: text("event_id").context("an event without event_id")?,
        number: kept_under.map(str::to_owned).or_else(|| text(person)).unwrap_or_default(),
        text: text(text_of).unwrap_or_default(),
    })
}

fn backend_requests(note: &Note) -> BackendRequest {
    let parameter = |name: &str| {
        let mut pairs = note.body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(have, _)| *have == name).map(|(_, value)| value.to_owned())
    };
    let is_status = note.path == FORWARDED_STATUS;
    let identity = Identity {
        class: if is_status { Class::Status } else { Class::Inbound },
        account_sid: ACCOUNT.to_owned(),
        message_sid: parameter("MessageSid").unwrap_or_default(),
        status: parameter("MessageStatus").filter(|_| is_status),
        error_code: None,
    };
    let (key, case) = (identity.dedupe_key(), note.case.clone());
    BackendRequest { key, case, is_accepted: note.answer == 200, unknown: note.unknown }
}
