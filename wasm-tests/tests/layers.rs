//! Layers of the workspace: a crate depends only on crates below it, and its files import each other in no large circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use toml::Table;
use twilio_edge_wasm_tests::repository;

/// Crates of the service, from the lowest to the highest, each with the crates that it may depend on.
const LAYERS: [(&str, &[&str]); 16] = [
    ("contract", &[]),
    ("filter", &["contract"]),
    ("native", &["contract", "filter"]),
    ("domain", &["contract"]),
    ("diagnosis", &["contract", "domain", "filter"]),
    ("platform", &["contract", "domain"]),
    ("store", &["contract", "domain", "platform"]),
    ("connectors", &["contract", "domain", "platform"]),
    ("services", &["contract", "domain", "diagnosis", "platform", "store", "connectors"]),
    ("api", &["contract", "domain", "platform", "store", "connectors", "services"]),
    ("console", &["domain", "platform"]),
    ("simulator", &["contract", "domain", "platform", "filter"]),
    ("demo", &["contract"]),
    (
        "sidecar",
        &[
            "contract",
            "filter",
            "domain",
            "diagnosis",
            "platform",
            "store",
            "connectors",
            "services",
            "api",
            "console",
            "simulator",
            "demo",
        ],
    ),
    ("wasm-tests", &["contract", "filter", "demo"]),
    ("bench", &["contract", "filter", "demo"]),
];

/// Most files of one crate that may import each other in a circle.
const LARGEST_CIRCLE: usize = 4;

/// A member of the workspace.
struct Member {
    /// Name without `twilio-edge-`; `sidecar` for the binary.
    name: String,
    folder: PathBuf,
    manifest: Table,
}

fn short(package: &str) -> Option<String> {
    match package {
        "twilio-edge" => Some("sidecar".to_owned()),
        other => other.strip_prefix("twilio-edge-").map(str::to_owned),
    }
}

fn members() -> Result<Vec<Member>> {
    let root: Table = std::fs::read_to_string(repository().join("Cargo.toml"))?.parse()?;
    let workspace = root.get("workspace").context("no workspace")?;
    let listed = workspace.get("members").and_then(toml::Value::as_array).context("no members")?;
    let mut folders = vec![repository().to_owned()];
    for member in listed.iter().filter_map(toml::Value::as_str) {
        match member.strip_suffix("/*") {
            Some(parent) => {
                for entry in std::fs::read_dir(repository().join(parent))? {
                    folders.push(entry?.path());
                }
            }
            None => folders.push(repository().join(member)),
        }
    }
    folders
        .into_iter()
        .map(|folder| {
            let manifest: Table = std::fs::read_to_string(folder.join("Cargo.toml"))
                .with_context(|| folder.display().to_string())?
                .parse()?;
            let package = manifest.get("package").and_then(|package| package.get("name"));
            let package = package.and_then(toml::Value::as_str).context("a name")?;
            let name = short(package).with_context(|| format!("{package} is not named as ours"))?;
            Ok(Member { name, folder, manifest })
        })
        .collect()
}

/// Members that the manifest names as dependencies of any kind, also of tests and of a single platform.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    fn collect(table: &Table, found: &mut BTreeSet<String>) {
        for (key, value) in table {
            let Some(inner) = value.as_table() else { continue };
            match key.as_str() {
                "dependencies" | "dev-dependencies" | "build-dependencies" => {
                    let packages = inner.iter().map(|(name, value)| {
                        value.get("package").and_then(toml::Value::as_str).unwrap_or(name)
                    });
                    found.extend(packages.filter_map(short));
                }
                "target" => inner
                    .values()
                    .filter_map(toml::Value::as_table)
                    .for_each(|platform| collect(platform, found)),
                _ => {}
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(manifest, &mut found);
    found
}

#[test]
fn dependencies_point_down() -> Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    let members = members()?;
    let mut edges = 0;
    for Member { name, manifest, .. } in &members {
        let below = allowed
            .get(name.as_str())
            .with_context(|| format!("{name} has no place among the layers: add it to LAYERS"))?;
        for dependency in dependencies(manifest) {
            ensure!(
                below.contains(&dependency.as_str()),
                "{name} depends on {dependency}, which is not below it"
            );
            edges += 1;
        }
    }
    ensure!(members.len() == LAYERS.len(), "LAYERS names a crate that is not in the workspace");
    ensure!(edges > 20, "the manifests were not understood: {edges} edges");
    Ok(())
}

#[test]
fn each_layer_states_its_invariant() -> Result<()> {
    for Member { name, folder, .. } in members()? {
        let library = folder.join("src/lib.rs");
        if !folder.starts_with(repository().join("crates")) && name != "sidecar" {
            continue;
        }
        let text = std::fs::read_to_string(&library)?;
        let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        ensure!(
            head.contains("Architecture invariant: "),
            "{} states no architecture invariant",
            library.display()
        );
    }
    Ok(())
}

