//! Edge under load: the check that its address is the user's own, and the client that posts to it.

use std::net::{IpAddr, SocketAddr};

use reqwest::{Client, Url, header, redirect};
use twilio_edge_contract::headers;
use twilio_edge_simulator::webhook::SignedRequest;

use super::tally::Outcome;
use crate::cli::{failure::with_causes, signing::Signing};

/// Longest reason of a refusal that is reported, in bytes.
const MAX_REASON_BYTES: usize = 60;

/// Edge with the addresses that were checked.
#[derive(Debug)]
pub(super) struct Edge {
    client: Client,
    /// URL of the edge; its host is also the name for TLS.
    url: Url,
    /// `Host` header: the signed host, as Twilio sends it.
    host: header::HeaderValue,
}

impl Edge {
    /// Resolves the address once, checks it and prepares the client. `most_idle` limits the idle connections.
    pub(super) fn open(
        signing: &Signing,
        is_public_allowed: bool,
        most_idle: usize,
    ) -> Result<Edge, String> {
        let shown = &signing.edge;
        let edge = parsed("--edge", shown)?;
        let origin = parsed("--origin", &signing.origin)?;
        let addresses =
            edge.socket_addrs(|| None).map_err(|error| format!("--edge {shown}: {error}"))?;
        if !is_public_allowed {
            refuse_public(shown, &addresses)?;
        }
        let url = with_server_name(edge, &origin);
        let name = url.host_str().unwrap_or_default().to_owned();
        let host = signing.origin.split_once("://").map_or("", |(_, host)| host);
        let host = header::HeaderValue::from_str(host)
            .map_err(|_| format!("--origin {}: has no host that can be sent", signing.origin))?;
        // This fails if a provider is installed already; that provider is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            // Twilio uses HTTP/1.1 for webhooks.
            .http1_only()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .pool_max_idle_per_host(most_idle)
            // The checked addresses are used; a second answer of the DNS might be another one.
            .resolve_to_addrs(&name, &addresses)
            .build()
            .map_err(|error| with_causes(&error))?;
        Ok(Edge { client, url, host })
    }

    /// Checks that a path reaches the edge as it is signed.
    pub(super) fn check_path(&self, option: &str, path: &str) -> Result<(), String> {
        let sent = self.url_of(path)?;
        let query = sent.query().map_or_else(String::new, |query| format!("?{query}"));
        match format!("{}{query}", sent.path()) {
            sent if sent == path => Ok(()),
            sent => Err(format!(
                "{option} {path}: would be sent as {sent}, which is not what is signed; write it like that"
            )),
        }
    }

    /// Posts a webhook and reads the whole answer.
    pub(super) async fn post(&self, signed: &SignedRequest) -> Outcome {
        match self.answer(signed).await {
            Ok(outcome) => outcome,
            Err(problem) => Outcome::Failed(problem),
        }
    }

    async fn answer(&self, signed: &SignedRequest) -> Result<Outcome, String> {
        let failed = |error: reqwest::Error| with_causes(&error.without_url());
        let mut request = self.client.post(self.url_of(&signed.target)?);
        for (name, value) in &signed.headers {
            request = request.header(*name, value);
        }
        let request = request.header(header::HOST, self.host.clone()).body(signed.body.clone());
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let reason = response.headers().get(headers::REASON).and_then(|value| value.to_str().ok());
        let reason = reason.filter(|reason| reason.len() <= MAX_REASON_BYTES).map(str::to_owned);
        while response.chunk().await.map_err(failed)?.is_some() {}
        Ok(Outcome::Answered { status, reason })
    }

    fn url_of(&self, target: &str) -> Result<Url, String> {
        // A target that begins with `//` would be taken for a host by `Url::join`.
        let base = self.url.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}{target}")).map_err(|error| format!("{base}{target}: {error}"))
    }
}

fn parsed(option: &str, text: &str) -> Result<Url, String> {
    Url::parse(text).map_err(|error| format!("{option} {text}: {error}"))
}

/// Refuses addresses that are neither loopback, private nor link-local. One public address among several is enough.
fn refuse_public(edge: &str, addresses: &[SocketAddr]) -> Result<(), String> {
    let public = addresses.iter().map(SocketAddr::ip).find(|ip| !is_own(*ip));
    match (public, addresses.is_empty()) {
        (_, true) => Err(format!("--edge {edge}: has no address")),
        (None, false) => Ok(()),
        (Some(ip), false) => Err(format!(
            "--edge {edge}: {ip} is not an address of this machine or of a private network. Nothing was sent. Give the \
             private address of your edge; if the public one is yours and you may load it, add --allow-public"
        )),
    }
}

