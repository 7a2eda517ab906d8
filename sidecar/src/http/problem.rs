//! Refusals: `application/problem+json` (RFC 9457) with a `code` that never changes its meaning, and in `actor` who must
//! act: the `caller` (the filter and whoever configures it) or the `operator` of this sidecar. The only list of them.

use std::time::Duration;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use twilio_edge_contract::{MAX_BATCH, PROTOCOL_VERSION};

const CALLER: &str = "caller";
const OPERATOR: &str = "operator";

/// One refusal.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: String,
    actor: &'static str,
}

impl Problem {
    fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        actor: &'static str,
        detail: String,
    ) -> Problem {
        let kind = format!("urn:twilio-edge:problem:{code}");
        Problem { kind, title, status: status.as_u16(), code, detail, actor }
    }

    pub(super) fn unauthorized() -> Problem {
        let detail = "The filter's sidecar.token must be the TWILIO_EDGE_TOKEN of this sidecar, sent as `Authorization: Bearer ..`.";
        let title = "The bearer token is missing or not ours";
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", title, CALLER, detail.into())
    }

    pub(super) fn not_found() -> Problem {
        let detail = "There is /edge/v1/claims, /edge/v1/settlements, /edge/v1/config, /healthz, /readyz and /metrics.";
        Problem::new(StatusCode::NOT_FOUND, "not_found", "No such path", CALLER, detail.into())
    }

    pub(super) fn no_accounts_file() -> Problem {
        let detail = "Set accounts.file (TWILIO_EDGE_ACCOUNTS_FILE) of this sidecar, or give the filter the keys in its own configuration.";
        let title = "This sidecar has no keys to hand out";
        Problem::new(StatusCode::NOT_FOUND, "no_accounts_file", title, OPERATOR, detail.into())
    }

    pub(super) fn method_not_allowed() -> Problem {
        let detail = "Claims and settlements take POST, everything else takes GET.";
        let title = "No such method on this path";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Problem::new(status, "method_not_allowed", title, CALLER, detail.into())
    }

    pub(super) fn unreadable(problem: &str) -> Problem {
        let title = "The request cannot be read; nothing was done";
        Problem::new(StatusCode::BAD_REQUEST, "unreadable", title, CALLER, problem.into())
    }

    pub(super) fn unknown_version(version: u64) -> Problem {
        let detail = format!(
            "The request has v {version}, this sidecar speaks v {PROTOCOL_VERSION}: deploy a filter and a sidecar of the same release."
        );
        let title = "Another version of the protocol";
        Problem::new(StatusCode::BAD_REQUEST, "unknown_version", title, CALLER, detail)
    }

    pub(super) fn batch_too_large(size: usize) -> Problem {
        let detail = format!("The batch has {size} entries; split it to {MAX_BATCH} at most.");
        let title = "Too many entries; nothing was done";
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large", title, CALLER, detail)
    }

    pub(super) fn body_too_large() -> Problem {
        let detail = "Send smaller batches, or raise http.max_body_bytes.".to_owned();
        let title = "The request is too large; nothing was done";
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", title, CALLER, detail)
    }

    pub(super) fn too_slow(limit: Duration) -> Problem {
        let detail = format!(
            "It took longer than http.request_timeout_ms ({limit:?}); sending it again is safe."
        );
        let title = "The request was not finished in time";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", title, OPERATOR, detail)
    }

    pub(super) fn internal(problem: &str) -> Problem {
        tracing::error!(problem, "a reply could not be written");
        let title = "A defect of the sidecar";
        let detail = "The log has the rest.".into();
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, OPERATOR, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
