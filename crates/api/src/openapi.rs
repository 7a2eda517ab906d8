//! OpenAPI document of each listener, generated from its handlers: as OpenAPI 3.1 with examples at `/openapi.json`, and shown by
//! Swagger UI at `/docs/`. The viewer is part of the binary, and loads nothing from other hosts.

mod examples;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use utoipa::openapi::{
    ComponentsBuilder, Info, OpenApi, OpenApiBuilder,
    security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerFile, serve};

use super::problem::Problem;
use crate::app::App;

/// Content security policy: the viewer may run its script files and call this listener, and nothing else. It sets styles and
/// draws icons by itself, hence `unsafe-inline` for styles and `data:` for images; inline script is forbidden.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
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
        "{} and /docs/ at this listener; filters, applications and administrators do not all use the same listener",
        paths.join(", ")
    )
}

/// Serves a document and the viewer that shows it. They need no token, because they reveal no secret.
pub(super) fn router(document: &OpenApi) -> Router<App> {
    let mut json = serde_json::to_value(document).unwrap_or_default();
    examples::add(&mut json);
    let json = Bytes::from(json.to_string());
    let document = move || {
        let json = json.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], json) }
    };
    let viewer = Arc::new(viewer());
    let (page, files) = (viewer.clone(), viewer);
    Router::new()
        .route("/openapi.json", get(document))
        // A relative target also works behind a proxy that adds a path.
        .route(
            "/docs",
            get(async || (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "docs/")])),
        )
        .route("/docs/", get(async move || file("index.html", &page)))
        .route("/docs/{file}", get(async move |Path(name): Path<String>| file(&name, &files)))
}

/// Settings of the viewer. It keeps the API key in memory only, asks no validator on the internet, and reads no setting from its
/// URL.
fn viewer() -> Config<'static> {
    Config::new(["../openapi.json"])
        .use_base_layout()
        .deep_linking(true)
        .filter(true)
        .default_models_expand_depth(0)
        .display_request_duration(true)
        .persist_authorization(false)
        .query_config_enabled(false)
        .validator_url("none")
}

fn file(name: &str, viewer: &Arc<Config<'static>>) -> Response {
    match serve(name, viewer.clone()) {
        Ok(Some(SwaggerFile { bytes, content_type, gzpipped, .. })) => {
            let headers = [
                (header::CONTENT_TYPE, content_type.as_str()),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
            ];
            let encoding = gzpipped.then_some([(header::CONTENT_ENCODING, "gzip")]);
            (headers, encoding, bytes).into_response()
        }
        Ok(None) => Problem::not_found("/docs/").into_response(),
        Err(error) => Problem::internal(&format!("the viewer of the API: {error}")).into_response(),
    }
}
