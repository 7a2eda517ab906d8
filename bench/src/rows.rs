//! Benchmark of the size of the stored data: webhooks of the bench's mix, claimed and accepted through a real sidecar, and
//! then the sizes that each database reports for its table and its indexes, and Redis for its keys. docs/SCALE.md uses them.

use anyhow::{Context, Result, ensure};
use clap::Args;
use redis::Commands;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::claims::{self, Subject};
use crate::process::Cores;
use crate::target::{Parts, Stores};

/// Bytes of each index and table of `events`, by name.
const ON_SQLITE: &str = "SELECT name, CAST(sum(pgsize) AS INTEGER) FROM dbstat
    WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = 'events') GROUP BY name ORDER BY name";
const ON_POSTGRES: &str = "SELECT relname::text, pg_table_size(oid)::bigint FROM pg_class
    WHERE oid = 'events'::regclass
        OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'events'::regclass) ORDER BY relname";

/// Number of Redis keys whose size is sampled.
const SAMPLE: usize = 1000;

/// Number of webhooks to write.
#[derive(Args)]
pub(crate) struct Options {
    /// Webhooks claimed and accepted on each combination of stores.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1000..=2_000_000))]
    webhooks: u32,
}

/// Runs the benchmark and prints the sizes.
pub(crate) async fn measure(options: &Options, parts: &Parts, seed: u64) -> Result<()> {
    let cores = Cores::divide()?;
    println!("Bytes a webhook, of {} (70 % statuses, 30 % messages)\n", options.webhooks);
    for stores in [Stores::Sqlite, Stores::RedisPostgres] {
        if let Some(part) = stores.lack() {
            println!("{} was left out: there is no {part} here", stores.title());
            continue;
        }
        let subject = Subject::start(stores, f64::MAX, parts, cores).await?;
        let before = wal_bytes(&subject.database).await?;
        subject.fill(&claims::Options::of(options.webhooks), seed).await?;
        let wal = wal_bytes(&subject.database).await? - before;
        let sizes = sizes(&subject.database).await?;
        let each = |bytes: i64| bytes as f64 / f64::from(options.webhooks);
        for (name, bytes) in &sizes {
            println!("{:<16} {name:<28} {:>8.1}", stores.title(), each(*bytes));
        }
        let all = sizes.iter().map(|(_, bytes)| bytes).sum();
        println!("{:<16} {:<28} {:>8.1}", stores.title(), "together", each(all));
        if stores == Stores::RedisPostgres {
            println!("{:<16} {:<28} {:>8.1}", stores.title(), "write-ahead log", each(wal));
            println!(
                "{:<16} {:<28} {:>8.1}",
                "Redis",
                "a key that is done",
                key_bytes(&subject.redis)?
            );
        }
    }
    Ok(())
}

async fn sizes(database: &str) -> Result<Vec<(String, i64)>> {
    let sizes = match database.starts_with("sqlite") {
        true => {
            let mut connection = SqliteConnection::connect(database).await?;
            sqlx::query_as(AssertSqlSafe(ON_SQLITE)).fetch_all(&mut connection).await?
        }
        false => {
            let mut connection = PgConnection::connect(database).await?;
            sqlx::query("VACUUM events").execute(&mut connection).await?;
            sqlx::query_as(AssertSqlSafe(ON_POSTGRES)).fetch_all(&mut connection).await?
        }
    };
    Ok(sizes)
}

/// Returns the bytes that PostgreSQL has ever logged.
async fn wal_bytes(database: &str) -> Result<i64> {
    if database.starts_with("sqlite") {
        return Ok(0);
    }
    let mut connection = PgConnection::connect(database).await?;
    let query = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
    let (bytes,): (i64,) = sqlx::query_as(query).fetch_one(&mut connection).await?;
    Ok(bytes)
}

/// Returns the bytes of a key according to Redis, including its share of the tables.
fn key_bytes(url: &str) -> Result<f64> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut total = 0_i64;
    let keys: Vec<String> = connection.scan()?.take(SAMPLE).collect::<Result<_, _>>()?;
    ensure!(!keys.is_empty(), "Redis has no keys");
    for key in &keys {
        let bytes: Option<i64> =
            redis::cmd("MEMORY").arg("USAGE").arg(key).query(&mut connection)?;
        total += bytes.context("a key was removed")?;
    }
    Ok(total as f64 / keys.len() as f64)
}
