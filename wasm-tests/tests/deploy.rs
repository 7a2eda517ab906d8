//! What we ship to be run with: each file is taken by the tool it is for, and what docker-compose.yml describes is run.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads beyond what it was given has failed, and may say so by a panic"
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

/// What a command says on its standard output, if it is content.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{command:?}: {}\n{text}{complaint}", output.status);
    Ok(text)
}

/// A file of the repository.
fn file(path: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}
