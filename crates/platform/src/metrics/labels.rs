//! Label values of the metrics, each a closed list.

twilio_edge_contract::string_enum! {
    /// Content of a batch.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Batch {
        /// Claims from a filter.
        Claims = "claims",
        /// Settlements from a filter.
        Settlements = "settlements",
        /// Rows written to the database.
        Events = "events",
    }
}

twilio_edge_contract::string_enum! {
    /// State of Redis.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum RedisState {
        /// Redis is not configured.
        None = "none",
        /// Redis answers.
        Up = "up",
        /// Redis is unavailable, and is not called for a while.
        Unavailable = "unavailable",
    }
}

twilio_edge_contract::string_enum! {
    /// Object of a rate limit.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Limit {
        /// A key with too many requests.
        Key = "key",
        /// An address with too many unknown tokens.
        Address = "address",
    }
}

twilio_edge_contract::string_enum! {
    /// Reason why a token was refused.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Denial {
        /// Token is unknown or revoked.
        Unknown = "unknown",
        /// Token has another scope; this includes the edge token at the admin listener once an admin key exists.
        Scope = "scope",
        /// Account of the token is closed.
        Closed = "closed",
    }
}

twilio_edge_contract::string_enum! {
    /// Pool of database connections.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Pool {
        /// Connections for reads, and for writes that must survive the end of the process.
        Quick = "quick",
        /// Connections for writes that must survive a loss of power.
        Durable = "durable",
        /// Connections for queries of messages, events and windows.
        Readers = "readers",
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
