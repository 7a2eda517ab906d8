//! Lists as CSV, over HTTP: one that comes is taken whole or, where that is asked for, without its bad lines; one that goes
//! is streamed, a page of the database at a time.

use std::future::Future;

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{json, kinds, problem::Problem, suppressions::Imported};
use crate::{lists::List, store::StoreError};

/// Rows read at a time.
pub(super) const PAGE: i64 = 500;

/// Bad lines that are told one by one.
const TOLD: usize = 100;

/// Whose list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Export {
    /// Whose: that of the key, if it is bound to one; else this has to be said.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: Option<String>,
}

/// The list, if it may be taken.
pub(super) fn accepted<T>(
    list: Result<List<T>, String>,
    partial: Option<bool>,
) -> Result<List<T>, Problem> {
    let list = list.map_err(|problem| Problem::with(kinds::BAD_LINES, problem))?;
    match list.complaint() {
        Some(complaint) if partial != Some(true) => Err(Problem::with(kinds::BAD_LINES, complaint)),
        _ => Ok(list),
    }
}

/// What became of it.
pub(super) fn report<T>(list: List<T>, added: usize) -> Response {
    let bad_lines = list.bad.len();
    let bad = list.bad.into_iter().take(TOLD).collect();
    json(&Imported { lines: list.good.len(), added, bad, bad_lines })
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
                tracing::warn!(%reason, "a list could not be read to its end");
                std::io::Error::other(reason.to_string())
            })?,
        };
        Ok(Some((text, (page, None, last))))
    });
    let kind = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
    Ok((kind, Body::from_stream(pages)).into_response())
}
