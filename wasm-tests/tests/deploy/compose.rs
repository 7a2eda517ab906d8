//! docker-compose.yml and the images: Docker Compose takes the file, hadolint the Dockerfile, everything is confined, and what
//! they describe works. The last takes root, for the namespaces and users it runs in.

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

/// What each command of the document shows.
const SHOWN: [&[&str]; 7] = [
    &["\"delivered\":true"],
    &[],
    &["\"state\":\"queued\"", "\"id\":\"ms_"],
    &["delivered", "read"],
    &["200 OK"],
    &["\"delivered\":true"],
    &["\"code\":\"suppressed\""],
];

/// What Compose makes of the file with these variables and no others.
fn config(variables: &str) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let environment = folder.path().join("env");
    std::fs::write(&environment, variables)?;
    let mut compose = Command::new(tool("compose", "docker-compose")?);
    compose.env_clear().env("HOME", folder.path()).current_dir(repository());
    compose.arg("--env-file").arg(environment).args(["config", "--format", "json"]);
    Ok(serde_json::from_str(&said(&mut compose)?)?)
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
fn every_container_is_confined_and_asked_for_its_health() -> Result<()> {
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
        ensure!(is_checked, "nobody asks {name} for its health");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}");
        }
        // A name that is resolved is one that is in the same network.
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
fn everything_in_the_example_of_env_is_used() -> Result<()> {
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
fn what_the_engine_is_sent_is_a_workspace() -> Result<()> {
    let mut images = Command::new("python3");
    images.arg(repository().join("wasm-tests/deploy/images.py")).arg(repository()).arg("-n");
    let said = said(&mut images)?;
    for command in ["build-filter: cargo build --locked", "build-sidecar: cargo build --locked"] {
        ensure!(said.contains(command), "{said}");
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
fn what_compose_describes_runs_and_a_message_is_sent_and_read() -> Result<()> {
    let commands = commands()?;
    ensure!(commands.len() == SHOWN.len(), "{commands:?}");
    let probe = isolated("unshare").as_std_mut().args(["--net", "--mount", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        ensure!(std::env::var_os("CI").is_none(), "no namespaces of its own, and this is CI");
        eprintln!("not run: it takes root, for namespaces and users of its own");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let told: Vec<_> = commands.iter().zip(SHOWN).collect();
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
    run.args([config("")?.to_string(), here.to_string(), serde_json::to_string(&told)?]);
    let walked = said(run)?;
    ensure!(walked.ends_with("composed\n"), "{walked}");
    Ok(())
}
