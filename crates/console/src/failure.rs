//! Reasons why a page cannot be shown, or an action was refused. The texts are those of the API.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use crate::layout;

/// Reason why the console shows no page.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The session has ended, or its key was revoked.
    SignedOut,
    /// The API refused the request.
    Refused(Refusal),
    /// The page needs the API of administrators, which this listener lacks.
    OtherListener,
    /// The console has no such page.
    NoSuchPage,
    /// The form has a field with a wrong value; the text names the field.
    Invalid(String),
    /// The console failed.
    Internal(String),
}

/// A refusal of the API: its problem document.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Refusal {
    /// Summary.
    pub(crate) title: String,
    /// HTTP status.
    pub(crate) status: u16,
    /// Code, which never changes its meaning.
    pub(crate) code: String,
    /// Explanation, or the remedy.
    pub(crate) detail: String,
    /// Party that must act.
    pub(crate) actor: String,
}

impl Refusal {
    /// Parses the body of an answer.
    pub(crate) fn read(status: StatusCode, body: &[u8]) -> Refusal {
        serde_json::from_slice(body).unwrap_or_else(|_| Refusal {
            title: "The API refused the request".to_owned(),
            status: status.as_u16(),
            code: String::new(),
            detail: String::new(),
            actor: String::new(),
        })
    }

    /// Returns the status of the page that shows the refusal.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Renders the refusal as a notice.
    pub(crate) fn notice(&self) -> Markup {
        html! {
            div.notice.bad role="alert" {
                p { strong { (self.title) "." } " " (self.detail) }
                p.small {
                    @if !self.actor.is_empty() { "Must act: " strong { (self.actor) } ". " }
                    @if !self.code.is_empty() { "Code: " code { (self.code) } }
                }
            }
        }
    }
}

impl Failure {
    /// Creates a failure of the console itself.
    pub(crate) fn internal(error: &impl ToString) -> Failure {
        Failure::Internal(error.to_string())
    }

    /// Returns the refusal of an action, so that its form can show it. Any other failure stays one.
    pub(crate) fn refusal(self) -> Result<Refusal, Failure> {
        let invalid = |detail: String| Refusal {
            title: "The form is not complete".to_owned(),
            status: StatusCode::BAD_REQUEST.as_u16(),
            code: String::new(),
            detail,
            actor: String::new(),
        };
        match self {
            Failure::Refused(refusal) => Ok(refusal),
            Failure::Invalid(detail) => Ok(invalid(detail)),
            other => Err(other),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let plain = |status, title: &str, detail: &str| {
            let text = html! { p { (detail) } };
            (status, layout::without_viewer(title, &text)).into_response()
        };
        match self {
            Failure::SignedOut => Redirect::to("/console/sign-in").into_response(),
            Failure::Refused(refusal) => {
                let page = layout::without_viewer("The request was refused", &refusal.notice());
                (refusal.status(), page).into_response()
            }
            Failure::OtherListener => plain(
                StatusCode::NOT_FOUND,
                "This page is for administrators",
                "Open the console of the administrators' listener (admin.listen), and sign in with a key of scope admin.",
            ),
            Failure::NoSuchPage => plain(
                StatusCode::NOT_FOUND,
                "There is no such page",
                "The navigation of the console lists all pages.",
            ),
            Failure::Invalid(detail) => {
                plain(StatusCode::BAD_REQUEST, "The form is not complete", &detail)
            }
            Failure::Internal(detail) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The console could not show this page",
                &detail,
            ),
        }
    }
}
