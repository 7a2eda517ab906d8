//! `twilio-edge messages` and `events`, run by an operator while the sidecar is writing, and after it has gone.

use std::process::{Command, Output};

use serde_json::Value;

use crate::{
    api::message_lists::{ALICE, BOB, OURS, accepted, from, of_other, status_callback},
    support::servers::Postgres,
    support::sidecar::ACCOUNT,
    support::world::{World, on_every_store},
};

on_every_store!(
    messages_are_listed_beside_a_running_sidecar,
    history_of_a_message_is_one_command,
    messages_are_printed_with_the_options_of_twilios_command_line,
    webhooks_are_listed_with_every_parameter,
    history_of_a_number_is_one_command,
    ledger_can_be_read_when_no_sidecar_runs,
    reading_changes_nothing_and_names_who_must_act,
);

fn ran(world: &World, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .args(arguments)
        .env_clear()
        .envs([("DATABASE_URL", world.database_url.as_str()), ("TWILIO_ACCOUNT_SID", ACCOUNT)])
        .current_dir(world.directory.path())
        .output()
        .unwrap()
}

/// Returns the output of a command that must succeed.
fn out(world: &World, arguments: &[&str]) -> String {
    let output = ran(world, arguments);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&out(world, arguments)).unwrap()
}

fn column(rows: &Value, name: &str) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
}

async fn messages_are_listed_beside_a_running_sidecar(world: World) {
    let sidecar = world.sidecar().await;
    let elsewhere = of_other(from("SM9", ALICE));
    accepted(
        &sidecar,
        &[
            status_callback("SM1", "read", None, ALICE),
            status_callback("SM2", "failed", Some("21610"), BOB),
            elsewhere,
        ],
    )
    .await;
    let table = out(&world, &["messages", "list"]);
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert_eq!(lines[0][..6], ["ID", "SID", "DIRECTION", "FROM", "TO", "STATE"]);
    assert_eq!(lines[1][..8], ["SM2", "SM2", "outbound", OURS, BOB, "sent", "failed", "21610"]);
    assert_eq!(lines[2][..7], ["SM1", "SM1", "outbound", OURS, ALICE, "sent", "read"]);

    let (day, _) = lines[1][8].split_once('T').unwrap();
    for (filter, expected) in [
        (&["--to", ALICE][..], &["SM1"][..]),
        (&["--from", OURS, "--limit", "1"], &["SM2"]),
        (&["--status", "failed"], &["SM2"]),
        (&["--date-sent", day], &["SM2", "SM1"]),
        (&["--date-sent", "2001-01-01"], &[]),
        (&["--until", lines[1][8]], &["SM1"]),
        (&["--since", lines[1][8]], &["SM2"]),
        (&["--number", BOB], &["SM2"]),
        (&["--direction", "outbound", "--state", "sent"], &["SM2", "SM1"]),
        (&["--direction", "inbound"], &[]),
        (&["--state", "received"], &[]),
    ] {
        let rows = json(&world, &[&["messages", "list", "--json"], filter].concat());
        assert_eq!(column(&rows, "sid"), expected, "{filter:?}");
    }
    let tsv = out(&world, &["messages", "list", "--output", "tsv", "--to", BOB]);
    let cells: Vec<Vec<&str>> = tsv.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((cells.len(), cells[1][6], cells[1].len()), (2, "failed", cells[0].len()));
    // And the sidecar was not disturbed.
    accepted(&sidecar, &[status_callback("SM3", "sent", None, BOB)]).await;
    assert_eq!(
        column(&json(&world, &["messages", "list", "--json"]), "sid"),
        ["SM3", "SM2", "SM1"]
    );
}

