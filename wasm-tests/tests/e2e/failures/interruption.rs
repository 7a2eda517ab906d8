//! Outage of one part: stops it and starts it again.

use anyhow::Result;
use sqlx::{Connection, SqliteConnection};
use twilio_edge_wasm_tests::failures::Part;
use twilio_edge_wasm_tests::stack::Stack;

/// Outage of a part.
pub(super) struct Interruption<'a> {
    part: Part,
    stack: &'a Stack,
    /// Another program's transaction.
    lock: Option<SqliteConnection>,
}

impl<'a> Interruption<'a> {
    pub(super) async fn begin(part: Part, stack: &'a Stack) -> Result<Self> {
        let parts = stack.dependencies();
        let mut lock = None;
        match part {
            Part::None => {}
            Part::Application => stack.backend.leave().await?,
            Part::Sidecar => stack.sidecar()?.kill().await?,
            Part::Redis => parts.redis()?.kill().await?,
            Part::Postgres => parts.postgres()?.kill().await?,
            Part::Kafka => parts.kafka()?.line().cut().await,
            Part::ObjectStore => parts.objects()?.line().cut().await,
            Part::Twilio => parts.twilio()?.leave().await?,
            Part::Sqlite => {
                let url = format!("sqlite://{}", stack.sidecar()?.database().display());
                let other = lock.insert(SqliteConnection::connect(&url).await?);
                sqlx::query("BEGIN IMMEDIATE").execute(other).await?;
            }
        }
        Ok(Self { part, stack, lock })
    }

    pub(super) async fn end(self) -> Result<()> {
        let parts = self.stack.dependencies();
        match self.part {
            Part::None => Ok(()),
            Part::Application => self.stack.backend.come_back().await,
            Part::Sidecar => self.stack.sidecar()?.restart().await,
            Part::Redis => parts.redis()?.restart().await,
            Part::Postgres => parts.postgres()?.restart().await,
            Part::Kafka => parts.kafka()?.line().mend().await,
            Part::ObjectStore => parts.objects()?.line().mend().await,
            Part::Twilio => parts.twilio()?.come_back().await,
            Part::Sqlite => match self.lock {
                Some(other) => Ok(other.close().await?),
                None => Ok(()),
            },
        }
    }
}
