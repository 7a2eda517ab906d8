//! A sink type that this file alone defines and one line registers, used by the delivery workers of the service.

use std::{io::ErrorKind, path::PathBuf, sync::Arc, time::Duration};

use serde_json::Value;
use twilio_edge_connectors::sinks::{Field, Registration, SinkType, Sinks, TYPES};
use twilio_edge_contract::Decision;
use twilio_edge_domain::{
    delivery::{DeliveryOutcome, SinkAnswer},
    event::Delivery,
};
use twilio_edge_platform::{
    config::Merged,
    metrics::Metrics,
    strict_toml::{Fields, TomlReader},
    tasks::Supervisor,
};
use twilio_edge_services::{inbound::delivery_worker::DeliveryWorkers, wakeup::Wakeup};
use twilio_edge_store::Outbox;

use crate::{
    inbound::deliveries::{command, from, start},
    support::servers::eventually,
    support::world::{Kind, World, on_every_store},
};

on_every_store! {
    added_sink_type_gets_deliveries_retries_and_dead_letters,
}

/// The one line that adds the type.
const ADDED: Registration = Registration::of::<Folder>();

/// Sink that writes each event to a file named after its message. It is unavailable while the folder is missing.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl SinkType for Folder {
    const NAME: &'static str = "folder";
    const DESTINATION: &'static str = "folder with one file for each delivery";
    const FIELDS: &'static [Field] = &[Field { name: "path", meaning: "the folder; required" }];

    type Settings = PathBuf;

    fn parse(reading: &mut TomlReader, path: &str, fields: Fields<'_>) -> PathBuf {
        reading.text(&format!("{path}.path"), fields.get("path")).into()
    }

    fn weak_secret(_: &PathBuf) -> Option<String> {
        None
    }

    fn open(path: PathBuf, _timeout: Duration) -> Result<Folder, String> {
        Ok(Folder { path })
    }

    async fn deliver(&self, delivery: &Delivery<'_>) -> SinkAnswer {
        let event = serde_json::to_value(&delivery.event).unwrap();
        if event["body"] == "2" {
            let reason = "the folder accepts no event 2".into();
            return DeliveryOutcome::Refused { reason }.into();
        }
        let file = self.path.join(event["message_sid"].as_str().unwrap());
        let outcome = match std::fs::write(file, event["body"].as_str().unwrap()) {
            Ok(()) => DeliveryOutcome::Delivered,
            Err(error) => DeliveryOutcome::Failed {
                reason: error.to_string(),
                retry_after: None,
                is_outage: error.kind() == ErrorKind::NotFound,
            },
        };
        outcome.into()
    }
}

fn sinks_file(world: &World, text: &str) -> String {
    let path = world.directory.path().join("sinks.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

async fn added_sink_type_gets_deliveries_retries_and_dead_letters(world: World) {
    // The program does not have the type: a sidecar accepts the webhooks for a sink of the same name that is unavailable.
    let common = "[[sink]]\nname = \"out\"\nlongest_pause_ms = 100\n";
    let file = format!("{common}type = \"http\"\nurl = \"http://127.0.0.1:1\"\n");
    let sidecar = start(&world, &sinks_file(&world, &file)).await;
    for n in 1..4 {
        assert_eq!(sidecar.decide(from(1, n)).await, Decision::Accepted);
    }
    sidecar.stop();

    let folder = world.directory.path().join("out");
    let file = format!("{common}type = \"folder\"\npath = \"{}\"\n", folder.display());
    let sinks = Sinks::read_with(&sinks_file(&world, &file), &[ADDED]).unwrap();
    let environment = [("DATABASE_URL".into(), world.database_url.as_str().into())];
    let config = Merged::read(None, environment.into_iter()).check().unwrap();
    let outbox = Outbox::open(&config.database).await.unwrap();
    let metrics = Arc::new(Metrics::default());
    let (wakeup, tasks) = (Wakeup::default(), Supervisor::new(metrics.clone()));
    let workers = DeliveryWorkers::start(&sinks, &outbox, &wakeup, None, &metrics, "test", &tasks);

    eventually("the attempts fail without the folder", async || {
        let failed = "SELECT delivery_id FROM deliveries WHERE reason LIKE 'No such file%'";
        !world.stored(failed).await.is_empty()
    })
    .await;
    assert!(!folder.exists());
    std::fs::create_dir(&folder).unwrap();
    eventually("no delivery is pending", async || {
        world.stored("SELECT lane FROM lanes").await.is_empty()
    })
    .await;
    assert_eq!(std::fs::read_to_string(folder.join("SM1x1")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(folder.join("SM1x3")).unwrap(), "3");
    assert!(!folder.join("SM1x2").exists());
    let dead = command(&world, &["deliveries", "list", "--json"]);
    let dead: Value = serde_json::from_str(&dead).unwrap();
    assert_eq!(dead.as_array().unwrap().len(), 1);
    assert_eq!(dead[0]["sink"], "out");
    assert_eq!(dead[0]["reason"], "the folder accepts no event 2");
    assert!(workers.finish(Duration::from_secs(20)).await);
    outbox.close().await;
}

#[tokio::test]
async fn added_sink_type_has_its_fields_checked_by_path() {
    let world = World::new(Kind::Sqlite).await;
    let types = [TYPES, &[ADDED]].concat();
    let problems = |text: &str| Sinks::read_with(&sinks_file(&world, text), &types).unwrap_err();
    let folder = "[[sink]]\nname = \"out\"\ntype = \"folder\"\n";
    assert_eq!(problems(folder), ["sink[0].path: is required"]);
    assert_eq!(
        problems(&format!("{folder}path = \"/tmp\"\nbrokers = []\n")),
        ["sink[0].brokers: there is no such field"]
    );
    assert_eq!(
        problems("[[sink]]\nname = \"out\"\ntype = \"fax\"\n"),
        ["sink[0].type: must be http, kafka, redis-stream, sqs, pubsub or folder"]
    );
}
