//! What the endpoints with Twilio's paths share: headers, forms and answers.

use axum::{
    http::{HeaderMap, HeaderName, StatusCode},
    response::Response,
};
use serde_json::Value;

use crate::{body::json, problem::Problem};
use twilio_edge_domain::policy::Category;

/// Twilio's header for an idempotency key; some Twilio clients send it.
pub(super) const TWILIO_KEY: HeaderName = HeaderName::from_static("i-twilio-idempotency-token");
/// Our header for an idempotency key.
pub(super) const OUR_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Header with the category of a message, which Twilio's API does not have.
const CATEGORY: HeaderName = HeaderName::from_static("twilio-edge-category");

/// Returns a JSON answer with this status.
pub(super) fn with_status(status: StatusCode, body: &Value) -> Response {
    let mut response = json(body);
    *response.status_mut() = status;
    response
}

/// Reads the category of a message.
pub(super) fn category(headers: &HeaderMap) -> Result<Option<Category>, Problem> {
    let Some(name) = headers.get(CATEGORY) else { return Ok(None) };
    let found = Category::ALL.into_iter().find(|category| name == category.as_str());
    let names = Category::ALL.map(Category::as_str).join(", ");
    let problem = || Problem::malformed(&format!("{CATEGORY}: must be one of {names}"));
    found.map(Some).ok_or_else(problem)
}

/// Returns the parameters of a form.
pub(super) fn pairs(form: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(form).into_owned().collect()
}