/// Files of one crate with the modules they define, and the imports between them.
struct Imports {
    files: BTreeMap<Vec<String>, PathBuf>,
    edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn module_of(relative: &Path) -> Vec<String> {
    let mut module: Vec<String> = relative
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// Code without comments and without its unit tests.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().map(|line| match line.trim_start().starts_with("//") {
        true => "",
        false => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The trees of all `use` statements but those that publish a module's own children, and the code without these.
fn without_imports(code: &str) -> (Vec<String>, String) {
    let (mut trees, mut rest, mut tree) = (Vec::new(), String::new(), None::<String>);
    let mut publishes = false;
    for line in code.lines() {
        let text = line.trim();
        let begins = text.strip_prefix("use ").or_else(|| {
            let (visibility, tree) = text.split_once(" use ")?;
            (visibility.starts_with("pub") && !visibility.contains(' ')).then_some(tree)
        });
        match (&mut tree, begins) {
            (Some(tree), _) => tree.push_str(text),
            (None, Some(begins)) => {
                publishes = text.starts_with("pub");
                tree = Some(begins.to_owned());
            }
            (None, None) => {
                rest.push_str(line);
                rest.push('\n');
            }
        }
        if tree.as_ref().is_some_and(|tree| tree.ends_with(';')) {
            trees.extend(tree.take().map(|tree| tree.trim_end_matches(';').to_owned()));
            if std::mem::take(&mut publishes)
                && trees.last().is_some_and(|tree| tree.starts_with("self::"))
            {
                trees.pop();
            }
        }
    }
    (trees, rest)
}

/// Paths of a use tree, such as `a::{b, c::d}`.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, body)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().to_owned()];
    };
    let body = body.rsplit_once('}').map_or(body, |(body, _)| body);
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in body.chars() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        match letter {
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().into_iter().for_each(|part| part.push(letter)),
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| leaves(part)).map(|leaf| format!("{head}{leaf}")).collect()
}

impl Imports {
    fn read(source: &Path) -> Result<Imports> {
        let mut paths = Vec::new();
        rust_files(source, &mut paths)?;
        let mut imports = Imports { files: BTreeMap::new(), edges: BTreeMap::new() };
        for path in &paths {
            imports.files.insert(module_of(path.strip_prefix(source)?), path.clone());
        }
        for (module, path) in &imports.files {
            let code = code_of(&std::fs::read_to_string(path)?);
            let (trees, code) = without_imports(&code);
            let mut named: Vec<Vec<String>> = trees
                .iter()
                .flat_map(|tree| leaves(tree))
                .filter_map(|leaf| absolute(&leaf, module))
                .collect();
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let tokens = code.split(|c: char| !word(c)).filter(|token| token.contains("::"));
            named.extend(tokens.filter_map(|token| absolute(token, module)));
            // Paths that begin with a module of this file.
            let children = code.lines().filter_map(|line| {
                let line = line.trim_end_matches(';');
                let (_, name) = line.rsplit_once("mod ")?;
                (!name.contains(' ') && line.len() < code.len()).then(|| name.to_owned())
            });
            for child in children {
                let path = format!("{child}::");
                if code.split(|c: char| !word(c)).any(|token| token.starts_with(&path)) {
                    named.push(module.iter().cloned().chain([child]).collect());
                }
            }
            let targets = named.iter().filter_map(|name| imports.file_of(name));
            let targets = targets.filter(|target| target != module).collect();
            imports.edges.insert(module.clone(), targets);
        }
        Ok(imports)
    }

    /// The module of the longest prefix of a path that is a file.
    fn file_of(&self, path: &[String]) -> Option<Vec<String>> {
        (0..=path.len())
            .rev()
            .filter_map(|length| path.get(..length).map(<[String]>::to_vec))
            .find(|prefix| self.files.contains_key(prefix))
    }

    fn reachable(&self, from: &[String]) -> BTreeSet<Vec<String>> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from.to_vec()]);
        while let Some(module) = open.pop() {
            for next in self.edges.get(&module).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        reached
    }

    /// Groups of files that reach each other.
    fn circles(&self) -> Vec<BTreeSet<Vec<String>>> {
        let reachable: BTreeMap<_, _> =
            self.files.keys().map(|module| (module, self.reachable(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, reached) in &reachable {
            let circle: BTreeSet<Vec<String>> = reached
                .iter()
                .filter(|other| reachable.get(*other).is_some_and(|back| back.contains(*module)))
                .cloned()
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }
}

/// The path within the crate, if it is one of its own.
fn absolute(path: &str, module: &[String]) -> Option<Vec<String>> {
    let path: String = path.chars().filter(|c| !c.is_whitespace()).collect();
    let mut parts = path.split("::").filter(|part| !part.is_empty()).peekable();
    let mut base = match parts.next()? {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module.split_last().map(|(_, parent)| parent.to_vec())?,
        _ => return None,
    };
    while parts.next_if(|part| *part == "super").is_some() {
        base.pop()?;
    }
    Some(base.into_iter().chain(parts.map(str::to_owned)).collect())
}

#[test]
fn files_of_a_crate_import_each_other_in_small_circles_only() -> Result<()> {
    let mut found = Vec::new();
    for Member { name, folder, .. } in members()? {
        for circle in Imports::read(&folder.join("src"))?.circles() {
            if circle.len() > LARGEST_CIRCLE {
                let files: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
                found.push(format!("{name}: {} files: {}", circle.len(), files.join(", ")));
            }
        }
    }
    ensure!(found.is_empty(), "circles of more than {LARGEST_CIRCLE} files:\n{}", found.join("\n"));
    Ok(())
}

#[test]
fn import_circle_is_found() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("lib.rs", "mod a;\nmod b;\nmod c;\n")?;
    write("a.rs", "use crate::{\n    b::B,\n};\n")?;
    write("b.rs", "fn f() { super::c::g() }\n")?;
    write("c.rs", "// use crate::a;\npub use super::a::A;\n")?;
    let circles = Imports::read(folder.path())?.circles();
    ensure!(circles.len() == 1 && circles[0].len() == 3, "{circles:?}");
    write("c.rs", "// use crate::a::A;\n#[cfg(test)]\nmod tests { use crate::a::A; }\n")?;
    ensure!(Imports::read(folder.path())?.circles().is_empty());
    Ok(())
}
