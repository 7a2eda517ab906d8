//! The failure table, cell by cell: for each part that can be away every kind of webhook is sent while the real part is gone,
//! and again when it is back. What is expected is what the table says (`twilio_edge_wasm_tests::failures`), which is what
//! docs/FAILURE-MODES.md says.

mod away;
mod sending;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use twilio_edge_contract::{Delivery, headers};
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::{Response, get};
use twilio_edge_wasm_tests::dependencies::{DELIVERED, Sink, TOPICS};
use twilio_edge_wasm_tests::failures::table::OUTAGES;
use twilio_edge_wasm_tests::failures::{
    Class, Does, Gets, Heals, Kept, Kind, Outage, Part, Policy, Row, Signal, Teller, Told,
};
use twilio_edge_wasm_tests::ledger::Ledger;
use twilio_edge_wasm_tests::process::{until, until_within};
use twilio_edge_wasm_tests::recorder::Answer;
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack};
use twilio_edge_wasm_tests::webhook::{Form, Request};

use crate::expect::{counts, is_refusal};
use crate::failures::away::Away;
use crate::failures::sending::Desk;
use crate::suite::{Findings, Series};

/// What the application says, and nobody else.
const TAKEN: &str = "taken";
/// A sink that was away is asked every 30 s at last.
const HEALING: Duration = Duration::from_secs(75);
/// How the messages that are to be sent are called among the cells.
const SENDING: &str = "a message to be sent";

/// Every kind of webhook on a route of its own.
const PLAN: Plan = Plan {
    settings: &[
        // What cannot be written is told soon, and what is back is seen soon.
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

/// One for each part and each of its stores; each cell is a test.
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
            let name = format!("{} is away{stores}", outage.part.name());
            let archives = outage.part == Part::ObjectStore;
            let plan = Plan { sidecar, sinks: outage.sinks, archives, ..PLAN };
            let mut cells: Vec<String> = Kind::all().into_iter().map(Kind::name).collect();
            cells.push(SENDING.to_owned());
            all.push(Series::new(name, plan, cells, |stack| Box::pin(tell(outage, stack))));
        }
    }
    all
}

async fn tell(outage: &'static Outage, stack: &Stack) -> Result<Findings> {
    stack.backend.usually(Answer::ok("text/plain", TAKEN));
    let desk = Desk::open(stack, outage.sending).await?;
    let mut probes = Vec::new();
    for kind in Kind::all() {
        let row = outage.row(kind).with_context(|| format!("no row of {}", kind.name()))?;
        let form = kind.form();
        let request = stack.post(&form).await?;
        probes.push(Probe { stack, row, kind, form, request });
    }
    let states = probes.iter().flat_map(|probe| probe.row.seen);
    let states: Vec<Signal> = states.filter(|it| it.does == Does::IsOne).copied().collect();
    for signal in &states {
        let before = read(stack, *signal).await?;
        ensure!(before == 0.0, "{} is {before} before anything happened", signal.series);
    }

    let away = Away::begin(outage.part, stack).await?;
    let (mut findings, mut waiting) = (Findings::new(), 0);
    for probe in &probes {
        waiting += u64::from(probe.row.kept == Kept::Outcome);
        // What the spool has is not settled before the file is written, so the filter goes on telling that as well.
        let told = Some(waiting).filter(|_| outage.part != Part::Sqlite);
        findings.insert(probe.kind.name(), probe.meanwhile(told).await);
    }
    let asked = desk.meanwhile().await;
    away.end().await?;

    let sent = match asked {
        Ok(id) => desk.afterwards(id).await,
        Err(error) => Err(error),
    };
    findings.insert(SENDING.to_owned(), sent);
    let ledger = stack.ledger().await?;
    for probe in &probes {
        let finding = findings.entry(probe.kind.name()).or_insert(Ok(()));
        if finding.is_ok() {
            *finding = probe.afterwards(&ledger).await;
        }
    }
    for signal in &states {
        until_within(HEALING, &format!("{} to be 0 again", signal.series), async || {
            Ok((read(stack, *signal).await? == 0.0).then_some(()))
        })
        .await?;
    }
    Ok(findings)
}

