//! The description of each listener's API, put together from its handlers: as OpenAPI 3.1 at `/openapi.json`, and at `/docs`
//! for people. The page is our own and loads nothing from elsewhere: a sidecar has no business with other hosts, and
//! neither has the browser of an operator.

use axum::{Router, body::Bytes, http::header, response::IntoResponse, routing::get};
use utoipa::openapi::{
    ComponentsBuilder, Info, OpenApi, OpenApiBuilder,
    security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::problem::Problem;
use crate::app::App;

const PAGE: &str = include_str!("openapi.html");

/// The page may run its own script and ask this listener, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A description that names no path yet.
pub(super) fn of(title: &str, about: &str) -> OpenApi {
    let mut info = Info::new(title, env!("CARGO_PKG_VERSION"));
    info.description = Some(about.to_owned());
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new().security_scheme("key", bearer);
    let components = Problem::components(components).build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Every path there is, for who asks for another.
pub(super) fn paths(document: &OpenApi) -> String {
    let described = document.paths.paths.keys().map(String::as_str);
    let paths: Vec<&str> = described.chain(["/openapi.json"]).collect();
    format!(
        "{} and /docs here; filters, applications and administrators are not all answered at one listener",
        paths.join(", ")
    )
}

/// Serves a description, and the page that shows it. Needs no token: it tells no secret.
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
