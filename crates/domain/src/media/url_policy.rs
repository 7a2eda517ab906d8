//! Permitted locations of media: public https, and no internal address. A URL is parsed once, by the rules of browsers,
//! and a URL that two parsers may read differently is refused. A table lists the addresses that are not public: IANA's
//! special-purpose registries, and internal addresses of clouds. This module resolves no names; the code that does
//! calls [`UrlPolicy::allows`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Url;

use super::{MediaProblem, MediaProblemKind};

/// Maximum length of a URL, in bytes.
pub const MAX_URL_BYTES: usize = 2048;

/// IPv4 networks that are not public: RFC 6890 and its registry, then internal addresses of clouds.
const CLOSED_V4: [(Ipv4Addr, u8); 19] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carriers' NAT; Alibaba's metadata
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local; metadata of most clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments; Oracle's metadata
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 31, 196, 0), 24),  // AS112
    (Ipv4Addr::new(192, 52, 193, 0), 24),  // automatic multicast tunnels
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // relays of 6to4
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(192, 175, 48, 0), 24),  // AS112
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's host, from inside
];

/// IPv6 networks that are not public within 2000::/3, the only allocated part. Everything outside of that part is
/// closed: loopback, embedded IPv4 (::/96, ::ffff:0:0/96), unique local (fd00:ec2::254), link-local, multicast.
const CLOSED_V6: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments; Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Domain names that mean something else on every machine, subdomains included.
const CLOSED_NAMES: [&str; 12] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "onion",
    "invalid",
    "test",
];

/// Returns whether an address is reachable from the whole Internet. An IPv4 address behind NAT64 (64:ff9b::/96), which
/// resolvers synthesize on networks without IPv4, is as public as the embedded address.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let is_in = |(first, length): &(Ipv4Addr, u8)| {
                Ipv4Net::new(*first, *length).is_ok_and(|closed| closed.contains(&address))
            };
            !CLOSED_V4.iter().any(is_in)
        }
        IpAddr::V6(address) => {
            if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() {
                let embedded = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
                return is_public(IpAddr::V4(embedded));
            }
            let is_in = |(first, length): &(Ipv6Addr, u8)| {
                Ipv6Net::new(*first, *length).is_ok_and(|closed| closed.contains(&address))
            };
            address.segments().first().is_some_and(|first| first >> 13 == 1)
                && !CLOSED_V6.iter().any(is_in)
        }
    }
}

/// Locations from which the operator permits media.
#[derive(Debug, Clone, Default)]
pub struct UrlPolicy {
    trusted: Vec<IpNet>,
    ports: Vec<u16>,
    http: bool,
}

impl UrlPolicy {
    /// Creates the permitted locations. `trusted`: addresses that count as public although they are not. `ports`:
    /// permitted ports. `http`: whether plain http is permitted, also at port 80. The error says which value is
    /// invalid.
    pub fn new(trusted: &[String], ports: &[String], http: bool) -> Result<UrlPolicy, String> {
        let network = |text: &String| {
            let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse::<IpNet>().ok().or_else(alone).ok_or_else(|| {
                format!(
                    "trust_addresses: {text}: must be an address or a network, as in 10.0.0.0/8"
                )
            })
        };
        let port = |text: &String| {
            let problem = || format!("ports: {text}: must be a port");
            text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(problem)
        };
        Ok(UrlPolicy {
            trusted: trusted.iter().map(network).collect::<Result<_, _>>()?,
            ports: ports.iter().map(port).collect::<Result<_, _>>()?,
            http,
        })
    }

    /// Returns whether an address counts as public although it is not.
    pub fn trusts_any(&self) -> bool {
        !self.trusted.is_empty()
    }

