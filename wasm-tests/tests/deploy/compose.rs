//! docker-compose.yml and the images. Docker Compose accepts the file, hadolint the Dockerfile, every service is confined, and
//! the services work. The last test needs root, for its namespaces and users.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_wasm_tests::envoy::module;
use twilio_edge_wasm_tests::process::isolated;
use twilio_edge_wasm_tests::repository;
use twilio_edge_wasm_tests::sidecar::binary;

use crate::{file, said, tool};

const DOCKERFILE: &str = "deploy/docker/Dockerfile";

/// Output of each command of the document.
const SHOWN: [&[&str]; 7] = [
    &["\"delivered\":true"],
    &[],
    &["\"state\":\"queued\"", "\"id\":\"ms_"],
    &["delivered", "read"],
    &["200 OK"],
    &["\"delivered\":true"],
    &["\"code\":\"suppressed\""],
];

/// Variables without which nothing starts, with values that are found where they must not be.
const REQUIRED: [(&str, &str); 3] = [
    ("TWILIO_EDGE_TOKEN", "f1a51d3a8a0e4d6d9c3f0c7d5e1b2a43"),
    ("POSTGRES_PASSWORD", "a0b7e4c2d9f84b1e8c6d3f5a7b9c1d2e"),
    ("REDIS_PASSWORD", "c3d4e5f60718293a4b5c6d7e8f901a2b"),
];

/// Returns Compose's rendering of the file with these variables and the required ones.
fn config(variables: &str) -> Result<Value> {
    let is_set = |name: &str| variables.lines().any(|line| line.starts_with(&format!("{name}=")));
    let required = REQUIRED.iter().filter(|(name, _)| !is_set(name));
    let required: String = required.map(|(name, value)| format!("{name}={value}\n")).collect();
    Ok(serde_json::from_str(&said(&mut compose(&(required + variables))?)?)?)
}

/// `docker-compose config` with these variables and no others.
fn compose(variables: &str) -> Result<Command> {
    let folder = tempfile::tempdir()?.keep();
    let environment = folder.join("env");
    std::fs::write(&environment, variables)?;
    let mut compose = Command::new(tool("compose", "docker-compose")?);
    compose.env_clear().env("HOME", folder).current_dir(repository());
    compose.arg("--env-file").arg(environment).args(["config", "--format", "json"]);
    Ok(compose)
}

#[test]
fn compose_starts_nothing_without_passwords_of_its_own() -> Result<()> {
    for (missing, _) in REQUIRED {
        for empty in [String::new(), format!("{missing}=\n")] {
            let others = REQUIRED.iter().filter(|(name, _)| *name != missing);
            let others: String = others.map(|(name, value)| format!("{name}={value}\n")).collect();
            let output = compose(&(others + &empty))?.output()?;
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(!output.status.success(), "it starts without {missing}");
            ensure!(stderr.contains(missing), "{stderr}");
            ensure!(stderr.contains("deploy/compose/secrets.sh"), "{stderr}");
        }
    }
    for (_, service) in services(&config("")?)? {
        for part in ["command", "entrypoint", "healthcheck", "labels"] {
            let text = service[part].to_string();
            let shown = REQUIRED.iter().find(|(_, secret)| text.contains(secret));
            ensure!(shown.is_none(), "{shown:?} is in {part}: {text}");
        }
    }
    Ok(())
}

#[test]
fn script_makes_random_passwords_once_for_this_user_alone() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("deploy/compose/secrets.sh");
    std::fs::create_dir_all(script.parent().context("a folder")?)?;
    std::fs::copy(repository().join("deploy/compose/secrets.sh"), &script)?;
    let environment = folder.path().join(".env");
    std::fs::write(&environment, "PUBLIC_ORIGIN=https://a.example\nREDIS_PASSWORD=mine")?;
    said(Command::new("sh").arg(&script))?;
    let made = std::fs::read_to_string(&environment)?;
    assert_eq!(std::fs::metadata(&environment)?.permissions().mode() & 0o777, 0o600);
    ensure!(made.starts_with("PUBLIC_ORIGIN=https://a.example\nREDIS_PASSWORD=mine\n"), "{made}");
    let value = |name: &str| {
        made.lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned))
    };
    let random =
        ["TWILIO_EDGE_TOKEN", "POSTGRES_PASSWORD"].map(|name| value(name).unwrap_or_default());
    for secret in &random {
        ensure!(secret.len() == 64 && secret.bytes().all(|it| it.is_ascii_hexdigit()), "{made}");
    }
    ensure!(random[0] != random[1], "both are the same");
    said(Command::new("sh").arg(&script))?;
    assert_eq!(std::fs::read_to_string(&environment)?, made, "a second call changes nothing");
    config(&made).map(|_| ())
}

fn services(config: &Value) -> Result<BTreeMap<String, Value>> {
    let found = config["services"].as_object().context("no services")?;
    Ok(found.clone().into_iter().collect())
}

/// The stage of the Dockerfile, as text.
fn stage(name: &str) -> Result<String> {
    let dockerfile = file(DOCKERFILE)?;
    let (_, rest) = dockerfile.split_once(&format!(" AS {name}\n")).context(name.to_owned())?;
    Ok(rest.split("\nFROM ").next().unwrap_or(rest).to_owned())
}

