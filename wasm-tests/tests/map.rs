//! Checks of the architecture document: it names existing files, and only the border files of the filter use the host.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use twilio_edge_wasm_tests::repository;

/// Words of a document that look like a path of a file: they hold a slash or a well-known ending, and no placeholder.
fn named_files(markdown: &str) -> BTreeSet<String> {
    const ENDINGS: [&str; 9] =
        [".rs", ".toml", ".md", ".yaml", ".yml", ".sql", ".json", ".py", ".mjs"];
    let words = markdown.split(|c: char| c.is_whitespace() || "`()[]{}<>\"'|,;:*".contains(c));
    let words = words.map(|word| word.trim_end_matches(['.', '/']));
    let paths = words.filter(|word| ENDINGS.iter().any(|ending| word.ends_with(ending)));
    paths
        .filter(|word| !word.starts_with(['.', '/']) && !word.contains(".."))
        .map(str::to_owned)
        .collect()
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}

/// Every Rust file under `folder`, by its path from the root of the repository.
fn rust_files(folder: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(repository().join(folder)).with_context(|| folder.to_owned())? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[test]
fn architecture_names_existing_files_only() -> Result<()> {
    let named = named_files(&read("docs/ARCHITECTURE.md")?);
    assert!(named.len() > 10, "the map must name files, it names {named:?}");
    let missing: Vec<_> = named.iter().filter(|path| !repository().join(path).exists()).collect();
    assert!(missing.is_empty(), "docs/ARCHITECTURE.md names what is not there: {missing:?}");
    Ok(())
}

#[test]
fn decisions_are_in_the_files_that_the_architecture_names() -> Result<()> {
    let document = read("docs/ARCHITECTURE.md")?;
    let mut decisions = 0;
    for row in document.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> =
            row.trim_matches('|').split('|').map(|c| c.trim().trim_matches('`')).collect();
        let [_, function, file] = cells.as_slice() else { continue };
        if !file.ends_with(".rs") || function.contains(' ') {
            continue;
        }
        let name = function.rsplit("::").next().unwrap_or_default();
        let source = read(file)?;
        let defined = ["const", "enum", "fn", "struct"]
            .iter()
            .any(|kind| source.contains(&format!("{kind} {name}")));
        assert!(defined, "docs/ARCHITECTURE.md: {file} defines no {function}");
        decisions += 1;
    }
    assert!(decisions > 8, "the table of decisions is missing");
    Ok(())
}

#[test]
fn architecture_names_every_file_of_the_filter() -> Result<()> {
    let named = named_files(&read("docs/ARCHITECTURE.md")?);
    let forgotten: Vec<_> = rust_files("src")?
        .into_iter()
        .filter(|path| !named.contains(path) && !path.contains("/tests"))
        .collect();
    assert!(forgotten.is_empty(), "docs/ARCHITECTURE.md does not name {forgotten:?}");
    Ok(())
}

#[test]
fn host_calls_are_in_the_border_files_only() -> Result<()> {
    const BORDER: [&str; 4] = ["src/host.rs", "src/filter.rs", "src/root.rs", "src/lib.rs"];
    let (mut named, mut others) = (0, Vec::new());
    for path in ["src", "contract/src", "crates", "sidecar/src"]
        .map(rust_files)
        .into_iter()
        .flatten()
        .flatten()
    {
        let source = read(&path)?;
        let mut code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        if !code.any(|line| line.contains("proxy_wasm")) {
            continue;
        }
        named += 1;
        if !BORDER.contains(&path.as_str()) {
            others.push(path);
        }
    }
    assert!(others.is_empty(), "{others:?} name proxy_wasm");
    assert!(named > 0, "no file names proxy_wasm: has the filter moved?");
    Ok(())
}

#[test]
fn readme_has_the_two_commands() -> Result<()> {
    let readme = read("README.md")?;
    for command in ["make run", "make test"] {
        assert!(readme.contains(command), "README.md does not name `{command}`");
    }
    Ok(())
}

/// The tests that `docs/FAILURE-MODES.md` names in the last column of its table of other failures.
#[test]
fn each_failure_is_shown_by_a_test_that_is_there() -> Result<()> {
    let document = read("docs/FAILURE-MODES.md")?;
    let table = document.split("## Everything else that can fail").nth(1).context("the table")?;
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let (mut named, mut missing) = (0, Vec::new());
    for row in rows {
        let tests = row.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap_or_default();
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            missing.push(row.to_owned());
        }
        for test in tests {
            named += 1;
            let [suite, ref file @ .., name] = test.split("::").collect::<Vec<_>>()[..] else {
                missing.push(test.to_owned());
                continue;
            };
            let folder = match suite {
                "e2e" => "wasm-tests/tests/e2e",
                "it" => "sidecar/tests/it",
                _ => "no such suite",
            };
            let source = read(&format!("{folder}/{}.rs", file.join("/")))?;
            // Definition of the test, and its registration: by an attribute, or in a list.
            let function = format!("async fn {name}(");
            let (before, _) = source.split_once(&function).unwrap_or_default();
            let attribute = before.trim_end().rsplit('\n').next().unwrap_or_default();
            let listed = source.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let runs = attribute.starts_with("#[tokio::test")
                || listed.filter(|it| it == &name).count() > 1;
            if !source.contains(&function) || !runs {
                missing.push(test.to_owned());
            }
        }
    }
    assert!(
        missing.is_empty(),
        "docs/FAILURE-MODES.md names tests that are not there: {missing:?}"
    );
    assert!(named > 25, "the table of failures is missing");
    Ok(())
}
