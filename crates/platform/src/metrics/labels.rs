//! Label values of the metrics, each a closed list.

/// Content of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// Claims from a filter.
    Claims,
    /// Settlements from a filter.
    Settlements,
    /// Rows written to the database.
    Events,
}

impl Batch {
    pub(super) const ALL: [Batch; 3] = [Batch::Claims, Batch::Settlements, Batch::Events];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Batch::Claims => "claims",
            Batch::Settlements => "settlements",
            Batch::Events => "events",
        }
    }
}

/// State of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisState {
    /// Redis is not configured.
    None,
    /// Redis answers.
    Up,
    /// Redis is unavailable, and is not called for a while.
    Away,
}

impl RedisState {
    pub(super) const ALL: [RedisState; 3] = [RedisState::None, RedisState::Up, RedisState::Away];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            RedisState::None => "none",
            RedisState::Up => "up",
            RedisState::Away => "away",
        }
    }
}

/// Object of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A key with too many requests.
    Key,
    /// An address with too many unknown tokens.
    Address,
}

impl Limit {
    pub(super) const ALL: [Limit; 2] = [Limit::Key, Limit::Address];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Limit::Key => "key",
            Limit::Address => "address",
        }
    }
}

/// Reason why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Token is unknown or revoked.
    Unknown,
    /// Token has another scope; this includes the edge token at the admin listener once an admin key exists.
    Scope,
    /// Account of the token is closed.
    Closed,
}

impl Denial {
    pub(super) const ALL: [Denial; 3] = [Denial::Unknown, Denial::Scope, Denial::Closed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Denial::Unknown => "unknown",
            Denial::Scope => "scope",
            Denial::Closed => "closed",
        }
    }
}

/// Pool of database connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Connections for reads, and for writes that must survive the end of the process.
    Quick,
    /// Connections for writes that must survive a loss of power.
    Durable,
    /// Connections for queries of messages, events and windows.
    Readers,
}

impl Pool {
    pub(super) const ALL: [Pool; 3] = [Pool::Quick, Pool::Durable, Pool::Readers];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Pool::Quick => "quick",
            Pool::Durable => "durable",
            Pool::Readers => "readers",
        }
    }
}

/// Connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    pub(crate) in_use: i64,
    /// Number of connections that no query uses.
    pub idle: i64,
}

impl Connections {
    /// Returns the connections of a pool.
    pub fn of(size: u32, idle: usize) -> Connections {
        let idle = i64::try_from(idle).unwrap_or(i64::MAX);
        Connections { in_use: i64::from(size).saturating_sub(idle).max(0), idle }
    }

    /// Returns the sum of two pools.
    pub fn and(self, more: Connections) -> Connections {
        let (in_use, idle) =
            (self.in_use.saturating_add(more.in_use), self.idle.saturating_add(more.idle));
        Connections { in_use, idle }
    }
}
