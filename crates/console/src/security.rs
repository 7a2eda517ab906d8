//! Protection of the pages in a browser: headers that forbid what no page needs, and the refusal of requests that other sites
//! cause.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use maud::html;

use crate::layout;

/// Content security policy: everything comes from this listener, and nothing is inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; \
    base-uri 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds the headers of a page. Pages are not stored, because they show messages of people.
pub(crate) async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refuses a form that another site has sent. The cookie is `SameSite=Strict`; this is the second defence.
pub(crate) async fn refuse_other_sites(request: Request, next: Next) -> Response {
    let is_safe = [Method::GET, Method::HEAD].contains(request.method());
    if is_safe || is_same_origin(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    let text = html! {
        p { "The request came from another site, or a proxy changed its Host header. Open the page again." }
    };
    (StatusCode::FORBIDDEN, layout::without_viewer("The request was refused", &text))
        .into_response()
}

/// Returns whether a page of this origin sent the request. Browsers send Sec-Fetch-Site over https and on localhost, and
/// Origin with every form.
fn is_same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let host = uri.authority().map(|authority| authority.as_str()).or(text(header::HOST));
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    match (origin, host) {
        (Some((_, origin)), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// Returns whether the browser uses https, as its Origin or the proxy in front reports.
pub(crate) fn is_https(headers: &HeaderMap) -> bool {
    let is = |name: HeaderName, start: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.starts_with(start))
    };
    is(header::ORIGIN, "https://") || is(HeaderName::from_static("x-forwarded-proto"), "https")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(headers: &[(&str, &str)]) -> bool {
        let pairs = headers.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        });
        is_same_origin(&pairs.collect(), &Uri::from_static("/console/sign-in"))
    }

    #[test]
    fn forms_of_other_sites_are_refused() {
        let host = ("host", "edge.example:8081");
        assert!(is_accepted(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(is_accepted(&[host, ("origin", "https://edge.example:8081")]));
        for site in ["cross-site", "same-site", "none"] {
            assert!(!is_accepted(&[host, ("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["https://evil.example", "null", "https://edge.example", ""] {
            assert!(!is_accepted(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(!is_accepted(&[host]));
        assert!(!is_accepted(&[("origin", "https://edge.example")]));
    }
}
