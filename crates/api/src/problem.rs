//! Refusals over HTTP: `application/problem+json` (RFC 9457), with a kind ([`super::kinds`]) and a detail for the
//! request, and their part of the OpenAPI document. Other modules decide when a refusal applies.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use twilio_edge_contract::{MAX_BATCH, PROTOCOL_VERSION};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ComponentsBuilder, Content, Ref, RefOr, ResponseBuilder},
};

use super::kinds::{self, Actor, Code, Kind};
use twilio_edge_domain::{api_key::Scope, template::catalogue::OfferedTemplate};
use twilio_edge_services::access::api_keys::Refusal;
use twilio_edge_store::StoreError;

/// A refusal. `code` never changes its meaning; `actor` is the one who must act.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: Box<str>,
    /// Summary of the refusal, the same for every request.
    title: &'static str,
    /// HTTP status of the answer.
    status: u16,
    #[schema(value_type = Code, inline)]
    code: &'static str,
    /// Explanation for this request, or the remedy.
    detail: String,
    #[schema(value_type = Actor, inline)]
    actor: &'static str,
    /// Templates that may be sent instead, if the conversation window is closed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(inline)]
    templates: Vec<OfferedTemplate>,
    /// Seconds after which a retry makes sense.
    #[serde(skip)]
    retry_after: Option<u32>,
    /// Reason for the log, which the caller does not see.
    #[serde(skip)]
    reason: Option<Box<str>>,
}

/// Code and reason of a refusal that was sent, left in the response for the request log.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) reason: Option<Box<str>>,
}

impl Problem {
    /// Creates a refusal with the general remedy of its kind as the detail.
    pub(super) fn of(kind: Kind) -> Problem {
        Problem::with(kind, kind.remedy)
    }

