//! The keys handed to filters: a rotation without a restart, files that were broken meanwhile, and who gets nothing.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use twilio_edge_contract::{EDGE_CONFIG_PATH, KeyAlgorithm, KeyRing, PROTOCOL_VERSION};

use crate::{
    api::endpoints::refused,
    support::sidecar::{ACCOUNT, Sidecar, TOKEN},
    support::world::{Kind, World},
};

/// Longer than the sidecar believes its last look at the file.
const SEEN_BY_THEN: Duration = Duration::from_millis(1_000);

/// A file of one account with these tokens.
fn tokens(tokens: &[&str]) -> String {
    format!("[[account]]\nsid = \"{ACCOUNT}\"\nauth_tokens = {tokens:?}\n")
}

struct Keys {
    world: World,
    sidecar: Sidecar,
}

impl Keys {
    /// A sidecar whose accounts file holds this.
    async fn of(text: &str) -> Keys {
        let world = World::new(Kind::Sqlite).await;
        std::fs::write(world.directory.path().join("accounts.toml"), text).unwrap();
        let sidecar = world.sidecar_with(&[("TWILIO_EDGE_ACCOUNTS_FILE", "accounts.toml")]).await;
        Keys { world, sidecar }
    }

    fn file(&self) -> PathBuf {
        self.world.directory.path().join("accounts.toml")
    }

