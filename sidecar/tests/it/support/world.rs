//! A combination of stores with a separate database, and queries of the stored rows.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;

use crate::{
    support::servers::{Postgres, Redis},
    support::sidecar::Sidecar,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    RedisSqlite,
    RedisPostgres,
}

/// Creates a test of each named behaviour on each combination of stores.
macro_rules! on_every_store {
    ($($behaviour:ident),* $(,)?) => {
        $crate::support::world::on_every_store!(@ sqlite Sqlite $($behaviour)*);
        $crate::support::world::on_every_store!(@ postgres Postgres $($behaviour)*);
        $crate::support::world::on_every_store!(@ redis_sqlite RedisSqlite $($behaviour)*);
        $crate::support::world::on_every_store!(@ redis_postgres RedisPostgres $($behaviour)*);
    };
    (@ $module:ident $kind:ident $($behaviour:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $behaviour() {
                    super::$behaviour($crate::support::world::World::new($crate::support::world::Kind::$kind).await)
                        .await;
                }
            )*
        }
    };
}
pub(crate) use on_every_store;

/// As `on_every_store`, on the stores that several sidecars can share.
macro_rules! on_every_shared_store {
    ($($behaviour:ident),* $(,)?) => {
        mod shared {
            $crate::support::world::on_every_store!(@ postgres Postgres $($behaviour)*);
            $crate::support::world::on_every_store!(@ redis_postgres RedisPostgres $($behaviour)*);
            $(use super::$behaviour;)*
        }
    };
}
pub(crate) use on_every_shared_store;

pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) directory: TempDir,
    pub(crate) database_url: String,
    pub(crate) redis: Option<Redis>,
}

impl World {
    pub(crate) async fn new(kind: Kind) -> World {
        private_files();
        let directory = TempDir::new().unwrap();
        let database_url = match kind {
            Kind::Sqlite | Kind::RedisSqlite => sqlite_url(directory.path()),
            Kind::Postgres | Kind::RedisPostgres => Postgres::migrated_database().await,
        };
        let redis = match kind {
            Kind::Sqlite | Kind::Postgres => None,
            Kind::RedisSqlite | Kind::RedisPostgres => Some(Redis::shared().await),
        };
        World { kind, directory, database_url, redis }
    }

    /// Starts a Redis for this test alone in place of the shared one, if these stores have one. Needed before a test kills,
    /// stops or slows Redis.
    pub(crate) async fn own_redis(&mut self) {
        if self.redis.is_some() {
            self.redis = Some(Redis::start().await);
        }
    }

    pub(crate) async fn sidecar(&self) -> Sidecar {
        self.sidecar_with(&[]).await
    }

    /// Starts a sidecar on these stores, with more settings from the environment. Its time limits for the stores are long, since
    /// tests must pass on a busy machine.
    pub(crate) async fn sidecar_with(&self, settings: &[(&str, &str)]) -> Sidecar {
        self.sidecar_under("true", settings).await
    }

    /// As [`World::sidecar_with`], after the line of shell `limit`, for instance a `ulimit`.
    pub(crate) async fn sidecar_under(&self, limit: &str, settings: &[(&str, &str)]) -> Sidecar {
        let redis_url = self.redis.as_ref().map(Redis::url).unwrap_or_default();
        let stores = [
            ("DATABASE_URL", self.database_url.as_str()),
            ("REDIS_URL", &redis_url),
            ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "20000"),
            ("TWILIO_EDGE_DATABASE_READ_TIMEOUT_MS", "20000"),
            ("TWILIO_EDGE_REDIS_TIMEOUT_MS", "10000"),
            ("TWILIO_EDGE_HTTP_REQUEST_TIMEOUT_MS", "25000"),
            // Tests open no connection to the internet.
            ("TWILIO_EDGE_MEDIA_CHECK", "false"),
        ];
        let settings = [&stores[..], settings].concat();
        Sidecar::start(limit, self.directory.path(), &settings).await
    }

    /// Returns the only column of a query, as text.
    pub(crate) async fn stored(&self, query: &str) -> Vec<String> {
        let query = query.to_owned();
        let rows: Vec<(String,)> = if self.database_url.starts_with("sqlite") {
            let mut connection = sqlx::SqliteConnection::connect(&self.database_url).await.unwrap();
            sqlx::query_as(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap()
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.database_url).await.unwrap();
            sqlx::query_as(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap()
        };
        rows.into_iter().map(|(text,)| text).collect()
    }
}

/// Returns a URL in a folder that does not exist yet, as before a first start.
pub(crate) fn sqlite_url(directory: &Path) -> String {
    format!("sqlite://{}/data/edge.db", directory.display())
}

/// Makes new files private, since the sidecar refuses credentials that others may read.
pub(crate) fn private_files() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}
