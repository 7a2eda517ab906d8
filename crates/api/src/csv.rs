//! CSV imports and exports over HTTP. An import is accepted whole, or with `partial` without its invalid lines. An export is
//! streamed one database page at a time.

use std::{collections::BTreeSet, io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, future, stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{addresses, problem::Problem, query};
use crate::body::json;
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{
    address::Address,
    csv_import::{CsvList, ImportContext, ImportReport, InvalidLine},
};
use twilio_edge_services::access::{
    api_keys::Caller,
    contact_records::{ContactRecords, CsvPage},
    permissions::Permissions,
};

/// Rows per database page.
const PAGE: i64 = 500;

/// Parameters of a CSV import.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportQuery {
    /// Account SID. It is required even if the key is bound to an account.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: String,
    /// Country of numbers that have no country code: two letters, such as `DE`.
    #[param(pattern = "^[A-Za-z]{2}$")]
    region: Option<String>,
    /// True: import the valid lines and skip the others. False, the default: one invalid line refuses the whole list.
    partial: Option<bool>,
}

impl ImportQuery {
    /// Returns the values that are the same for every line of the list.
    fn about(&self, account_sid: &str, by: &Caller, now_ms: i64) -> Result<ImportContext, Problem> {
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
pub(super) struct ImportResponse {
    /// Number of valid lines.
    lines: usize,
    /// Number of lines that added something new.
    added: usize,
    /// Skipped lines, at most the first 100.
    invalid: Vec<InvalidLine>,
    /// Number of skipped lines.
    invalid_lines: usize,
}

/// Imports the list of a request body.
pub(super) async fn import<R: ContactRecords>(
    permissions: &Permissions,
    caller: &Caller,
    import: ImportQuery,
    body: Bytes,
    now_ms: i64,
) -> Result<Response, Problem> {
    let account_sid = query::account(caller, Some(import.account_sid.clone()))?;
    let list = R::parse(body, import.about(&account_sid, caller, now_ms)?);
    let (list, checked) = checked(permissions, &account_sid, list, import.partial).await?;
    let added = R::import(permissions, caller, &account_sid, list.valid_rows(), now_ms).await;
    let added = added.map_err(|reason| Problem::unavailable(&reason))?;
    let ImportReport { valid: lines, invalid, invalid_lines } = checked;
    Ok(json(&ImportResponse { lines, added, invalid, invalid_lines }))
}

/// Returns the list, if it may be imported, and the result of its check. The check of a long list takes a while, so it
/// runs on a blocking thread and does not delay claims.
async fn checked<T: 'static>(
    permissions: &Permissions,
    account_sid: &str,
    list: Result<CsvList<Bytes, T>, String>,
    partial: Option<bool>,
) -> Result<(CsvList<Bytes, T>, ImportReport), Problem> {
    let list = list.map_err(|problem| Problem::with(RefusalCode::InvalidLines, problem))?;
    let (mut list, mut checked, unread) = read(list).await?;
    if !unread.is_empty() {
        let known = permissions.known_addresses(account_sid, unread).await;
        let known = known.map_err(|reason| Problem::unavailable(&reason))?;
        if !known.is_empty() {
            (list, checked, _) = read(list.with_known(known)).await?;
        }
    }
    match checked.error_summary() {
        Some(complaint) if partial != Some(true) => {
            Err(Problem::with(RefusalCode::InvalidLines, complaint))
        }
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

/// Streams a list as CSV, one database page at a time. An error of the first page is a refusal. An error of a later page
/// breaks the connection, so that no client takes half a list for a whole one.
pub(super) async fn export<R: ContactRecords>(
    permissions: Arc<Permissions>,
    account_sid: String,
) -> Result<Response, Problem> {
    let first = R::export(&permissions, &account_sid, None, PAGE).await;
    let CsvPage { text, last } = first.map_err(|reason| Problem::unavailable(&reason))?;
    let first_page = [R::header(), text].concat();
    let rest = stream::try_unfold(last, move |last| {
        let (permissions, account_sid) = (permissions.clone(), account_sid.clone());
        async move {
            let Some(last) = last else { return Ok::<_, io::Error>(None) };
            let page = R::export(&permissions, &account_sid, Some(&last), PAGE).await;
            let CsvPage { text, last } = page.map_err(|reason| {
                tracing::warn!(event = "export.aborted", %reason, "the sidecar could not read a list to its end; the export is incomplete");
                io::Error::other(reason.to_string())
            })?;
            Ok(Some((Bytes::from(text), last)))
        }
    });
    let pages = stream::once(future::ready(Ok(Bytes::from(first_page)))).chain(rest);
    let kind = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
    Ok((kind, Body::from_stream(pages)).into_response())
}