async fn history_of_a_message_is_one_command(world: World) {
    let sidecar = world.sidecar().await;
    let words = ["sent", "read", "delivered"];
    accepted(&sidecar, &words.map(|word| status_callback("SM1", word, None, ALICE))).await;
    let message = json(&world, &["messages", "show", "SM1", "--json"]);
    assert_eq!((&message["status"], &message["to"]), (&"read".into(), &ALICE.into()));
    let statuses = message["timeline"].as_array().unwrap().iter();
    let statuses: Vec<_> = statuses.map(|entry| entry["webhook"]["status"].clone()).collect();
    assert_eq!(statuses, words);
    let text = out(&world, &["messages", "show", "SM1"]);
    assert!(text.contains("/twilio/status") && text.contains(ALICE), "{text}");

    let missing = ran(&world, &["messages", "show", "SM404"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("has no message SM404"));
}

async fn messages_are_printed_with_the_options_of_twilios_command_line(world: World) {
    let sidecar = world.sidecar().await;
    let numbers = ["+14155550101", "+14155550102", "+14155550103"];
    for (n, number) in numbers.iter().enumerate() {
        accepted(&sidecar, &[status_callback(&format!("SM{n}"), "failed", Some("30003"), number)])
            .await;
    }
    let list = ["messages", "list", "--properties", "sid,to,error", "-o"];
    let pages = ["--limit", "3", "--page-size", "1"];
    assert_eq!(
        out(&world, &[&list[..], &["csv"], &pages].concat()),
        "SID,TO,ERROR\nSM2,'+14155550103,30003\nSM1,'+14155550102,30003\nSM0,'+14155550101,30003\n"
    );
    let bare = ["tsv", "--no-header", "--limit", "1"];
    assert_eq!(out(&world, &[&list[..], &bare].concat()), "SM2\t'+14155550103\t30003\n");
    assert!(out(&world, &[&list[..], &["columns"]].concat()).starts_with("SID"));
    let rows = json(&world, &[&list[..], &["json"]].concat());
    assert_eq!(rows[0].as_object().unwrap().len(), 3, "{rows}");
    assert_eq!(rows[0]["error"]["code"], "30003");
    let show = ["messages", "show", "--sid", "SM1", "--properties", "status,to"];
    assert_eq!(json(&world, &[&show[..], &["--json"]].concat())["status"], "failed");
    let csv = ["-o", "csv", "--no-header"];
    assert_eq!(out(&world, &[&show[..], &csv].concat()), "failed,'+14155550102\n");

    // Each field of the JSON output is valid, and any other name is refused with the valid ones.
    let whole = json(&world, &["messages", "list", "--json"]);
    let fields: Vec<&str> = whole[0].as_object().unwrap().keys().map(String::as_str).collect();
    let all = ["messages", "list", "--properties", &fields.join(","), "--json"];
    assert_eq!(json(&world, &all), whole);
    let wrong = ran(&world, &["messages", "list", "--properties", "sid,dateSent"]);
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(1), "{error}");
    let named = error.split_once("the fields are ").unwrap().1.trim();
    let mut named: Vec<&str> = named.split(", ").collect();
    named.sort_unstable();
    let mut fields = fields.clone();
    fields.sort_unstable();
    assert_eq!(named, fields, "{error}");
    for neither in [&["messages", "show"][..], &["messages", "show", "SM1", "--sid", "SM1"]] {
        assert_eq!(ran(&world, neither).status.code(), Some(2), "{neither:?}");
    }
}

async fn webhooks_are_listed_with_every_parameter(world: World) {
    let sidecar = world.sidecar().await;
    accepted(&sidecar, &[from("SM1", ALICE), status_callback("SM2", "sent", None, BOB)]).await;
    let rows = json(&world, &["events", "list", "--number", ALICE, "--json"]);
    assert_eq!(column(&rows, "sid"), ["SM1"]);
    let parameters = rows[0]["parameters"].as_array().unwrap();
    assert!(parameters.contains(&serde_json::json!({"name": "Body", "value": "hello"})), "{rows}");
    assert_eq!(column(&json(&world, &["events", "list", "--json"]), "sid"), ["SM2", "SM1"]);
    let rows = json(&world, &["events", "list", "--sid", "SM2", "--json"]);
    assert_eq!(
        (column(&rows, "status"), &rows[0]["backend"]),
        (vec!["sent".into()], &"accepted".into())
    );
}

async fn history_of_a_number_is_one_command(world: World) {
    let sidecar = world.sidecar().await;
    let elsewhere = of_other(from("SM9", ALICE));
    accepted(
        &sidecar,
        &[
            from("SM1", ALICE),
            status_callback("SM2", "failed", Some("63016"), ALICE),
            from("SM3", BOB),
            elsewhere,
        ],
    )
    .await;
    let text = out(&world, &["history", ALICE]);
    assert!(text.starts_with(&format!("{ALICE} in {ACCOUNT}\n")), "{text}");
    for part in ["Conversation windows, ", "Messages, ", "Webhooks, ", "SM1", "SM2", "63016", OURS]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("SM3") && !text.contains("SM9"), "{text}");
    let story = json(&world, &["history", &format!("whatsapp:{ALICE}"), "--json", "--limit", "1"]);
    assert_eq!(column(&story["messages"], "sid"), ["SM2"]);
    assert_eq!(
        (&story["windows"][0]["open"], &story["channel"]),
        (&true.into(), &"whatsapp".into())
    );
    let nothing = out(&world, &["history", "+15559999999"]);
    assert!(nothing.contains("has nothing about this number"), "{nothing}");
}

async fn ledger_can_be_read_when_no_sidecar_runs(world: World) {
    let sidecar = world.sidecar().await;
    accepted(&sidecar, &[status_callback("SM1", "sent", None, ALICE)]).await;
    sidecar.stop();
    assert_eq!(column(&json(&world, &["messages", "list", "--json"]), "sid"), ["SM1"]);
    let sidecar = world.sidecar().await;
    accepted(&sidecar, &[status_callback("SM2", "sent", None, ALICE)]).await;
    sidecar.kill();
    assert_eq!(column(&json(&world, &["messages", "list", "--json"]), "sid"), ["SM2", "SM1"]);
}

async fn reading_changes_nothing_and_names_who_must_act(mut world: World) {
    if !world.database_url.starts_with("sqlite") {
        world.database_url = Postgres::shared().await.database().await;
    }
    // No sidecar ever ran here: there is nothing to read, and nothing is made.
    let output = ran(&world, &["messages", "list"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{error}");
    assert!(error.contains("twilio-edge migrate"), "{error}");
    assert!(!error.contains("not-checked"), "no password: {error}");
    assert!(!world.directory.path().join("data").exists());
}
