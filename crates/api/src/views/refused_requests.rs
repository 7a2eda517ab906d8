//! Views of refused requests, for the API and the command line.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use twilio_edge_domain::{
    refused_request::{Cause, RefusalKind, singular, summary},
    window::rfc3339,
};
use twilio_edge_store::{RefusedGroup, StoredRefusedRequest};

/// Refused requests of one cause.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefusalGroup {
    /// Id of the group, `rg_` and 32 hexadecimal digits.
    pub id: String,
    /// Account whose key signed the requests; `null` if that is not proven.
    pub account_sid: Option<String>,
    /// `misconfiguration`: genuine webhooks may be lost. `stranger`: Twilio did not sign them. `unexamined`: unknown.
    #[schema(inline)]
    pub kind: RefusalKind,
    /// Cause of the refusals.
    #[schema(inline)]
    pub cause: Cause,
    /// Path of the route in the filter's configuration.
    pub route: String,
    /// Reason of the filter, as in `twilio_edge_rejected`.
    pub reason: String,
    /// Sentence with the number of requests, the time of the first one, and the finding.
    pub summary: String,
    /// The one change that would make the requests pass.
    pub remedy: String,
    /// Number of requests that filters reported.
    pub requests: i64,
    /// Number of similar requests that filters counted without a report.
    pub skipped: i64,
    /// Time of the first request, in RFC 3339.
    pub first_at: Option<String>,
    /// Time of the latest request, in RFC 3339.
    pub last_at: Option<String>,
}

impl RefusalGroup {
    /// Renders a group.
    pub fn of(group: RefusedGroup) -> RefusalGroup {
        RefusalGroup {
            kind: group.cause.kind(),
            cause: group.cause,
            summary: summary(group.requests, group.first_at_ms, &group.finding),
            account_sid: some(group.account_sid),
            id: group.id,
            route: group.route,
            reason: group.reason,
            remedy: group.remedy,
            requests: group.requests,
            skipped: group.skipped,
            first_at: rfc3339(group.first_at_ms),
            last_at: rfc3339(group.last_at_ms),
        }
    }
}

/// One refused request. It contains no value of a parameter.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefusedRequestSummary {
    /// Id of the request, `rr_` and 32 hexadecimal digits.
    pub id: String,
    /// Id of its group.
    pub group_id: String,
    /// Time of the refusal, in RFC 3339.
    pub at: Option<String>,
    /// Account whose key signed the request; `null` if that is not proven.
    pub account_sid: Option<String>,
    /// SID of the message; `null` if the signature is not proven.
    pub message_sid: Option<String>,
    /// Kind of the request.
    #[schema(inline)]
    pub kind: RefusalKind,
    /// Cause of the refusal.
    #[schema(inline)]
    pub cause: Cause,
    /// Reason of the filter.
    pub reason: String,
    /// Path of the route in the filter's configuration.
    pub route: String,
    /// True if the route is in shadow mode: the request was forwarded all the same.
    pub is_shadow: bool,
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Host that the client asked for; `null` if unknown.
    pub authority: Option<String>,
    /// `x-request-id` of the request; `null` without one.
    pub request_id: Option<String>,
}

impl RefusedRequestSummary {
    /// Renders a request.
    pub fn of(request: StoredRefusedRequest) -> RefusedRequestSummary {
        RefusedRequestSummary {
            id: request.id,
            group_id: request.group_id,
            at: rfc3339(request.at_ms),
            account_sid: some(request.account_sid),
            message_sid: some(request.message_sid),
            kind: request.cause.kind(),
            cause: request.cause,
            reason: request.reason,
            route: request.route,
            is_shadow: request.is_shadow != 0,
            method: request.method,
            path: request.path,
            authority: some(request.authority),
            request_id: some(request.request_id),
        }
    }
}

/// One refused request with its explanation.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedRequest {
    #[serde(flatten)]
    summary: RefusedRequestSummary,
    /// Finding of the diagnosis, as the predicate of a sentence about the request: `was signed for https://old.example.com`.
    pub finding: String,
    /// The one change that would make the request pass.
    pub remedy: String,
    /// Names of the parameters, in their order.
    pub parameters: Vec<String>,
    /// Length of the body in bytes.
    pub body_bytes: i64,
    /// Report of the diagnosis, as `twilio-edge explain --json` prints it, without values of parameters; `null` if the
    /// request was not examined.
    #[schema(value_type = Option<Object>)]
    pub explanation: Option<Value>,
}

impl ExplainedRequest {
    /// Renders a request with its explanation.
    pub fn of(request: StoredRefusedRequest) -> ExplainedRequest {
        ExplainedRequest {
            finding: singular(&request.finding),
            remedy: request.remedy.clone(),
            parameters: serde_json::from_str(&request.parameters).unwrap_or_default(),
            body_bytes: request.body_bytes,
            explanation: serde_json::from_str(&request.explanation).ok(),
            summary: RefusedRequestSummary::of(request),
        }
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
