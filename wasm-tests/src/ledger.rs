//! What the sidecar keeps, read from its SQLite file while it runs, and never written.

use std::path::Path;

use anyhow::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

/// The sidecar's tables.
pub struct Ledger {
    pool: SqlitePool,
}

impl Ledger {
    /// Opens the file read-only.
    pub async fn open(database: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new().filename(database).read_only(true);
        Ok(Self { pool: SqlitePool::connect_with(options).await? })
    }
}
