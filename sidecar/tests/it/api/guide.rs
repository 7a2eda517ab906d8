//! Runs each command of docs/API.md, unchanged, against a sidecar, and checks that it succeeds.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::{
    api::message_lists::{ALICE, accepted, from, status_callback},
    support::sidecar::{ACCOUNT, TOKEN},
    support::world::{Kind, World},
};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/API.md");

/// Returns the commands of the guide, with continued lines joined.
fn commands() -> Vec<String> {
    let guide = std::fs::read_to_string(Path::new(GUIDE)).unwrap();
    let blocks = guide.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let whole = blocks.map(|block| block.replace("\\\n", " ")).collect::<String>();
    whole.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_command_of_the_guide_works() {
    let world = World::new(Kind::Sqlite).await;
    let sidecar = world.sidecar().await;
    accepted(&sidecar, &[status_callback("SM1", "delivered", None, ALICE), from("SM2", ALICE)])
        .await;
    let (mut admin_key, mut app_key) = (String::new(), String::new());
    let commands = commands();
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let ran = Command::new("sh")
            .args(["-euc", &format!("{command} -w ' %{{http_code}}'")])
            .env("API", &sidecar.base)
            .env("ADMIN", sidecar.admin())
            .env("ACCOUNT", ACCOUNT)
            .env("TWILIO_EDGE_TOKEN", TOKEN)
            .env("ADMIN_KEY", &admin_key)
            .env("APP_KEY", &app_key)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success() && ran.stderr.is_empty(), "{command}: {said}");
        let (body, status) = said.rsplit_once(' ').unwrap();
        assert!(["200", "201"].contains(&status), "{command}: {said}");
        let body: Value = serde_json::from_str(body).unwrap();
        if let Some(token) = body["token"].as_str() {
            let scope = body["key"]["scope"].as_str().unwrap();
            if scope == "admin" { admin_key = token.into() } else { app_key = token.into() }
        }
        // No example shows an empty list, except for statistics before the first message, for refused requests, which a filter
        // reports, and for warnings about settings.
        let may_be_empty = body["account_sid"].is_string()
            || body["totals"].is_object()
            || body["refusals"].is_array()
            || body["requests"].is_array()
            || body["warnings"].is_array();
        for rows in body.as_object().unwrap().values().filter_map(Value::as_array) {
            assert!(!rows.is_empty() || may_be_empty, "{command}: {body}");
        }
    }
    assert!(!admin_key.is_empty() && !app_key.is_empty());
}
