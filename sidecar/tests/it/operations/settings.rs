//! Configuration and start, as the person who deploys it meets them: what is refused, in which words, and what is shown.

use std::{
    path::Path,
    process::{Command, Output},
};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    access::api_keys::{Caller, administrator, coded},
    support::servers::{Postgres, free_port},
    support::sidecar::{ACCOUNT, TOKEN},
    support::world::{Kind, World, private_files, sqlite_url},
};

/// Runs the binary in a folder with nothing but these variables.
fn twilio_edge(folder: &Path, args: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
    command.args(args).current_dir(folder).env_clear().envs(settings.iter().copied());
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_problem_of_every_source_is_reported_at_once() {
    private_files();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(
        &file,
        "listn = \"x\"\n[leases]\nperiod_ms = \"soon\"\n[redis]\nurl = \"localhost\"\n[extra]\na = 1\n\
         [optout]\nstop = [\"STOP\", \"no more please\"]\nstart = [\"stop\"]\n[events]\nqueue = 0\n",
    )
    .unwrap();
    let settings = [
        ("TWILIO_EDGE_LISTEN", "8081"),
        ("TWILIO_EDGE_HTTP_MAX_BODY_BYTES", "lots"),
        ("DATABASE_URL", "mysql://db"),
        ("TWILIO_EDGE_LOG_LEVEL", "loud"),
        ("TWILIO_EDGE_ACCOUNTS_FILE", "accounts.toml"),
        ("TWILIO_EDGE_ARCHIVE_URL", "acme-webhooks/edge"),
        ("TWILIO_EDGE_ARCHIVE_ENDPOINT", "minio:9000"),
        ("TWILIO_EDGE_ARCHIVE_LINES", "4001"),
    ];
    std::fs::write(folder.path().join("accounts.toml"), "[[account]]\nsid = \"hush\"\nkey = 1\n")
        .unwrap();
    let output = twilio_edge(folder.path(), &["serve", "--config", "edge.toml"], &settings);
    assert!(!output.status.success());
    let said = stderr(&output);
    for problem in [
        "listn: there is no such setting",
        "extra: there is no such setting",
        "leases.period_ms: must be a whole number, not a text",
        "TWILIO_EDGE_HTTP_MAX_BODY_BYTES: must be a whole number",
        "listen: must be ADDRESS:PORT",
        "accounts.file: accounts.toml: account[0].key: there is no such field",
        "accounts.file: accounts.toml: account[0].sid: must be AC and 32 hexadecimal digits",
        "accounts.file: accounts.toml: account[0]: has neither auth_tokens nor shared_keys",
        "token: missing; set TWILIO_EDGE_TOKEN",
        "database.url: must start with sqlite: or postgres://",
        "redis.url: must start with redis:// or rediss://",
        "log.level: must be",
        "optout.stop: \"no more please\" must have 1 to 2 words",
        "optout.start: \"stop\" is also in optout.stop",
        "events.queue: must be at least 1",
        "archive.url: must be s3://BUCKET/PREFIX",
        "archive.endpoint: must start with https://",
        "archive.lines: must be 1 to 4000",
    ] {
        assert!(said.contains(problem), "{problem:?} is not in:\n{said}");
    }
    assert!(said.starts_with("twilio-edge: the configuration has 18 problem(s):"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

#[test]
fn unreadable_file_is_named() {
    let folder = TempDir::new().unwrap();
    let output = twilio_edge(folder.path(), &["print-config", "--config", "none.toml"], &[]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("none.toml: No such file"), "{}", stderr(&output));

    std::fs::write(folder.path().join("bad.toml"), "listen = \"x\"\nlisten = \"y\"\n").unwrap();
    let output = twilio_edge(folder.path(), &["print-config", "--config", "bad.toml"], &[]);
    assert!(stderr(&output).contains("line 2 of the file: duplicate key"), "{}", stderr(&output));
}

#[test]
fn environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let folder = TempDir::new().unwrap();
    let file = "[leases]\nperiod_ms = 5000\nresult_ttl_s = 60\n[optout]\nhelp = [\"HILFE\"]\n";
    std::fs::write(folder.path().join("edge.toml"), file).unwrap();
    let settings = [
        ("TWILIO_EDGE_LEASES_PERIOD_MS", "700"),
        ("TWILIO_EDGE_LEASES_RESULT_TTL_S", ""),
        ("TWILIO_EDGE_OPTOUT_STOP", "STOP, ARRET"),
        ("TWILIO_EDGE_POLICY_SHARED_CHANNELS", "sms, mms; rcs,whatsapp ;"),
        ("UNRELATED", "x"),
    ];
    let output = twilio_edge(folder.path(), &["print-config", "--config", "edge.toml"], &settings);
    assert!(output.status.success(), "{}", stderr(&output));
    let shown: toml::Table = stdout(&output).parse().unwrap();
    assert_eq!(shown["leases"]["period_ms"].as_integer(), Some(700));
    assert_eq!(shown["leases"]["result_ttl_s"].as_integer(), Some(60));
    assert_eq!(shown["leases"]["max_answer_bytes"].as_integer(), Some(16384));
    assert_eq!(shown["optout"]["stop"].as_array().unwrap().len(), 2);
    assert_eq!(shown["optout"]["help"].as_array().unwrap().len(), 1);
    let groups = shown["policy"]["shared_channels"].to_string();
    assert_eq!(groups, "[[\"sms\", \"mms\"], [\"rcs\", \"whatsapp\"]]");
}

#[tokio::test]
async fn administrator_of_all_accounts_sees_the_settings_in_effect_without_secrets() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world
        .sidecar_with(&[
            ("TWILIO_EDGE_API_BURST", "150"),
            ("TWILIO_EDGE_REDACTION_HASH_KEY", "hush-0123456789abcdef0123456789abcdef"),
        ])
        .await;
    let root = administrator(&sidecar).await;
    let listed = root.get("/v1/settings").await;
    let setting = |name: &str| {
        let settings = listed["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["name"] == name).unwrap().clone()
    };
    let burst = json!({
        "name": "api.burst", "variable": "TWILIO_EDGE_API_BURST", "value": 150, "is_default": false,
    });
    assert_eq!(setting("api.burst"), burst);
    let period = setting("leases.period_ms");
    assert_eq!(period["is_default"], true, "{period}");
    for (name, variable) in
        [("token", "TWILIO_EDGE_TOKEN"), ("redaction.hash_key", "TWILIO_EDGE_REDACTION_HASH_KEY")]
    {
        let secret = setting(name);
        assert_eq!((&secret["value"], &secret["variable"]), (&json!("***"), &json!(variable)));
    }
    let text = listed.to_string();
    assert!(!text.contains("hush") && !text.contains(TOKEN), "{text}");
    let warning = listed["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("api.burst (150) is less than"), "{warning}");

    // Settings concern all accounts.
    let (_, key) = root.create("admin", Some(ACCOUNT), "admin of one account").await;
    let bound = Caller::admin(&sidecar, &key);
    let refused = bound.refusal(Method::GET, "/v1/settings", &Value::Null).await;
    assert_eq!(refused, coded(403, "other_account"));
}

#[test]
fn secrets_are_never_shown() {
    let folder = TempDir::new().unwrap();
    for (variable, value, shown) in [
        ("TWILIO_EDGE_TOKEN", "hush", "token = \"***\""),
        (
            "DATABASE_URL",
            "postgres://u:hush@db/edge?sslmode=require",
            "postgres://u:***@db/edge?sslmode=require",
        ),
        ("DATABASE_URL", "postgres://u:hu@sh/hush@db/edge", "postgres://u:***@db/edge"),
        (
            "DATABASE_URL",
            "postgres://db/edge?user=u&password=hush",
            "postgres://db/edge?user=u&password=***",
        ),
        ("REDIS_URL", "rediss://:hush@cache:6380/1", "rediss://:***@cache:6380/1"),
        ("REDIS_URL", "redis://hush@cache", "redis://***@cache"),
        (
            "TWILIO_EDGE_SENDING_STATUS_CALLBACK_URL",
            "https://hooks.example.com:8443/services/T000/B000/hush",
            "https://hooks.example.com:8443/***",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://collector.example.com/v1?api_key=hush",
            "https://collector.example.com/***",
        ),
    ] {
        let output = twilio_edge(folder.path(), &["print-config"], &[(variable, value)]);
        assert!(output.status.success(), "{}", stderr(&output));
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains(shown) && !said.contains("hush"), "{value}:\n{said}");
    }
}

#[test]
fn secrets_come_from_files_too() {
    private_files();
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("token"), "from-a-file\n").unwrap();
    std::fs::write(folder.path().join("database"), "postgres://u:hush@db/edge\n").unwrap();
    let files = [("TWILIO_EDGE_TOKEN_FILE", "token"), ("DATABASE_URL_FILE", "database")];
    let output = twilio_edge(folder.path(), &["print-config"], &files);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("token = \"***\""), "{}", stdout(&output));
    assert!(stdout(&output).contains("postgres://u:***@db/edge"), "{}", stdout(&output));

    let both = [("TWILIO_EDGE_TOKEN", "x"), ("TWILIO_EDGE_TOKEN_FILE", "token")];
    let output = twilio_edge(folder.path(), &["print-config"], &both);
    assert!(stderr(&output).contains("set it or TWILIO_EDGE_TOKEN_FILE, not both"));
    let output = twilio_edge(folder.path(), &["serve"], &[("TWILIO_EDGE_TOKEN_FILE", "nowhere")]);
    assert!(stderr(&output).contains("TWILIO_EDGE_TOKEN_FILE: nowhere: No such file"));
}

#[test]
fn failed_start_is_one_clear_line() {
    let folder = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let unreachable = format!("postgres://u:hush@127.0.0.1:{}/edge", free_port());
    std::fs::write(folder.path().join("file"), "").unwrap();
    for (settings, expected) in [
        (
            vec![("TWILIO_EDGE_LISTEN", address.as_str())],
            format!("cannot listen on {address}: Address already in use"),
        ),
        (
            vec![("TWILIO_EDGE_ADMIN_LISTEN", address.as_str())],
            format!("cannot listen on {address}: Address already in use"),
        ),
        (
            vec![
                ("DATABASE_URL", &unreachable),
                ("TWILIO_EDGE_DATABASE_CONNECT_TIMEOUT_MS", "300"),
            ],
            "the database postgres://u:***@127.0.0.1".into(),
        ),
        (
            vec![("DATABASE_URL", "sqlite://file/edge.db")],
            "the database sqlite://file/edge.db cannot be reached: cannot create file".into(),
        ),
    ] {
        let always = [
            ("TWILIO_EDGE_TOKEN", "a-token-of-the-tests"),
            ("TWILIO_EDGE_LISTEN", "127.0.0.1:0"),
            ("TWILIO_EDGE_ADMIN_LISTEN", "off"),
        ];
        let output = twilio_edge(folder.path(), &["serve"], &[&always[..], &settings].concat());
        let said = stderr(&output);
        assert!(!output.status.success(), "{said}");
        assert!(said.starts_with(&format!("twilio-edge: {expected}")), "{said}");
        assert!(said.lines().count() == 1 && !said.contains("hush"), "{said}");
    }
}

#[tokio::test]
async fn second_sidecar_on_one_file_is_refused_while_the_first_one_lives() {
    let world = World::new(Kind::Sqlite).await;
    let first = world.sidecar().await;
    let settings = [
        ("TWILIO_EDGE_TOKEN", "a-token-of-the-tests"),
        ("TWILIO_EDGE_LISTEN", "127.0.0.1:0"),
        ("TWILIO_EDGE_ADMIN_LISTEN", "off"),
        ("DATABASE_URL", world.database_url.as_str()),
        ("TWILIO_EDGE_DATABASE_CONNECT_TIMEOUT_MS", "100"),
    ];
    let output = twilio_edge(world.directory.path(), &["serve"], &settings);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("another sidecar has it open"), "{}", stderr(&output));
    first.kill();
    world.sidecar().await;
}

