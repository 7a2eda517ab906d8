//! URL in parts, and the evidence in a request's headers about the URL that Twilio called.
//!
//! Must not know: keys, signatures, bodies, what proxies do.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest URL that is examined, in bytes; proxies accept no longer ones.
const MAX_URL_BYTES: usize = 64 << 10;

/// URL in parts that form the same URL again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Scheme without `://`.
    pub scheme: String,
    /// User information with its `@`.
    pub userinfo: String,
    /// Host without user information and port.
    pub host: String,
    /// Port with its colon.
    pub port: String,
    /// Path.
    pub path: String,
    /// Query without its `?`.
    pub query: Option<String>,
    /// Fragment with its `#`.
    pub fragment: String,
}

impl Url {
    /// Parses a URL; `None` for a text without `scheme://` or longer than any request line.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_URL_BYTES {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let cut = |text: &str, at: usize| {
            text.split_at_checked(at).map(|(a, b)| (a.to_owned(), b.to_owned()))
        };
        let (rest, fragment) = cut(rest, rest.find('#').unwrap_or(rest.len()))?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest.to_owned(), Some(query.to_owned())),
            None => (rest, None),
        };
        let (authority, path) = cut(&rest, rest.find('/').unwrap_or(rest.len()))?;
        let (userinfo, host) = cut(&authority, authority.rfind('@').map_or(0, |at| at + 1))?;
        let colon =
            host.rfind(':').filter(|colon| !host.get(*colon..).unwrap_or("]").contains(']'));
        let (host, port) = cut(&host, colon.unwrap_or(host.len()))?;
        Some(Self { scheme: scheme.to_owned(), userinfo, host, port, path, query, fragment })
    }

    /// Returns the path and query as in a request line.
    pub fn path_and_query(&self) -> String {
        let query = self.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{query}{}", self.path, self.fragment)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, userinfo, host, port, path, query, fragment } = self;
        write!(formatter, "{scheme}://{userinfo}{host}{port}{path}")?;
        if let Some(query) = query {
            write!(formatter, "?{query}")?;
        }
        formatter.write_str(fragment)
    }
}

/// Evidence in the headers about the URL before proxies changed it. It is good enough for guesses, since the signature
/// proves a guess.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clues {
    /// Hosts without ports.
    pub hosts: Vec<String>,
    /// Ports with their colons.
    pub ports: Vec<String>,
    /// Paths with their queries.
    pub targets: Vec<String>,
    /// Prefixes that a proxy removed from paths.
    pub prefixes: Vec<String>,
    /// User information with its `@`.
    pub userinfo: Option<String>,
    /// URLs that the user of the command suggests.
    pub guesses: Vec<Url>,
    /// `bodySHA256` that the URL should have if the body is no form.
    pub body_hash: Option<String>,
}

impl Clues {
    /// Reads the headers of a request.
    pub fn of(headers: &[(String, String)]) -> Self {
        let mut clues = Self::default();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "host" | "x-forwarded-host" | "x-original-host" | ":authority" => {
                    for host in value.split(',').map(str::trim) {
                        clues.host(host);
                    }
                }
                "forwarded" => {
                    for part in value.split([';', ',']) {
                        if let Some(host) = part.trim().strip_prefix("host=") {
                            clues.host(host.trim_matches('"'));
                        }
                    }
                }
                "x-forwarded-port" => clues.ports.push(format!(":{value}")),
                "x-forwarded-prefix" => clues.prefixes.push(value.clone()),
                "x-original-uri"
                | "x-original-url"
                | "x-rewrite-url"
                | "x-forwarded-uri"
                | "x-envoy-original-path" => clues.targets.push(value.clone()),
                "authorization" => clues.userinfo = basic_userinfo(value),
                _ => {}
            }
        }
        clues
    }

    fn host(&mut self, host: &str) {
        if let Some(url) = Url::parse(&format!("http://{host}")) {
            self.hosts.push(url.host);
            self.ports.push(url.port);
        }
    }
}

/// Decodes the header in which `user:password@` of the URL in the Twilio console arrives.
fn basic_userinfo(value: &str) -> Option<String> {
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    Some(format!("{}@", String::from_utf8(decoded).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn url_is_split_into_its_parts() {
        let parsed = Url::parse("https://u:p@[::1]:8443/a/b?c=d?e#f?g").unwrap();
        assert_eq!((&*parsed.userinfo, &*parsed.host, &*parsed.port), ("u:p@", "[::1]", ":8443"));
        assert_eq!((&*parsed.path, parsed.query.as_deref()), ("/a/b", Some("c=d?e")));
        assert_eq!(parsed.fragment, "#f?g");
        assert_eq!(Url::parse("http://[::1]").unwrap().port, "");
        assert_eq!(Url::parse("/only/a/path"), None);
    }

    proptest! {
        #[test]
        fn any_url_is_printed_as_it_was(text in "[a-zA-Z]{1,5}://\\PC{0,60}") {
            prop_assert_eq!(Url::parse(&text).unwrap().to_string(), text);
        }
    }
}
