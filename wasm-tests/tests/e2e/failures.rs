//! Tests of the failure table, cell by cell. For each part that can be unavailable, every kind of webhook is sent while the
//! real part is stopped, and again after its restart. The expectations are those of the table
//! (`twilio_edge_wasm_tests::failures`), which docs/FAILURE-MODES.md contains.

mod interruption;
mod outbound;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::{Delivery, headers};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::{Response, get};
use twilio_edge_wasm_tests::dependencies::{DELIVERED, Sink, TOPICS};
use twilio_edge_wasm_tests::failures::table::OUTAGES;
use twilio_edge_wasm_tests::failures::{
    BackendReceipt, Change, Class, Exporter, Kind, Outage, Part, Policy, Recovery, Row, Signal,
    Storage, TwilioAnswer,
};
use twilio_edge_wasm_tests::ledger::Ledger;
use twilio_edge_wasm_tests::process::{until, until_within};
use twilio_edge_wasm_tests::recorder::Answer;
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack};
use twilio_edge_wasm_tests::webhook::{Form, Request};

use crate::expect::{counts, is_refusal};
use crate::failures::interruption::Interruption;
use crate::failures::outbound::ApiClient;
use crate::suite::{Findings, Series};

/// Answer of the application, which no other part sends.
const APPLICATION_ANSWER: &str = "accepted by the application";
/// Longest recovery: the sidecar retries an unavailable sink every 30 s at the latest.
const MAX_RECOVERY: Duration = Duration::from_secs(75);
/// Name of the cell of outbound messages.
const OUTBOUND: &str = "outbound message";

/// Every kind of webhook on a route of its own.
const PLAN: Plan = Plan {
    settings: &[
        // Short times, so that the sidecar notices an outage and a recovery soon.
        ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "1000"),
        ("TWILIO_EDGE_REDIS_RETRY_AFTER_MS", "50"),
    ],
    sends: true,
    ..Plan::adapted(SidecarPlan::Sqlite, |config| {
        let routes = config.plugin["routes"].as_array_mut().context("routes")?;
        for kind in Kind::all().into_iter().filter(|kind| kind.class != Class::Stop) {
            let mut route = json!({ "path": kind.path(), "class": kind.class() });
            if kind.class != Class::Other {
                route["delivery"] = serde_json::to_value(kind.delivery)?;
                let rejects = kind.policy == Policy::Reject;
                route["on_unavailable"] = if rejects { "reject" } else { "forward" }.into();
            }
            routes.push(route);
        }
        Ok(())
    })
};

/// Returns a series for each part and each of its stores; each cell is a test.
pub(crate) fn series() -> Vec<Series> {
    let mut all = Vec::new();
    for outage in OUTAGES {
        for &sidecar in outage.stores {
            let stores = match (outage.part, sidecar) {
                (Part::Redis, SidecarPlan::Redis) => ", beside SQLite",
                (Part::Redis, SidecarPlan::RedisPostgres) => ", beside PostgreSQL",
                (Part::Postgres, SidecarPlan::RedisPostgres) => ", beside Redis",
                _ => "",
            };
            let name = format!("{} unavailable{stores}", outage.part.name());
            let archives = outage.part == Part::ObjectStore;
            let plan = Plan { sidecar, sinks: outage.sinks, archives, ..PLAN };
            let mut cells: Vec<String> = Kind::all().into_iter().map(Kind::name).collect();
            cells.push(OUTBOUND.to_owned());
            all.push(Series::new(name, plan, cells, |stack| Box::pin(run(outage, stack))));
        }
    }
    all
}

