//! Requests forwarded to Twilio, and the answers passed back: with Twilio's status, or with an error of our own if the
//! answer does not have Twilio's shape.

use axum::{
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{super::problem::Problem, refusals::DropInRefusal};
use twilio_edge_connectors::twilio::{Forward, Forwarded, Twilio};
use twilio_edge_domain::dropin::{DropInError, codes::of_status};
use twilio_edge_domain::refusal::RefusalCode;

/// Answer of an operation.
pub(super) type Answer = Result<Response, DropInRefusal>;

/// Forwards a GET of a resource of this account, and returns Twilio's answer.
pub(super) async fn get(twilio: &Twilio, account_sid: &str, path: &str) -> Answer {
    let request = Forward { method: Method::GET, path, form: None };
    forward(twilio, account_sid, request).await?.json()
}

fn malformed() -> DropInRefusal {
    let message = "Twilio's answer cannot be read: call Twilio directly";
    Problem::with(RefusalCode::Unavailable, message).into()
}

/// Forwards a request to Twilio.
pub(super) async fn forward(
    twilio: &Twilio,
    account_sid: &str,
    request: Forward<'_>,
) -> Result<TwilioAnswer, DropInRefusal> {
    if !twilio.has_credentials(account_sid) {
        return Err(Problem::of(RefusalCode::NoCredentials).into());
    }
    let answer = twilio.forward(account_sid, request).await.map_err(|reason| {
        let detail = format!("Twilio does not answer ({reason}); call Twilio directly");
        Problem::with(RefusalCode::Unavailable, detail)
    })?;
    Ok(TwilioAnswer(answer))
}

/// Answer of Twilio to be passed back.
pub(super) struct TwilioAnswer(Forwarded);

impl From<Forwarded> for TwilioAnswer {
    fn from(answer: Forwarded) -> TwilioAnswer {
        TwilioAnswer(answer)
    }
}

impl TwilioAnswer {
    pub(super) fn status(&self) -> u16 {
        self.0.status
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.0.status)
    }

    /// Sets a field of the answer to null.
    pub(super) fn without(&mut self, name: &str) -> Result<(), DropInRefusal> {
        let body = serde_json::from_slice::<Value>(&self.0.body).ok();
        let Some(Value::Object(mut fields)) = body else { return Err(malformed()) };
        fields.insert(name.to_owned(), Value::Null);
        self.0.body = Value::Object(fields).to_string().into_bytes();
        Ok(())
    }

    /// Returns the answer of an operation that Twilio answers in JSON, with Twilio's status.
    pub(super) fn json(self) -> Answer {
        let status = self.0.status;
        let is_object =
            || serde_json::from_slice::<Value>(&self.0.body).is_ok_and(|body| body.is_object());
        if self.is_success() && self.0.body.is_empty() {
            return Ok(self.unchanged());
        }
        match status {
            200..=299 | 400..=599 if is_object() => Ok(self.unchanged()),
            400..=499 => {
                let code = of_status(status);
                let message =
                    format!("Twilio answered with status {status} and no error of its own");
                Err(DropInError::new(code, message).with_status(status).into())
            }
            _ => Err(malformed()),
        }
    }

    /// Returns the answer as it is, with a body of any type.
    pub(super) fn unchanged(self) -> Response {
        let Forwarded { status, mut headers, body } = self.0;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        if status == StatusCode::NO_CONTENT {
            headers.remove(header::CONTENT_TYPE);
        }
        (status, headers, body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(status: u16, body: &str) -> Result<u16, ()> {
        let forwarded = Forwarded { status, headers: header::HeaderMap::new(), body: body.into() };
        TwilioAnswer(forwarded).json().map(|response| response.status().as_u16()).map_err(|_| ())
    }

    #[test]
    fn status_of_twilio_is_passed_back() {
        for status in [200, 201, 400, 401, 403, 404, 409, 429, 500, 503] {
            assert_eq!(status_of(status, "{}"), Ok(status));
        }
        assert_eq!(status_of(204, ""), Ok(204));
        for (status, body) in [(200, "<html>"), (302, "{}"), (404, "<html>"), (502, "<html>")] {
            assert_eq!(status_of(status, body), Err(()), "{status}");
        }
    }
}
