//! Checks of the settings, so that the code that uses them can rely on their values.

use std::path::{Path, PathBuf};

use super::Config;
use crate::file_access;
use crate::listener::ListenAddress;
use twilio_edge_domain::{archive, secret, tenant::NO_MEDIA_STORE};

/// Largest batch of the archive in bytes; it is held in memory as lines and as an object.
const MOST_ARCHIVE_BYTES: u32 = 64 << 20;

/// Longest lifetime of a session in seconds.
const LONGEST_SESSION_S: u64 = 30 * 86_400;

/// Longest interval of a background task in seconds. A clock cannot represent the end of a much longer one.
const YEAR_S: u64 = 365 * 86_400;

/// Greatest age of a live stream in seconds: less than the longest response of a listener.
const MOST_STREAM_S: u64 = 3500;

impl Config {
    /// Returns warnings about limits that are valid by themselves but do not fit together.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let api = &self.api;
        let per_second = self.sending.per_second;
        if api.requests_per_second < per_second {
            warnings.push(format!(
                "api.requests_per_second ({}) is less than sending.per_second ({per_second}): one key cannot use the rate of one sender; raise it to {} or more",
                api.requests_per_second,
                per_second.saturating_mul(2)
            ));
        }
        if api.burst < api.requests_per_second {
            warnings.push(format!(
                "api.burst ({}) is less than api.requests_per_second ({}): requests that come together are refused although the second is not used up; raise it to {} or more",
                api.burst, api.requests_per_second, api.requests_per_second
            ));
        }
        let of_one = self.sending.concurrency.saturating_sub(self.sending.concurrency / 4).max(1);
        if self.sending.concurrency_floor > of_one {
            warnings.push(format!(
                "sending.concurrency_floor ({}) is more than one account may have of sending.concurrency ({of_one}), which is what counts",
                self.sending.concurrency_floor
            ));
        }
        if !self.policy.replies.is_empty() && self.sending.file.is_empty() {
            let refused = "policy.replies has texts, but sending.file is empty: every reply is refused as no_credentials";
            warnings.push(refused.to_owned());
        }
        warnings
    }

    /// Returns the folders that hold the texts of messages.
    pub fn folders(&self) -> Vec<PathBuf> {
        let url = self.database.url.expose();
        let file = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        let file = file.map(|file| PathBuf::from(file.split('?').next().unwrap_or_default()));
        // A file without a folder is in the working directory, which this program does not check.
        let beside = file.as_deref().and_then(Path::parent).map(Path::to_owned);
        let beside = beside.filter(|folder| !folder.as_os_str().is_empty());
        let others = [&self.archive.url, &self.media.store.url];
        let others = others.into_iter().filter_map(|url| file_access::folder(url));
        // The spool beside a database belongs to this program alone, and the store repairs its mode.
        let is_beside = file.is_some() && self.events.spool_dir.is_empty();
        let spool = self.events.spool_folder(file.as_deref()).filter(|_| !is_beside);
        beside.into_iter().chain(spool).chain(others).collect()
    }

    /// Adds all problems, each with its path. With `serving`, settings that only `serve` needs are required as well.
    pub(super) fn problems(&self, serving: bool, problems: &mut Vec<String>) {
        let mut check = |good: bool, problem: &str| {
            if !good {
                problems.push(problem.to_owned());
            }
        };
        check(
            self.listen.parse::<ListenAddress>().is_ok(),
            "listen: must be ADDRESS:PORT, as in 127.0.0.1:8081 or [::1]:8081, or unix:/PATH",
        );
        check(
            self.admin.address().is_none_or(|address| address.parse::<ListenAddress>().is_ok()),
            "admin.listen: must be ADDRESS:PORT, as in 127.0.0.1:8082, or unix:/PATH, or off",
        );
        check(
            !serving || !self.token.is_empty(),
            "token: missing; set TWILIO_EDGE_TOKEN (or TWILIO_EDGE_TOKEN_FILE) to what the filter is configured with",
        );
        check(
            self.token.expose().bytes().all(|byte| byte.is_ascii_graphic()),
            "token: must be visible ASCII without blanks, as a header has to carry it",
        );
        for folder in self.folders().iter().filter(|_| serving) {
            if let Err(problem) = file_access::check_folder(folder) {
                check(false, &problem);
            }
        }
        let weak = |secret: &str| match serving && !self.demo && !secret.is_empty() {
            true => secret::weakness(secret),
            false => None,
        };
        for (path, secret) in [
            ("token", &self.token),
            ("redaction.hash_key", &self.redaction.hash_key),
            ("media.store.link_key", &self.media.store.link_key),
        ] {
            if let Some(why) = weak(secret.expose()) {
                check(false, &format!("{path}: {why}"));
            }
        }
        if serving {
            for problem in self.archive.bucket_location().problems() {
                check(false, &format!("archive.{problem}"));
            }
        }
        let most = archive::MAX_LINES;
        check(
            (1..=most).contains(&(self.archive.lines as usize)),
            &format!("archive.lines: must be 1 to {most}"),
        );
        check(
            (1024..=MOST_ARCHIVE_BYTES).contains(&self.archive.bytes),
            &format!("archive.bytes: must be 1024 to {MOST_ARCHIVE_BYTES}"),
        );
        let is_web = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        check(
            is_web(&self.sending.base_url),
            "sending.base_url: must start with https:// (or http://, for a test)",
        );
        check(
            self.sending.content_base_url.is_empty() || is_web(&self.sending.content_base_url),
            "sending.content_base_url: must start with https:// (or http://, for a test), or be empty",
        );
        check(
            self.email.base_url.is_empty() || is_web(&self.email.base_url),
            "email.base_url: must start with https:// (or http://, for a test), or be empty",
        );
        check(
            self.verify.base_url.is_empty() || is_web(&self.verify.base_url),
            "verify.base_url: must start with https:// (or http://, for a test), or be empty",
        );
        check(
            self.studio.base_url.is_empty() || is_web(&self.studio.base_url),
            "studio.base_url: must start with https:// (or http://, for a test), or be empty",
        );
        let callback = self.sending.status_callback_url.as_str();
        check(
            callback.is_empty() || is_web(callback),
            "sending.status_callback_url: must start with https://, or be empty",
        );
        let database = self.database.url.expose();
        check(
            database.starts_with("sqlite:")
                || database.starts_with("postgres://")
                || database.starts_with("postgresql://"),
            "database.url: must start with sqlite: or postgres://",
        );
        check(
            !database.contains(":memory:"),
            "database.url: must be a file, not :memory:, which two connections cannot share",
        );
        let redis = self.redis.url.expose();
        check(
            redis.is_empty() || redis.starts_with("redis://") || redis.starts_with("rediss://"),
            "redis.url: must start with redis:// or rediss://, or be empty",
        );
        for (path, value, least) in [
            ("database.max_connections", u64::from(self.database.max_connections), 3),
            ("database.timeout_ms", self.database.timeout_ms, 1),
            ("database.connect_timeout_ms", self.database.connect_timeout_ms, 1),
            ("database.readers", u64::from(self.database.readers), 1),
            ("database.read_timeout_ms", self.database.read_timeout_ms, 1),
            ("archive.age_s", self.archive.age_s.into(), 1),
            ("sending.timeout_ms", self.sending.timeout_ms, 1000),
            ("sending.per_second", u64::from(self.sending.per_second), 1),
            ("sending.concurrency", self.sending.concurrency as u64, 1),
            ("sending.concurrency_floor", self.sending.concurrency_floor as u64, 1),
            ("sending.give_up_s", self.sending.give_up_s, 1),
            ("sending.reconcile_for_s", self.sending.reconcile_for_s, 1),
            ("sending.fallback_for_s", self.sending.fallback_for_s, 1),
            ("verify.window_s", self.verify.window_s, 1),
            ("verify.per_number", u64::from(self.verify.per_number), 1),
            ("verify.per_address", u64::from(self.verify.per_address), 1),
            ("redis.timeout_ms", self.redis.timeout_ms, 1),
            ("telemetry.every_ms", self.telemetry.every_ms, 1),
            ("telemetry.timeout_ms", self.telemetry.timeout_ms, 1),
            ("redaction.every_s", self.redaction.every_s, 1),
            ("redaction.batch", u64::from(self.redaction.batch), 1),
            ("leases.period_ms", u64::from(self.leases.period_ms), 1),
            ("leases.result_ttl_s", u64::from(self.leases.result_ttl_s), 1),
            ("leases.recall_s", u64::from(self.leases.recall_s), 1),
            ("events.queue", self.events.queue as u64, 1),
            ("events.batch", self.events.batch as u64, 1),
            ("events.spool_max_bytes", self.events.spool_max_bytes, 1 << 20),
            ("api.requests_per_second", u64::from(self.api.requests_per_second), 1),
            ("connections.max", self.connections.max as u64, 16),
            ("connections.max_per_address", self.connections.max_per_address as u64, 4),
            ("connections.header_timeout_ms", self.connections.header_timeout_ms, 100),
            ("connections.idle_timeout_ms", self.connections.idle_timeout_ms, 1000),
            ("connections.known_idle_timeout_ms", self.connections.known_idle_timeout_ms, 1000),
            ("connections.http2_streams", u64::from(self.connections.http2_streams), 1),
            ("connections.max_header_bytes", self.connections.max_header_bytes as u64, 8192),
            ("api.burst", u64::from(self.api.burst), 1),
            ("stream.max_per_key", self.stream.max_per_key as u64, 1),
            ("stream.heartbeat_ms", self.stream.heartbeat_ms, 100),
            ("stream.slow_ms", self.stream.slow_ms, 100),
            ("stream.max_age_s", self.stream.max_age_s, 1),
            ("api.bad_tokens_per_minute", u64::from(self.api.bad_tokens_per_minute), 1),
            ("api.max_body_bytes", self.api.max_body_bytes as u64, 1024),
            ("api.max_import_bytes", self.api.max_import_bytes as u64, 1024),
            ("api.idempotency_ttl_s", self.api.idempotency_ttl_s, 60),
            ("http.max_body_bytes", self.http.max_body_bytes as u64, 1024),
            ("http.request_timeout_ms", self.http.request_timeout_ms, 1),
        ] {
            check(value >= least, &format!("{path}: must be at least {least}"));
        }
        let session_s = self.console.session_s;
        check(
            (60..=LONGEST_SESSION_S).contains(&session_s),
            &format!("console.session_s: must be 60 to {LONGEST_SESSION_S}"),
        );
        for (path, seconds) in [
            ("redaction.every_s", self.redaction.every_s),
            ("sending.templates_every_s", self.sending.templates_every_s),
            ("sending.repeat_after_s", self.sending.repeat_after_s),
            ("sending.repeat_for_s", self.sending.repeat_for_s),
            ("sending.status_after_s", self.sending.status_after_s),
            ("verify.window_s", self.verify.window_s),
            ("verify.status_after_s", self.verify.status_after_s),
        ] {
            check(seconds <= YEAR_S, &format!("{path}: must be at most {YEAR_S}, one year"));
        }
        check(
            self.log.level.split(',').all(|directive| {
                let level = directive.rsplit('=').next().unwrap_or_default();
                level.trim().parse::<tracing::level_filters::LevelFilter>().is_ok()
            }),
            "log.level: must be error, warn, info, debug, trace, or TARGET=LEVEL,..",
        );
        check(
            self.stream.max_age_s <= MOST_STREAM_S,
            &format!(
                "stream.max_age_s: must be at most {MOST_STREAM_S}, because a listener closes older responses"
            ),
        );
        for problem in self.media.problems(serving) {
            check(false, &format!("media.{problem}"));
        }
        for problem in self.policy.problems() {
            check(false, &format!("policy.{problem}"));
        }
        let has_links = self.media.store.inbound_links().is_some();
        check(has_links || !self.policy.inbound_media.fetch, &format!("policy.{NO_MEDIA_STORE}"));
        for problem in self.optout.lexicon().err().unwrap_or_default() {
            check(false, &format!("optout.{problem}"));
        }
        let collector = self.telemetry.otlp_endpoint.as_str();
        check(
            collector.is_empty()
                || collector.starts_with("http://")
                || collector.starts_with("https://"),
            "telemetry.otlp_endpoint: must start with http:// or https://, or be empty",
        );
        check(self.telemetry.sample_percent <= 100, "telemetry.sample_percent: must be 0 to 100");
        let result_ms = i64::from(self.leases.result_ttl_s).saturating_mul(1000);
        for problem in self.retention.problems(result_ms, !self.redaction.hash_key.is_empty()) {
            check(false, &format!("retention.{problem}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::config::Merged;

    #[test]
    fn signs_of_life_come_before_a_listener_closes_a_quiet_connection() {
        let heartbeat_ms = |idle_ms: &str| {
            let name = OsString::from("TWILIO_EDGE_CONNECTIONS_IDLE_TIMEOUT_MS");
            let settings = std::iter::once((name, OsString::from(idle_ms)));
            Merged::read(None, settings).check().unwrap().live_streams().heartbeat_ms
        };
        assert_eq!((heartbeat_ms("75000"), heartbeat_ms("1000")), (10_000, 500));
    }

    #[test]
    fn interval_of_a_background_task_is_at_most_one_year() {
        let problem = |name: &str, seconds: &str| {
            let setting = (OsString::from(name), OsString::from(seconds));
            let checked = Merged::read(None, std::iter::once(setting)).check();
            checked.err().map(|problems| problems.to_string()).unwrap_or_default()
        };
        for (name, path) in [
            ("TWILIO_EDGE_REDACTION_EVERY_S", "redaction.every_s"),
            ("TWILIO_EDGE_SENDING_TEMPLATES_EVERY_S", "sending.templates_every_s"),
        ] {
            assert_eq!(problem(name, "31536000"), "");
            let expected = format!("{path}: must be at most 31536000, one year");
            for seconds in ["31536001", "9223372036854775807"] {
                let problem = problem(name, seconds);
                assert!(problem.contains(&expected), "{problem}");
            }
        }
    }
}
