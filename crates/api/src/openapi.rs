//! OpenAPI document of each listener, generated from its handlers: as OpenAPI 3.1 at `/openapi.json`, and as a page at
//! `/docs`. The page is our own and loads nothing from other hosts.

use axum::{Router, body::Bytes, http::header, response::IntoResponse, routing::get};
use utoipa::openapi::{
    ComponentsBuilder, Info, OpenApi, OpenApiBuilder,
    security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::problem::Problem;
use crate::app::App;

const PAGE: &str = include_str!("openapi.html");

/// Content security policy: the page may run its inline script and call this listener, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Creates a document without paths.
pub(super) fn of(title: &str, about: &str) -> OpenApi {
    let mut info = Info::new(title, env!("CARGO_PKG_VERSION"));
    info.description = Some(about.to_owned());
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new().security_scheme("key", bearer);
    let components = Problem::components(components).build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Lists all paths, for the refusal of an unknown one.
pub(super) fn paths(document: &OpenApi) -> String {
    let described = document.paths.paths.keys().map(String::as_str);
    let paths: Vec<&str> = described.chain(["/openapi.json"]).collect();
    format!(
        "{} and /docs at this listener; filters, applications and administrators do not all use the same listener",
        paths.join(", ")
    )
}

/// Serves a document and the page that shows it. They need no token, because they reveal no secret.
pub(super) fn router(document: &OpenApi) -> Router<App> {
    let json = Bytes::from(serde_json::to_vec(document).unwrap_or_default());
    let document = move || {
        let json = json.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], json) }
    };
    Router::new().route("/openapi.json", get(document)).route("/docs", get(page))
}

async fn page() -> impl IntoResponse {
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    ([kind, (header::CONTENT_SECURITY_POLICY, POLICY)], PAGE)
}
