//! Walk-through of README.md: the console, and then the five commands, give the described results.

use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use twilio_edge_wasm_tests::process::isolated;
use twilio_edge_wasm_tests::repository;
use twilio_edge_wasm_tests::sidecar::binary;

/// Expected output of each command.
const SHOWN: [&[&str]; 5] = [
    &["\"delivered\":true"],
    &["\"state\":\"queued\"", "\"id\":\"ms_"],
    &["delivered", "read"],
    &["\"delivered\":true"],
    &["\"code\":\"suppressed\""],
];

/// A separate network namespace.
const OF_ITS_OWN: [&str; 3] = ["--map-root-user", "--net", "--"];

/// Time limit, also for a slow machine.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Returns the command that opens the printed link in a browser, and does there what a newcomer does.
fn console() -> String {
    let root = repository().display().to_string();
    let link = "$(grep -o 'http://[^ ]*/console/sign-in[^ ]*' demo.log)";
    format!(
        "BROWSER_MODULES='{root}/.tools/browser' SCREENSHOTS='{root}/target/console' \
         node '{root}/sidecar/tests/it/console/browser/newcomer.mjs' \"{link}\""
    )
}

/// The commands of the block that the walk-through is.
fn commands() -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let (_, rest) = readme.split_once("## Five commands\n").context("no walk-through")?;
    let (_, rest) = rest.split_once("```sh\n").context("no commands")?;
    let (block, _) = rest.split_once("```").context("no end of commands")?;
    let whole = block.replace("\\\n", " ");
    Ok(whole.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

#[tokio::test]
async fn newcomer_sends_a_message_and_is_refused_after_a_stop() -> Result<()> {
    let commands = commands()?;
    ensure!(commands.len() == SHOWN.len(), "{commands:?}");
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("target/debug"))?;
    symlink(binary()?, at("target/debug/twilio-edge"))?;
    for name in ["target/wasm", "envoy", ".venv"] {
        symlink(repository().join(name), at(name))?;
    }
    let console = (console(), ["ok"].as_slice());
    let shown: Vec<_> = std::iter::once(console).chain(commands.into_iter().zip(SHOWN)).collect();
    let script = repository().join("wasm-tests/tests/walkthrough.py");
    let python = repository().join(".venv/bin/python");
    // Without a network namespace, the ports must be free on this machine.
    let probe = isolated("unshare").args(OF_ITS_OWN).arg("true").output().await;
    let is_new = probe.is_ok_and(|probe| probe.status.success());
    let mut walk = isolated(if is_new { "unshare".as_ref() } else { python.as_os_str() });
    if is_new {
        walk.args(OF_ITS_OWN).arg(&python);
    }
    walk.arg(script).arg(folder.path()).arg(serde_json::to_string(&shown)?);
    walk.arg(if is_new { "new" } else { "here" });
    let walking = tokio::time::timeout(TIME_LIMIT, walk.kill_on_drop(true).output());
    let walked = walking.await?.context("python of `make setup-test`")?;
    let said = String::from_utf8_lossy(&walked.stderr);
    ensure!(walked.status.success(), "{said}");
    ensure!(walked.stdout.ends_with(b"walked\n"), "{said}");
    Ok(())
}
