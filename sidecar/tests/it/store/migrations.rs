//! Tables of the database: a sidecar creates them once, starts on the tables of a newer version, and refuses tables that another
//! history created.

use std::process::Command;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use twilio_edge_contract::Decision;

use crate::support::{
    sidecar::message,
    world::{World, on_every_store},
};

on_every_store!(
    restarted_sidecar_keeps_its_tables,
    sidecar_starts_on_tables_of_a_newer_version,
    migration_refuses_tables_of_another_history,
);

async fn execute(world: &World, statement: &str) {
    let statement = AssertSqlSafe(statement.to_owned());
    let changed = match world.database_url.starts_with("sqlite") {
        true => {
            let mut connection = SqliteConnection::connect(&world.database_url).await.unwrap();
            connection.execute(sqlx::raw_sql(statement)).await.unwrap().rows_affected()
        }
        false => {
            let mut connection = PgConnection::connect(&world.database_url).await.unwrap();
            connection.execute(sqlx::raw_sql(statement)).await.unwrap().rows_affected()
        }
    };
    assert_eq!(changed, 1);
}

async fn restarted_sidecar_keeps_its_tables(world: World) {
    let before = world.sidecar().await;
    let claim = message("c", "SM1");
    assert_eq!(before.decide(claim.clone()).await, Decision::Proceed);
    before.commit(&claim).await;
    drop(before);
    let applied = "SELECT version || ' ' || installed_on FROM _sqlx_migrations";
    let first = world.stored(applied).await;
    assert_eq!(first.len(), 1, "{first:?}");
    let after = world.sidecar().await;
    assert_eq!(after.decide(message("d", "SM1")).await, Decision::Duplicate);
    assert_eq!(world.stored(applied).await, first);
}

async fn sidecar_starts_on_tables_of_a_newer_version(world: World) {
    let before = world.sidecar().await;
    assert_eq!(before.decide(message("c", "SM1")).await, Decision::Proceed);
    drop(before);
    let newer = "
        INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        SELECT version + 1000, 'of a newer version', success, checksum, execution_time FROM _sqlx_migrations
        ORDER BY version DESC LIMIT 1";
    execute(&world, newer).await;
    let after = world.sidecar().await;
    assert_eq!(after.decide(message("d", "SM2")).await, Decision::Proceed);
}

async fn migration_refuses_tables_of_another_history(world: World) {
    world.sidecar().await.stop();
    let checksum = if world.database_url.starts_with("sqlite") { "x'00'" } else { r"'\x00'" };
    execute(&world, &format!("UPDATE _sqlx_migrations SET checksum = {checksum}")).await;
    let migration = Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
        .arg("migrate")
        .env_clear()
        .env("DATABASE_URL", &world.database_url)
        .current_dir(world.directory.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&migration.stderr);
    assert!(!migration.status.success(), "{error}");
    assert!(error.contains("its tables cannot be migrated: migration 1 "), "{error}");
}