/// Returns whether an address is loopback, private (10/8, 172.16/12, 192.168/16, fc00::/7) or link-local.
fn is_own(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Replaces an IP address by the name of the signed origin, so that TLS asks for the certificate that Twilio sees. The
/// connection still uses the addresses of the edge.
fn with_server_name(edge: Url, origin: &Url) -> Url {
    let mut named = edge.clone();
    match (edge.domain(), origin.domain()) {
        (None, Some(name)) if edge.scheme() == "https" && named.set_host(Some(name)).is_ok() => {
            named
        }
        _ => edge,
    }
}

#[cfg(test)]
mod tests {
    use twilio_edge_filter::signature::Key;

    use super::*;

    fn signing(edge: &str, origin: &str) -> Signing {
        Signing {
            account_sid: "AC00112233445566778899aabbccddeeff".to_owned(),
            key: Key::auth_token("test", "secret").unwrap(),
            origin: origin.to_owned(),
            edge: edge.to_owned(),
        }
    }

    #[test]
    fn own_addresses_are_loopback_private_and_link_local() {
        for (own, text) in [
            (true, "127.0.0.1 127.9.9.9 ::1 10.255.0.1 172.16.0.1 172.31.255.255 192.168.3.4"),
            (true, "169.254.1.1 fe80::1 fd00::7 fcff::1 ::ffff:10.0.0.1"),
            (false, "203.0.113.1 172.32.0.1 172.15.255.255 192.169.0.1 11.0.0.1 8.8.8.8 0.0.0.0"),
            (false, "2001:db8::1 2600::1 ::ffff:203.0.113.1 :: fec0::1 ff02::1 100.64.0.1"),
        ] {
            for ip in text.split(' ') {
                assert_eq!(is_own(ip.parse().unwrap()), own, "{ip}");
            }
        }
    }

    #[test]
    fn one_public_address_is_enough_for_a_refusal() {
        let addresses = ["127.0.0.1:80", "203.0.113.1:80"].map(|it| it.parse().unwrap());
        let problem = refuse_public("http://edge", &addresses).unwrap_err();
        assert!(problem.contains("203.0.113.1") && problem.contains("--allow-public"), "{problem}");
        assert!(refuse_public("http://edge", &addresses[..1]).is_ok());
        assert!(refuse_public("http://edge", &[]).is_err());
    }

    #[test]
    fn public_address_is_used_only_if_that_is_allowed() {
        let public = signing("http://203.0.113.1:1", "https://hooks.example.com");
        assert!(Edge::open(&public, false, 1).is_err());
        assert!(Edge::open(&public, true, 1).is_ok());
    }

    #[test]
    fn tls_uses_the_signed_name_if_the_edge_is_an_address() {
        for (edge, origin, url) in [
            (
                "https://127.0.0.1:8443",
                "https://hooks.example.com",
                "https://hooks.example.com:8443/",
            ),
            ("https://[::1]", "https://hooks.example.com", "https://hooks.example.com/"),
            ("https://edge.internal", "https://hooks.example.com", "https://edge.internal/"),
            ("http://127.0.0.1:8080", "https://hooks.example.com", "http://127.0.0.1:8080/"),
            ("https://127.0.0.1", "https://127.0.0.1", "https://127.0.0.1/"),
        ] {
            let url_of = |text: &str| Url::parse(text).unwrap();
            assert_eq!(with_server_name(url_of(edge), &url_of(origin)).as_str(), url, "{edge}");
        }
    }

    #[test]
    fn path_that_the_client_would_change_is_refused() {
        let edge = Edge::open(&signing("http://127.0.0.1:1", "http://a"), false, 1).unwrap();
        for path in ["/", "/twilio/inbound", "/a//b?c=d&e=%20f", "//a", "/a?"] {
            assert_eq!(edge.check_path("--inbound-path", path), Ok(()), "{path}");
        }
        for path in ["/a/../b", "/a b", "/ü", "/a?b='c'"] {
            let problem = edge.check_path("--inbound-path", path).unwrap_err();
            assert!(problem.starts_with("--inbound-path "), "{problem}");
        }
    }
}
