//! What a claim costs the sidecar: batches of webhooks claimed and settled over HTTP, without Envoy and without a backend,
//! on each combination of stores. What is counted is the CPU of the sidecar's own process, writes behind the answers
//! included.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use twilio_edge::demo::EDGE_TOKEN;
use twilio_edge_contract::{
    CLAIMS_PATH, Claim, ClaimsReply, ClaimsRequest, Decision, Outcome, PROTOCOL_VERSION,
    SETTLEMENTS_PATH, Settlement, SettlementResult, SettlementsReply, SettlementsRequest,
};

use crate::http1::{Reader, status};
use crate::process::{Cores, Process, free_port, until_idle};
use crate::target::{Parts, Place, Stores};
use crate::webhook::Sequence;

/// No answer takes longer, in milliseconds.
const PATIENCE_MS: u32 = 4000;

/// Most of the sidecar's CPU one claim may cost with its settlement, in batches of 32.
const GOALS_US: [(Stores, f64); 2] = [(Stores::RedisPostgres, 10.0), (Stores::Sqlite, 25.0)];

/// How much is claimed, and how.
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
    /// One round of so many, otherwise as by itself.
    pub(crate) fn of(claims: u32) -> Self {
        Self { claims, batch: 32, connections: 4, rounds: 1 }
    }
}

/// Stores, a sidecar on them, and what its rounds cost.
pub(crate) struct Subject {
    /// Where it has its rows.
    pub(crate) database: String,
    /// Where it has its leases; empty without Redis.
    pub(crate) redis: String,
    stores: Stores,
    goal_us: f64,
    port: u16,
    sidecar: Process,
    costs_us: Vec<f64>,
    _helpers: Vec<Process>,
    _folder: TempDir,
}

/// Measures, prints a table, and fails when an answer was not as it had to be.
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
            sequence += 1;
            let cost = subject.round(options, sequence).await?;
            eprintln!(
                "round {round} of {}: {:<16} {cost:>6.1} us",
                options.rounds,
                subject.stores.title()
            );
            // The first fills caches and compiles statements.
            subject.costs_us.extend(Some(cost).filter(|_| round > 0));
        }
    }
    println!("Sidecar CPU per claim with its settlement, in batches of {}\n", options.batch);
    println!("{:<16} {:>9} {:>15} {:>9}", "stores", "median us", "min..max", "at most");
    for subject in &mut subjects {
        subject.costs_us.sort_by(f64::total_cmp);
        let costs = &subject.costs_us;
        let (least, most) = costs.first().zip(costs.last()).context("no round")?;
        let median = costs.get(costs.len() / 2).context("no round")?;
        let verdict = if *median <= subject.goal_us { "met" } else { "not met" };
        let range = format!("{least:.1}..{most:.1}");
        let (title, goal) = (subject.stores.title(), subject.goal_us);
        println!("{title:<16} {median:>9.1} {range:>15} {goal:>9.1} {verdict}");
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
        let folder = TempDir::with_prefix("twilio-edge-bench-")?;
        let port = free_port()?;
        // What it costs, not what happens when a busy disk is slow to sync.
        let timeout = Some(PATIENCE_MS);
        let place = Place { cores, folder: folder.path(), database_timeout_ms: timeout };
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

    /// Microseconds of CPU for each webhook of one round.
    pub(crate) async fn round(&self, options: &Options, sequence: u64) -> Result<f64> {
        let before = self.sidecar.usage()?.cpu;
        let mut workers = JoinSet::new();
        let batches = options.claims.div_ceil(options.batch);
        for worker in 0..options.connections {
            let own = (worker..batches).step_by(options.connections as usize);
            let own: Vec<u32> = own.collect();
            workers.spawn(work(self.port, own, options.batch, sequence));
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        until_idle(|| Ok(self.sidecar.usage()?.cpu)).await?;
        let used = self.sidecar.usage()?.cpu.saturating_sub(before);
        Ok(used.as_secs_f64() * 1e6 / f64::from(batches * options.batch))
    }
}

/// One connection: claims a batch, settles it, and goes on.
async fn work(port: u16, batches: Vec<u32>, size: u32, sequence: u64) -> Result<()> {
    let sequence = Sequence::new(sequence)?;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.split();
    let mut reader = Reader::new(from);
    let v = PROTOCOL_VERSION;
    for batch in batches {
        let numbers = u64::from(batch) * u64::from(size)..;
        let claims: Vec<Claim> =
            numbers.take(size as usize).map(|n| sequence.claim(n)).collect::<Result<_>>()?;
        let settlements = claims.iter().map(accepted).collect();
        to.write_all(&post(CLAIMS_PATH, &ClaimsRequest { v, claims })?).await?;
        let reply: ClaimsReply = answer(&mut reader).await?;
        let proceed = reply.verdicts.iter().filter(|v| v.decision == Decision::Proceed).count();
        ensure!(proceed == size as usize, "{proceed} of {size} claims proceed");
        to.write_all(&post(SETTLEMENTS_PATH, &SettlementsRequest { v, settlements })?).await?;
        let reply: SettlementsReply = answer(&mut reader).await?;
        let settled = |result: SettlementResult| result == SettlementResult::Settled;
        ensure!(reply.results.iter().all(|one| settled(one.result)), "a settlement was lost");
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
    }
}

fn post(path: &str, request: &impl serde::Serialize) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(request)?;
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: sidecar\r\nAuthorization: Bearer {EDGE_TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len(),
    )
    .into_bytes();
    bytes.extend(body);
    Ok(bytes)
}

async fn answer<T: serde::de::DeserializeOwned>(
    reader: &mut Reader<impl tokio::io::AsyncRead + Unpin>,
) -> Result<T> {
    let answer = tokio::time::timeout(Duration::from_millis(PATIENCE_MS.into()), reader.next())
        .await
        .context("no answer in time")?;
    let Some(response) = answer? else { bail!("the sidecar closed a connection in use") };
    let status = status(response)?;
    let head = response.windows(4).position(|end| end == b"\r\n\r\n").context("no head")?;
    let body = response.get(head + 4..).unwrap_or_default();
    ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(body));
    Ok(serde_json::from_slice(body)?)
}
