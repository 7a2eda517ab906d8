//! Every Markdown file names only what is there: links and their headings, files, commands with their options, variables,
//! metrics, targets of `make`. What the program prints (tables of settings, metrics, refusals) is compared elsewhere.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::program::{repository, twilio_edge};

/// One document: its path from the root of the repository, and what is in it.
struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Lines of code: those between fences, with lines that end in `\` joined, and what stands between backticks in prose.
    fn code(&self) -> Vec<String> {
        let (mut code, mut fenced, mut joined) = (Vec::new(), false, String::new());
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if fenced {
                joined.push_str(line.trim_end_matches('\\'));
                if !line.ends_with('\\') {
                    code.push(std::mem::take(&mut joined));
                }
            }
        }
        let prose: Vec<&str> = self.text.split("```").step_by(2).collect();
        let prose = prose.join("\n");
        code.extend(prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")));
        code
    }

    /// Headings, as links name them.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.text.lines().filter(|line| line.starts_with('#'));
        let slug = |heading: &str| -> String {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        headings.map(slug).collect()
    }
}

/// Returns every document of the repository, without those of third parties.
fn documents() -> Vec<Document> {
    const NOT_OURS: [&str; 3] = ["target", "node_modules", "data"];
    let (root, mut folders, mut found) = (repository(), vec![repository()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !name.starts_with(['.', '_']) && !NOT_OURS.contains(&name.as_str())
            {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(".md") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_owned();
                found.push(Document { path, text });
            }
        }
    }
    assert!(found.len() > 20, "only {} documents", found.len());
    found
}

/// Configurations that we ship; their comments and values use the same names as the documents.
fn shipped() -> Vec<Document> {
    let alone = ["docker-compose.yml", ".env.example", ".dockerignore"].map(PathBuf::from);
    let (root, mut paths) = (repository(), alone.to_vec());
    let mut folders = vec![root.join("deploy"), root.join("envoy")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            match (kind.is_dir(), kind.is_file()) {
                (true, _) => folders.push(path),
                (_, true) => paths.push(path.strip_prefix(&root).unwrap().to_owned()),
                // What is linked is found where it is.
                _ => {}
            }
        }
    }
    assert!(paths.len() > 40, "only {} files", paths.len());
    let text = |path: &PathBuf| fs::read_to_string(root.join(path)).unwrap();
    paths.into_iter().map(|path| Document { text: text(&path), path }).collect()
}

/// Checks every document and fails with the list of all problems.
fn none_is_wrong(wrong: impl Fn(&Document) -> Vec<String>) {
    none_is_wrong_in(documents(), wrong);
}

fn none_is_wrong_in(documents: Vec<Document>, wrong: impl Fn(&Document) -> Vec<String>) {
    let found = documents.iter().flat_map(|document| {
        wrong(document).into_iter().map(|what| format!("{}: {what}", document.path.display()))
    });
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    none_is_wrong(|document| {
        let links = document.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let links = links.filter(|link| !link.contains("://") && !link.starts_with("mailto:"));
        let leads_nowhere = links.filter(|link| {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = match file {
                "" => repository().join(&document.path),
                file => repository().join(&document.path).parent().unwrap().join(file),
            };
            if anchor.is_empty() || !path.exists() {
                return !path.exists();
            }
            let text = fs::read_to_string(&path).unwrap();
            !Document { path, text }.anchors().contains(anchor)
        });
        leads_nowhere.map(|link| format!("a link to {link}")).collect()
    });
}

