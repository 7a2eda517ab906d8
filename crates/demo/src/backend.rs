//! Application behind the edge that prints what reaches it: method, path, the headers that it may trust, the decoded form.
//! It also shows in a few lines what an application must do with them: refuse requests that are not verified, and answer 2xx
//! once a webhook is accepted.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use twilio_edge_contract::headers;

/// Largest body. The edge lets through far less; this limits requests from elsewhere.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Answer to webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// Status; by default the one that fits the webhook: 200 with TwiML, 204 to a status.
    pub status: Option<StatusCode>,
    /// Delay of the answer.
    pub delay: Duration,
}

/// Returns the backend: every path is a webhook, except `/healthz` and `PUT /answer/{status}`, which changes the answer
/// (`default` for the one that fits the webhook). Each text is passed to `print` at once.
pub fn router(answer: Answer, print: fn(&str)) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/answer/{status}", put(change))
        .fallback(webhook)
        .with_state(Shared { answer: Arc::new(Mutex::new(answer)), print })
}

#[derive(Clone)]
struct Shared {
    answer: Arc<Mutex<Answer>>,
    print: fn(&str),
}

async fn change(State(shared): State<Shared>, Path(status): Path<String>) -> Response {
    let status = match status.parse() {
        Ok(status) => Some(status),
        Err(_) if status == "default" => None,
        Err(_) => return (StatusCode::BAD_REQUEST, "a status, or default\n").into_response(),
    };
    shared.answer.lock().unwrap_or_else(PoisonError::into_inner).status = status;
    let now = status.map_or_else(|| "what fits them".to_owned(), |status| status.to_string());
    (shared.print)(&format!("from now on webhooks are answered with {now}"));
    StatusCode::NO_CONTENT.into_response()
}

async fn webhook(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let answer = *shared.answer.lock().unwrap_or_else(PoisonError::into_inner);
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    tokio::time::sleep(answer.delay).await;
    let reply = reply(&head.headers, answer);
    (shared.print)(&shown(&head, &body, reply.status()));
    reply
}

fn reply(trusted: &HeaderMap, answer: Answer) -> Response {
    if !trusted.contains_key(headers::VERIFIED) {
        return (StatusCode::FORBIDDEN, "not proven to be Twilio's\n").into_response();
    }
    if let Some(status) = answer.status {
        return status.into_response();
    }
    let has = |name, value| trusted.get(name).is_some_and(|header| header == value);
    if !has(headers::CLASS, "inbound") {
        return StatusCode::NO_CONTENT.into_response();
    }
    // Twilio itself answers a STOP; another message would not reach the contact anyway.
    let twiml = if has(headers::OPT, "stop") {
        "<Response/>"
    } else {
        "<Response><Message>Thank you, we are looking into it.</Message></Response>"
    };
    ([(header::CONTENT_TYPE, "text/xml")], twiml).into_response()
}

/// Returns the block to print. Values are escaped: a message must not be able to write to the terminal.
fn shown(head: &Parts, body: &[u8], status: StatusCode) -> String {
    let mut block = format!("\n{} {}\n", head.method, head.uri.path());
    let mut line = |name: &str, value: &str| {
        let _ =
            writeln!(block, "  {:<30} {}", name.escape_debug().to_string(), value.escape_debug());
    };
    for (name, value) in &head.headers {
        if name.as_str().starts_with(headers::PREFIX) {
            line(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        }
    }
    let form = if body.is_empty() { head.uri.query().unwrap_or("").as_bytes() } else { body };
    let is_form = head.headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        value.to_str().is_ok_and(|value| value.starts_with("application/x-www-form-urlencoded"))
    });
    if is_form {
        for (name, value) in form_urlencoded::parse(form) {
            line(&name, &value);
        }
    } else {
        line("(body)", &String::from_utf8_lossy(body));
    }
    let _ = write!(block, "  -> {status}");
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::new()
    }
    use tokio::net::TcpListener;

    async fn started() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router(Answer::default(), |_| ())).await });
        url
    }

    async fn send(url: &str, trusted: &[(&str, &str)]) -> (u16, String) {
        let mut request = client().post(format!("{url}/twilio/inbound"));
        for (name, value) in trusted {
            request = request.header(*name, *value);
        }
        let response = request.body("Body=hi").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn backend_answers_as_an_application_should() {
        let url = started().await;
        let proven = (headers::VERIFIED, "AC1");
        assert_eq!(send(&url, &[]).await.0, 403);
        let (status, body) = send(&url, &[proven, (headers::CLASS, "inbound")]).await;
        assert!(status == 200 && body.contains("<Message>"), "{status} {body}");
        let stop = [proven, (headers::CLASS, "inbound"), (headers::OPT, "stop")];
        assert_eq!(send(&url, &stop).await, (200, "<Response/>".to_owned()));
        assert_eq!(send(&url, &[proven, (headers::CLASS, "status")]).await.0, 204);
    }

    #[tokio::test]
    async fn its_answer_can_be_changed_while_it_runs() {
        let url = started().await;
        let proven = [(headers::VERIFIED, "AC1"), (headers::CLASS, "inbound")];
        let put = async |answer: &str| {
            let request = client().put(format!("{url}/answer/{answer}"));
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(put("503").await, 204);
        assert_eq!(send(&url, &proven).await.0, 503);
        assert_eq!(put("default").await, 204);
        assert_eq!(send(&url, &proven).await.0, 200);
        assert_eq!(put("gladly").await, 400);
    }

    #[test]
    fn message_cannot_write_to_the_terminal() {
        let request = Request::post("/twilio/inbound").header(headers::VERIFIED, "AC1");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let block = shown(&head, b"Body=%1B%5B2J%0A-%3E+204", StatusCode::OK);
        assert!(block.contains(r"\u{1b}[2J\n-> 204"), "{block}");
        assert!(block.ends_with("\n  -> 200 OK"), "{block}");
    }
}