    /// Puts another file in its place, as a deployment does: at once.
    fn replace(&self, text: &str) {
        let new = self.file().with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    async fn ask(&self, query: &str) -> KeyRing {
        let response = get(&self.sidecar, &format!("{EDGE_CONFIG_PATH}{query}")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let ring: KeyRing = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(ring.v, PROTOCOL_VERSION);
        ring
    }

    /// Asks as filters do until the sidecar has seen a change; the ring and how long that took.
    async fn until(&self, what: &str, seen: impl AsyncFn(&KeyRing) -> bool) -> (KeyRing, Duration) {
        let started = Instant::now();
        loop {
            let ring = self.ask("").await;
            if seen(&ring).await {
                return (ring, started.elapsed());
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{what}:\n{}", self.sidecar.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_stale(&self, stale: bool) -> KeyRing {
        let seen = async |_: &KeyRing| {
            self.sidecar.metric("twilio_edge_accounts_stale").await == f64::from(u8::from(stale))
        };
        self.until("stale", seen).await.0
    }
}

async fn get(sidecar: &Sidecar, path: &str) -> reqwest::Response {
    let request = sidecar.client.get(format!("{}{path}", sidecar.base)).bearer_auth(TOKEN);
    request.send().await.unwrap()
}

fn auth_tokens(ring: &KeyRing) -> Vec<&str> {
    let accounts = ring.accounts.iter().flatten();
    accounts.flat_map(|account| &account.auth_tokens).map(String::as_str).collect()
}

#[tokio::test]
async fn filter_gets_all_keys_once_and_then_not_modified() {
    let shared = "[[account.shared_keys]]\nid = \"webhooks_sharedkey_a\"\nsecret = \"hush-3\"\n";
    let keys = Keys::of(&(tokens(&["hush-1", "hush-2"]) + shared)).await;
    let ring = keys.ask("").await;
    assert_eq!(auth_tokens(&ring), ["hush-1", "hush-2"]);
    let account = &ring.accounts.as_ref().unwrap()[0];
    assert_eq!(account.sid, ACCOUNT);
    assert_eq!(account.shared_keys[0].id, "webhooks_sharedkey_a");
    assert_eq!(account.shared_keys[0].secret, "hush-3");
    assert_eq!(account.shared_keys[0].algorithm, KeyAlgorithm::HmacSha256);

    let unchanged = keys.ask(&format!("?have={}", ring.generation)).await;
    assert_eq!(unchanged, KeyRing { accounts: None, ..ring.clone() });
    for query in ["?have=", "?have=0000000000000000", "?had=0", "?have=%ff&&="] {
        assert_eq!(keys.ask(query).await, ring, "{query}");
    }
    let log = keys.sidecar.stop();
    assert!(log.contains(&ring.generation) && !log.contains("hush"), "{log}");
}

#[tokio::test]
async fn rotation_is_seen_within_a_second_without_a_restart() {
    let keys = Keys::of(&tokens(&["hush-old"])).await;
    let old = keys.ask("").await;
    keys.replace(&tokens(&["hush-old", "hush-new"]));
    let seen = async |ring: &KeyRing| auth_tokens(ring) == ["hush-old", "hush-new"];
    let (both, took) = keys.until("rotation", seen).await;
    // A busy machine gets 2 seconds more to answer.
    assert!(took < SEEN_BY_THEN + Duration::from_secs(2), "{took:?}");
    assert_ne!(both.generation, old.generation);
    // A filter with the old generation receives the new keys.
    assert_eq!(keys.ask(&format!("?have={}", old.generation)).await, both);

    // The generation depends on the content alone: with the old keys it is the old one again.
    keys.replace(&("# back\n".to_owned() + &tokens(&["hush-old"])));
    let seen = async |ring: &KeyRing| *ring == old;
    keys.until("way back", seen).await;
}

#[tokio::test]
async fn broken_key_file_is_logged_once_and_keeps_the_last_good_keys() {
    let keys = Keys::of(&tokens(&["hush-good"])).await;
    let good = keys.ask("").await;
    let ready = async || keys.sidecar.get("/readyz").await;
    let readiness =
        |accounts| (200, format!(r#"{{"ready":true,"database":"ok","accounts":"{accounts}"}}"#));
    assert_eq!(ready().await, readiness("ok"));

    keys.replace(&(tokens(&["hush bad"]) + "tokens = [\"hush-worse\"]\n"));
    assert_eq!(keys.until_stale(true).await, good);
    assert_eq!(ready().await, readiness("stale"));
    // Further reads of the same file log nothing.
    let looks = Instant::now();
    while looks.elapsed() < 2 * SEEN_BY_THEN {
        assert_eq!(keys.ask("").await, good);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = keys.sidecar.log();
    assert_eq!(log.matches("could not use the accounts file").count(), 1, "{log}");
    for problem in
        ["account[0].tokens: there is no such field", "account[0].auth_tokens[0]: holds a blank"]
    {
        assert!(log.contains(problem), "{problem:?} is not in:\n{log}");
    }

    std::fs::remove_file(keys.file()).unwrap();
    let seen = async |_: &KeyRing| keys.sidecar.log().contains("No such file");
    assert_eq!(keys.until("absence", seen).await.0, good);
    assert_eq!(ready().await, readiness("stale"));

    keys.replace(&tokens(&["hush-good"]));
    assert_eq!(keys.until_stale(false).await, good);
    assert_eq!(ready().await, readiness("ok"));
    let log = keys.sidecar.stop();
    assert_eq!(log.matches("could not use the accounts file").count(), 2, "{log}");
    assert!(!log.contains("hush"), "{log}");
}

/// Kubernetes mounts a Secret as a link to a link to a folder, and swaps the one in the middle.
#[tokio::test]
async fn swapped_link_is_a_change() {
    let world = World::new(Kind::Sqlite).await;
    let mount = world.directory.path().join("mount");
    let version = |name: &str, text: &str| {
        std::fs::create_dir_all(mount.join(name)).unwrap();
        let file = mount.join(name).join("accounts.toml");
        std::fs::write(&file, text).unwrap();
        // Both versions have the same size and modification time.
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    };
    let point_to = |name: &str| {
        symlink(name, mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    version("..1", &tokens(&["hush-1"]));
    version("..2", &tokens(&["hush-2"]));
    point_to("..1");
    symlink(Path::new("..data/accounts.toml"), mount.join("accounts.toml")).unwrap();
    let file = mount.join("accounts.toml").display().to_string();
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_ACCOUNTS_FILE", &file)]).await;
    let keys = Keys { world, sidecar };
    assert_eq!(auth_tokens(&keys.ask("").await), ["hush-1"]);
    point_to("..2");
    let seen = async |ring: &KeyRing| auth_tokens(ring) == ["hush-2"];
    keys.until("the swap", seen).await;
}

#[tokio::test]
async fn keys_are_withheld_without_a_token_or_accounts() {
    let keys = Keys::of(&tokens(&["hush"])).await;
    let url = format!("{}{EDGE_CONFIG_PATH}", keys.sidecar.base);
    for shown in [None, Some(""), Some("Bearer wrong"), Some(TOKEN)] {
        let mut request = keys.sidecar.client.get(&url);
        if let Some(shown) = shown {
            request = request.header("authorization", shown);
        }
        let response = request.send().await.unwrap();
        assert_eq!(refused(response).await, (401, "unauthorized".into()), "{shown:?}");
    }
    let post = keys.sidecar.post(EDGE_CONFIG_PATH, "").await;
    assert_eq!(refused(post).await, (405, "method_not_allowed".into()));

    let none = World::new(Kind::Sqlite).await;
    let sidecar = none.sidecar().await;
    let response = get(&sidecar, EDGE_CONFIG_PATH).await;
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!(problem["actor"], "operator");
    assert!(problem["detail"].as_str().unwrap().contains("TWILIO_EDGE_ACCOUNTS_FILE"), "{problem}");
    let response = get(&sidecar, EDGE_CONFIG_PATH).await;
    assert_eq!(refused(response).await, (404, "no_accounts_file".into()));
    assert_eq!(sidecar.get("/readyz").await.1, r#"{"ready":true,"database":"ok"}"#);
}
