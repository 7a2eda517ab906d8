//! Paths and queries of links, with every value escaped.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Path of the console.
pub(crate) const ROOT: &str = "/console";

/// Returns a path with one more segment.
pub(crate) fn join(base: &str, segment: &str) -> String {
    format!("{base}/{}", utf8_percent_encode(segment, NON_ALPHANUMERIC))
}

/// Returns a path with a query of the parameters that have a value.
pub(crate) fn query<'a>(
    path: &str,
    parameters: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            query.append_pair(name, value);
        }
    }
    match query.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// Returns the path if it leads to a page of the console, so that a link cannot lead a viewer elsewhere.
pub(crate) fn of_console(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(ROOT)?;
    let is_below = rest.is_empty() || rest.starts_with('/') || rest.starts_with('?');
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (is_below && is_plain && !rest.starts_with("//")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_path_and_a_query_are_escaped() {
        assert_eq!(join("/v1/events", "a/b?c"), "/v1/events/a%2Fb%3Fc");
        let query =
            query("/v1/events", [("number", Some("+1 5&x")), ("sid", Some("")), ("a", None)]);
        assert_eq!(query, "/v1/events?number=%2B1+5%26x");
    }

    #[test]
    fn link_after_sign_in_stays_in_the_console() {
        for good in ["/console", "/console/webhooks?number=%2B1", "/console?a=b"] {
            assert_eq!(of_console(good), Some(good));
        }
        for bad in [
            "",
            "/",
            "//evil.example",
            "https://evil.example",
            "/consolex",
            "/console//x",
            "/console/\\x",
            "/console/\r\nx",
        ] {
            assert_eq!(of_console(bad), None, "{bad}");
        }
    }
}