#[tokio::test]
async fn many_may_migrate_one_database_at_once() {
    let folder = TempDir::new().unwrap();
    for url in [sqlite_url(folder.path()), Postgres::shared().await.database().await] {
        let runs: Vec<_> = (0..6)
            .map(|_| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
                command.arg("migrate").env_clear().env("DATABASE_URL", &url);
                command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        for run in runs {
            let output = run.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            assert!(stdout(&output).ends_with("is up to date\n"), "{}", stdout(&output));
        }
    }
}

#[test]
fn weak_secrets_are_refused_outside_of_a_demo() {
    private_files();
    let folder = TempDir::new().unwrap();
    let sinks = folder.path().join("sinks.toml");
    let zeros = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    std::fs::write(
        &sinks,
        format!("[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"http://127.0.0.1:9/\"\nsecrets = [\"{zeros}\"]\n"),
    )
    .unwrap();
    let weak = [
        ("TWILIO_EDGE_TOKEN", "local-edge-token"),
        ("TWILIO_EDGE_REDACTION_HASH_KEY", "short"),
        ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", "replace-me-replace-me-replace-me-replace-me"),
        ("TWILIO_EDGE_SINKS_FILE", sinks.to_str().unwrap()),
        // Nothing is opened: there is a problem in any case.
        ("TWILIO_EDGE_LISTEN", "nowhere"),
    ];
    let output = twilio_edge(folder.path(), &["serve"], &weak);
    let said = stderr(&output);
    for problem in [
        "token: is a published example; generate one with `openssl rand -hex 32`",
        "redaction.hash_key: has fewer than 16 characters; generate one",
        "media.store.link_key: is a published example",
        "sink \"app\": secrets[0]: is not a random key; generate one",
    ] {
        assert!(said.contains(problem), "{problem:?} is not in:\n{said}");
    }
    assert!(!said.contains("local-edge-token") && !said.contains(zeros), "{said}");
    let demo = [&weak[..], &[("TWILIO_EDGE_DEMO", "true")]].concat();
    let said = stderr(&twilio_edge(folder.path(), &["serve"], &demo));
    assert!(said.contains("the configuration has 1 problem(s)"), "{said}");
    // Commands beside the sidecar need no token.
    assert!(twilio_edge(folder.path(), &["print-config"], &weak[..1]).status.success());
}

#[test]
fn contradicting_limits_are_reported() {
    let folder = TempDir::new().unwrap();
    let said = |settings: &[(&str, &str)]| {
        let output = twilio_edge(folder.path(), &["print-config"], settings);
        assert!(output.status.success());
        stderr(&output)
    };
    assert_eq!(said(&[]), "", "the defaults fit");
    let slow = said(&[("TWILIO_EDGE_API_REQUESTS_PER_SECOND", "50")]);
    assert!(
        slow.contains("api.requests_per_second (50) is less than sending.per_second (80)"),
        "{slow}"
    );
    assert!(slow.contains("raise it to 160 or more"), "{slow}");
    let fast = said(&[("TWILIO_EDGE_SENDING_PER_SECOND", "400")]);
    assert!(fast.contains("api.requests_per_second (200)"), "{fast}");
    let narrow = said(&[("TWILIO_EDGE_API_BURST", "10")]);
    assert!(narrow.contains("api.burst (10) is less than api.requests_per_second"), "{narrow}");
}

#[test]
fn replies_of_the_settings_file_are_checked() {
    let folder = TempDir::new().unwrap();
    let shown = |policy: &str| {
        std::fs::write(folder.path().join("edge.toml"), format!("[policy]\n{policy}\n")).unwrap();
        twilio_edge(folder.path(), &["print-config", "--config", "edge.toml"], &[])
    };
    let texts = "replies = [{ keyword = \"stop\", text = \"bye\" }, { keyword = \"stop\", text = \"au revoir\", language = \"fr\" }]";
    let output = shown(texts);
    let config = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && config.contains("au revoir"), "{config}");
    let warned = "policy.replies has texts, but sending.file is empty";
    assert!(stderr(&output).contains(warned), "{}", stderr(&output));
    for (policy, problem) in [
        ("replies = [{ keyword = \"stop\", text = \"\" }]", "policy.replies[0].text: must have"),
        (
            "replies = [{ keyword = \"stop\", text = \"bye\", channel = \"sms\" }]",
            "policy.replies[0].channel: Twilio answers keywords on sms",
        ),
        ("replies = [{ keyword = \"cancel\", text = \"bye\" }]", "cancel"),
        ("replies = [{ keyword = \"stop\", text = \"bye\", locale = \"fr\" }]", "locale"),
        ("stop_lasts_days = 40000", "policy.stop_lasts_days: must be 0 to 36500"),
    ] {
        let output = shown(policy);
        assert!(!output.status.success(), "{policy}");
        assert!(stderr(&output).contains(problem), "{policy}: {}", stderr(&output));
    }
}
