//! Statements and commands of docs/SECURITY-MODEL.md, executed as written. The rights of the sidecar in PostgreSQL and Redis are
//! enough for its work, and for nothing else; the commands that rotate secrets rotate them.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use reqwest::Method;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use twilio_edge_contract::{Decision, EDGE_CONFIG_PATH, KeyRing};

use crate::{
    access::api_keys::Caller,
    support::servers::{Postgres, Redis, eventually},
    support::sidecar::{ACCOUNT, Sidecar, TOKEN, message},
    support::world::{Kind, World, private_files},
};

/// Returns the code blocks of one language under a heading.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let model = std::fs::read_to_string(root.join("docs/SECURITY-MODEL.md")).unwrap();
    let section = model.split_once(&format!("\n### {heading}\n")).unwrap().1;
    let section = section.split("\n### ").next().unwrap();
    let opening = format!("```{language}\n");
    let blocks = section.split(opening.as_str()).skip(1);
    let blocks: Vec<String> =
        blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect();
    assert!(!blocks.is_empty(), "{heading} has no {language}");
    blocks
}

async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    for statement in statements.split(';').filter(|statement| !statement.trim().is_empty()) {
        let run = connection.execute(sqlx::query(AssertSqlSafe(statement.to_owned()))).await;
        run.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

fn as_role(url: &str, role: &str) -> String {
    url.replace("edge:not-checked@", &format!("{role}:not-checked@"))
}

static ROLES: OnceCell<()> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl World {
    /// PostgreSQL and Redis with the rights that the security model gives a sidecar.
    async fn of_little_right() -> World {
        private_files();
        let [once, before, after] = <[String; 3]>::try_from(blocks("The database", "sql")).unwrap();
        let server = Postgres::shared().await.url("postgres");
        // Roles are the server's, and the server is shared.
        let (roles, database) = once.split_at(once.find("CREATE DATABASE").unwrap());
        ROLES.get_or_init(|| async { execute(&server, roles).await }).await;
        let name = format!("edge_little_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        execute(&server, &database.replace("DATABASE edge ", &format!("DATABASE {name} "))).await;
        let url = Postgres::shared().await.url(&name);
        execute(&url, &before).await;
        let owner = as_role(&url, "edge_owner");
        let migrated = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
            .arg("migrate")
            .env("DATABASE_URL", &owner)
            .output()
            .unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
        execute(&owner, &after).await;

        let rules = blocks("Redis", "text").remove(0);
        let rules: Vec<&str> = rules.split_whitespace().collect();
        let redis = Redis::start().await.with_user("edge:of-sidecars", &rules).await;
        // Only Redis 7.2 and later know this command.
        redis.ask_all(&["ACL", "SETUSER", "edge", "+client|setinfo"]).await;
        World {
            kind: Kind::RedisPostgres,
            directory: TempDir::new().unwrap(),
            database_url: as_role(&url, "edge_sidecar"),
            redis: Some(redis),
        }
    }
}

/// Runs tests of other modules with only these rights.
macro_rules! with_little_right {
    ($($folder:ident::$module:ident::$behaviour:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $behaviour() {
                crate::$folder::$module::$behaviour(World::of_little_right().await).await;
            }
        )*
    };
}

with_little_right!(
    inbound::claims::webhook_that_the_backend_refused_is_delivered_again,
    inbound::claims::webhook_forwarded_without_a_verdict_is_recorded_when_it_is_settled,
    access::permissions::keywords_leave_decisions_of_administrators,
    access::permissions::consents_are_added_to_and_the_latest_counts,
    access::tenants::tenant_profile_applies_to_its_account_alone,
    access::api_keys::key_is_shown_once_and_good_until_it_is_revoked,
    outbound::idempotency::repeated_request_gets_the_first_answer_and_changes_nothing,
    outbound::sending::message_is_sent_once,
    inbound::replays::recorded_webhook_is_replayed,
    inbound::dead_letters::administrator_manages_dead_letters,
    operations::retention::old_rows_are_deleted_and_evidence_stays,
    operations::retention::erased_contact_stays_suppressed,
);

#[tokio::test]
async fn sidecar_has_no_right_that_it_does_not_need() {
    let world = World::of_little_right().await;
    let sidecar = world.sidecar().await;
    for (claim_id, decision) in [("c1", Decision::Proceed), ("c2", Decision::InFlight)] {
        assert_eq!(sidecar.decide(message(claim_id, "SM1")).await, decision);
    }
    sidecar.release(&message("c1", "SM1")).await;
    sidecar.commit(&message("c3", "SM2")).await;
    assert_eq!(sidecar.metric("twilio_edge_redis_state{state=\"up\"}").await, 1.0);
    let redis = world.redis.as_ref().unwrap();
    assert_eq!(redis.ask_all(&["ACL", "LOG"]).await, Some(redis::Value::Array(vec![])));

    let mut connection = PgConnection::connect(&world.database_url).await.unwrap();
    for statement in [
        "CREATE TABLE mine (id INT)",
        "DROP TABLE events",
        "ALTER TABLE events ADD COLUMN mine INT",
        "TRUNCATE opt_events",
        "UPDATE opt_events SET opt = 'start'",
        "UPDATE audit SET actor = 'changed'",
        "DELETE FROM _sqlx_migrations",
    ] {
        let refused = connection.execute(statement).await.unwrap_err().to_string();
        let is_refused = refused.contains("permission denied") || refused.contains("must be owner");
        assert!(is_refused, "{statement}: {refused}");
    }
    let client = redis::Client::open(redis.url()).unwrap();
    let mut user = client.get_multiplexed_async_connection().await.unwrap();
    for words in
        [&["KEYS", "*"][..], &["GET", "foreign-key"], &["FLUSHALL"], &["CONFIG", "GET", "*"]]
    {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(word);
        });
        let refused = command.query_async::<redis::Value>(&mut user).await.unwrap_err();
        assert_eq!(refused.code(), Some("NOPERM"), "{words:?}: {refused}");
    }
}

