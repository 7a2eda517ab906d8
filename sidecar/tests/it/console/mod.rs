//! The console in a real browser, and its sign-in over HTTP.

mod administration;
mod pages;
mod refusals;
mod sign_in;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a scenario of the folder `browser`, and returns when the browser has ended.
async fn browse(scenario: &str, config: &Value) {
    let modules = root().join(".tools/browser");
    let installed = modules.join("node_modules/playwright-core").exists();
    assert!(installed, "playwright-core is not here: run `make setup-test`");
    let ran = Command::new("node")
        .arg(root().join("sidecar/tests/it/console/browser").join(scenario))
        .arg(config.to_string())
        .env("BROWSER_MODULES", modules)
        .env("SCREENSHOTS", root().join("target/console"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let output = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && output.trim() == "ok", "{scenario}: {output}\n{errors}");
}
