//! Scripts of the documents, run as a reader would.

use std::{path::Path, time::Duration};

use tokio::process::Command;

use crate::{access::api_keys::Caller, support::simulator::Simulator, support::world::World};

/// Longest time of a script.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the script of `document` that begins with the comment `# first`.
pub(crate) fn script(document: &str, first: &str) -> String {
    let (_, rest) = document.split_once(&format!("```sh\n# {first}")).unwrap();
    let (rest, _) = rest.split_once("```").unwrap();
    format!("# {first}{rest}")
}

/// Runs a script in the directory of the test, with the command line in its path and the key of `app`. Panics unless it succeeds,
/// and returns its output.
pub(crate) async fn run(
    world: &World,
    app: &Caller<'_>,
    simulator: &Simulator,
    script: &str,
) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_twilio-edge"));
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(world.directory.path())
        .env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
        .env("TWILIO_EDGE_API_URL", &app.base)
        .env("TWILIO_EDGE_API_KEY", &app.token)
        .env("SIMULATOR", &simulator.base)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, output).await.map_err(|_| "the script ends");
    let output = output.unwrap().unwrap();
    let (shown, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}\n{said}");
    shown.into_owned()
}
