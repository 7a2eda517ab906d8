//! Refusals: `application/problem+json` (RFC 9457) with a `code` that never changes its meaning, and in `actor` who must
//! act: the `caller` (the filter and whoever configures it) or the `operator` of this sidecar. The only list of them.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use twilio_edge_contract::{MAX_BATCH, PROTOCOL_VERSION};
use utoipa::ToSchema;

use crate::{domain::api_key::Scope, keys::Refusal};

const CALLER: &str = "caller";
const OPERATOR: &str = "operator";

/// A refusal: `code` never changes its meaning, `actor` must act (`caller` or `operator`).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: String,
    actor: &'static str,
    /// In seconds: when it is worth asking again.
    #[serde(skip)]
    retry_after: Option<u64>,
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
        Problem { kind, title, status: status.as_u16(), code, detail, actor, retry_after: None }
    }

    /// Why it was not done, on behalf of whom asked for what takes `needed`.
    pub(super) fn refused(refusal: Refusal, needed: Scope) -> Problem {
        match refusal {
            Refusal::Unknown => Problem::unauthorized(needed),
            Refusal::Scope { has, needed } => Problem::wrong_scope(has, needed),
            Refusal::BootstrapOver => {
                let detail = "TWILIO_EDGE_TOKEN makes the first admin key only, and there is one: use an admin key, or make one with `twilio-edge keys create --scope admin`.";
                let title = "The edge token is not for administration any more";
                let status = StatusCode::FORBIDDEN;
                Problem::new(status, "bootstrap_over", title, CALLER, detail.into())
            }
            Refusal::OtherAccount => Problem::other_account(),
            Refusal::NoSuchKey => {
                let detail = "GET /v1/keys lists those this key may see.".into();
                let title = "There is no such key";
                Problem::new(StatusCode::NOT_FOUND, "no_such_key", title, CALLER, detail)
            }
            Refusal::Invalid(problem) => Problem::unreadable(&problem),
            Refusal::Store(reason) => {
                tracing::warn!(%reason, "an API request could not be answered");
                let detail = "The database does not answer; sending it again is safe.".into();
                let title = "The request cannot be answered now";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let problem = Problem::new(status, "unavailable", title, OPERATOR, detail);
                Problem { retry_after: Some(1), ..problem }
            }
        }
    }

    fn unauthorized(needed: Scope) -> Problem {
        let detail = match needed {
            Scope::Edge => "The filter's sidecar.token must be the TWILIO_EDGE_TOKEN of this sidecar, or an API key of scope edge, sent as `Authorization: Bearer ..`.".to_owned(),
            Scope::App | Scope::Admin => format!(
                "Send an API key of scope {needed} as `Authorization: Bearer ..`; `twilio-edge keys create --scope {needed} --name ..` makes one. A revoked key is none."
            ),
        };
        let title = "The bearer token is missing or not ours";
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", title, CALLER, detail)
    }

    fn wrong_scope(has: Scope, needed: Scope) -> Problem {
        let detail = format!("It has scope {has}, and this takes {needed}.");
        let title = "The key does not permit this";
        Problem::new(StatusCode::FORBIDDEN, "wrong_scope", title, CALLER, detail)
    }

    pub(super) fn other_account() -> Problem {
        let detail = "The key is bound to one account; use a key of the other account, or one that is bound to none.".into();
        let title = "That account is not this key's; nothing was done";
        Problem::new(StatusCode::FORBIDDEN, "other_account", title, CALLER, detail)
    }

    pub(super) fn too_many(wait: Duration) -> Problem {
        // Rounded up: who comes back then is answered.
        let seconds = wait.as_secs().saturating_add(1);
        let detail = format!(
            "Ask again in {seconds} s, and less often; the operator may raise api.requests_per_second and api.burst."
        );
        let title = "This key has asked too often";
        let problem =
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", title, CALLER, detail);
        Problem { retry_after: Some(seconds), ..problem }
    }

    pub(super) fn not_found(what_there_is: &str) -> Problem {
        let detail = format!("There is {what_there_is}.");
        Problem::new(StatusCode::NOT_FOUND, "not_found", "No such path", CALLER, detail)
    }

    pub(super) fn no_accounts_file() -> Problem {
        let detail = "Set accounts.file (TWILIO_EDGE_ACCOUNTS_FILE) of this sidecar, or give the filter the keys in its own configuration.";
        let title = "This sidecar has no keys to hand out";
        Problem::new(StatusCode::NOT_FOUND, "no_accounts_file", title, OPERATOR, detail.into())
    }

    pub(super) fn method_not_allowed() -> Problem {
        let detail = "The Allow header has those there are.";
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
        let detail = "Send less at a time, or raise http.max_body_bytes (for the filter) or api.max_body_bytes (for all others).".to_owned();
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
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