    /// Returns whether a connection to the address may be opened.
    pub fn allows(&self, address: IpAddr) -> bool {
        is_public(address) || self.trusts(address)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// Parses the URL of a message or a redirect. A trusted address in numeric form may use http, and any port.
    pub fn read(&self, text: &str) -> Result<Url, MediaProblem> {
        let wrong = |detail: &str| Err(MediaProblem::new(MediaProblemKind::Url, detail));
        if text.len() > MAX_URL_BYTES {
            return Err(MediaProblem::new(
                MediaProblemKind::Url,
                format!("has more than {MAX_URL_BYTES} bytes"),
            ));
        }
        // Parsers disagree about these characters: some drop them, some replace them.
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return wrong(
                "contains a space, a backslash or a control character: percent-encode it",
            );
        }
        let Ok(url) = Url::parse(text) else { return wrong("is not a URL") };
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let is_trusted = literal.is_some_and(|address| self.trusts(address));
        match url.scheme() {
            "https" => {}
            "http" if is_trusted || self.http => {}
            "http" => {
                return wrong(
                    "must begin with https://; the setting media.allow_http does not permit http",
                );
            }
            _ => return wrong("must begin with https:// or http://, so that Twilio can fetch it"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("contains a user name or a password, which Twilio does not send");
        }
        match literal {
            Some(address) if !self.allows(address) => return Err(MediaProblem::not_public()),
            None if !is_public_name(host) => return Err(MediaProblem::not_public()),
            _ => {}
        }
        let port = url.port_or_known_default().unwrap_or_default();
        let is_of_http = self.http && url.scheme() == "http" && port == 80;
        if !is_trusted && !is_of_http && !self.ports.contains(&port) {
            let detail = format!("uses port {port}, which the setting media.ports does not permit");
            return Err(MediaProblem::new(MediaProblemKind::Url, detail));
        }
        Ok(url)
    }
}

/// Returns whether a name may be resolved at all; the caller checks its addresses.
fn is_public_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_closed = |closed: &&str| {
        name == **closed || name.strip_suffix(closed).is_some_and(|rest| rest.ends_with('.'))
    };
    // A resolver completes a single word with the search domains of the machine.
    name.contains('.') && !CLOSED_NAMES.iter().any(is_closed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places() -> UrlPolicy {
        UrlPolicy::new(&[], &["443".to_owned()], false).unwrap()
    }

    fn why(text: &str) -> Option<MediaProblemKind> {
        places().read(text).err().map(|unfit| unfit.kind)
    }

    #[test]
    fn special_purpose_addresses_are_not_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "100::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:0:7f00:1::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "2620:4f:8000::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_urls_are_permitted() {
        for text in [
            "https://media.example.com/a.png",
            "https://media.example.com:443/a%20b.png?c=d&e#f",
            "https://media.example.com./a",
            "https://bücher.example.com/a",
            "https://8.8.8.8/a",
            "https://[2606:4700::1111]/a",
            "HTTPS://MEDIA.EXAMPLE.COM/a",
        ] {
            assert_eq!(why(text), None, "{text}");
        }
    }

    #[test]
    fn invalid_urls_are_refused_with_their_reason() {
        for text in [
            "",
            "a.png",
            "//media.example.com/a",
            "http://media.example.com/a",
            "ftp://a.example.com/",
            "file:///etc/passwd",
            "data:image/png;base64,",
            "gopher://a.example.com/",
            "https://",
            "https:///",
            "https://user@media.example.com/",
            "https://a:b@media.example.com/",
            "https://media.example.com:8443/",
            "https://media.example.com:22/",
            "https://media.example.com:0/",
            "https://media.example.com\\@127.0.0.1/",
            "https://media.example.com/a b",
            " https://media.example.com/",
            "https://media.example.com/\u{a}",
            "https://med\tia.example.com/",
            "https://127.0.0.1:443@media.example.com/",
            "https://a.example.com:99999/",
            "https://1.2.3.4.5/",
            "https://256.256.256.256/",
            "https://[::1%25eth0]/",
        ] {
            assert_eq!(why(text), Some(MediaProblemKind::Url), "{text:?}");
        }
        assert_eq!(
            why(&format!("https://a.example.com/{}", "a".repeat(2048))),
            Some(MediaProblemKind::Url)
        );
    }

    #[test]
    fn trusted_addresses_are_the_only_exceptions() {
        let trusting =
            UrlPolicy::new(&["127.0.0.2".into(), "fd00::/8".into()], &["443".into()], false);
        let trusting = trusting.unwrap();
        assert!(trusting.read("http://127.0.0.2:8080/a").is_ok());
        assert!(trusting.read("http://[fd00::1]:8080/a").is_ok());
        assert!(trusting.read("http://127.0.0.1:8080/a").is_err());
        assert!(trusting.read("https://127.0.0.1/a").is_err());
        assert!(trusting.read("http://media.example.com/a").is_err());
        assert!(UrlPolicy::new(&["localhost".into()], &[], false).is_err());
        assert!(UrlPolicy::new(&[], &["0".into()], false).is_err());
    }

    #[test]
    fn http_is_permitted_under_the_same_rules() {
        let places = UrlPolicy::new(&[], &["443".to_owned(), "8443".to_owned()], true).unwrap();
        for url in [
            "http://example.com/a.png",
            "http://example.com:80/",
            "http://example.com:8443/",
            "https://example.com/",
        ] {
            assert!(places.read(url).is_ok(), "{url}");
        }
        for url in [
            "http://example.com:8080/",
            "https://example.com:80/",
            "http://127.0.0.1/",
            "http://169.254.169.254/latest",
            "http://localhost/",
            "http://user:secret@example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
        ] {
            assert!(places.read(url).is_err(), "{url}");
        }
    }

    /// Returns one address in a spelling that may hide it.
    fn spelled(address: Ipv4Addr, how: u8, base: u8) -> String {
        let [a, b, c, d] = address.octets();
        let number = |part: u32| match base % 4 {
            0 => part.to_string(),
            1 => format!("0x{part:x}"),
            2 => format!("0{part:o}"),
            _ => format!("0X{part:X}"),
        };
        let (a, b, c, d) = (u32::from(a), u32::from(b), u32::from(c), u32::from(d));
        match how % 7 {
            0 => format!("{}.{}.{}.{}", number(a), number(b), number(c), number(d)),
            1 => number(u32::from(address)),
            2 => format!("{}.{}", number(a), number((b << 16) | (c << 8) | d)),
            3 => format!("{}.{}.{}", number(a), number(b), number((c << 8) | d)),
            4 => format!("[::ffff:{address}]"),
            5 => format!("[64:ff9b::{address}]"),
            _ => format!("{}.{}.{}.{}.", number(a), number(b), number(c), number(d)),
        }
    }

    proptest! {
        /// Property: an address that is not public is refused in every spelling, and for that reason.
        #[test]
        fn private_address_is_refused_in_every_spelling(index in 0..CLOSED_V4.len(), low: u32, how: u8, base: u8) {
            let (first, length) = CLOSED_V4[index];
            let mask = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            let address = Ipv4Addr::from(u32::from(first) | (low & mask));
            let text = format!("https://{}/a", spelled(address, how, base));
            prop_assert_eq!(why(&text), Some(MediaProblemKind::NotPublic), "{}", text);
        }

        /// Property: a parsed URL has a permitted host, uses https, has no user, and parses to itself.
        #[test]
        fn permitted_url_satisfies_the_policy(text in "(https?://)?[\\PC]{0,40}", tail in "[a-z0-9.:@/\\[\\]%\\\\_-]{0,30}") {
            for text in [text.clone(), format!("https://{tail}"), format!("{text}{tail}")] {
                let Ok(url) = places().read(&text) else { continue };
                prop_assert_eq!(url.scheme(), "https");
                prop_assert!(url.username().is_empty() && url.password().is_none());
                let host = url.host_str().unwrap();
                match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                    Ok(address) => prop_assert!(is_public(address)),
                    Err(_) => prop_assert!(is_public_name(host)),
                }
                prop_assert_eq!(places().read(url.as_str()).unwrap(), url);
            }
        }

        #[test]
        fn public_addresses_are_global_unicast(address: u128) {
            let address = Ipv6Addr::from(address);
            let given_out = (0x2000..0x4000).contains(&address.segments()[0]);
            prop_assert!(given_out || !is_public(IpAddr::V6(address)));
            let mapped = Ipv4Addr::from(address.to_bits() as u32).to_ipv6_mapped();
            prop_assert!(!is_public(IpAddr::V6(mapped)));
        }
    }
}