#[test]
fn every_container_is_confined_and_has_a_health_check() -> Result<()> {
    let config = config("")?;
    let services = services(&config)?;
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["backend", "envoy", "postgres", "redis", "sidecar", "simulator"]);
    for (name, service) in &services {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        ensure!(service["privileged"].is_null() && service["cap_add"].is_null(), "{name}");
        ensure!(service["mem_limit"].is_string() && service["pids_limit"].is_u64(), "{name}");
        let image = match service["build"]["target"].as_str() {
            Some(target) => stage(target)?,
            None => String::new(),
        };
        let user = service["user"].as_str().is_some_and(|user| !user.starts_with('0'));
        ensure!(user || image.contains("\nUSER 65532:65532\n"), "{name} is root");
        let is_checked = service["healthcheck"].is_object() || image.contains("\nHEALTHCHECK ");
        ensure!(is_checked, "{name} has no health check");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}");
        }
        // Services resolve each other's names only within the same network.
        let networks = service["networks"].as_object().context("networks")?;
        let expected: &[&str] = match name.as_str() {
            "redis" | "postgres" => &["stores"],
            "sidecar" => &["edge", "stores"],
            _ => &["edge"],
        };
        assert_eq!(networks.keys().collect::<Vec<_>>(), expected, "{name}");
    }
    assert_eq!(config["networks"]["stores"]["internal"], true);
    Ok(())
}

/// Each line of `.env.example`, without its `#`, is a variable that changes something.
#[test]
fn variables_of_the_example_are_all_used() -> Result<()> {
    let example = file(".env.example")?;
    let variables = example.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
    let names: Vec<&str> =
        variables.map(|(name, _)| name).filter(|name| !name.contains(' ')).collect();
    ensure!(names.len() > 10, "{names:?}");
    let plain = config("")?.to_string();
    for name in &names {
        let value = if name.ends_with("_PORT") { "18080" } else { "https://example.com/x" };
        let changed = config(&format!("{name}={value}\n"))?.to_string();
        ensure!(changed != plain, "{name} changes nothing");
    }
    let ignored = file(".gitignore")?;
    ensure!(ignored.lines().any(|line| line == "/.env"), ".env would be committed");
    // Variables that the file reads are in the example, all but one for who plays with the demo.
    let read = file("docker-compose.yml")?;
    let read = read.split("${").skip(1).filter_map(|rest| rest.split([':', '}']).next());
    for name in read.filter(|name| *name != "BACKEND_DELAY_MS") {
        ensure!(names.contains(&name), "{name} is not in .env.example");
    }
    Ok(())
}

#[test]
fn hadolint_has_nothing_to_say_and_versions_are_those_that_are_tested() -> Result<()> {
    let linted =
        said(Command::new(tool("hadolint", "hadolint")?).arg(repository().join(DOCKERFILE)))?;
    assert_eq!(linted, "");
    let dockerfile = file(DOCKERFILE)?;
    let toolchain = file("rust-toolchain.toml")?;
    let rust = toolchain.split('"').nth(1).context("a channel")?;
    ensure!(dockerfile.contains(&format!("\nFROM rust:{rust}-bookworm AS rust\n")), "not {rust}");
    let setup = file("setup/setup.sh")?;
    let envoy = setup.split_once("\nENVOY=").and_then(|(_, rest)| rest.split_whitespace().next());
    let envoy = envoy.context("a version of Envoy")?;
    ensure!(
        dockerfile.contains(&format!("\nFROM envoyproxy/envoy:v{envoy} AS envoy\n")),
        "{envoy}"
    );
    Ok(())
}

/// Building them takes minutes (`make images-dry`); that what is sent to the engine is all that cargo asks for does not.
#[test]
fn build_context_contains_the_workspace() -> Result<()> {
    let mut images = Command::new("python3");
    images.arg(repository().join("wasm-tests/deploy/images.py")).arg(repository()).arg("-n");
    let said = said(&mut images)?;
    for stage in ["build-filter", "build-native", "build-sidecar"] {
        ensure!(said.contains(&format!("{stage}: cargo build --locked")), "{said}");
    }
    Ok(())
}

/// The commands of the document's block.
fn commands() -> Result<Vec<String>> {
    let document = file("docs/INSTALL-COMPOSE.md")?;
    let (_, rest) = document.split_once("## Try it\n").context("nothing to try")?;
    let (_, rest) = rest.split_once("```sh\n").context("no commands")?;
    let (block, _) = rest.split_once("```").context("no end of commands")?;
    Ok(block.lines().map(str::to_owned).collect())
}

#[test]
fn compose_file_runs_and_a_message_is_sent_and_read() -> Result<()> {
    let commands = commands()?;
    ensure!(commands.len() == SHOWN.len(), "{commands:?}");
    let probe = isolated("unshare").as_std_mut().args(["--net", "--mount", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        ensure!(std::env::var_os("CI").is_none(), "no namespaces of its own, and this is CI");
        eprintln!("not run: it takes root, for namespaces and users of its own");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let transcript: Vec<_> = commands.iter().zip(SHOWN).collect();
    let find =
        "readlink -f \"$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb | tail -1)\"";
    let initdb = said(Command::new("sh").args(["-c", find]))?;
    let postgres = initdb.trim().rsplit_once('/');
    let here = json!({
        "envoy": repository().join(".venv/bin/envoy").canonicalize()?,
        "filter": module()?.canonicalize()?,
        "build-sidecar": binary()?,
        "sidecar": binary()?,
        "postgres": postgres.context("PostgreSQL: run `make setup-test`")?.0,
    });
    let mut run = isolated("unshare");
    let run = run.as_std_mut();
    run.args(["--net", "--mount", "--"]).arg(repository().join(".venv/bin/python"));
    run.arg(repository().join("wasm-tests/deploy/composed.py"))
        .arg(repository())
        .arg(folder.path());
    run.args([config("")?.to_string(), here.to_string(), serde_json::to_string(&transcript)?]);
    let walked = said(run)?;
    ensure!(walked.ends_with("composed\n"), "{walked}");
    Ok(())
}
