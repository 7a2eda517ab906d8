//! Files for deployment: the tool of each file accepts it, and the services of docker-compose.yml run.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads beyond the end has failed, and may report it by a panic"
)]

mod deploy {
    pub(crate) mod chart;
    pub(crate) mod compose;
    pub(crate) mod units;
}

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use twilio_edge_wasm_tests::repository;

/// A program that `make setup-test` has put into a folder of its own.
fn tool(folder: &str, program: &str) -> Result<PathBuf> {
    let found = repository().join(".tools").join(folder).join("bin").join(program);
    ensure!(found.exists(), "there is no {}: run `make setup-test`", found.display());
    Ok(found)
}

/// Returns the standard output of a command that succeeds.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{command:?}: {}\n{text}{stderr}", output.status);
    Ok(text)
}

/// A file of the repository.
fn file(path: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}