/// One cell that is looked at.
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

    /// The webhook comes while the part is away; `waiting`: of how many the filter has something to tell then, if only of
    /// those it alone knows.
    async fn meanwhile(&self, waiting: Option<u64>) -> Result<()> {
        let seen = Seen::before(self.stack, self.row.seen).await?;
        let response = self.stack.send(&self.request).await?;
        self.is_told(self.row.told, &response).context("what Twilio is told")?;
        self.gets().await.context("what the application gets")?;
        self.keeps(waiting).await.context("what is kept")?;
        seen.after().await.context("who sees it")
    }

    /// The part is back, and Twilio sends the webhook once more.
    async fn afterwards(&self, ledger: &Ledger) -> Result<()> {
        if self.kind.class == Class::Stop {
            until("the STOP to count", async || {
                Ok(ledger.suppressed(self.form.get("From")).await?.then_some(()))
            })
            .await?;
        }
        let (outcome, attempts) = match self.row.heals {
            Heals::Known | Heals::Taken | Heals::Delivered | Heals::Archived => ("accepted", 1..=1),
            // A release that is told without a claim is no attempt.
            Heals::Again => ("refused", 0..=1),
            Heals::Forwarded => ("", 0..=0),
        };
        if self.row.heals != Heals::Forwarded {
            ledger.settled(self.sid(), outcome, attempts).await?;
        }
        if self.row.heals == Heals::Delivered {
            self.delivered(ledger).await?;
        }
        if self.row.heals == Heals::Archived {
            self.archived(ledger).await?;
        }
        let forwarded = self.forwarded();
        let copy = self.stack.send(&self.request).await?;
        let (told, more) = match self.row.heals {
            Heals::Known | Heals::Taken | Heals::Delivered | Heals::Archived => {
                promised((200..300).contains(&copy.status), "a copy is told 2xx")?;
                let mark = copy.header(headers::DEDUPE);
                promised(mark.as_deref() == Some("duplicate"), "a copy is a duplicate")?;
                (None, 0)
            }
            Heals::Again if self.kind.delivery == Delivery::Accept => (Some(Told::Thanks), 0),
            Heals::Again | Heals::Forwarded => (Some(Told::Answer), 1),
        };
        if let Some(told) = told {
            self.is_told(told, &copy).context("what a copy is told")?;
        }
        let now = self.forwarded();
        ensure!(now == forwarded + more, "{now} copies were forwarded, {forwarded} before");
        if self.row.heals == Heals::Again && self.kind.delivery == Delivery::Accept {
            self.delivered(ledger).await?;
        }
        if self.row.heals != Heals::Forwarded {
            ledger.settled(self.sid(), "accepted", 1..=2).await?;
        }
        self.nothing_twice().await
    }

    /// Nobody got it twice, but whom Twilio's copy was for.
    async fn nothing_twice(&self) -> Result<()> {
        let (delivered, forwarded) = (self.events().len(), self.forwarded());
        match self.row.heals {
            Heals::Forwarded => Ok(()),
            _ => promised(
                delivered + forwarded == 1,
                &format!(
                    "the application has it {forwarded} times, and {delivered} times as an event"
                ),
            ),
        }
    }

    fn is_told(&self, told: Told, response: &Response) -> Result<()> {
        let got = format!("{} {:?} {}", response.status, response.head.lines, response.text());
        let reason = response.header(headers::REASON);
        let is_so = match told {
            Told::Refusal => {
                ensure!(response.header("retry-after").is_some(), "no Retry-After: {got}");
                return is_refusal(response, Reason::SidecarUnavailable);
            }
            Told::Answer => response.status == 200 && response.text() == TAKEN,
            Told::Thanks if self.kind.class == Class::Status => {
                (response.status, response.body.len()) == (204, 0)
            }
            Told::Thanks => {
                response.status == 200
                    && response.header("content-type").as_deref() == Some("text/xml")
                    && response.text().ends_with("<Response/>")
            }
            Told::NobodyThere => response.status == 503,
        };
        ensure!(is_so && reason.is_none(), "not {told:?} but {got}");
        Ok(())
    }

    async fn gets(&self) -> Result<()> {
        if self.row.gets == Gets::Event {
            return until("the event", async || Ok((self.events().len() == 1).then_some(()))).await;
        }
        let expected = match self.row.gets {
            Gets::First => Some("first"),
            Gets::Unknown => Some("unknown"),
            Gets::Event | Gets::Nothing => None,
        };
        let seen = self.stack.backend.seen(&self.request.case);
        let told: Vec<_> = seen.iter().map(|seen| seen.trusted().remove("dedupe")).collect();
        let expected: Vec<_> = expected.map(|word| Some(word.to_owned())).into_iter().collect();
        ensure!(told == expected, "{told:?}, not {expected:?}");
        promised(seen.iter().all(|seen| seen.bytes() == self.request.body), "byte for byte")?;
        promised(self.events().is_empty(), "nothing as an event")
    }

    async fn keeps(&self, waiting: Option<u64>) -> Result<()> {
        match waiting {
            Some(waiting) => counts(self.stack, "outbox", waiting).await?,
            None if self.row.kept == Kept::Outcome => {
                until("the filter to keep it", async || {
                    Ok((self.stack.envoy.counter("outbox").await? > 0).then_some(()))
                })
                .await?;
            }
            None => {}
        }
        match self.row.kept {
            Kept::Outcome => return Ok(()),
            Kept::Nowhere => return promised(self.sid().is_empty(), "nothing to know it by"),
            _ => {}
        }
        let ledger = self.stack.ledger().await?;
        if self.row.kept == Kept::Spooled {
            promised(ledger.events(self.sid()).await?.is_empty(), "nothing in the ledger")?;
            return until("it to be in the spool", async || {
                Ok(self.stack.sidecar()?.spooled(self.sid())?.then_some(()))
            })
            .await;
        }
        let outcome = if self.row.kept == Kept::Refused { "refused" } else { "accepted" };
        let event = ledger.settled(self.sid(), outcome, 1).await?;
        promised(event.form.as_deref() == Some(&*self.form.encoded()), "every parameter")?;
        if let Kept::TakenUnarchived | Kept::DeliveredUnarchived = self.row.kept {
            promised(ledger.unarchived(self.sid()).await?, "it is owed to the archive")?;
        }
        let owed = |sink: Sink| match self.row.kept {
            Kept::Owed(to) if to == sink => "waiting",
            _ => "done",
        };
        let expected: Vec<String> = match self.kind.delivery {
            Delivery::Forward => Vec::new(),
            Delivery::Accept => {
                let sinks = self.stack.sinks().iter();
                sinks.map(|sink| format!("{} {}", sink.name(), owed(*sink))).collect()
            }
        };
        let mut last = Vec::new();
        let found = until("the deliveries", async || {
            last = ledger.deliveries(self.sid()).await?;
            Ok((last == expected).then_some(()))
        })
        .await;
        found.with_context(|| format!("{last:?}, not {expected:?}"))
    }

    /// Every sink has it, once.
    async fn delivered(&self, ledger: &Ledger) -> Result<()> {
        let sinks = self.stack.sinks();
        let mut last = Vec::new();
        let done = until_within(HEALING, "every delivery to be done", async || {
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
            ensure!(events == 1, "{} has it {events} times", sink.name());
        }
        Ok(())
    }

    /// The archive has it, whole, and is owed nothing of it.
    async fn archived(&self, ledger: &Ledger) -> Result<()> {
        until_within(HEALING, "it to be archived", async || {
            Ok((!ledger.unarchived(self.sid()).await?).then_some(()))
        })
        .await?;
        let lines = self.stack.dependencies().objects()?.archived().await?;
        let mine: Vec<_> = lines.iter().filter(|line| line["message_sid"] == self.sid()).collect();
        let is_whole = |line: &&Value| line["form"] == self.form.encoded();
        ensure!(mine.len() == 1 && mine.iter().all(is_whole), "the archive has {mine:?}");
        Ok(())
    }

    /// How often Envoy has forwarded it.
    fn forwarded(&self) -> usize {
        self.stack.backend.seen(&self.request.case).len()
    }

    /// What the sidecar has delivered of it to the application.
    fn events(&self) -> Vec<Value> {
        let delivered = self.stack.backend.seen(DELIVERED);
        let events = delivered.iter().filter_map(|seen| serde_json::from_slice(seen.bytes()).ok());
        events.filter(|event: &Value| event["message_sid"] == self.sid()).collect()
    }
}

