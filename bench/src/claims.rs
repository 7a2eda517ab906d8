//! Benchmark of the sidecar's cost of a claim and of its settlement: batches of webhooks over HTTP, without Envoy and
//! without a backend, on each combination of stores. It counts the CPU of the sidecar's own process, including writes after
//! the answers.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use twilio_edge_contract::{
    Claim, Decision, EXCHANGE_MEDIA_TYPE, EXCHANGE_PATH, ExchangeReply, ExchangeRequest, Outcome,
    Settlement, SettlementResult,
};
use twilio_edge_demo::EDGE_TOKEN;

use crate::http1::{Reader, status};
use crate::process::{Cores, Process, free_port, private_folder, until_idle};
use crate::target::{Parts, Place, Stores};
use crate::webhook::Sequence;

/// Longest time of an answer, in milliseconds.
const PATIENCE_MS: u32 = 4000;

/// Goals for the sidecar's CPU of one claim, in microseconds, in batches of 32.
const GOALS_US: [(Stores, f64); 2] = [(Stores::RedisPostgres, 10.0), (Stores::Sqlite, 25.0)];

/// Number and form of the claims.
#[derive(Args)]
pub(crate) struct Options {
    /// Webhooks claimed and settled in each round.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1000..=2_000_000))]
    claims: u32,
    /// Webhooks of one request.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: u32,
    /// Requests at once, each on its own connection.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// Rounds on each combination of stores, in turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
}

impl Options {
    /// Returns the options of one round of `claims` webhooks, with defaults for the rest.
    pub(crate) fn of(claims: u32) -> Self {
        Self { claims, batch: 32, connections: 4, rounds: 1 }
    }
}

/// Microseconds of CPU for each webhook of one round.
#[derive(Clone, Copy)]
pub(crate) struct Costs {
    /// Claimed, and its row written after the answer.
    claim: f64,
    /// Settled, and its row written before the answer.
    settlement: f64,
    /// Claimed and settled at once, as with a fast backend: usually one row is written for both.
    both: f64,
}

/// Work on the webhooks of a round.
#[derive(Clone, Copy)]
enum Work {
    Claim,
    Settle,
    Both,
}

/// Stores, a sidecar on them, and the costs of its rounds.
pub(crate) struct Subject {
    /// URL of its database.
    pub(crate) database: String,
    /// URL of its Redis, for leases; empty without Redis.
    pub(crate) redis: String,
    stores: Stores,
    goal_us: f64,
    port: u16,
    sidecar: Process,
    costs_us: Vec<Costs>,
    _helpers: Vec<Process>,
    _folder: TempDir,
}

/// Runs the benchmark, prints a table, and fails if an answer was not as expected.
pub(crate) async fn measure(options: &Options, parts: &Parts, seed: u64) -> Result<()> {
    let cores = Cores::divide()?;
    let mut subjects = Vec::new();
    for (stores, goal_us) in GOALS_US {
        match stores.lack() {
            Some(part) => println!("{} was left out: there is no {part} here", stores.title()),
            None => subjects.push(Subject::start(stores, goal_us, parts, cores).await?),
        }
    }
    let mut sequence = seed;
    for round in 0..=options.rounds {
        for subject in &mut subjects {
            sequence += 2;
            let cost = subject.round(options, sequence).await?;
            eprintln!(
                "round {round} of {}: {:<16} {:>6.1} + {:.1} us, together {:.1}",
                options.rounds,
                subject.stores.title(),
                cost.claim,
                cost.settlement,
                cost.both
            );
            // The first round fills caches and compiles statements.
            subject.costs_us.extend(Some(cost).filter(|_| round > 0));
        }
    }
    println!("Sidecar CPU in us per webhook, in batches of {}\n", options.batch);
    println!("{:<16} {:<12} {:>9} {:>15} {:>9}", "stores", "", "median", "min..max", "at most");
    for subject in &subjects {
        subject.print("claim", |costs| costs.claim, Some(subject.goal_us))?;
        subject.print("settlement", |costs| costs.settlement, None)?;
        subject.print("both at once", |costs| costs.both, None)?;
    }
    Ok(())
}

impl Subject {
    pub(crate) async fn start(
        stores: Stores,
        goal_us: f64,
        parts: &Parts,
        cores: Cores,
    ) -> Result<Self> {
        let folder = private_folder()?;
        let port = free_port()?;
        // The benchmark measures the cost, not timeouts on a busy disk that is slow to sync.
        let timeout = Some(PATIENCE_MS);
        let place = Place {
            cores,
            folder: folder.path(),
            database_timeout_ms: timeout,
            sinks: None,
            slow_disk: false,
        };
        let started = place.start_stores(stores, parts, port).await?;
        Ok(Self {
            database: started.database,
            redis: started.redis,
            stores,
            goal_us,
            port,
            sidecar: started.sidecar,
            costs_us: Vec::new(),
            _helpers: started.helpers,
            _folder: folder,
        })
    }

