//! Metrics of the stores: duration of operations, state of Redis, connections of the database.

use std::time::Instant;

use prometheus_client::metrics::{
    counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
};

use super::{
    catalogue::{Catalogue, Labels},
    labels::{Connections, Pool, RedisState},
    series::Series,
};
use crate::store_metrics::{self, Operation};

/// Upper bounds in seconds: memory takes microseconds, a database that syncs its disk milliseconds.
const STORE_BUCKETS: [f64; 11] =
    [0.00005, 0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.4, 2.0];

/// The series of the stores.
#[derive(Debug)]
pub struct StoreMetrics {
    store_seconds: Series<Histogram>,
    store_failures: Series<Counter>,
    redis: Family<Labels<1>, Gauge>,
    fallthroughs: Family<Labels<1>, Counter>,
    connections: Family<Labels<2>, Gauge>,
}

impl StoreMetrics {
    pub(super) fn of(all: &mut Catalogue) -> StoreMetrics {
        let store_seconds: Family<Labels<1>, Histogram, fn() -> Histogram> = all.histograms(
            "store_duration_seconds",
            &["operation"],
            "Seconds per batch of a store operation. `leases_`: Redis, or memory if Redis is not configured; `ledger_`: SQL; `journal_`: the spool and SQL",
            || Histogram::new(STORE_BUCKETS),
        );
        let store_failures: Family<Labels<1>, Counter> = all.counters(
            "store_failures",
            &["operation"],
            "Batches that a store failed or did not complete in time",
        );
        let operation = |operation: Operation| [("operation", operation.as_str())];
        let seconds = |one| store_seconds.get_or_create(&operation(one)).clone();
        let failures = |one| store_failures.get_or_create(&operation(one)).clone();
        StoreMetrics {
            store_seconds: Series(Operation::ALL.map(seconds).into()),
            store_failures: Series(Operation::ALL.map(failures).into()),
            redis: all.gauges("redis_state", ["state"], "State of Redis, 1 for the current one: `none` (not configured), `up`, `unavailable`"),
            fallthroughs: all.counters(
                "store_fallthroughs",
                &["store"],
                "Batches that bypassed an unavailable store: `redis`",
            ),
            connections: all.gauges(
                "sql_connections",
                ["pool", "state"],
                "Connections to the database by state (`in_use`, `idle`) and pool: `quick` commits, `durable` commits, `readers`",
            ),
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        for pool in Pool::ALL {
            self.connected(pool, Connections { in_use: 0, idle: 0 });
        }
        self.redis_is(RedisState::None);
        self.fallthroughs.get_or_create(&[("store", "redis")]).inc_by(0);
    }

    /// Records an answered store operation, also as a step of the current request.
    pub fn asked<T, E>(
        &self,
        operation: Operation,
        since: Instant,
        answer: Result<T, E>,
    ) -> Result<T, E> {
        let took = since.elapsed().as_secs_f64();
        self.store_seconds.with(operation as usize, |histogram| histogram.observe(took));
        if answer.is_err() {
            self.store_failures.with(operation as usize, |counter| {
                counter.inc();
            });
        }
        store_metrics::note(operation, since, answer.is_ok());
        answer
    }

    /// Runs a store operation and records its duration.
    pub async fn timed<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let since = Instant::now();
        let answer = work.await;
        self.asked(operation, since, answer)
    }

    /// Sets the state of Redis.
    pub fn redis_is(&self, state: RedisState) {
        for other in RedisState::ALL {
            let gauge = self.redis.get_or_create(&[("state", other.as_str())]);
            gauge.set((other == state).into());
        }
    }

    /// Sets the number of connections of a pool.
    pub fn connected(&self, pool: Pool, connections: Connections) {
        let pool = pool.as_str();
        let gauge = |state| self.connections.get_or_create(&[("pool", pool), ("state", state)]);
        gauge("in_use").set(connections.in_use);
        gauge("idle").set(connections.idle);
    }

    /// Counts a batch that the database decided because Redis was unavailable.
    pub fn redis_fell_through(&self) {
        self.fallthroughs.get_or_create(&[("store", "redis")]).inc();
    }
}