/// Checks that readers find each document: README.md links docs/README.md, which links all documents beside it.
#[test]
fn every_document_is_in_the_index() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).unwrap();
    let (index, first) = (read("docs/README.md"), read("README.md"));
    assert!(first.contains("](docs/README.md)"));
    let entries = fs::read_dir(repository().join("docs")).unwrap().map(Result::unwrap);
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let missing = names.filter(|name| {
        let leads = index.contains(&format!("]({name})")) || index.contains(&format!("]({name}#"));
        name != "README.md" && !leads
    });
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn files_that_are_named_are_there() {
    const ENDINGS: [&str; 9] =
        [".rs", ".toml", ".md", ".yaml", ".yml", ".sql", ".json", ".mjs", ".sh"];
    let folders: BTreeSet<String> = fs::read_dir(repository())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !["target", "data"].contains(&name.as_str()))
        .collect();
    let all = documents().into_iter().chain(shipped()).collect();
    none_is_wrong_in(all, |document| {
        let words =
            document.text.split(|c: char| c.is_whitespace() || "`()[]<>\"'|,;:=".contains(c));
        let words = words.map(|word| word.trim_end_matches(['.', '/']));
        let paths = words.filter(|word| {
            word.split_once('/').is_some_and(|(first, _)| folders.contains(first))
                && ENDINGS.iter().any(|ending| word.ends_with(ending))
                && !word.contains(['*', '{', '…'])
        });
        // A crate's own document may name its files from there.
        let home = document.path.parent().unwrap_or(Path::new(""));
        let missing = paths.filter(|path| {
            !repository().join(path).exists() && !repository().join(home).join(path).exists()
        });
        missing.map(|path| format!("the file {path}")).collect()
    });
}

/// Subcommands and options of a command, from its `--help`.
struct Help {
    commands: BTreeSet<String>,
    options: BTreeSet<String>,
}

/// Helps that were asked for, by the words of the command.
#[derive(Default)]
struct Helps(RefCell<BTreeMap<Vec<String>, std::rc::Rc<Help>>>);

impl Helps {
    fn of(&self, command: &[String]) -> std::rc::Rc<Help> {
        if let Some(known) = self.0.borrow().get(command) {
            return known.clone();
        }
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let text = twilio_edge(&words).success();
        let listed = text.split("Commands:").nth(1).unwrap_or("");
        let listed = listed.split("\n\n").next().unwrap_or("").lines();
        let commands = listed.filter_map(|line| {
            line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split(' ').next()
        });
        let options = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let options = options.filter(|word| word.starts_with("--") && word.len() > 2);
        let help = std::rc::Rc::new(Help {
            commands: commands.map(str::to_owned).collect(),
            options: options.map(str::to_owned).collect(),
        });
        self.0.borrow_mut().insert(command.to_owned(), help.clone());
        help
    }

    /// Returns the error in the words after `twilio-edge`, if there is one.
    fn wrong_with(&self, words: &[&str]) -> Option<String> {
        let mut command: Vec<String> = Vec::new();
        for word in words {
            let help = self.of(&command);
            if let Some(option) = word.strip_prefix("--").and_then(|rest| rest.split('=').next()) {
                let option = format!("--{option}");
                if option.len() > 2 && !help.options.contains(&option) {
                    return Some(format!("`twilio-edge {}` has no {option}", command.join(" ")));
                }
            } else if help.commands.contains(*word) {
                command.push((*word).to_owned());
            } else if !help.commands.is_empty()
                && word.starts_with(|c: char| c.is_ascii_lowercase())
                && !word.contains('|')
            {
                return Some(format!("`twilio-edge {}` has no {word}", command.join(" ")));
            }
        }
        None
    }
}

/// Returns the command that runs in a container, where a command is about one.
fn in_its_container(command: &str) -> &str {
    let after = |mark: &str| command.split_once(mark).map(|(_, rest)| rest);
    match (after("docker compose exec -T "), after(" -- ")) {
        (Some(rest), _) => rest.split_once(' ').map_or("", |(_, words)| words),
        (_, Some(rest)) if command.contains("kubectl ") => rest,
        _ => command,
    }
}

/// Words after `program` in a line of code, up to the end of that command.
fn calls<'a>(line: &'a str, program: &str) -> Vec<Vec<&'a str>> {
    let mut calls = Vec::new();
    for command in line.split(['|', ';', '(', ')', '&', '>']) {
        let command = in_its_container(command.split(" #").next().unwrap_or(""));
        let mut words = command.split_whitespace().skip_while(|word| {
            // Prompts, variables that are set, and how else a program is started.
            *word == "$" || word.contains('=') || ["exec", "sudo", "env", "kubectl"].contains(word)
        });
        let first = words.next().unwrap_or("");
        if first.rsplit('/').next() == Some(program) {
            calls.push(words.collect());
        }
    }
    calls
}

