//! Answers to forms: a redirect after a success, or the page of the form with the refusal.

use axum::response::{IntoResponse, Redirect, Response};
use maud::Markup;
use serde::Deserialize;

use crate::failure::Failure;

/// Name of the action that a page confirms, after the redirect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Done {
    pub(crate) done: String,
}

/// Redirects after an action, or renders the page of its form with the refusal. `next` returns the path of the redirect.
pub(crate) async fn answer<T>(
    result: Result<T, Failure>,
    next: impl FnOnce(T) -> String,
    page: impl AsyncFnOnce(Markup) -> Result<Markup, Failure>,
) -> Result<Response, Failure> {
    match result.map_err(Failure::refusal) {
        Ok(done) => Ok(Redirect::to(&next(done)).into_response()),
        Err(refusal) => {
            let refusal = refusal?;
            Ok((refusal.status(), page(refusal.notice()).await?).into_response())
        }
    }
}

/// Returns the text of a field without blanks around it; `None` if it is empty.
pub(crate) fn given(value: &str) -> Option<&str> {
    Some(value.trim()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_of_blanks_is_not_given() {
        assert_eq!((given(" a "), given("  "), given("")), (Some("a"), None, None));
    }
}