    /// Creates a refusal with a detail for this request.
    pub(super) fn with(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:twilio-edge:problem:{}", kind.code).into(),
            title: kind.title,
            status: kind.status.as_u16(),
            code: kind.code,
            detail: detail.into(),
            actor: kind.actor,
            templates: Vec::new(),
            retry_after: None,
            reason: None,
        }
    }

    /// Adds the templates that may be sent instead.
    pub(super) fn offering(self, templates: Vec<OfferedTemplate>) -> Problem {
        Problem { templates, ..self }
    }

    /// Sets the wait in seconds, rounded up, so that a retry after it is admitted.
    fn after(self, wait: Duration) -> Problem {
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        Problem { retry_after: Some(seconds), ..self }
    }

    /// Converts a refusal of a use case; `needed` is the scope that the operation needs.
    pub(super) fn refused(refusal: Refusal, needed: Scope) -> Problem {
        match refusal {
            Refusal::Unknown => Problem::unauthorized(needed),
            Refusal::Scope { has, needed } => {
                let detail = format!("It has scope {has}, and this takes {needed}.");
                Problem::with(kinds::WRONG_SCOPE, detail)
            }
            Refusal::BootstrapOver => Problem::of(kinds::BOOTSTRAP_OVER),
            Refusal::Grant(scope) => {
                let detail = format!(
                    "A key of scope {scope} reads what this key does not. On a machine that reaches the database: `twilio-edge keys create --scope {scope} --name ..`."
                );
                Problem::with(kinds::SCOPE_NOT_GRANTABLE, detail)
            }
            Refusal::OtherAccount => Problem::other_account(),
            Refusal::OwnKey => Problem::of(kinds::CANNOT_REVOKE_OWN_KEY),
            Refusal::NoSuchKey => Problem::of(kinds::NO_SUCH_KEY),
            Refusal::Invalid(problem) => Problem::unreadable(&problem),
            Refusal::Store(reason) => Problem::unavailable(&reason),
        }
    }

    fn unauthorized(needed: Scope) -> Problem {
        let detail = match needed {
            Scope::Edge => "The filter's sidecar.token must be the TWILIO_EDGE_TOKEN of this sidecar, or an API key of scope edge, sent as `Authorization: Bearer ..`.".to_owned(),
            Scope::App | Scope::Admin => format!(
                "Send an API key of scope {needed} as `Authorization: Bearer ..`; `twilio-edge keys create --scope {needed} --name ..` makes one. A revoked key is none."
            ),
        };
        Problem::with(kinds::UNAUTHORIZED, detail)
    }

    pub(super) fn other_account() -> Problem {
        Problem::of(kinds::OTHER_ACCOUNT)
    }

    /// Changes the code of an impossible recipient: it has a code of its own, because only the contact's record can be
    /// corrected.
    pub(super) fn about_recipient(self) -> Problem {
        match self.code == kinds::INVALID_FIELD.code {
            true => Problem::with(kinds::INVALID_RECIPIENT, self.detail),
            false => self,
        }
    }

    pub(super) fn unavailable(reason: &StoreError) -> Problem {
        let problem = Problem::of(kinds::UNAVAILABLE).after(Duration::ZERO);
        Problem { reason: Some(reason.to_string().into()), ..problem }
    }

    pub(super) fn still_running() -> Problem {
        Problem::of(kinds::REQUEST_IN_PROGRESS).after(Duration::ZERO)
    }

    pub(super) fn too_many(wait: Duration) -> Problem {
        Problem::of(kinds::RATE_LIMITED).after(wait)
    }

    pub(super) fn too_many_bad_tokens(wait: Duration) -> Problem {
        Problem::of(kinds::TOO_MANY_BAD_TOKENS).after(wait)
    }

    pub(super) fn not_found(paths: &str) -> Problem {
        Problem::with(kinds::NOT_FOUND, format!("There is {paths}."))
    }

    pub(super) fn unreadable(problem: &str) -> Problem {
        Problem::with(kinds::MALFORMED_REQUEST, problem)
    }

    pub(super) fn unknown_version(version: f64) -> Problem {
        let detail = format!(
            "The request has v {version}, this sidecar speaks v {PROTOCOL_VERSION}: deploy a filter and a sidecar of the same release."
        );
        Problem::with(kinds::UNKNOWN_VERSION, detail)
    }

    pub(super) fn batch_too_large(size: usize) -> Problem {
        let detail = format!("The batch has {size} entries; split it to {MAX_BATCH} at most.");
        Problem::with(kinds::BATCH_TOO_LARGE, detail)
    }

    pub(super) fn too_slow(limit: Duration) -> Problem {
        let detail = format!(
            "It took longer than http.request_timeout_ms ({limit:?}); sending it again is safe."
        );
        Problem::with(kinds::TIMEOUT, detail)
    }

    pub(super) fn internal(problem: &str) -> Problem {
        Problem { reason: Some(problem.into()), ..Problem::of(kinds::INTERNAL) }
    }
}

/// Error responses of every operation: `responses(.., Problem)`. Both are described once ([`Problem::components`]) and
/// referred to.
impl IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let refer = |(range, name, _): &(&str, &str, _)| {
            ((*range).to_owned(), RefOr::Ref(Ref::from_response_name(*name)))
        };
        RANGES.iter().map(refer).collect()
    }
}

const RANGES: [(&str, &str, &str); 2] = [
    ("4XX", "Refused", "Refused; nothing was done"),
    ("5XX", "Unanswered", "Not answered; sending it again is safe"),
];

impl Problem {
    /// Adds the components to which [`IntoResponses`] refers.
    pub(super) fn components(components: ComponentsBuilder) -> ComponentsBuilder {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let described = components.schema_from::<Problem>();
        RANGES.iter().fold(described, |components, (_, name, description)| {
            let response = ResponseBuilder::new()
                .description(*description)
                .content("application/problem+json", content.clone())
                .build();
            components.response(*name, response)
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body).into_response();
        response.extensions_mut().insert(Refused { code: self.code, reason: self.reason });
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