#[test]
fn commands_and_their_options_exist() {
    let helps = Helps::default();
    let seen = RefCell::new(0);
    none_is_wrong(|document| {
        let code = document.code();
        let calls = code.iter().flat_map(|line| calls(line, "twilio-edge"));
        calls
            .filter_map(|words| {
                *seen.borrow_mut() += 1;
                // Placeholders in brackets and the alternatives of a synopsis are not words of a command.
                let words: Vec<&str> = words
                    .into_iter()
                    .map(|word| word.trim_matches(['[', ']', '"', '\'']))
                    .collect();
                helps.wrong_with(&words)
            })
            .collect()
    });
    assert!(seen.take() > 40, "hardly a command is named");
    assert!(helps.wrong_with(&["messages", "lst"]).is_some());
    assert!(helps.wrong_with(&["explain", "--token"]).is_some());
}

/// Blocks between fences of this language.
fn blocks<'a>(document: &'a Document, language: &str) -> Vec<&'a str> {
    let opening = format!("\n```{language}\n");
    let blocks = document.text.split(opening.as_str()).skip(1);
    blocks.filter_map(|block| block.split("\n```").next()).collect()
}

#[test]
fn code_blocks_are_well_formed() {
    let seen = RefCell::new(0);
    none_is_wrong(|document| {
        let parsers: [(&str, &[&str]); 4] = [
            ("sh", &["bash", "-n"]),
            ("python", &["python3", "-c", "import ast, sys; ast.parse(sys.stdin.read())"]),
            ("js", &["node", "--check", "--input-type=module", "-"]),
            ("json", &["python3", "-m", "json.tool"]),
        ];
        let blocks = parsers.iter().flat_map(|(language, parser)| {
            blocks(document, language).into_iter().map(move |block| (*parser, block))
        });
        let refused = blocks.filter_map(|(parser, block)| {
            *seen.borrow_mut() += 1;
            // What a reader puts in.
            let block = block.replace("{id}", "id");
            let said = parsed(parser, &block)?;
            Some(format!("{said}\n{block}"))
        });
        refused.collect()
    });
    assert!(seen.take() > 20, "hardly anything is to be run");
}

/// Returns the error of a parser for a text that it refuses.
fn parsed(parser: &[&str], text: &str) -> Option<String> {
    let mut child = Command::new(parser[0])
        .args(&parser[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    (!said.status.success()).then(|| String::from_utf8_lossy(&said.stderr).into_owned())
}

#[test]
fn named_tests_exist() {
    let seen = RefCell::new(0);
    none_is_wrong(|document| {
        let prose = document.text.split('`').skip(1).step_by(2);
        let named = prose.filter_map(|span| {
            let (path, name) = span.split_once(".rs::")?;
            path.contains('/').then(|| (format!("{path}.rs"), name))
        });
        let missing = named.filter(|(path, name)| {
            *seen.borrow_mut() += 1;
            let text = fs::read_to_string(repository().join(path)).unwrap_or_default();
            !text.contains(&format!("fn {name}("))
        });
        missing.map(|(path, name)| format!("the test {path}::{name}")).collect()
    });
    assert!(seen.take() > 20, "hardly a test is named");
}

#[test]
fn version_of_the_wire_is_the_one_that_is_spoken() {
    let document = fs::read_to_string(repository().join("docs/UPGRADING.md")).unwrap();
    let said = document.split("(`PROTOCOL_VERSION` in `contract/src/lib.rs`, ").nth(1).unwrap();
    let said = said.split(')').next().unwrap();
    assert_eq!(said, twilio_edge_contract::PROTOCOL_VERSION.to_string());
}

#[test]
fn targets_of_make_exist() {
    let makefile = fs::read_to_string(repository().join("Makefile")).unwrap();
    let targets = makefile.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name);
    let targets: BTreeSet<&str> = targets.collect();
    none_is_wrong(|document| {
        let code = document.code();
        let calls = code.iter().flat_map(|line| calls(line, "make"));
        let named =
            calls.flatten().filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
        let missing = named.filter(|word| !targets.contains(word));
        missing.map(|word| format!("`make {word}`")).collect()
    });
}

/// Everything `text` has that begins with `prefix` and goes on with `more`.
fn names<'a>(text: &'a str, prefix: &str, more: impl Fn(char) -> bool + Copy) -> BTreeSet<&'a str> {
    let words = text.split(|c: char| !(more(c) || c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with(prefix)).collect()
}