#[tokio::test]
async fn role_without_ddl_rights_is_reported_when_a_migration_is_due() {
    let world = World::of_little_right().await;
    let owner = world.database_url.replace("edge_sidecar:", "edge_owner:");
    let last =
        "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
    execute(&owner, last).await;
    let served = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(["migrate"])
        .env("DATABASE_URL", &world.database_url)
        .output()
        .unwrap();
    let said = String::from_utf8(served.stderr).unwrap();
    assert!(!served.status.success() && said.contains("permission denied"), "{said}");
}

/// Runs a block as a user types it, in the folder of the accounts file. Returns its output.
fn typed(folder: &Path, block: &str, variables: &[(&str, &str)]) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_twilio-edge")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let ran = Command::new("bash")
        .args(["-euo", "pipefail", "-c", block])
        .current_dir(folder)
        .env("PATH", path)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{block}\n{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// Waits until `is` accepts the key ring that filters receive.
async fn wait_for_keys(sidecar: &Sidecar, what: &str, is: impl Fn(&KeyRing) -> bool) {
    eventually(what, || async {
        let url = format!("{}{EDGE_CONFIG_PATH}", sidecar.base);
        let response = sidecar.client.get(url).bearer_auth(TOKEN).send().await.unwrap();
        is(&serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    })
    .await;
}

#[tokio::test]
async fn documented_commands_rotate_twilio_keys_at_filters() {
    let world = World::new(Kind::Sqlite).await;
    let (folder, current, next) = (world.directory.path(), "1".repeat(32), "2".repeat(32));
    let variables = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("CURRENT", &current),
        ("NEXT", &next),
        ("OLD_ID", &"a".repeat(32)),
        ("OLD_SECRET", "of-the-old-one"),
        ("NEW_ID", &"b".repeat(32)),
        ("NEW_SECRET", "of-the-new-one"),
    ];
    let [both, after] = <[String; 2]>::try_from(blocks("The auth token", "sh")).unwrap();
    typed(folder, &both, &variables);
    let sidecar = world.sidecar_with(&[("TWILIO_EDGE_ACCOUNTS_FILE", "accounts.toml")]).await;
    let tokens = |ring: &KeyRing| -> Vec<String> {
        let account = ring.accounts.iter().flatten().next();
        account.map(|one| one.auth_tokens.clone()).unwrap_or_default()
    };
    wait_for_keys(&sidecar, "filters receive both tokens", |it| {
        tokens(it) == [current.clone(), next.clone()]
    })
    .await;
    typed(folder, &after, &variables);
    wait_for_keys(&sidecar, "filters receive only the next token", |it| {
        tokens(it) == [next.clone()]
    })
    .await;
    typed(folder, &blocks("SharedKeys", "sh")[0], &variables);
    wait_for_keys(&sidecar, "filters receive both shared keys", |it| {
        it.accounts.iter().flatten().next().is_some_and(|one| one.shared_keys.len() == 2)
    })
    .await;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(folder.join("accounts.toml")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o077, 0, "others may read it");
}

#[tokio::test]
async fn documented_commands_rotate_our_keys() {
    let world = World::new(Kind::Postgres).await;
    let sidecar = world.sidecar().await;
    let folder = world.directory.path();
    let shared = [("DATABASE_URL", world.database_url.as_str()), ("TWILIO_ACCOUNT_SID", ACCOUNT)];
    let made = typed(folder, "twilio-edge keys create --scope app --name orders-1 --json", &shared);
    let made: Value = serde_json::from_str(&made).unwrap();
    let (id, token) = (made["key"]["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let old = Caller::app(&sidecar, token);
    old.get("/v1/key").await;
    let output =
        typed(folder, &blocks("API keys", "sh")[0], &[&shared[..], &[("OLD_KEY_ID", id)]].concat());
    assert!(output.contains("orders-2"), "{output}");
    eventually("the old key is refused", || async {
        old.send(Method::GET, "/v1/key", String::new()).await.status() == 401
    })
    .await;
    let gateways = typed(folder, &blocks("The filter's token", "sh")[0], &shared);
    let token = gateways.split_whitespace().find(|word| word.starts_with("twilio_edge_")).unwrap();
    let url = format!("{}{}", sidecar.base, twilio_edge_contract::EXCHANGE_PATH);
    let claims = serde_json::json!({"v": 1, "claims": [message("c1", "SM1")]}).to_string();
    let claimed = sidecar.client.post(url).bearer_auth(token).body(claims).send().await.unwrap();
    assert_eq!(claimed.status(), 200, "{token}");
}
