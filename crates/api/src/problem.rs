//! Refusals over HTTP: `application/problem+json` (RFC 9457), with a code ([`RefusalCode`]) and a detail for the
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

use twilio_edge_domain::{
    actor::Actor,
    api_key::Scope,
    media::inbound::FetchFailure,
    refusal::{Refusal, RefusalCode},
    template::catalogue::OfferedTemplate,
};
use twilio_edge_services::access::api_keys;
use twilio_edge_store::StoreError;

/// Pause before the next request for a live stream that a limit refused.
const STREAM_PAUSE: Duration = Duration::from_secs(5);

/// Pause before the next request for a medium that is not fetched yet.
const MEDIA_PAUSE: Duration = Duration::from_secs(1);

/// A refusal. `code` never changes its meaning; `actor` is the one who must act.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: Box<str>,
    /// Summary of the refusal, the same for every request.
    title: &'static str,
    /// HTTP status of the answer.
    status: u16,
    #[schema(inline)]
    code: RefusalCode,
    /// Explanation for this request, or the remedy.
    detail: String,
    #[schema(inline)]
    actor: Actor,
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
    /// Creates a refusal with the general remedy of its code as the detail.
    pub(super) fn of(code: RefusalCode) -> Problem {
        Problem::with(code, code.row().remedy)
    }

    /// Creates a refusal with a detail for this request.
    pub(super) fn with(code: RefusalCode, detail: impl Into<String>) -> Problem {
        let Refusal { status, actor, title, .. } = code.row();
        Problem {
            kind: format!("urn:twilio-edge:problem:{}", code.as_str()).into(),
            title,
            status,
            code,
            detail: detail.into(),
            actor,
            templates: Vec::new(),
            retry_after: None,
            reason: None,
        }
    }

    /// Returns whether the sidecar failed, and not the request.
    pub(super) fn is_failure(&self) -> bool {
        self.status >= 500
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
    pub(super) fn refused(refusal: api_keys::AccessError, needed: Scope) -> Problem {
        match refusal {
            api_keys::AccessError::Unknown => Problem::unauthorized(needed),
            api_keys::AccessError::Scope { has, needed } => {
                let detail =
                    format!("The key has scope {has}; the operation needs scope {needed}.");
                Problem::with(RefusalCode::WrongScope, detail)
            }
            api_keys::AccessError::BootstrapOver => Problem::of(RefusalCode::BootstrapOver),
            api_keys::AccessError::Grant(scope) => {
                let detail = format!(
                    "A key of scope {scope} has permissions that this key lacks. Run `twilio-edge keys create --scope {scope} --name ..` on a machine that reaches the database."
                );
                Problem::with(RefusalCode::ScopeNotGrantable, detail)
            }
            api_keys::AccessError::OtherAccount => Problem::other_account(),
            api_keys::AccessError::OwnKey => Problem::of(RefusalCode::CannotRevokeOwnKey),
            api_keys::AccessError::NoSuchKey => Problem::of(RefusalCode::NoSuchKey),
            api_keys::AccessError::Invalid(problem) => Problem::malformed(&problem),
            api_keys::AccessError::Store(reason) => Problem::unavailable(&reason),
        }
    }

    fn unauthorized(needed: Scope) -> Problem {
        let detail = match needed {
            Scope::Edge => "The filter's sidecar.token must be the TWILIO_EDGE_TOKEN of this sidecar, or an API key of scope edge, sent as `Authorization: Bearer ..`.".to_owned(),
            Scope::App | Scope::Admin => format!(
                "Send an API key of scope {needed} as `Authorization: Bearer ..`; `twilio-edge keys create --scope {needed} --name ..` creates one. A revoked key is invalid."
            ),
        };
        Problem::with(RefusalCode::Unauthorized, detail)
    }

    pub(super) fn other_account() -> Problem {
        Problem::of(RefusalCode::OtherAccount)
    }

    /// Changes the code of an impossible recipient: it has a code of its own, because only the contact's record can be
    /// corrected.
    pub(super) fn about_recipient(self) -> Problem {
        match self.code == RefusalCode::InvalidField {
            true => Problem::with(RefusalCode::InvalidRecipient, self.detail),
            false => self,
        }
    }

    pub(super) fn unavailable(reason: &StoreError) -> Problem {
        let problem = Problem::of(RefusalCode::Unavailable).after(Duration::ZERO);
        Problem { reason: Some(reason.to_string().into()), ..problem }
    }

    pub(super) fn request_in_progress() -> Problem {
        Problem::of(RefusalCode::RequestInProgress).after(Duration::ZERO)
    }

    pub(super) fn media_pending() -> Problem {
        Problem::of(RefusalCode::MediaPending).after(MEDIA_PAUSE)
    }

    /// Creates the refusal of a medium that was not fetched.
    pub(super) fn media_refused(failure: FetchFailure) -> Problem {
        let detail = format!("{}. {}", failure.title(), failure.remedy());
        Problem { actor: failure.actor(), ..Problem::with(RefusalCode::MediaRefused, detail) }
    }

    /// Creates the refusal of a rule; `wait` is the time after which a retry makes sense.
    pub(super) fn declined(
        code: RefusalCode,
        detail: impl Into<String>,
        wait: Option<Duration>,
    ) -> Problem {
        let problem = Problem::with(code, detail);
        match wait {
            Some(wait) => problem.after(wait),
            None => problem,
        }
    }

    pub(super) fn verify_unavailable(reason: &str) -> Problem {
        let problem = Problem::of(RefusalCode::VerifyUnavailable).after(Duration::ZERO);
        Problem { reason: Some(reason.into()), ..problem }
    }

    pub(super) fn rate_limited(wait: Duration) -> Problem {
        Problem::of(RefusalCode::RateLimited).after(wait)
    }

    pub(super) fn too_many_streams(detail: &str) -> Problem {
        Problem::with(RefusalCode::TooManyStreams, detail).after(STREAM_PAUSE)
    }

    /// Creates the failure of a request that came while the sidecar stops.
    pub(super) fn stopping() -> Problem {
        Problem::with(RefusalCode::Unavailable, "The sidecar is stopping.").after(Duration::ZERO)
    }

    pub(super) fn too_many_bad_tokens(wait: Duration) -> Problem {
        Problem::of(RefusalCode::TooManyBadTokens).after(wait)
    }

    pub(super) fn not_found(paths: &str) -> Problem {
        Problem::with(RefusalCode::NotFound, format!("The paths are {paths}."))
    }

    pub(super) fn malformed(problem: &str) -> Problem {
        Problem::with(RefusalCode::MalformedRequest, problem)
    }

    pub(super) fn unknown_version(version: f64) -> Problem {
        let detail = format!(
            "The request has v {version}, this sidecar supports v {PROTOCOL_VERSION}: deploy a filter and a sidecar of the same release."
        );
        Problem::with(RefusalCode::UnknownVersion, detail)
    }

    pub(super) fn batch_too_large(size: usize) -> Problem {
        let detail = format!("The batch has {size} entries; split it to {MAX_BATCH} at most.");
        Problem::with(RefusalCode::BatchTooLarge, detail)
    }

    pub(super) fn timeout(limit: Duration) -> Problem {
        let detail = format!(
            "The request took longer than http.request_timeout_ms ({limit:?}). A retry is safe."
        );
        Problem::with(RefusalCode::Timeout, detail)
    }

    pub(super) fn internal(problem: &str) -> Problem {
        Problem { reason: Some(problem.into()), ..Problem::of(RefusalCode::Internal) }
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
    ("4XX", "Refusal", "The request is refused; no change was made"),
    ("5XX", "Failure", "The request failed; a retry is safe"),
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
        response.extensions_mut().insert(Refused { code: self.code.as_str(), reason: self.reason });
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Returns the code of every file of a folder, without its tests.
    fn code_of(folder: &Path) -> String {
        let mut code = String::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                code += &code_of(&path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                code += text.split("#[cfg(test)]").next().unwrap();
            }
        }
        code
    }

    #[test]
    fn each_refusal_code_is_returned_by_a_handler_or_a_rule() {
        let domain = Path::new(env!("CARGO_MANIFEST_DIR")).join("../domain/src");
        let mut code = code_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        for rules in ["check.rs", "sending/rules.rs"] {
            code += &fs::read_to_string(domain.join(rules)).unwrap();
        }
        let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != ':').collect();
        for refusal in RefusalCode::ALL {
            let name = format!("Code::{refusal:?}");
            let is_returned = words.iter().any(|word| word.ends_with(&name));
            assert!(is_returned, "no handler and no rule returns {}", refusal.as_str());
        }
    }
}