async fn run(outage: &'static Outage, stack: &Stack) -> Result<Findings> {
    stack.backend.usually(Answer::ok("text/plain", APPLICATION_ANSWER));
    let client = ApiClient::open(stack, outage.outbound).await?;
    let mut probes = Vec::new();
    for kind in Kind::all() {
        let row = outage.row(kind).with_context(|| format!("no row of {}", kind.name()))?;
        let form = kind.form();
        let request = stack.post(&form).await?;
        probes.push(Probe { stack, row, kind, form, request });
    }
    let states = probes.iter().flat_map(|probe| probe.row.signals);
    let states: Vec<Signal> = states.filter(|it| it.change == Change::IsOne).copied().collect();
    for signal in &states {
        let before = read(stack, *signal).await?;
        ensure!(before == 0.0, "{} is {before} before the outage", signal.series);
    }

    let interruption = Interruption::begin(outage.part, stack).await?;
    let (mut results, mut waiting) = (Findings::new(), 0);
    for probe in &probes {
        waiting += u64::from(probe.row.storage == Storage::FilterMemory);
        // A spooled webhook is not settled before the file is written, so the filter repeats its settlement as well.
        let outbox = Some(waiting).filter(|_| outage.part != Part::Sqlite);
        results.insert(probe.kind.name(), probe.check_outage(outbox).await);
    }
    let message = client.check_outage().await;
    interruption.end().await?;

    let outbound = match message {
        Ok(id) => client.check_recovery(id).await,
        Err(error) => Err(error),
    };
    results.insert(OUTBOUND.to_owned(), outbound);
    let ledger = stack.ledger().await?;
    for probe in &probes {
        let finding = results.entry(probe.kind.name()).or_insert(Ok(()));
        if finding.is_ok() {
            *finding = probe.check_recovery(&ledger).await;
        }
    }
    for signal in &states {
        until_within(MAX_RECOVERY, &format!("{} to be 0 again", signal.series), async || {
            Ok((read(stack, *signal).await? == 0.0).then_some(()))
        })
        .await?;
    }
    Ok(results)
}

/// Webhook of one cell.
struct Probe<'a> {
    stack: &'a Stack,
    row: &'a Row,
    kind: Kind,
    form: Form,
    request: Request,
}

