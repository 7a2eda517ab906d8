//! Files of the sidecar, and files it is given: who else may read them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    access::api_keys::administrator,
    support::sidecar::{ACCOUNT, Sidecar, TOKEN, inbound},
    support::simulator,
    support::world::{Kind, World},
};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Everything below a folder, and the folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(below(&path)),
            false => found.push(path),
        }
    }
    found
}

async fn started(world: &World, settings: &[(&str, &str)]) -> Sidecar {
    world.sidecar_under("umask 000", settings).await
}

#[tokio::test]
async fn sidecar_writes_private_files_under_every_umask() {
    let world = World::new(Kind::Sqlite).await;
    let here = |name: &str| world.directory.path().join(name);
    let (archive, media) = (here("archive/of/ours"), here("media"));
    let (archive_url, media_url) =
        (format!("file://{}", archive.display()), format!("file://{}", media.display()));
    let settings = [
        ("TWILIO_EDGE_ARCHIVE_URL", archive_url.as_str()),
        ("TWILIO_EDGE_ARCHIVE_AGE_S", "1"),
        ("TWILIO_EDGE_MEDIA_STORE_URL", &media_url),
        ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", "http://127.0.0.1:1"),
        ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", "6f1c0a9be54d4f62a3d87c15e0b29f48"),
        ("TWILIO_EDGE_EVENTS_LINGER_MS", "60000"),
    ];
    let sidecar = started(&world, &settings).await;
    administrator(&sidecar).await;
    sidecar.claim(inbound("c1", "SM1", "whatsapp:+15551234567", "my secret")).await;
    for folder in [here("data"), here("archive"), media.clone()] {
        for path in below(&folder) {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{}", path.display());
        }
    }
    let names: Vec<String> =
        below(&here("data")).iter().map(|path| path.display().to_string()).collect();
    for suffix in ["edge.db", "edge.db-wal", "edge.db-shm", "edge.db.spool", ".spool"] {
        assert!(names.iter().any(|name| name.ends_with(suffix)), "no {suffix} in {names:?}");
    }
    sidecar.stop();

    // Of an earlier release, or copied here.
    set_mode(&here("data/edge.db"), 0o644);
    set_mode(&here("data/edge.db.spool"), 0o755);
    let sidecar = started(&world, &settings).await;
    assert_eq!(mode(&here("data/edge.db")), 0o600);
    assert_eq!(mode(&here("data/edge.db.spool")), 0o700);
    let log = sidecar.stop();
    assert!(log.contains("files.restricted") && !log.contains("files.exposed"), "{log}");
}

#[tokio::test]
async fn data_folder_that_others_may_read_is_refused_with_its_remedy() {
    let world = World::new(Kind::Sqlite).await;
    let here = |name: &str| world.directory.path().join(name);
    let url = |name: &str| format!("file://{}", here(name).display());
    let media = [
        ("TWILIO_EDGE_MEDIA_STORE_PUBLIC_URL", "http://127.0.0.1:1".to_owned()),
        ("TWILIO_EDGE_MEDIA_STORE_LINK_KEY", "6f1c0a9be54d4f62a3d87c15e0b29f48".to_owned()),
        ("TWILIO_EDGE_MEDIA_STORE_URL", url("media")),
    ];
    let cases = [
        ("data", vec![("DATABASE_URL", world.database_url.clone())]),
        ("spool", vec![("TWILIO_EDGE_EVENTS_SPOOL_DIR", here("spool").display().to_string())]),
        ("archive", vec![("TWILIO_EDGE_ARCHIVE_URL", url("archive"))]),
        ("media", media.into()),
    ];
    for (name, settings) in cases {
        let folder = here(name);
        fs::create_dir_all(&folder).unwrap();
        for exposed in [0o755, 0o711, 0o777, 0o770] {
            set_mode(&folder, exposed);
            let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
            command.arg("serve").current_dir(world.directory.path()).env_clear();
            command.env("TWILIO_EDGE_TOKEN", TOKEN).env("TWILIO_EDGE_LISTEN", "127.0.0.1:0");
            let output = command.envs(settings.clone()).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            let remedy = format!("run `chmod 700 {}`", folder.display());
            assert!(!output.status.success() && said.contains(&remedy), "{name}: {said}");
            assert!(said.contains("has 1 problem(s)"), "{name}: {said}");
            assert_eq!(mode(&folder), exposed, "it may hold what is not ours");
            assert!(fs::read_dir(&folder).unwrap().next().is_none(), "nothing was written");
        }
        fs::remove_dir(&folder).unwrap();
    }
}

#[tokio::test]
async fn credentials_that_others_may_read_are_refused_with_what_mends_it() {
    let world = World::new(Kind::Sqlite).await;
    let here = |name: &str| world.directory.path().join(name);
    let accounts =
        format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_tokens = [\"hush-hush-hush\"]\n");
    let sinks = "[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"http://127.0.0.1:9/\"\n";
    for (variable, path, text) in [
        ("TWILIO_EDGE_ACCOUNTS_FILE", "accounts.toml", accounts.as_str()),
        ("TWILIO_EDGE_SENDING_FILE", "sending.toml", &simulator::account(ACCOUNT)),
        ("TWILIO_EDGE_SINKS_FILE", "sinks.toml", sinks),
        ("TWILIO_EDGE_TOKEN_FILE", "token", TOKEN),
        // Given on the command line.
        ("--config", "twilio-edge.toml", "[redaction]\nhash_key = \"a-hush-key-of-these-tests\"\n"),
    ] {
        let path = here(path);
        fs::write(&path, text).unwrap();
        let said = |mode: u32| {
            set_mode(&path, mode);
            let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
            command.arg("serve").current_dir(world.directory.path()).env_clear();
            // There is always a problem: it does not start.
            command.env("TWILIO_EDGE_LISTEN", "nowhere");
            match variable {
                "--config" => command.arg(variable).arg(&path),
                _ => command.env(variable, &path),
            };
            if variable != "TWILIO_EDGE_TOKEN_FILE" {
                command.env("TWILIO_EDGE_TOKEN", TOKEN);
            }
            let output = command.output().unwrap();
            assert!(!output.status.success());
            String::from_utf8(output.stderr).unwrap()
        };
        let command = format!("run `chmod 600 {}`", path.display());
        for exposed in [0o644, 0o604, 0o666] {
            let said = said(exposed);
            assert!(said.contains(&command) && said.contains(&format!("{exposed:04o}")), "{said}");
            assert!(!said.contains("hush"), "{said}");
        }
        // The group of this process, as Kubernetes mounts Secrets with fsGroup.
        for good in [0o600, 0o400, 0o640, 0o440] {
            let said = said(good);
            assert!(said.contains("has 1 problem(s)") && !said.contains("chmod"), "{said}");
        }
    }
}

#[tokio::test]
async fn settings_without_secrets_may_be_read_by_others() {
    let world = World::new(Kind::Sqlite).await;
    let path = world.directory.path().join("twilio-edge.toml");
    fs::write(&path, "[sending]\nstatus_callback_url = \"https://a.example/status\"\n").unwrap();
    set_mode(&path, 0o644);
    let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-edge"));
    command.args(["print-config", "--config"]).arg(&path).env_clear();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
