//! CSV imports and exports over HTTP. An import is accepted whole, or with `partial` without its bad lines. An export is
//! streamed one database page at a time.

use std::{collections::BTreeSet, future::Future};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{addresses, kinds, problem::Problem};
use crate::body::json;
use twilio_edge_domain::{
    address::Address,
    csv_import::{CsvList, ImportContext, ImportReport, InvalidLine},
};
use twilio_edge_services::access::{api_keys::Caller, permissions::Permissions};
use twilio_edge_store::StoreError;

/// Rows per database page.
pub(super) const PAGE: i64 = 500;

/// Parameters of a CSV import.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Import {
    /// Account SID. It is required even if the key is bound to an account.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    pub(super) account_sid: String,
    /// Country of numbers that have no country code: two letters, such as `DE`.
    #[param(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    /// True: import the good lines and skip the bad ones. False, the default: one bad line refuses the whole list.
    pub(super) partial: Option<bool>,
}

impl Import {
    /// Returns the values that are the same for every line of the list.
    pub(super) fn about(
        &self,
        account_sid: &str,
        by: &Caller,
        now_ms: i64,
    ) -> Result<ImportContext, Problem> {
        Ok(ImportContext {
            account_sid: account_sid.to_owned(),
            region: addresses::region(self.region.clone())?,
            channel: None,
            known: BTreeSet::new(),
            by: by.actor.clone(),
            now_ms,
        })
    }
}

/// Result of a CSV import.
#[derive(Serialize, ToSchema)]
pub(super) struct Imported {
    /// Number of good lines.
    lines: usize,
    /// Number of lines that added something new.
    added: usize,
    /// Skipped lines, at most the first 100.
    bad: Vec<InvalidLine>,
    /// Number of skipped lines.
    bad_lines: usize,
}

/// Returns the list, if it may be imported, and the result of its check. The check of a long list takes a while, so it
/// runs on a blocking thread and does not delay claims.
pub(super) async fn checked<T: 'static>(
    permissions: &Permissions,
    account_sid: &str,
    list: Result<CsvList<Bytes, T>, String>,
    partial: Option<bool>,
) -> Result<(CsvList<Bytes, T>, ImportReport), Problem> {
    let list = list.map_err(|problem| Problem::with(kinds::BAD_LINES, problem))?;
    let (mut list, mut checked, unread) = read(list).await?;
    if !unread.is_empty() {
        let known = permissions.known_addresses(account_sid, unread).await;
        let known = known.map_err(|reason| Problem::unavailable(&reason))?;
        if !known.is_empty() {
            (list, checked, _) = read(list.with_known(known)).await?;
        }
    }
    match checked.error_summary() {
        Some(complaint) if partial != Some(true) => Err(Problem::with(kinds::BAD_LINES, complaint)),
        _ => Ok((list, checked)),
    }
}

/// Reads a list to its end. Returns its errors, and the addresses that have to be looked up in the database.
async fn read<T: 'static>(
    list: CsvList<Bytes, T>,
) -> Result<(CsvList<Bytes, T>, ImportReport, BTreeSet<Address>), Problem> {
    let reading = tokio::task::spawn_blocking(move || {
        let checked = list.check();
        let unread = match checked.invalid_lines {
            0 => BTreeSet::new(),
            _ => list.unparsed_addresses(),
        };
        (list, checked, unread)
    });
    // The text of the error would contain the message of the panic, and with it perhaps a line of the list.
    reading.await.map_err(|_| Problem::internal("the check of the list panicked"))
}

/// Renders the result of an import.
pub(super) fn report(
    checked: ImportReport,
    added: Result<usize, StoreError>,
) -> Result<Response, Problem> {
    let added = added.map_err(|reason| Problem::unavailable(&reason))?;
    let ImportReport { valid: lines, invalid: bad, invalid_lines: bad_lines } = checked;
    Ok(json(&Imported { lines, added, bad, bad_lines }))
}

/// Streams a CSV export: calls `page` with the last row of the previous page until there are no more rows. An error of
/// the first page is a refusal. An error of a later page breaks the connection, so that no client takes half a list for a
/// whole one.
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
                tracing::warn!(event = "list.cut_short", %reason, "the sidecar could not read a list to its end; the export is incomplete");
                std::io::Error::other(reason.to_string())
            })?,
        };
        Ok(Some((text, (page, None, last))))
    });
    let kind = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
    Ok((kind, Body::from_stream(pages)).into_response())
}
