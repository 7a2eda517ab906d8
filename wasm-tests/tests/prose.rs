//! Plain language of comments and documents, counted. The limits may only fall.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use twilio_edge_wasm_tests::repository;

/// Words that begin a docstring without naming its subject.
const HEADLESS: [&str; 9] =
    ["How", "Of", "That", "What", "When", "Where", "Whether", "Which", "Who"];

/// Words without an actor, or that have a standard term.
const DIALECT: [&str; 12] = [
    "anybody", "heard", "nobody", "somebody", "tells", "told", "untold", "whatever", "whoever",
    "whom", "whose", "wherever",
];

/// Words of [`DIALECT`] that may still be in comments.
const MOST_IN_COMMENTS: usize = 141;

/// Words of [`DIALECT`] that may still be in documents and in the comments of the settings.
const MOST_IN_DOCUMENTS: usize = 126;

fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let is_built = name.is_none_or(|name| name == "target" || name == "node_modules");
        if path.is_dir() && !is_built {
            files(&path, endings, found)?;
        } else if path.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one)) {
            found.push(path);
        }
    }
    Ok(())
}

/// Rust files of the product and of its test harness, without the tests themselves.
fn sources() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["src", "contract/src", "crates", "sidecar/src", "wasm-tests/src", "bench/src"] {
        files(&repository().join(folder), &["rs"], &mut found)?;
    }
    Ok(found)
}

fn dialect(text: &str) -> usize {
    text.split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| DIALECT.contains(&word.to_ascii_lowercase().as_str()))
        .count()
}

/// Comment of a line, without its slashes.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim_start())
}

fn is_docstring(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("///") || line.starts_with("//!")
}

#[test]
fn docstrings_begin_with_their_subject() -> Result<()> {
    let mut found = Vec::new();
    for path in sources()? {
        let text = std::fs::read_to_string(&path)?;
        let mut before = "";
        for (number, line) in text.lines().enumerate() {
            let begins = is_docstring(line) && !is_docstring(before);
            let first = comment(line).and_then(|text| text.split(' ').next()).unwrap_or_default();
            if begins && HEADLESS.contains(&first) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
            before = line;
        }
    }
    ensure!(
        found.is_empty(),
        "{} docstrings begin without a subject; docs/GLOSSARY.md has the terms:\n{}",
        found.len(),
        found.join("\n")
    );
    Ok(())
}

#[test]
fn comments_use_standard_terms() -> Result<()> {
    let mut count = 0;
    for path in sources()? {
        let text = std::fs::read_to_string(&path)?;
        count += text.lines().filter_map(comment).map(dialect).sum::<usize>();
    }
    ensure!(count <= MOST_IN_COMMENTS, "{count} words without an actor, {MOST_IN_COMMENTS} may be");
    Ok(())
}

#[test]
fn documents_use_standard_terms() -> Result<()> {
    let mut documents = vec![
        repository().join("README.md"),
        repository().join("CONTRIBUTING.md"),
        repository().join("SECURITY.md"),
        repository().join("crates/platform/defaults.toml"),
    ];
    files(&repository().join("docs"), &["md"], &mut documents)?;
    let mut counts = Vec::new();
    for path in documents {
        let count = dialect(&std::fs::read_to_string(&path)?);
        if count > 0 {
            counts.push((count, path));
        }
    }
    let total: usize = counts.iter().map(|(count, _)| count).sum();
    ensure!(
        total <= MOST_IN_DOCUMENTS,
        "{total} words without an actor, {MOST_IN_DOCUMENTS} may be: {counts:?}"
    );
    Ok(())
}
