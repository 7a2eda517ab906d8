//! Lists as CSV, over HTTP: one that comes is taken whole or, where that is asked for, without its bad lines; one that goes
//! is streamed, a page of the database at a time.

use std::{collections::BTreeSet, future::Future};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{kinds, people, problem::Problem};
use crate::body::json;
use twilio_edge_domain::{
    address::Address,
    csv_import::{About, BadLine, Checked, List},
};
use twilio_edge_services::access::{api_keys::Caller, permissions::Permissions};
use twilio_edge_store::StoreError;

/// Rows read at a time.
pub(super) const PAGE: i64 = 500;

/// Whose list, and how it is read.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Import {
    /// Whose: said even by a key that is bound to one.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: String,
    /// Of numbers without a country code: two letters.
    #[param(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    /// Take the good lines where some are bad; without, one bad line refuses the list.
    pub(super) partial: Option<bool>,
}

impl Import {
    /// What a line of it does not say.
    pub(super) fn about(
        &self,
        account_sid: &str,
        by: &Caller,
        now_ms: i64,
    ) -> Result<About, Problem> {
        Ok(About {
            account_sid: account_sid.to_owned(),
            region: people::region(self.region.clone())?,
            channel: None,
            known: BTreeSet::new(),
            by: by.actor.clone(),
            now_ms,
        })
    }
}

/// What became of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Imported {
    /// Good lines.
    lines: usize,
    /// Those that said something new.
    added: usize,
    /// The lines that were left out, the first hundred of them.
    bad: Vec<BadLine>,
    /// How many there are.
    bad_lines: usize,
}

/// The list, if it may be taken, and what was found when it was read to its end. A long list takes a while: that is not
/// spent where claims are answered.
pub(super) async fn checked<T: 'static>(
    permissions: &Permissions,
    account_sid: &str,
    list: Result<List<Bytes, T>, String>,
    partial: Option<bool>,
) -> Result<(List<Bytes, T>, Checked), Problem> {
    let list = list.map_err(|problem| Problem::with(kinds::BAD_LINES, problem))?;
    let (mut list, mut checked, unread) = read(list).await?;
    if !unread.is_empty() {
        let known = permissions.known_addresses(account_sid, unread).await;
        let known = known.map_err(|reason| Problem::unavailable(&reason))?;
        if !known.is_empty() {
            (list, checked, _) = read(list.with_known(known)).await?;
        }
    }
    match checked.complaint() {
        Some(complaint) if partial != Some(true) => Err(Problem::with(kinds::BAD_LINES, complaint)),
        _ => Ok((list, checked)),
    }
}

/// Reads a list to its end: what is wrong with it, and which addresses the database has to be asked about.
async fn read<T: 'static>(
    list: List<Bytes, T>,
) -> Result<(List<Bytes, T>, Checked, BTreeSet<Address>), Problem> {
    let reading = tokio::task::spawn_blocking(move || {
        let checked = list.check();
        let unread = match checked.bad_lines {
            0 => BTreeSet::new(),
            _ => list.unread_addresses(),
        };
        (list, checked, unread)
    });
    reading.await.map_err(|error| Problem::internal(&error.to_string()))
}

/// What became of it.
pub(super) fn report(
    checked: Checked,
    added: Result<usize, StoreError>,
) -> Result<Response, Problem> {
    let added = added.map_err(|reason| Problem::unavailable(&reason))?;
    let Checked { good: lines, bad, bad_lines } = checked;
    Ok(json(&Imported { lines, added, bad, bad_lines }))
}

/// A list as it is read: `page` is asked for what comes after a row, until there is nothing. What cannot be read at first is
/// a refusal; what cannot be read later breaks the connection, so that half a list is not taken for a whole one.
pub(super) async fn streamed<T, F>(
    names: Vec<u8>,
    page: impl Fn(Option<T>) -> F + Send + 'static,
) -> Result<Response, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<(Vec<u8>, Option<T>), StoreError>> + Send + 'static,
{
    let (first, last) = page(None).await.map_err(|reason| Problem::unavailable(&reason))?;
    let begun = Some(([names, first].concat(), last));
    let pages = stream::try_unfold((page, begun, None), async |(page, begun, after)| {
        let (text, last) = match (begun, after) {
            (Some(begun), _) => begun,
            (None, None) => return Ok::<_, std::io::Error>(None),
            (None, after) => page(after).await.map_err(|reason| {
                tracing::warn!(event = "list.cut_short", %reason, "a list could not be read to its end");
                std::io::Error::other(reason.to_string())
            })?,
        };
        Ok(Some((text, (page, None, last))))
    });
    let kind = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
    Ok((kind, Body::from_stream(pages)).into_response())
}
