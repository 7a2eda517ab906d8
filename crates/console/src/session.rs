//! Sign-in and sign-out. The browser holds a session of the API in a cookie that scripts cannot read; the API key is sent once
//! and stored nowhere.

use axum::{
    Form,
    extract::{Query, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{COOKIE, SET_COOKIE},
        request::Parts,
    },
    response::{IntoResponse, Redirect, Response},
};
use maud::html;
use serde::Deserialize;
use serde_json::json;

use crate::{
    client::{Api, Client},
    console::Console,
    failure::{Failure, Refusal},
    layout,
    path::{ROOT, of_console},
    security::is_https,
    viewer::Viewer,
};

/// Cookie with the token of the session.
const SESSION: &str = "twilio_edge_session";

/// Start of every session token. A link with anything else is refused: an API key in a link would be stored in histories and
/// logs.
const TOKEN: &str = "twilio_edge_session_";

/// Parts of a started session that the console needs.
#[derive(Deserialize)]
struct StartedSession {
    token: String,
}

/// Link to the console with a token that can be exchanged once.
#[derive(Deserialize)]
pub(crate) struct Link {
    #[serde(default)]
    token: String,
    #[serde(default)]
    next: String,
}

/// Form of the sign-in page.
#[derive(Deserialize)]
pub(crate) struct SignIn {
    key: String,
    #[serde(default)]
    next: String,
}

/// Shows the sign-in page, or exchanges the token of a link for a session.
pub(crate) async fn show(
    State(console): State<Console>,
    Query(link): Query<Link>,
    browser: Parts,
) -> Result<Response, Failure> {
    let next = of_console(&link.next).unwrap_or(ROOT);
    if link.token.is_empty() {
        return Ok(page(next, None).into_response());
    }
    if link.token.starts_with(TOKEN) && !is_caused_by_other_site(&browser.headers) {
        match start(&console, &browser, &link.token).await {
            Ok(token) => return Ok(enter(next, &token, &browser.headers)),
            Err(Failure::SignedOut) => {}
            Err(failure) => return Err(failure),
        }
    }
    // A link that was opened twice leads to the page if the browser is signed in.
    if Viewer::find(&console, &browser).await.is_ok() {
        return Ok(Redirect::to(next).into_response());
    }
    let used = "The link was already used, or it has expired. Sign in with an API key, or create another link.";
    Ok((StatusCode::UNAUTHORIZED, page(next, Some(used))).into_response())
}

/// Starts a session with an API key.
pub(crate) async fn sign_in(
    State(console): State<Console>,
    browser: Parts,
    Form(SignIn { key, next }): Form<SignIn>,
) -> Result<Response, Failure> {
    let next = of_console(&next).unwrap_or(ROOT);
    let refused = match start(&console, &browser, key.trim()).await {
        Ok(token) => return Ok(enter(next, &token, &browser.headers)),
        Err(Failure::SignedOut) => Refusal {
            title: "The API key is not valid".to_owned(),
            status: StatusCode::UNAUTHORIZED.as_u16(),
            code: "unauthorized".to_owned(),
            detail: "A revoked key is invalid. `twilio-edge keys create --scope admin --name ..` creates a key.".to_owned(),
            actor: "caller".to_owned(),
        },
        Err(failure) => failure.refusal()?,
    };
    let text = format!("{}. {}", refused.title, refused.detail);
    Ok((refused.status(), page(next, Some(&text))).into_response())
}

/// Ends the session.
pub(crate) async fn sign_out(viewer: Viewer) -> Result<Response, Failure> {
    viewer.client.act(Api::Application, Method::DELETE, "/v1/session").await?;
    let mut response = Redirect::to("/console/sign-in").into_response();
    set_cookie(
        &mut response,
        &format!("{SESSION}=; Path={ROOT}; HttpOnly; SameSite=Strict; Max-Age=0"),
    );
    Ok(response)
}

async fn start(console: &Console, browser: &Parts, token: &str) -> Result<String, Failure> {
    let client = Client::new(console, browser, token);
    let started: StartedSession =
        client.send(Api::Application, Method::POST, "/v1/sessions", &json!({})).await?;
    Ok(started.token)
}

/// Redirects to a page with the session in the cookie. The session itself expires at the API; the cookie ends with the browser.
fn enter(next: &str, token: &str, headers: &HeaderMap) -> Response {
    let secure = if is_https(headers) { "; Secure" } else { "" };
    let mut response = Redirect::to(next).into_response();
    let cookie = format!("{SESSION}={token}; Path={ROOT}; HttpOnly; SameSite=Strict{secure}");
    set_cookie(&mut response, &cookie);
    response
}

/// Adds a cookie to a response.
pub(crate) fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

/// Returns the token in the cookie of a request.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, SESSION).filter(|token| token.starts_with(TOKEN))
}

/// Returns the value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// Returns whether another site led the browser here. It could sign the viewer in with a key of its own.
fn is_caused_by_other_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    site.is_some_and(|site| !matches!(site, "none" | "same-origin"))
}

fn page(next: &str, problem: Option<&str>) -> maud::Markup {
    let form = html! {
        @if let Some(problem) = problem {
            div.notice.bad role="alert" { p { (problem) } }
        }
        form.card method="post" action="/console/sign-in" {
            input type="hidden" name="next" value=(next);
            label for="key" { "API key" }
            input #key type="password" name="key" required autocomplete="current-password"
                spellcheck="false" aria-describedby="key-hint" autofocus;
            p #key-hint.small {
                "Your rights in the console are those of the key: scope " code { "app" } " sees messages and webhooks, scope "
                code { "admin" } " sees everything. Create a key with "
                code { "twilio-edge keys create --scope admin --name me" } "."
            }
            button.primary type="submit" { "Sign in" }
        }
    };
    layout::without_viewer("Sign in", &form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("a=b; twilio_edge_session=twilio_edge_session_x"),
        );
        headers.append(COOKIE, HeaderValue::from_static("c=d"));
        assert_eq!(token(&headers), Some("twilio_edge_session_x"));
        assert_eq!((cookie(&headers, "c"), cookie(&headers, "e")), (Some("d"), None));
        headers.insert(COOKIE, HeaderValue::from_static("twilio_edge_session=twilio_edge_key"));
        assert_eq!(token(&headers), None);
    }
}
