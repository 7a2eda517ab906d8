//! What labels may say, each a closed list.

/// What is sent in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// Claims, from a filter.
    Claims,
    /// Settlements, from a filter.
    Settlements,
    /// Rows, to SQL.
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

/// Where Redis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisState {
    /// There is to be none.
    None,
    /// It answers.
    Up,
    /// It does not, and is left alone for a while.
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

/// Whom a limit holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A key that asks too often.
    Key,
    /// An address that shows too many tokens that are not ours.
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

/// Why a token was not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// It is not ours, or not any more.
    Unknown,
    /// It is of another scope, the edge token after the first administrator has a key included.
    Scope,
    /// Its account is closed.
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

/// Connections to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// What survives the end of the process is written by these, and what is read on the way.
    Quick,
    /// What survives the loss of power is written by these.
    Durable,
    /// Those that answer questions about messages, events and windows.
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

/// How many connections a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    pub(crate) in_use: i64,
    /// Connections that no query uses.
    pub idle: i64,
}

impl Connections {
    /// Connections of a pool.
    pub fn of(size: u32, idle: usize) -> Connections {
        let idle = i64::try_from(idle).unwrap_or(i64::MAX);
        Connections { in_use: i64::from(size).saturating_sub(idle).max(0), idle }
    }

    /// Sum of two pools.
    pub fn and(self, more: Connections) -> Connections {
        let (in_use, idle) =
            (self.in_use.saturating_add(more.in_use), self.idle.saturating_add(more.idle));
        Connections { in_use, idle }
    }
}