    /// Claims and settles webhooks, first one after the other, then simultaneously.
    pub(crate) async fn round(&self, options: &Options, sequence: u64) -> Result<Costs> {
        Ok(Costs {
            claim: self.cost(options, sequence, Work::Claim).await?,
            settlement: self.cost(options, sequence, Work::Settle).await?,
            both: self.cost(options, sequence + 1, Work::Both).await?,
        })
    }

    /// Claims and settles webhooks simultaneously.
    pub(crate) async fn fill(&self, options: &Options, sequence: u64) -> Result<()> {
        self.cost(options, sequence, Work::Both).await.map(drop)
    }

    async fn cost(&self, options: &Options, sequence: u64, what: Work) -> Result<f64> {
        let before = self.sidecar.usage()?.cpu;
        let mut workers = JoinSet::new();
        let batches = options.claims.div_ceil(options.batch);
        for worker in 0..options.connections {
            let own = (worker..batches).step_by(options.connections as usize);
            let own: Vec<u32> = own.collect();
            workers.spawn(work(self.port, own, options.batch, sequence, what));
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        until_idle(|| Ok(self.sidecar.usage()?.cpu)).await?;
        let used = self.sidecar.usage()?.cpu.saturating_sub(before);
        Ok(used.as_secs_f64() * 1e6 / f64::from(batches * options.batch))
    }

    fn print(&self, what: &str, cost: fn(&Costs) -> f64, goal_us: Option<f64>) -> Result<()> {
        let mut costs: Vec<f64> = self.costs_us.iter().map(cost).collect();
        costs.sort_by(f64::total_cmp);
        let (least, most) = costs.first().zip(costs.last()).context("no round")?;
        let median = costs.get(costs.len() / 2).context("no round")?;
        let range = format!("{least:.1}..{most:.1}");
        let goal = goal_us.map(|goal| {
            let verdict = if *median <= goal { "met" } else { "not met" };
            format!(" {goal:>9.1} {verdict}")
        });
        let (title, goal) = (self.stores.title(), goal.unwrap_or_default());
        println!("{title:<16} {what:<12} {median:>9.1} {range:>15}{goal}");
        Ok(())
    }
}

/// Sends the batches of one connection, one after the other.
async fn work(port: u16, batches: Vec<u32>, size: u32, sequence: u64, what: Work) -> Result<()> {
    let sequence = Sequence::new(sequence)?;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.split();
    let mut reader = Reader::new(from);
    for batch in batches {
        let numbers = u64::from(batch) * u64::from(size)..;
        let claims: Vec<Claim> =
            numbers.take(size as usize).map(|n| sequence.claim(n)).collect::<Result<_>>()?;
        let settlements = claims.iter().map(accepted).collect();
        if matches!(what, Work::Claim | Work::Both) {
            to.write_all(&post(&ExchangeRequest::new(claims, Vec::new()))).await?;
            let reply = answer(&mut reader).await?;
            let proceed = reply.verdicts.iter().filter(|v| v.decision == Decision::Proceed).count();
            ensure!(proceed == size as usize, "{proceed} of {size} claims proceed");
        }
        if matches!(what, Work::Settle | Work::Both) {
            to.write_all(&post(&ExchangeRequest::new(Vec::new(), settlements))).await?;
            let reply = answer(&mut reader).await?;
            let settled = |result: SettlementResult| result == SettlementResult::Settled;
            ensure!(reply.results.iter().all(|one| settled(one.result)), "a settlement was lost");
        }
    }
    Ok(())
}

fn accepted(claim: &Claim) -> Settlement {
    Settlement {
        claim_id: claim.claim_id.clone(),
        identity: claim.identity.clone(),
        outcome: Outcome::Commit,
        unclaimed: None,
        answer: None,
        url_digest: claim.url_digest.clone(),
        step: None,
    }
}

fn post(request: &ExchangeRequest) -> Vec<u8> {
    let body = request.encode();
    let mut bytes = format!(
        "POST {EXCHANGE_PATH} HTTP/1.1\r\nHost: sidecar\r\nAuthorization: Bearer {EDGE_TOKEN}\r\n\
         Content-Type: {EXCHANGE_MEDIA_TYPE}\r\nContent-Length: {}\r\n\r\n",
        body.len(),
    )
    .into_bytes();
    bytes.extend(body);
    bytes
}

async fn answer(reader: &mut Reader<impl tokio::io::AsyncRead + Unpin>) -> Result<ExchangeReply> {
    let answer = tokio::time::timeout(Duration::from_millis(PATIENCE_MS.into()), reader.next())
        .await
        .context("no answer in time")?;
    let Some(response) = answer? else { bail!("the sidecar closed a connection in use") };
    let status = status(response)?;
    let head = response.windows(4).position(|end| end == b"\r\n\r\n").context("no head")?;
    let body = response.get(head + 4..).unwrap_or_default();
    ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(body));
    Ok(ExchangeReply::decode(body)?)
}
