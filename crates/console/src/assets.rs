//! Static files of the console. Their paths contain a digest of the content, so that browsers store them.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::console::Console;

pub(crate) const STYLE: Asset =
    Asset::new("console.css", "text/css; charset=utf-8", include_str!("../assets/console.css"));
pub(crate) const SCRIPT: Asset = Asset::new(
    "console.js",
    "text/javascript; charset=utf-8",
    include_str!("../assets/console.js"),
);
pub(crate) const ICON: Asset =
    Asset::new("icon.svg", "image/svg+xml", include_str!("../assets/icon.svg"));

const ALL: [Asset; 3] = [STYLE, SCRIPT, ICON];

/// A static file.
#[derive(Clone, Copy)]
pub(crate) struct Asset {
    name: &'static str,
    content_type: &'static str,
    content: &'static str,
}

impl Asset {
    const fn new(name: &'static str, content_type: &'static str, content: &'static str) -> Asset {
        Asset { name, content_type, content }
    }

    /// Returns the path of the file.
    pub(crate) fn path(self) -> String {
        format!("{}/static/{}/{}", crate::path::ROOT, self.digest(), self.name)
    }

    fn digest(self) -> String {
        let mut hasher = DefaultHasher::new();
        self.content.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

pub(crate) fn router() -> Router<Console> {
    Router::new().route("/static/{digest}/{name}", get(show))
}

async fn show(Path((_, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ALL.into_iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, asset.content).into_response()
}
