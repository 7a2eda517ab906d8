//! Refusals in Twilio's shape: `{code, message, more_info, status}`, from which Twilio's SDKs make an exception. Refusals
//! of other layers on these paths are translated as well. The reasons for a refusal are not decided here.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::problem::{Problem, Refused},
    codes,
};
use twilio_edge_domain::dropin::DropInError;
use twilio_edge_domain::refusal::RefusalCode;

/// Size limit of a refusal that is translated, in bytes. Every refusal is smaller.
const LARGEST: usize = 64 << 10;

/// Detail of an authentication error for Twilio's clients, which send HTTP basic authentication instead of a bearer
/// token.
const AUTHENTICATE: &str = "Authenticate: the password is an API key of this sidecar, of scope app; the user is the account \
    of the path, or the key's id";

/// Detail for a path that Twilio has and this sidecar does not.
const NOT_SUPPORTED: &str = "the sidecar does not answer this request; call Twilio (https://api.twilio.com) directly for it. \
    docs/DROP-IN.md lists what the sidecar answers";

/// Code in the log for refusals that have none of our codes.
const LOGGED_CODE: RefusalCode = RefusalCode::MalformedRequest;

/// Refusal of a drop-in request.
pub(super) enum DropInRefusal {
    /// A refusal with one of our codes.
    Problem(Problem),
    /// A refusal with a Twilio code, for errors that only Twilio's API defines.
    Twilio(DropInError),
}

impl From<Problem> for DropInRefusal {
    fn from(problem: Problem) -> DropInRefusal {
        DropInRefusal::Problem(problem)
    }
}

impl From<DropInError> for DropInRefusal {
    fn from(error: DropInError) -> DropInRefusal {
        DropInRefusal::Twilio(error)
    }
}

impl IntoResponse for DropInRefusal {
    fn into_response(self) -> Response {
        match self {
            // `translate_refusals` translates it, together with the refusals of the layers above.
            DropInRefusal::Problem(problem) => problem.into_response(),
            DropInRefusal::Twilio(DropInError { code, status, message }) => {
                let mut response = error(status, code, &message, None);
                response
                    .extensions_mut()
                    .insert(Refused { code: LOGGED_CODE.as_str(), reason: None });
                response
            }
        }
    }
}

/// Fields of our refusals that the translation needs.
#[derive(Deserialize)]
struct ProblemBody {
    code: String,
    detail: String,
    actor: String,
}

/// Translates every refusal on Twilio's paths into Twilio's shape.
pub(crate) async fn translate_refusals(request: Request, next: Next) -> Response {
    let is_twilios = codes::is_twilios(request.uri().path());
    let response = next.run(request).await;
    if !is_twilios || !is_problem(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, LARGEST).await.unwrap_or_default();
    let Ok(problem) = serde_json::from_slice::<ProblemBody>(&body) else {
        return Response::from_parts(parts, Body::from(body));
    };
    let code = RefusalCode::find(&problem.code);
    let (twilio_code, status) = codes::of(code, parts.status);
    let message = match parts.status {
        StatusCode::UNAUTHORIZED => AUTHENTICATE.to_owned(),
        _ if matches!(code, Some(RefusalCode::NotFound | RefusalCode::MethodNotAllowed)) => {
            format!("{}: {NOT_SUPPORTED}", problem.code)
        }
        _ => format!("{}: {}", problem.code, problem.detail),
    };
    let details = json!({"code": problem.code, "actor": problem.actor});
    let (error, body) = error(status, twilio_code, &message, Some(details)).into_parts();
    parts.status = error.status;
    parts.headers.extend(error.headers);
    parts.headers.remove(header::CONTENT_LENGTH);
    if parts.status == StatusCode::UNAUTHORIZED {
        let realm = HeaderValue::from_static("Basic realm=\"Twilio API\"");
        parts.headers.insert(header::WWW_AUTHENTICATE, realm);
    }
    Response::from_parts(parts, body)
}

fn is_problem(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind == "application/problem+json")
}

fn error(status: u16, code: u32, message: &str, details: Option<Value>) -> Response {
    let mut body = json!({
        "code": code, "message": message, "status": status,
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
    });
    if let (Some(details), Some(fields)) = (details, body.as_object_mut()) {
        fields.insert("details".to_owned(), details);
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
