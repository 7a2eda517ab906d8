//! Error type of all stores, and the JSON rows that a statement takes.

use std::fmt;

use serde::Serialize;

/// Failure of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The store was unreachable or did not answer in time; retry.
    Unavailable(String),
    /// The store understood and refused the request; a retry changes nothing.
    Refused(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Unavailable(reason) => write!(f, "cannot be reached: {reason}"),
            StoreError::Refused(reason) => write!(f, "refuses: {reason}"),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        // SQLSTATE class 22 is bad data, 23 a broken constraint; SQLite reports 19 and 20 for these.
        let refused =
            error.as_database_error().and_then(|error| error.code()).is_some_and(|code| match code
                .len()
            {
                5 => code.starts_with("22") || code.starts_with("23"),
                _ => code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 19 | 20)),
            });
        match refused {
            true => StoreError::Refused(error.to_string()),
            false => StoreError::Unavailable(error.to_string()),
        }
    }
}

/// Serializes the rows that a statement takes, as a JSON array.
pub(super) fn json(rows: &[impl Serialize]) -> Result<String, StoreError> {
    serde_json::to_string(rows).map_err(|error| StoreError::Refused(error.to_string()))
}
