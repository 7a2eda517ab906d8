//! The systemd units, installed by the commands of their document into a folder instead of `/`, and checked there.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use twilio_edge_demo::EnvoyConfig;
use twilio_edge_wasm_tests::envoy::module;
use twilio_edge_wasm_tests::process::isolated;
use twilio_edge_wasm_tests::repository;
use twilio_edge_wasm_tests::sidecar::binary;
use twilio_edge_wasm_tests::stack::environment;

use crate::{file, said};

const UNITS: [&str; 2] = ["twilio-edge.service", "twilio-edge-envoy.service"];

/// Types the document's commands, in a folder that is `/` for them, as one who may. PATH has what they are about.
fn installed() -> Result<TempDir> {
    let root = tempfile::tempdir()?;
    let sources = tempfile::tempdir()?;
    let link = |from: &Path, to: &str| -> Result<()> {
        let to = sources.path().join(to);
        std::fs::create_dir_all(to.parent().context("a folder")?)?;
        Ok(std::os::unix::fs::symlink(from, to)?)
    };
    link(&repository().join("deploy"), "deploy")?;
    link(&repository().join("envoy"), "envoy")?;
    link(&binary()?, "target/release/twilio-edge")?;
    link(&module()?, "target/wasm/twilio_edge_filter.wasm")?;
    let document = file("docs/INSTALL-SYSTEMD.md")?;
    let (_, rest) = document.split_once("## Install\n").context("no commands")?;
    let (_, rest) = rest.split_once("```sh\n").context("no commands")?;
    let (commands, _) = rest.split_once("```").context("no end of commands")?;
    let here = root.path().display().to_string();
    std::fs::create_dir_all(root.path().join("usr/local/bin"))?;
    std::fs::copy("/bin/true", root.path().join("usr/local/bin/envoy"))?;
    for command in commands.lines() {
        let command = command.strip_prefix("sudo ").context(command.to_owned())?;
        let command = match command.split_once(' ').map_or(command, |(program, _)| program) {
            program @ ("systemd-sysusers" | "systemd-tmpfiles") => {
                command.replacen(program, &format!("{program} --root={here}"), 1)
            }
            // What stands between `#` is what is written into the file.
            _ => command
                .replace(" /etc/", &format!(" {here}/etc/"))
                .replace(" /usr/", &format!(" {here}/usr/")),
        };
        let mut shell = Command::new("sh");
        said(shell.args(["-euc", &command]).current_dir(sources.path()))?;
    }
    Ok(root)
}