#[test]
fn variables_are_ones_that_something_reads() {
    let mut sources = fs::read_to_string(repository().join("setup/setup.sh")).unwrap();
    let mut folders = [
        "crates",
        "sidecar/src",
        "sidecar/tests",
        "wasm-tests/src",
        "wasm-tests/tests",
        "bench/src",
        "packages",
    ]
    .map(|folder| repository().join(folder))
    .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.path() {
                path if path.ends_with("node_modules") => {}
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|ending| {
                    ["py", "rs", "ts"].iter().any(|name| ending == *name)
                }) =>
                {
                    sources.push_str(&fs::read_to_string(path).unwrap());
                }
                _ => {}
            }
        }
    }
    let mut read: BTreeSet<String> =
        names(&sources, "TWILIO_EDGE_", |_| false).into_iter().map(str::to_owned).collect();
    let defaults = fs::read_to_string(repository().join("crates/platform/defaults.toml")).unwrap();
    let defaults: toml::Table = defaults.parse().unwrap();
    let mut tables = vec![("TWILIO_EDGE".to_owned(), defaults)];
    while let Some((path, table)) = tables.pop() {
        for (name, value) in table {
            let path = format!("{path}_{}", name.to_uppercase());
            match value {
                toml::Value::Table(table) => tables.push((path, table)),
                _ => drop(read.insert(path)),
            }
        }
    }
    let all = documents().into_iter().chain(shipped()).collect();
    none_is_wrong_in(all, |document| {
        let named = names(&document.text, "TWILIO_EDGE_", |_| false).into_iter();
        let unread = named.filter(|name| {
            let whole = name.strip_suffix("_FILE").unwrap_or(name);
            // `TWILIO_EDGE_SINKS_..` names a family.
            !name.ends_with('_') && !read.contains(*name) && !read.contains(whole)
        });
        unread.map(|name| format!("the variable {name}")).collect()
    });
}

#[test]
fn metrics_exist() {
    let reference = fs::read_to_string(repository().join("docs/METRICS.md")).unwrap();
    let known: BTreeSet<&str> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .collect();
    assert!(known.len() > 30, "{known:?}");
    // The sidecar's cluster, the filter's files, the filter's own names, a callback's parameter, a flow's parameter.
    const OTHERS: [&str; 7] = [
        "twilio_edge_native",
        "twilio_edge_id",
        "twilio_edge",
        "twilio_edge_sidecar",
        "twilio_edge_filter",
        "twilio_edge_",
        "twilio_edge_message",
    ];
    none_is_wrong(|document| {
        // It also has the former names.
        if document.path.ends_with("UPGRADING.md") {
            return Vec::new();
        }
        let named = names(&document.text, "twilio_edge", |_| false).into_iter();
        // `crate::module` is the target of a log line.
        let is_module = |name: &str| document.text.contains(&format!("{name}::"));
        let unknown = named.filter(|name| !is_module(name)).filter(|name| {
            let family = ["_bucket", "_sum", "_count", "_total"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            let is_known = |known: &&str| {
                // Without Envoy's tags the last word is part of the name.
                *known == *name
                    || *known == family
                    || name.starts_with(&format!("{known}_"))
                    || known.strip_suffix("_total") == Some(name)
            };
            !OTHERS.contains(name) && !known.iter().any(is_known)
        });
        unknown.map(|name| format!("the metric {name}")).collect()
    });
}
