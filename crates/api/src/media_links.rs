//! `/media/{id}`: serves the media links on a listener of its own, which may be public. A valid link gives access to its
//! medium until it expires; every other path is not found. A link to a medium of an inbound message gets a problem while its
//! bytes are not there.

use std::io;

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::TryStreamExt;
use object_store::GetRange;

use crate::{app::App, problem::Problem};
use twilio_edge_domain::{
    media::disposition::{CONTENT_SECURITY_POLICY, disposition},
    refusal::RefusalCode,
};
use twilio_edge_platform::listener::admission::{CallerKind, Connection};
use twilio_edge_services::outbound::media::library::{Library, LibraryError, LinkTarget};

pub(super) fn router(app: &App) -> Router {
    Router::new()
        .route("/media/{id}", any(fetch))
        .fallback(async || StatusCode::NOT_FOUND)
        .with_state(app.clone())
}

async fn fetch(
    State(library): State<Option<Library>>,
    method: Method,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    connection: Option<Extension<Connection>>,
    headers: HeaderMap,
) -> Response {
    let not_found = || StatusCode::NOT_FOUND.into_response();
    let is_head = method == Method::HEAD;
    if !is_head && method != Method::GET {
        return not_found();
    }
    let Some(library) = library else { return not_found() };
    let Some(slot) = library.download_permit() else { return later() };
    let header = headers.get(header::RANGE).filter(|_| !is_head);
    let range = header.and_then(|range| range.to_str().ok()).and_then(part);
    let query = query.unwrap_or_default();
    let (medium, got) = match library.open_link(&id, &query, range.clone(), is_head).await {
        Ok(LinkTarget::Bytes(target)) => *target,
        Ok(LinkTarget::NotFound) => return not_found(),
        Ok(LinkTarget::Pending) => return Problem::media_pending().into_response(),
        Ok(LinkTarget::Refused(why)) => return Problem::media_refused(why).into_response(),
        Ok(LinkTarget::Gone) => return Problem::of(RefusalCode::MediaGone).into_response(),
        // The store also reports an error for a range outside the medium. A request for the whole medium shows which error
        // it is.
        Err(LibraryError::Bucket(_)) if range.is_some() => {
            match library.open_link(&id, &query, None, true).await {
                Ok(LinkTarget::Bytes(target)) => {
                    let size = format!("bytes */{}", target.1.meta.size);
                    return (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, size)])
                        .into_response();
                }
                _ => return failed("a part of an object"),
            }
        }
        Err(LibraryError::Bucket(reason)) => return failed(&reason),
        Err(LibraryError::Store(reason)) => return failed(&reason.to_string()),
        Err(LibraryError::MediaProblem(_)) => return not_found(),
    };
    if let Some(Extension(connection)) = connection {
        connection.prove(CallerKind::Known);
    }
    let (size, sent) = (got.meta.size, got.range.clone());
    let length = if is_head { size } else { sent.end.saturating_sub(sent.start) };
    let disposition = disposition(&medium.id, &medium.content_type);
    let fixed = [
        (header::CONTENT_TYPE, medium.content_type),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, "private, no-store".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY.to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    if is_head {
        return (fixed, Body::empty()).into_response();
    }
    // Holds the slot until the last byte is sent or the client disconnects.
    let bytes = got.into_stream().map_err(io::Error::other).inspect_ok(move |_| _ = &slot);
    let body = Body::from_stream(bytes);
    match range {
        Some(_) => {
            let last = sent.end.saturating_sub(1);
            let part = format!("bytes {}-{last}/{size}", sent.start);
            (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, part)], fixed, body)
                .into_response()
        }
        None => (fixed, body).into_response(),
    }
}

fn failed(reason: &str) -> Response {
    tracing::warn!(
        event = "media.bucket_failed",
        reason,
        "the bucket of media.store failed an operation"
    );
    later()
}

fn later() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response()
}

/// Parses a single byte range. Several ranges, or an invalid header, mean the whole medium.
fn part(header: &str) -> Option<GetRange> {
    let number = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| is_plain)
    };
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    match (first, last) {
        ("", last) => number(last).map(GetRange::Suffix),
        (first, "") => number(first).map(GetRange::Offset),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| GetRange::Bounded(first..last.saturating_add(1)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_header_with_one_part_is_parsed_and_any_other_means_the_whole() {
        for (header, expected) in [
            ("bytes=0-4", Some(GetRange::Bounded(0..5))),
            ("bytes=7-", Some(GetRange::Offset(7))),
            ("bytes=-3", Some(GetRange::Suffix(3))),
            ("bytes=0-18446744073709551615", Some(GetRange::Bounded(0..u64::MAX))),
            ("bytes=4-0", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-4", None),
            ("", None),
        ] {
            assert_eq!(part(header), expected, "{header}");
        }
    }
}
