//! Settings of media: whether they are probed, from which hosts they may come, the limits of each channel, and fetches of
//! media of inbound messages.

use serde::Deserialize;

use super::{OFF, Secret};
use crate::config::bucket_location::BucketLocation;
use crate::listener::ListenAddress;
use twilio_edge_domain::media::{
    inbound::MediaLinks, limits::MediaLimits, link::MIN_KEY_BYTES, url_policy::UrlPolicy,
};

/// Valid lifetime of a link, in seconds: Twilio fetches a message's media within ten minutes, and no bucket signs links
/// for longer than a week.
const LINK_TTL_S: std::ops::RangeInclusive<u32> = 600..=604_800;

/// Upper bound of the time for probing media, in milliseconds: it must fit into the time that an attempt has beside its
/// API call.
const LONGEST_LOOK_MS: u64 = 15_000;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Media {
    pub check: bool,
    pub timeout_ms: u64,
    pub remember_s: u64,
    pub redirects: u32,
    pub allow_http: bool,
    pub ports: Vec<String>,
    pub trust_addresses: Vec<String>,
    pub concurrency: usize,
    pub concurrency_per_account: usize,
    pub store: MediaStore,
    pub inbound: InboundMedia,
    pub whatsapp: MediaLimits,
    pub sms: MediaLimits,
    pub rcs: MediaLimits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct InboundMedia {
    pub hosts: Vec<String>,
    pub max_bytes: usize,
    pub timeout_ms: u64,
    pub concurrency: usize,
    pub give_up_s: u32,
}

impl InboundMedia {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let is_domain = |host: &String| {
            let is_part = |part: &str| {
                !part.is_empty()
                    && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            };
            host.split('.').all(is_part)
        };
        for host in self.hosts.iter().filter(|host| !is_domain(host)) {
            problems
                .push(format!("hosts: {host}: must be a domain in lower case, as in twilio.com"));
        }
        for (is_good, problem) in [
            ((1..=128 << 20).contains(&self.max_bytes), "max_bytes: must be 1 to 134217728"),
            ((1_000..=300_000).contains(&self.timeout_ms), "timeout_ms: must be 1000 to 300000"),
            ((1..=64).contains(&self.concurrency), "concurrency: must be 1 to 64"),
            ((60..=2_592_000).contains(&self.give_up_s), "give_up_s: must be 60 to 2592000"),
        ] {
            if !is_good {
                problems.push(problem.to_owned());
            }
        }
        problems
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct MediaStore {
    pub url: String,
    pub endpoint: String,
    pub region: String,
    pub credentials_file: String,
    pub keep_days: u32,
    pub link_ttl_s: u32,
    pub public_url: String,
    pub link_key: Secret,
    pub listen: String,
}

impl MediaStore {
    /// Returns the location of the bucket.
    pub fn bucket_location(&self) -> BucketLocation<'_> {
        let MediaStore { url, endpoint, region, credentials_file, .. } = self;
        BucketLocation { url, endpoint, region, credentials_file }
    }

    /// Returns the listen address of media links; `None` if the listener is disabled.
    pub fn address(&self) -> Option<&str> {
        Some(self.listen.as_str()).filter(|listen| !listen.is_empty() && *listen != OFF)
    }

    /// Returns the creator of links to media of inbound messages; `None` without a store or without links of its own.
    pub fn inbound_links(&self) -> Option<MediaLinks> {
        let is_complete = !self.url.is_empty() && !self.public_url.is_empty();
        is_complete.then(|| MediaLinks {
            base_url: self.public_url.trim_end_matches('/').to_owned(),
            key: self.link_key.expose().to_owned(),
            keep_ms: i64::from(self.keep_days).saturating_mul(86_400_000),
        })
    }

    fn problems(&self, serving: bool) -> Vec<String> {
        if self.url.is_empty() {
            let alone = (!self.public_url.is_empty() || self.address().is_some())
                .then(|| "url: missing, and public_url or listen is set".to_owned());
            return alone.into_iter().collect();
        }
        let mut problems = if serving { self.bucket_location().problems() } else { Vec::new() };
        let mut check = |good: bool, problem: &str| {
            if !good {
                problems.push(problem.to_owned());
            }
        };
        check(LINK_TTL_S.contains(&self.link_ttl_s), "link_ttl_s: must be 600 to 604800");
        check((1..=3650).contains(&self.keep_days), "keep_days: must be 1 to 3650");
        let is_ours = !self.public_url.is_empty();
        let is_web = ["https://", "http://"].iter().any(|web| self.public_url.starts_with(web));
        check(
            !is_ours || is_web,
            "public_url: must start with https:// (or http://, for a test), or be empty",
        );
        check(
            is_ours || !self.url.starts_with("file:"),
            "public_url: missing; a folder hands out no links of its own",
        );
        check(
            self.address().is_none_or(|address| address.parse::<ListenAddress>().is_ok()),
            "listen: must be ADDRESS:PORT, as in 127.0.0.1:8084, or unix:/PATH, or off",
        );
        check(
            self.link_key.expose().len() >= MIN_KEY_BYTES || (!is_ours && self.address().is_none()),
            "link_key: must have 32 characters or more; `openssl rand -hex 32` makes one",
        );
        problems
    }
}

impl Media {
    /// Returns the limits of a channel; a channel without limits of its own has those of RCS.
    pub fn of(&self, channel: &str) -> &MediaLimits {
        match channel {
            "whatsapp" => &self.whatsapp,
            "sms" => &self.sms,
            _ => &self.rcs,
        }
    }

    /// Returns the size in bytes of the largest medium that any channel accepts.
    pub fn largest(&self) -> usize {
        let all = [&self.whatsapp, &self.sms, &self.rcs].map(MediaLimits::largest);
        usize::try_from(all.into_iter().max().unwrap_or_default()).unwrap_or(usize::MAX)
    }

    /// Returns the places from which media may be fetched, or the problem of their settings.
    pub fn places(&self) -> Result<UrlPolicy, String> {
        UrlPolicy::new(&self.trust_addresses, &self.ports, self.allow_http)
    }

    /// Returns all problems of these settings.
    pub(super) fn problems(&self, serving: bool) -> Vec<String> {
        let mut problems: Vec<String> = self.places().err().into_iter().collect();
        let of_store = self.store.problems(serving);
        problems.extend(of_store.into_iter().map(|problem| format!("store.{problem}")));
        let of_inbound = self.inbound.problems().into_iter();
        problems.extend(of_inbound.map(|problem| format!("inbound.{problem}")));
        let mut check = |good: bool, problem: &str| {
            if !good {
                problems.push(problem.to_owned());
            }
        };
        check(
            (100..=LONGEST_LOOK_MS).contains(&self.timeout_ms),
            "timeout_ms: must be 100 to 15000",
        );
        check(self.redirects <= 10, "redirects: must be 10 at most");
        check(self.concurrency > 0, "concurrency: must be at least 1");
        check(self.concurrency_per_account > 0, "concurrency_per_account: must be at least 1");
        for (channel, limits) in
            [("whatsapp", &self.whatsapp), ("sms", &self.sms), ("rcs", &self.rcs)]
        {
            for problem in limits.problems() {
                problems.push(format!("{channel}.{problem}"));
            }
        }
        problems
    }
}
