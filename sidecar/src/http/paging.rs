//! Lists a page at a time: what a caller may ask for, and the cursor that continues. A cursor is where the last page ended,
//! not how many rows came before, so that nothing is skipped or shown twice when rows are added meanwhile.

use axum::extract::{Query, rejection::QueryRejection};
use serde::Deserialize;
use twilio_edge_filter::form::is_account_sid;
use utoipa::IntoParams;

use super::{kinds, problem::Problem};

const USUAL: u32 = 50;
const MOST: u32 = 200;

/// The query of every list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// Only what belongs to this account.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: Option<String>,
    /// How many, 50 if not said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

impl Listing {
    pub(super) fn read(query: Result<Query<Listing>, QueryRejection>) -> Result<Listing, Problem> {
        let Query(listing) = query.map_err(|error| Problem::unreadable(&error.body_text()))?;
        if listing.account_sid.as_deref().is_some_and(|sid| !is_account_sid(sid)) {
            let told = "account_sid: must be AC and 32 lower-case hexadecimal digits";
            return Err(Problem::unreadable(told));
        }
        match listing.limit {
            Some(0) | Some(MOST_AND_ONE..) => {
                Err(Problem::unreadable(&format!("limit: must be 1 to {MOST}")))
            }
            _ => Ok(listing),
        }
    }

    /// How many to show.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(USUAL) as usize
    }

    /// How many to ask for: one more, which tells whether there is a next page.
    pub(super) fn most(&self) -> i64 {
        i64::from(self.limit.unwrap_or(USUAL)).saturating_add(1)
    }

    /// Where to go on, read by `of`.
    pub(super) fn cursor<T>(
        &self,
        of: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(cursor) = self.cursor.as_deref() else { return Ok(None) };
        of(cursor).map(Some).ok_or_else(|| Problem::of(kinds::NO_SUCH_PAGE))
    }

    /// Cuts what was found to one page; the cursor behind its last row, if more follow.
    pub(super) fn cut<T>(
        &self,
        found: &mut Vec<T>,
        cursor: impl FnOnce(&T) -> String,
    ) -> Option<String> {
        let more = found.len() > self.limit();
        found.truncate(self.limit());
        found.last().filter(|_| more).map(cursor)
    }
}

const MOST_AND_ONE: u32 = MOST + 1;
