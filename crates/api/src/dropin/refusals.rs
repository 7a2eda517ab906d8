//! How a refusal is told to Twilio's clients: `{code, message, more_info, status}`, as their SDKs make an exception of. What was
//! refused elsewhere, on the way here too, is put into these words; why it was is not decided here.

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
    super::{
        kinds,
        problem::{Problem, Refused},
    },
    codes,
};
use twilio_edge_domain::dropin::Mistake;

/// Larger than every refusal of ours.
const LARGEST: usize = 64 << 10;

/// What Twilio's clients show where others show a bearer token.
const AUTHENTICATE: &str = "Authenticate: the password is an API key of this sidecar, of scope app; the user is the account \
    of the path, or the key's id";

/// Refusal of what Twilio has and this sidecar has not.
const ELSEWHERE: &str = "the sidecar does not answer this request; call Twilio (https://api.twilio.com) directly for it. \
    docs/DROP-IN.md lists what the sidecar answers";

/// Who may try again what, without a code of ours: for the log.
const MISTAKEN: &str = "unreadable";

/// Why somebody who speaks Twilio's words is refused.
pub(super) enum Refusal {
    /// In ours.
    Ours(Problem),
    /// In Twilio's, for what only Twilio knows.
    Theirs(Mistake),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal::Ours(problem)
    }
}

impl From<Mistake> for Refusal {
    fn from(mistake: Mistake) -> Refusal {
        Refusal::Theirs(mistake)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            // `spoken` puts it into Twilio's words, as everything that was refused on the way.
            Refusal::Ours(problem) => problem.into_response(),
            Refusal::Theirs(Mistake { code, status, message }) => {
                let mut response = told(status, code, &message, None);
                response.extensions_mut().insert(Refused { code: MISTAKEN, reason: None });
                response
            }
        }
    }
}

/// What is needed of a refusal of ours.
#[derive(Deserialize)]
struct Ours {
    code: String,
    detail: String,
    actor: String,
}

/// Whatever is refused on Twilio's paths, in Twilio's words.
pub(crate) async fn spoken(request: Request, next: Next) -> Response {
    let is_twilios = request.uri().path().starts_with(codes::PATHS);
    let response = next.run(request).await;
    if !is_twilios || !is_problem(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, LARGEST).await.unwrap_or_default();
    let Ok(ours) = serde_json::from_slice::<Ours>(&body) else {
        return Response::from_parts(parts, Body::from(body));
    };
    let codes::Told { code, status } = codes::of(&ours.code, parts.status);
    let message = match parts.status {
        StatusCode::UNAUTHORIZED => AUTHENTICATE.to_owned(),
        _ if ours.code == kinds::NOT_FOUND.code || ours.code == kinds::METHOD_NOT_ALLOWED.code => {
            format!("{}: {ELSEWHERE}", ours.code)
        }
        _ => format!("{}: {}", ours.code, ours.detail),
    };
    let details = json!({"code": ours.code, "actor": ours.actor});
    let (told, body) = told(status, code, &message, Some(details)).into_parts();
    parts.status = told.status;
    parts.headers.extend(told.headers);
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

fn told(status: u16, code: u32, message: &str, details: Option<Value>) -> Response {
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