/// What series were before a webhook came.
struct Seen<'a> {
    stack: &'a Stack,
    before: Vec<(Signal, f64)>,
}

impl<'a> Seen<'a> {
    async fn before(stack: &'a Stack, signals: &[Signal]) -> Result<Self> {
        let mut before = Vec::new();
        for signal in signals {
            before.push((*signal, read(stack, *signal).await?));
        }
        Ok(Self { stack, before })
    }

    /// They tell.
    async fn after(&self) -> Result<()> {
        for &(signal, before) in &self.before {
            let mut now = before;
            let told = until(signal.series, async || {
                now = read(self.stack, signal).await?;
                let told = match signal.does {
                    Does::Rises => now > before,
                    Does::Positive => now > 0.0,
                    Does::IsOne => now == 1.0,
                };
                Ok(told.then_some(()))
            })
            .await;
            told.with_context(|| format!("{} was {before} and is {now}", signal.series))?;
        }
        Ok(())
    }
}

/// What a series is.
async fn read(stack: &Stack, signal: Signal) -> Result<f64> {
    let page = match signal.teller {
        Teller::Envoy => stack.envoy.prometheus().await?,
        Teller::Sidecar => get(stack.sidecar()?.address(), "/metrics").await?.text(),
    };
    // Envoy writes braces where there is no label.
    let names = [format!("{} ", signal.series), format!("{}{{}} ", signal.series)];
    for line in page.lines() {
        if let Some(value) = names.iter().find_map(|name| line.strip_prefix(name.as_str())) {
            return value.trim().parse().with_context(|| line.to_owned());
        }
    }
    bail!("nobody tells {}", signal.series)
}

fn promised(is_so: bool, what: &str) -> Result<()> {
    ensure!(is_so, "{what}: it is not so");
    Ok(())
}