impl Probe<'_> {
    fn sid(&self) -> &str {
        self.form.get("MessageSid")
    }

    /// Sends the webhook during the outage and checks its cell. `waiting` is the expected number of settlements in the
    /// outbox of the filter; `None` if others may be there.
    async fn check_outage(&self, waiting: Option<u64>) -> Result<()> {
        let baseline = Baseline::read(self.stack, self.row.signals).await?;
        let response = self.stack.send(&self.request).await?;
        self.check_answer(self.row.answer, &response).context("answer to Twilio")?;
        self.check_receipt().await.context("receipt of the application")?;
        self.check_storage(waiting).await.context("storage")?;
        baseline.check_change().await.context("metrics")
    }

    /// Sends the webhook again after the outage and checks the recovery.
    async fn check_recovery(&self, ledger: &Ledger) -> Result<()> {
        if self.kind.class == Class::Stop {
            until("the STOP to take effect", async || {
                Ok(ledger.suppressed(self.form.get("From")).await?.then_some(()))
            })
            .await?;
        }
        let (outcome, attempts) = match self.row.recovery {
            Recovery::Unchanged
            | Recovery::CommitStored
            | Recovery::DeliveryCompleted
            | Recovery::Archived => ("accepted", 1..=1),
            // A release without a claim is no attempt.
            Recovery::CopyDelivered => ("refused", 0..=1),
            Recovery::CopyForwarded => ("", 0..=0),
        };
        if self.row.recovery != Recovery::CopyForwarded {
            ledger.settled(self.sid(), outcome, attempts).await?;
        }
        if self.row.recovery == Recovery::DeliveryCompleted {
            self.delivered(ledger).await?;
        }
        if self.row.recovery == Recovery::Archived {
            self.archived(ledger).await?;
        }
        let forwarded = self.forwarded();
        let copy = self.stack.send(&self.request).await?;
        let (answer, more) = match self.row.recovery {
            Recovery::Unchanged
            | Recovery::CommitStored
            | Recovery::DeliveryCompleted
            | Recovery::Archived => {
                require((200..300).contains(&copy.status), "a copy is answered 2xx")?;
                let dedupe = copy.header(headers::DEDUPE);
                require(dedupe.as_deref() == Some("duplicate"), "a copy is a duplicate")?;
                (None, 0)
            }
            Recovery::CopyDelivered if self.kind.delivery == Delivery::Accept => {
                (Some(TwilioAnswer::Accepted), 0)
            }
            Recovery::CopyDelivered | Recovery::CopyForwarded => {
                (Some(TwilioAnswer::Application), 1)
            }
        };
        if let Some(answer) = answer {
            self.check_answer(answer, &copy).context("answer to a copy")?;
        }
        let now = self.forwarded();
        ensure!(now == forwarded + more, "{now} copies were forwarded, {forwarded} before");
        if self.row.recovery == Recovery::CopyDelivered && self.kind.delivery == Delivery::Accept {
            self.delivered(ledger).await?;
        }
        if self.row.recovery != Recovery::CopyForwarded {
            ledger.settled(self.sid(), "accepted", 1..=2).await?;
        }
        self.check_single_delivery().await
    }

    /// Checks that the application has received the webhook once, except for a forwarded copy.
    async fn check_single_delivery(&self) -> Result<()> {
        let (delivered, forwarded) = (self.events().len(), self.forwarded());
        match self.row.recovery {
            Recovery::CopyForwarded => Ok(()),
            _ => require(
                delivered + forwarded == 1,
                &format!(
                    "one delivery; Envoy forwarded it {forwarded} times, the sidecar {delivered} times"
                ),
            ),
        }
    }

    fn check_answer(&self, expected: TwilioAnswer, response: &Response) -> Result<()> {
        let got = format!("{} {:?} {}", response.status, response.head.lines, response.text());
        let reason = response.header(headers::REASON);
        let is_expected = match expected {
            TwilioAnswer::Refusal => {
                ensure!(response.header("retry-after").is_some(), "no Retry-After: {got}");
                return is_refusal(response, Reason::SidecarUnavailable);
            }
            TwilioAnswer::Application => {
                response.status == 200 && response.text() == APPLICATION_ANSWER
            }
            TwilioAnswer::Accepted if self.kind.class == Class::Status => {
                (response.status, response.body.len()) == (204, 0)
            }
            TwilioAnswer::Accepted => {
                response.status == 200
                    && response.header("content-type").as_deref() == Some("text/xml")
                    && response.text().ends_with("<Response/>")
            }
            TwilioAnswer::EnvoyError => response.status == 503,
        };
        ensure!(is_expected && reason.is_none(), "expected {expected:?}, got {got}");
        Ok(())
    }

    async fn check_receipt(&self) -> Result<()> {
        if self.row.receipt == BackendReceipt::Event {
            return until("the event", async || Ok((self.events().len() == 1).then_some(()))).await;
        }
        let expected = match self.row.receipt {
            BackendReceipt::First => Some("first"),
            BackendReceipt::Unknown => Some("unknown"),
            BackendReceipt::Event | BackendReceipt::Nothing => None,
        };
        let seen = self.stack.backend.seen(&self.request.case);
        let dedupe: Vec<_> = seen.iter().map(|seen| seen.trusted().remove("dedupe")).collect();
        let expected: Vec<_> = expected.map(|word| Some(word.to_owned())).into_iter().collect();
        ensure!(dedupe == expected, "expected {expected:?}, got {dedupe:?}");
        require(
            seen.iter().all(|one| one.bytes() == self.request.body),
            "the backend receives the bytes that were sent",
        )?;
        require(self.events().is_empty(), "the application receives no event")
    }

    async fn check_storage(&self, waiting: Option<u64>) -> Result<()> {
        match waiting {
            Some(waiting) => counts(self.stack, "outbox", waiting).await?,
            None if self.row.storage == Storage::FilterMemory => {
                until("the filter to store it", async || {
                    Ok((self.stack.envoy.counter("outbox").await? > 0).then_some(()))
                })
                .await?;
            }
            None => {}
        }
        match self.row.storage {
            Storage::FilterMemory => return Ok(()),
            Storage::Nowhere => {
                return require(
                    self.sid().is_empty(),
                    "a webhook of class other has no MessageSid",
                );
            }
            _ => {}
        }
        let ledger = self.stack.ledger().await?;
        if self.row.storage == Storage::Spool {
            require(ledger.events(self.sid()).await?.is_empty(), "the ledger has no event")?;
            return until("it to be in the spool", async || {
                Ok(self.stack.sidecar()?.spooled(self.sid())?.then_some(()))
            })
            .await;
        }
        let outcome = if self.row.storage == Storage::Refused { "refused" } else { "accepted" };
        let event = ledger.settled(self.sid(), outcome, 1).await?;
        require(
            event.form.as_deref() == Some(&*self.form.encoded()),
            "the ledger has every parameter",
        )?;
        if let Storage::AcceptedUnarchived | Storage::DeliveredUnarchived = self.row.storage {
            require(ledger.unarchived(self.sid()).await?, "archiving is pending")?;
        }
        let state = |sink: Sink| match self.row.storage {
            Storage::PendingDelivery(pending) if pending == sink => "waiting",
            _ => "done",
        };
        let expected: Vec<String> = match self.kind.delivery {
            Delivery::Forward => Vec::new(),
            Delivery::Accept => {
                let sinks = self.stack.sinks().iter();
                sinks.map(|sink| format!("{} {}", sink.name(), state(*sink))).collect()
            }
        };
        let mut last = Vec::new();
        let found = until("the deliveries", async || {
            last = ledger.deliveries(self.sid()).await?;
            Ok((last == expected).then_some(()))
        })
        .await;
        found.with_context(|| format!("expected {expected:?}, got {last:?}"))
    }

    /// Checks that every sink has received the webhook once.
    async fn delivered(&self, ledger: &Ledger) -> Result<()> {
        let sinks = self.stack.sinks();
        let mut last = Vec::new();
        let done = until_within(MAX_RECOVERY, "every delivery to be done", async || {
            last = ledger.deliveries(self.sid()).await?;
            let done = last.iter().all(|state| state.ends_with(" done"));
            Ok((done && last.len() == sinks.len()).then_some(()))
        })
        .await;
        done.with_context(|| format!("{last:?}"))?;
        for sink in sinks {
            let events = match sink {
                Sink::App => self.events().len(),
                Sink::Bus => {
                    let records = self.stack.dependencies().kafka()?.read(&TOPICS).await?;
                    let is_mine = |it: &&Value| it["event"]["message_sid"] == self.sid();
                    records.iter().filter(is_mine).count()
                }
                Sink::Live => {
                    let stream = format!("twilio.{}.v1", self.kind.class());
                    let entries = self.stack.redis()?.stream(&stream).await?;
                    let mine = format!("\"message_sid\":\"{}\"", self.sid());
                    let fields = entries.iter().flatten();
                    fields.filter(|(name, text)| name == "event" && text.contains(&mine)).count()
                }
            };
            ensure!(events == 1, "{} has received it {events} times", sink.name());
        }
        Ok(())
    }

    /// Checks that the archive contains the webhook completely, and that the ledger knows it.
    async fn archived(&self, ledger: &Ledger) -> Result<()> {
        until_within(MAX_RECOVERY, "it to be archived", async || {
            Ok((!ledger.unarchived(self.sid()).await?).then_some(()))
        })
        .await?;
        let lines = self.stack.dependencies().objects()?.archived().await?;
        let mine: Vec<_> = lines.iter().filter(|line| line["message_sid"] == self.sid()).collect();
        let is_whole = |line: &&Value| line["form"] == self.form.encoded();
        ensure!(mine.len() == 1 && mine.iter().all(is_whole), "the archive has {mine:?}");
        Ok(())
    }

    /// Returns the number of times that Envoy has forwarded the webhook.
    fn forwarded(&self) -> usize {
        self.stack.backend.seen(&self.request.case).len()
    }

    /// Returns the events about the webhook that the sidecar has delivered to the application.
    fn events(&self) -> Vec<Value> {
        let delivered = self.stack.backend.seen(DELIVERED);
        let events = delivered.iter().filter_map(|seen| serde_json::from_slice(seen.bytes()).ok());
        events.filter(|event: &Value| event["message_sid"] == self.sid()).collect()
    }
}

