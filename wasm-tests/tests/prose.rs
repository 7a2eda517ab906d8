//! Plain language of code, settings and documents: openings and words that docs/GLOSSARY.md has better terms for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use twilio_edge_wasm_tests::repository;

/// Words that begin a docstring without naming its subject.
const HEADLESS: [&str; 11] =
    ["How", "Of", "That", "What", "When", "Where", "Whether", "Which", "Who", "Whom", "Whose"];

/// Words without an actor, or that have a standard term. They are refused in comments, strings, names and prose.
const DIALECT: [&str; 12] = [
    "anybody", "away", "heard", "nobody", "somebody", "tells", "told", "untold", "whatever",
    "whoever", "whom", "wherever",
];

/// Phrases without an actor, or that have a standard term.
const PHRASES: [&str; 5] = ["be let on", "left alone", "said of", "taken on", "who asks"];

/// Folders that are not written here: what was built or installed, and recorded texts.
const NOT_OURS: [&str; 5] = ["target", "node_modules", "corpus", "dist", "vectors"];

/// Endings of the files that are read.
const ENDINGS: [&str; 11] =
    ["css", "html", "json", "md", "mjs", "py", "rs", "sh", "sql", "toml", "yaml"];

/// Names of files that are read beside those with one of [`ENDINGS`].
const NAMES: [&str; 4] = ["Dockerfile", "Makefile", "NOTES.txt", ".env.example"];

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = !name.starts_with('.') && !NOT_OURS.contains(&name.as_str());
        let ending = path.extension().map(|ending| ending.to_string_lossy().into_owned());
        let is_read = ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()));
        if kind.is_dir() && is_ours {
            files(&path, found)?;
        } else if kind.is_file() && (is_read || NAMES.contains(&name.as_str())) {
            found.push(path);
        }
    }
    Ok(())
}

/// A file of the repository: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

/// Returns all files that are read, without this one.
fn sources() -> Result<Vec<Source>> {
    let root = repository();
    let mut found = Vec::new();
    files(root, &mut found)?;
    found.retain(|path| !path.ends_with("wasm-tests/tests/prose.rs"));
    ensure!(found.len() > 500, "only {} files", found.len());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let path = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        Ok(Source { path, text })
    };
    found.into_iter().map(read).collect()
}

/// Returns the words of a line in lower case, separated by blanks; `snake_case` and `CamelCase` are divided.
fn words(line: &str) -> String {
    let mut words = String::from(" ");
    let mut before = ' ';
    for c in line.chars() {
        let begins = c.is_ascii_uppercase() && before.is_ascii_lowercase();
        if (begins || !c.is_ascii_alphabetic()) && !words.ends_with(' ') {
            words.push(' ');
        }
        if c.is_ascii_alphabetic() {
            words.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    words.push(' ');
    words
}

/// Returns the words and phrases of a line that have a standard term.
fn dialect(line: &str) -> Vec<&'static str> {
    let words = words(line);
    let terms = DIALECT.into_iter().chain(PHRASES);
    terms.filter(|term| words.contains(&format!(" {term} "))).collect()
}

/// Returns each line of a source with words that have a standard term.
fn problems(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    let found = lines.filter_map(|(index, line)| {
        let terms = dialect(line);
        let place = format!("{}:{}: {}", source.path, index + 1, terms.join(", "));
        (!terms.is_empty()).then(|| format!("{place}: {}", line.trim()))
    });
    found.collect()
}

fn is_docstring(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("///") || line.starts_with("//!")
}

#[test]
fn docstrings_begin_with_their_subject() -> Result<()> {
    let mut found = Vec::new();
    for Source { path, text } in sources()?.iter().filter(|source| source.path.ends_with(".rs")) {
        let mut before = "";
        for (index, line) in text.lines().enumerate() {
            let begins = is_docstring(line) && !is_docstring(before);
            let docstring = line.trim_start().trim_start_matches(['/', '!']).trim_start();
            if begins && HEADLESS.contains(&docstring.split(' ').next().unwrap_or_default()) {
                found.push(format!("{path}:{}: {}", index + 1, line.trim()));
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
fn all_files_use_standard_terms() -> Result<()> {
    let found: Vec<_> = sources()?.iter().flat_map(problems).collect();
    ensure!(
        found.is_empty(),
        "{} lines have words that docs/GLOSSARY.md has better terms for:\n{}",
        found.len(),
        found.join("\n")
    );
    Ok(())
}

#[test]
fn terms_are_found_in_names_strings_and_prose() {
    assert_eq!(dialect("fn it_is_told(name: &str)"), ["told"]);
    assert_eq!(dialect("Err(StoreError::Away(_))"), ["away"]);
    assert_eq!(dialect("what is said of an account"), ["said of"]);
    assert_eq!(dialect("\"Nobody\", whomever"), ["nobody"]);
    assert_eq!(dialect("The dispatcher retries the attempt."), [""; 0]);
}