fn is_root() -> Result<bool> {
    Ok(said(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Returns the findings of `systemd-analyze verify`.
fn complaints(root: &Path) -> Result<String> {
    let mut verify = Command::new("systemd-analyze");
    let output =
        verify.arg(format!("--root={}", root.display())).arg("verify").args(UNITS).output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success() || !text.is_empty(), "{}", output.status);
    Ok(text)
}

#[test]
fn documented_units_are_valid_for_systemd_and_the_programs() -> Result<()> {
    if !is_root()? {
        ensure!(std::env::var_os("CI").is_none(), "not root, and this is CI");
        eprintln!("not run: what is installed belongs to users of its own, which takes root");
        return Ok(());
    }
    let root = installed()?;
    let at = |path: &str| root.path().join(path);
    // Units of the system that ours refer to.
    std::fs::create_dir_all(at("usr/lib/systemd/system"))?;
    std::os::unix::fs::symlink("usr/lib", at("lib"))?;
    for entry in std::fs::read_dir("/lib/systemd/system")? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.ends_with(".target") || name.ends_with(".slice") {
            std::fs::copy(entry.path(), at("usr/lib/systemd/system").join(name))?;
        }
    }
    assert_eq!(complaints(root.path())?, "");

    // The users have no login, and the files are private.
    let users = std::fs::read_to_string(at("etc/passwd"))?;
    for user in ["twilio-edge", "twilio-edge-envoy"] {
        let line = users.lines().find(|line| line.starts_with(&format!("{user}:")));
        ensure!(line.is_some_and(|line| line.ends_with(":/usr/sbin/nologin")), "{users}");
    }
    let groups = std::fs::read_to_string(at("etc/group"))?;
    let group = |name: &str| -> Result<u32> {
        let line = groups.lines().find(|line| line.starts_with(&format!("{name}:")));
        Ok(line.and_then(|line| line.split(':').nth(2)).context(name.to_owned())?.parse()?)
    };
    for (path, mode, of) in [
        ("etc/twilio-edge", 0o750, group("twilio-edge")?),
        ("etc/twilio-edge/twilio-edge.env", 0o600, 0),
        ("etc/twilio-edge/envoy.env", 0o600, 0),
        ("etc/twilio-edge/tls", 0o750, group("twilio-edge-envoy")?),
    ] {
        let found = std::fs::metadata(at(path))?;
        let modes = (found.permissions().mode() & 0o777, found.uid(), found.gid());
        assert_eq!(modes, (mode, 0, of), "{path}");
    }

    // Envoy takes its file as it is there.
    let envoy = at("etc/twilio-edge/envoy.yaml");
    let here = root.path().display();
    let text =
        std::fs::read_to_string(&envoy)?.replace(" /usr/local/", &format!(" {here}/usr/local/"));
    std::fs::write(&envoy, text.replace(" /etc/", &format!(" {here}/etc/")))?;
    let mut validate = isolated(repository().join(".venv/bin/envoy"));
    validate.args(["--mode", "validate", "--log-level", "warning", "--config-path"]).arg(&envoy);
    said(validate.envs(environment()).as_std_mut())?;

    // A mistake is reported.
    let unit = at("etc/systemd/system/twilio-edge.service");
    let text =
        std::fs::read_to_string(&unit)?.replace("ProtectSystem=strict", "ProtectSystems=strict");
    std::fs::write(&unit, text)?;
    ensure!(complaints(root.path())?.contains("ProtectSystems"));
    Ok(())
}

/// Variables of a file that systemd reads, `#` before a name or not.
fn variables(path: &str) -> Result<Vec<(String, String)>> {
    let text = file(path)?;
    let lines = text.lines().map(|line| line.trim_start_matches('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    let pairs = pairs
        .filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[test]
fn examples_are_read_by_the_programs() -> Result<()> {
    let mut program = isolated(binary()?);
    program.args(["print-config", "--config", "deploy/systemd/twilio-edge.toml"]);
    program.current_dir(repository()).envs(variables("deploy/systemd/twilio-edge.env")?);
    let shown: toml::Table = said(program.as_std_mut())?.parse()?;
    assert_eq!(
        shown["database"]["url"].as_str(),
        Some("postgres://twilio_edge:***@127.0.0.1/twilio_edge")
    );
    assert_eq!(shown["redis"]["url"].as_str(), Some("redis://:***@127.0.0.1:6379"));

    // Uncommented, the settings that are commented out are settings too.
    let settings = file("deploy/systemd/twilio-edge.toml")?;
    let whole: Vec<&str> = settings
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .collect();
    let mut with_all = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut with_all, whole.join("\n").as_bytes())?;
    let mut program = isolated(binary()?);
    program.args(["print-config", "--config"]).arg(with_all.path());
    let shown: toml::Table = said(program.as_std_mut())?.parse()?;
    assert_eq!(shown["sinks"]["file"].as_str(), Some("/etc/twilio-edge/sinks.toml"));

    let config = EnvoyConfig::load(&repository().join("envoy/edge.yaml"))?.plugin_entry()?.clone();
    let wanted = config["vm_config"]["environment_variables"]["host_env_keys"].as_array();
    let wanted = wanted.context("no variables")?.iter().filter_map(Value::as_str);
    let given = variables("deploy/systemd/envoy.env")?;
    let given = given.iter().map(|(name, _)| name.as_str());
    assert_eq!(given.collect::<BTreeSet<_>>(), wanted.collect());

    // systemd does not kill a process that is still working.
    let limit = shown["http"]["shutdown_timeout_ms"].as_integer().context("a limit")?;
    let unit = file("deploy/systemd/twilio-edge.service")?;
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
    ensure!(stop.context("TimeoutStopSec")?.parse::<i64>()? * 1000 >= limit + 10_000);
    Ok(())
}

/// Exposure as in the document with its version of systemd; with other versions at most 2.
#[test]
fn unit_is_as_exposed_as_its_document_states() -> Result<()> {
    let document = file("docs/INSTALL-SYSTEMD.md")?;
    let version = said(Command::new("systemd-analyze").arg("--version"))?;
    let version = version.split_whitespace().nth(1).context("a version")?.to_owned();
    for unit in UNITS {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["--no-pager", "--offline=true", "--threshold=20", "security"]);
        let output = said(analyze.arg(repository().join("deploy/systemd").join(unit)))?;
        let exposure = output.lines().find(|line| line.contains("Overall exposure level"));
        let exposure = exposure.and_then(|line| line.split(": ").nth(1)?.split(' ').next());
        let row = format!("| `{unit}` | {} |", exposure.context("no exposure")?);
        let is_this_version = document.contains(&format!("of systemd {version},"));
        ensure!(
            !is_this_version || document.contains(&row),
            "docs/INSTALL-SYSTEMD.md lacks: {row}"
        );
    }
    Ok(())
}