/// Values of series before a webhook.
struct Baseline<'a> {
    stack: &'a Stack,
    before: Vec<(Signal, f64)>,
}

impl<'a> Baseline<'a> {
    async fn read(stack: &'a Stack, signals: &[Signal]) -> Result<Self> {
        let mut before = Vec::new();
        for signal in signals {
            before.push((*signal, read(stack, *signal).await?));
        }
        Ok(Self { stack, before })
    }

    /// Waits until each series has changed as expected.
    async fn check_change(&self) -> Result<()> {
        for &(signal, before) in &self.before {
            let mut now = before;
            let result = until(signal.series, async || {
                now = read(self.stack, signal).await?;
                let has_changed = match signal.change {
                    Change::Rises => now > before,
                    Change::Positive => now > 0.0,
                    Change::IsOne => now == 1.0,
                };
                Ok(has_changed.then_some(()))
            })
            .await;
            result.with_context(|| format!("{} was {before} and is {now}", signal.series))?;
        }
        Ok(())
    }
}

/// Reads the value of a series.
async fn read(stack: &Stack, signal: Signal) -> Result<f64> {
    let page = match signal.exporter {
        Exporter::Envoy => stack.envoy.prometheus().await?,
        Exporter::Sidecar => get(stack.sidecar()?.address(), "/metrics").await?.text(),
    };
    // Envoy writes braces where there is no label.
    let names = [format!("{} ", signal.series), format!("{}{{}} ", signal.series)];
    for line in page.lines() {
        if let Some(value) = names.iter().find_map(|name| line.strip_prefix(name.as_str())) {
            return value.trim().parse().with_context(|| line.to_owned());
        }
    }
    bail!("there is no series {}", signal.series)
}

fn require(condition: bool, expectation: &str) -> Result<()> {
    ensure!(condition, "expected: {expectation}");
    Ok(())
}
