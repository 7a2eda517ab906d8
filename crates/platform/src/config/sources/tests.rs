//! Tests of the sources of settings and their precedence.

use proptest::prelude::*;

use super::*;

/// Collects the path of every setting that holds a text or a list of texts.
fn texts(table: &Table, parent: &str, found: &mut Vec<(String, bool)>) {
    for (key, value) in table {
        let path = join(parent, key);
        match value {
            Value::Table(table) => texts(table, &path, found),
            Value::String(_) => found.push((path, false)),
            Value::Array(_) => found.push((path, true)),
            _ => {}
        }
    }
}

fn shown(path: &str, is_list: bool, value: &str) -> String {
    let given = [(OsString::from(variable(path)), OsString::from(value))];
    let merged = Merged::of(None, given.into());
    assert!(merged.problems.is_empty(), "{:?}", merged.problems);
    let _ = is_list;
    format!("{}{:?}", merged.redacted(), merged.effective())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// No credential in a URL is shown, at any position in the URL and in any setting.
    #[test]
    fn no_setting_shows_a_credential(
        scheme in "(postgres|postgresql|redis|rediss|http|https|s3|gs|file|sqlite|socks5)",
        before in "[a-z]{0,4}[@/?#:%]{0,1}[a-z]{0,4}",
        place in 0u8..7,
        name in "(password|token|key|api_key|access_token|sig|sslpassword|secret|X-Amz-Signature|q|auth)",
    ) {
        let hush = "HUSHhush42";
        let secret = format!("{before}{hush}");
        let url = match place {
            0 => format!("{scheme}://user:{secret}@host.example:1/path"),
            1 => format!("{scheme}://:{secret}@host.example/path?sslmode=require"),
            2 => format!("{scheme}://host.example/path?{name}={hush}"),
            3 => format!("{scheme}://host.example/path?mode=rw&{name}={hush}#top"),
            4 => format!("{scheme}://u:{secret}@host.example/?{name}={hush}"),
            // A webhook URL whose path is its password.
            5 if scheme.starts_with("http") => {
                format!("{scheme}://hooks.example/services/T000/B000/{hush}")
            }
            _ => format!("{scheme}://host.example/path#{hush}"),
        };
        let mut settings = Vec::new();
        texts(&DEFAULTS.parse().unwrap(), "", &mut settings);
        prop_assert!(settings.len() > 30);
        for (path, is_list) in settings {
            let shown = shown(&path, is_list, &url);
            prop_assert!(!shown.contains(hush), "{path} = {url}:\n{shown}");
        }
    }
}

#[test]
fn file_with_a_credential_is_known() {
    for (text, expected) in [
        ("token = \"hush\"", true),
        ("[database]\nurl = \"postgres://edge:hush@db/edge\"", true),
        ("[redis]\nurl = \"rediss://:hush@redis:6379\"", true),
        ("[redaction]\nhash_key = \"hush\"", true),
        ("[media.store]\nlink_key = \"hush\"", true),
        ("[telemetry]\notlp_endpoint = \"http://user:hush@collector:4318\"", true),
        ("token = \"\"\n[database]\nurl = \"sqlite://data/edge.db\"", false),
        ("[database]\nurl = \"postgres://edge@db/edge\"", false),
        ("[sending]\nstatus_callback_url = \"https://a.example/twilio/status\"", false),
        ("listen = \"127.0.0.1:8081\"", false),
    ] {
        assert_eq!(holds_secret(&text.parse().unwrap(), ""), expected, "{text}");
    }
}

#[test]
fn urls_are_shown_without_what_is_secret() {
    for (url, expected) in [
        ("https://TOKEN@hooks.example/x", "https://***@hooks.example/***"),
        ("https://hooks.example:8443/services/T0/B0/key", "https://hooks.example:8443/***"),
        ("HTTPS://hooks.example/services", "HTTPS://hooks.example/***"),
        ("https://hooks.example?key", "https://hooks.example/***"),
        ("https://hooks.example\\key", "https://hooks.example/***"),
        ("https://hooks.example/", "https://hooks.example/"),
        ("https://api.twilio.com", "https://api.twilio.com"),
        ("unknown://host/key", "unknown://host/***"),
        ("file:///var/lib/twilio-edge/media", "file:///var/lib/twilio-edge/media"),
        ("postgres://edge@db/edge", "postgres://edge@db/edge"),
        ("http://user:pass@proxy:3128", "http://user:***@proxy:3128"),
        ("user:pass@proxy:3128", "user:***@proxy:3128"),
        ("https://a.example/s?token=x&mode=ro", "https://a.example/***"),
        (
            "redis://a.example/0?token=x&protocol=resp3",
            "redis://a.example/0?token=***&protocol=resp3",
        ),
        ("sqlite://data/edge.db?mode=rwc&key=x", "sqlite://data/edge.db?mode=rwc&key=***"),
        ("redis://a:x@one,redis://b:y@two", "redis://a:***@two"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("127.0.0.1:8081", "127.0.0.1:8081"),
        ("STOP", "STOP"),
    ] {
        assert_eq!(without_credentials(url), expected);
    }
}
