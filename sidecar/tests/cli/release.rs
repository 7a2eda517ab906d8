//! Packing of a release: the same bytes from any folder at any time, a consistent image, an SBOM that CycloneDX's own
//! validator accepts. `make release-check` shows that compilers produce the same bytes too.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::program::repository;

const EPOCH: &str = "1790000000";

fn ran(script: &str, arguments: &[&str], envs: &[(&str, &str)]) -> Output {
    let mut command = Command::new(repository().join("setup").join(script));
    command.args(arguments).env("SOURCE_DATE_EPOCH", EPOCH).envs(envs.iter().copied());
    command.output().unwrap()
}

fn artifacts(arguments: &[&str]) {
    let ran = ran("artifacts.py", arguments, &[]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// A folder with a module and a file to run; what is packed of them, elsewhere.
fn packed(name: &str, umask: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::with_prefix(name).unwrap();
    let (inside, dist) = (folder.path().join("inside"), folder.path().join("dist"));
    let made = format!("umask {umask}; mkdir -p {}/b {}", inside.display(), dist.display());
    assert!(Command::new("sh").args(["-c", &made]).status().unwrap().success());
    // Not in the order of their names.
    for (path, text) in [("b/second", "2"), ("module.wasm", "\0asm"), ("a", "1"), ("b/first", "1")]
    {
        fs::write(inside.join(path), text).unwrap();
    }
    let script = format!(
        "umask {umask}; cd {}; printf x >run; chmod u+x run; ln -s ../inside/b linked",
        inside.display()
    );
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let at = |path: &Path| path.display().to_string();
    let (whole, module) = (format!("{}=whole", inside.display()), at(&inside.join("module.wasm")));
    artifacts(&["tar", &at(&dist.join("all.tar.gz")), "--folder", "x-1.0.0", &whole]);
    artifacts(&["oci", &at(&dist.join("x.oci.tar")), "--module", &module, "--version", "1.0.0"]);
    artifacts(&["sums", &at(&dist)]);
    (folder, dist)
}

#[test]
fn release_archive_is_reproducible() {
    let ((_one, one), (_other, other)) = (packed("one", "022"), packed("another", "077"));
    let sums = |dist: &Path| fs::read_to_string(dist.join("SHA256SUMS")).unwrap();
    assert_eq!(sums(&one), sums(&other));
    let checked =
        Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(&one).output();
    let said = String::from_utf8(checked.unwrap().stdout).unwrap();
    assert_eq!(said, "all.tar.gz: OK\nx.oci.tar: OK\n");
    let mut tar = Command::new("tar");
    let listed = tar.arg("-tvzf").arg(one.join("all.tar.gz")).env("TZ", "UTC").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names: Vec<&str> = listed.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(
        names,
        ["a", "b/first", "b/second", "linked/first", "linked/second", "module.wasm", "run"]
            .map(|name| format!("x-1.0.0/whole/{name}"))
    );
    let is_plain = |line: &str| line.contains(" 0/0 ") && line.contains(" 2026-09-21 ");
    assert!(listed.lines().all(is_plain), "{listed}");
    assert!(listed.lines().last().unwrap().starts_with("-rwxr-xr-x"), "{listed}");
}

/// Follows the image as istio-agent does: from the index to the manifest to its last layer, by digest, and `plugin.wasm` in that.
#[test]
fn image_is_consistent() {
    let (_folder, dist) = packed("image", "022");
    let layout = dist.join("layout");
    fs::create_dir(&layout).unwrap();
    let extract = |archive: &Path, into: &Path| {
        let tar = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(into).status();
        assert!(tar.unwrap().success());
    };
    extract(&dist.join("x.oci.tar"), &layout);
    let read = |path: &str| -> Value {
        serde_json::from_slice(&fs::read(layout.join(path)).unwrap()).unwrap()
    };
    let hex = |bytes: &[u8]| -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let blob = |described: &Value, kind: &str| -> PathBuf {
        assert_eq!(described["mediaType"], format!("application/vnd.oci.image.{kind}"));
        let digest = described["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let path = layout.join("blobs/sha256").join(digest);
        let content = fs::read(&path).unwrap();
        assert_eq!(
            (hex(&content).as_str(), described["size"].as_u64()),
            (digest, Some(content.len() as u64))
        );
        path
    };
    assert_eq!(read("oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = read("index.json");
    let manifest = blob(&index["manifests"][0], "manifest.v1+json");
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let config = blob(&manifest["config"], "config.v1+json");
    let config: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let layer = blob(layers.last().unwrap(), "layer.v1.tar+gzip");
    let plain = Command::new("gzip").arg("-dc").arg(&layer).output().unwrap().stdout;
    assert_eq!(
        config["rootfs"]["diff_ids"],
        serde_json::json!([format!("sha256:{}", hex(&plain))])
    );
    extract(&layer, &dist);
    assert_eq!(fs::read(dist.join("plugin.wasm")).unwrap(), b"\0asm");
}

const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(str(wrong) if wrong else 0)
";

fn judged(sbom: &str) -> String {
    let python = repository().join(".tools/cyclonedx/bin/python");
    assert!(python.exists(), "CycloneDX' validator is not installed: run `make setup-test`");
    let mut child = Command::new(python)
        .args(["-c", VALIDATE])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), sbom.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
}

#[test]
fn sbom_is_cyclonedx_and_names_what_is_linked() {
    let folder = TempDir::new().unwrap();
    for (package, target, linked, others) in [
        (
            "twilio-edge",
            "x86_64-unknown-linux-gnu",
            ["axum", "ring", "libsqlite3-sys"],
            ["proptest", "proxy-wasm", "wasmi"],
        ),
        (
            "twilio-edge-filter",
            "wasm32-wasip1",
            ["proxy-wasm", "hmac", "subtle"],
            ["proptest", "tokio", "axum"],
        ),
    ] {
        let file = folder.path().join(package).display().to_string();
        artifacts(&["sbom", &file, "--package", package, "--target", target]);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(judged(&text), "", "{package}");
        assert_ne!(
            judged(&text.replace("\"library\"", "\"libary\"")),
            "",
            "the validator accepts a wrong component type"
        );
        let sbom: Value = serde_json::from_str(&text).unwrap();
        let components = sbom["components"].as_array().unwrap();
        let names: BTreeSet<&str> =
            components.iter().filter_map(|it| it["name"].as_str()).collect();
        assert_eq!(sbom["metadata"]["component"]["name"], package);
        assert!(linked.iter().all(|name| names.contains(name)), "{package}: {names:?}");
        assert!(!others.iter().any(|name| names.contains(name)), "{package}: {names:?}");
        // What cargo knows a checksum of is what came from a registry; the rest is ours.
        let unsummed = components.iter().filter(|it| it["hashes"].is_null());
        assert!(unsummed.clone().all(|it| it["name"].as_str().unwrap().starts_with("twilio-edge")));
    }
}

#[test]
fn release_has_its_section_in_the_changelog() {
    let dist = TempDir::new().unwrap();
    let folder = dist.path().join("dist").display().to_string();
    let changelog = fs::read_to_string(repository().join("CHANGELOG.md")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let strict = ran("release.sh", &["files"], &[("DIST", &folder)]);
    let is_there = changelog.lines().any(|line| line.starts_with(&format!("## {version}")));
    let said = String::from_utf8_lossy(&strict.stderr);
    assert_eq!(strict.status.success(), is_there, "{said}");
    assert!(is_there || said.contains("CHANGELOG.md has no section"), "{said}");
    let tried = ran("release.sh", &["files"], &[("DIST", &folder), ("SNAPSHOT", "1")]);
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    let archive = format!("{folder}/twilio-edge-files-{version}.tar.gz");
    let listed = Command::new("tar").args(["-tzf", &archive]).output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    for file in
        ["LICENSE", "envoy/envoy.yaml", "envoy/dashboards/twilio-edge.json", "docs/RUNBOOKS.md"]
    {
        let path = format!("twilio-edge-files-{version}/{file}");
        assert!(listed.lines().any(|line| line == path), "no {path}");
    }
}

#[test]
fn archive_has_completions_and_man_pages_below_share() {
    let dist = TempDir::new().unwrap();
    let folder = dist.path().join("dist").display().to_string();
    let program = env!("CARGO_BIN_EXE_twilio-edge");
    let shared = ran("release.sh", &["share", program], &[("DIST", &folder), ("SNAPSHOT", "1")]);
    assert!(shared.status.success(), "{}", String::from_utf8_lossy(&shared.stderr));
    let archive = format!("{folder}/x.tar.gz");
    artifacts(&["tar", &archive, "--folder", "twilio-edge-V", &format!("{folder}/share=share")]);
    let listed = Command::new("tar").args(["-tvzf", &archive]).output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    // The document has a table of them.
    let document = fs::read_to_string(repository().join("docs/COMMAND-LINE.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| `share/"));
    let files = rows.flat_map(|row| row.split('`').filter(|word| word.starts_with("share/")));
    let mut found = 0;
    for file in files {
        let path = format!("twilio-edge-V/{file}");
        let line = listed.lines().find(|line| line.ends_with(&path));
        assert!(line.is_some_and(|line| line.starts_with("-rw-r--r--")), "{file}: {listed}");
        found += 1;
    }
    assert_eq!(found, 5);
}
