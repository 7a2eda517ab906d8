//! Viewer of a page: the API key of the session, and the account that the viewer has chosen.

use axum::{
    Form,
    extract::FromRequestParts,
    http::{HeaderMap, Method, Uri, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use twilio_edge_domain::{api_key::Scope, tenant::is_account_sid};

use crate::{
    client::{Api, Client},
    console::Console,
    failure::Failure,
    path::{ROOT, of_console, query},
    session::{cookie, set_cookie, token},
};

/// Cookie with the chosen account, for keys that see several.
const ACCOUNT: &str = "twilio_edge_account";

/// Viewer of a page. A handler with this argument is for signed-in viewers only.
pub(crate) struct Viewer {
    /// Key of the session.
    pub(crate) key: ApiKey,
    /// Requests with the rights of the key.
    pub(crate) client: Client,
    /// Account whose data the pages show: that of the key, or the chosen one.
    pub(crate) account: Option<String>,
    pub(crate) console: Console,
    /// Path and query of the page.
    pub(crate) here: String,
}

/// API key of a viewer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ApiKey {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) account_sid: Option<String>,
}

impl Viewer {
    /// Finds the viewer of a request by its cookie.
    pub(crate) async fn find(console: &Console, browser: &Parts) -> Result<Viewer, Failure> {
        let token = token(&browser.headers).ok_or(Failure::SignedOut)?;
        let client = Client::new(console, browser, token);
        let key: ApiKey = client.get(Api::Application, "/v1/key").await?;
        let chosen = cookie(&browser.headers, ACCOUNT).filter(|account| is_account_sid(account));
        let account = key.account_sid.clone().or_else(|| chosen.map(str::to_owned));
        Ok(Viewer { key, client, account, console: console.clone(), here: here(&browser.uri) })
    }

    /// Returns whether the viewer may see pages of administrators, and this listener has them.
    pub(crate) fn is_administrator(&self) -> bool {
        self.key.scope == Scope::Admin && self.client.has(Api::Administration)
    }

    /// Returns the path of a list or resource of the chosen account.
    pub(crate) fn of_account<'a>(
        &'a self,
        path: &str,
        parameters: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> String {
        let account = std::iter::once(("account_sid", self.account.as_deref()));
        query(path, account.chain(parameters))
    }
}

impl FromRequestParts<Console> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Viewer, Response> {
        Viewer::find(console, parts).await.map_err(|failure| match failure {
            Failure::SignedOut => {
                let here = here(&parts.uri);
                let next = Some(here.as_str()).filter(|_| parts.method == Method::GET);
                Redirect::to(&query("/console/sign-in", [("next", next)])).into_response()
            }
            failure => failure.into_response(),
        })
    }
}

/// Returns the path and query of a page; `uri` is relative to the console.
fn here(uri: &Uri) -> String {
    let path = Some(uri.path()).filter(|path| *path != "/").unwrap_or_default();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{ROOT}{path}{query}")
}

/// Form of the account.
#[derive(Deserialize)]
pub(crate) struct ChosenAccount {
    account: String,
    #[serde(default)]
    next: String,
}

/// Chooses the account whose data the pages show; an empty one means all accounts, on the pages that permit it. The API decides
/// whether the key sees it.
pub(crate) async fn choose_account(
    _: Viewer,
    headers: HeaderMap,
    Form(ChosenAccount { account, next }): Form<ChosenAccount>,
) -> Result<Response, Failure> {
    let account = account.trim();
    if !account.is_empty() && !is_account_sid(account) {
        return Err(Failure::Invalid(
            "account: must be AC and 32 lower-case hexadecimal digits, or empty".to_owned(),
        ));
    }
    let secure = if crate::security::is_https(&headers) { "; Secure" } else { "" };
    let mut response = Redirect::to(of_console(&next).unwrap_or(ROOT)).into_response();
    let end = if account.is_empty() { "; Max-Age=0" } else { "" };
    let cookie =
        format!("{ACCOUNT}={account}; Path={ROOT}; HttpOnly; SameSite=Strict{secure}{end}");
    set_cookie(&mut response, &cookie);
    Ok(response)
}
