//! PostgreSQL: one server for all tests of this program, and servers that single tests own.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{Connection, Executor};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{
    Guarded, eventually, free_port,
    process::{find, run},
};

/// PostgreSQL server; its data directory is removed with it.
pub(crate) struct Postgres {
    server: Option<Guarded>,
    port: u16,
    directory: PathBuf,
    /// Directory of a server that one test owns and may restart.
    own: Option<TempDir>,
}

static SHARED: OnceCell<Postgres> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);
/// Database with all tables and no rows, from which the databases of tests are copied.
const TEMPLATE: &str = "edge_template";

impl Postgres {
    /// Server that all tests share, each with a separate database.
    pub(crate) async fn shared() -> &'static Postgres {
        SHARED.get_or_init(|| Postgres::start_in(TempDir::new().unwrap().keep(), None)).await
    }

    /// Creates a migrated, empty database on the shared server. A copy takes a third of the time of the migrations.
    pub(crate) async fn migrated_database() -> String {
        static MIGRATED: OnceCell<()> = OnceCell::const_new();
        let postgres = Postgres::shared().await;
        MIGRATED
            .get_or_init(async || {
                postgres.execute(format!("CREATE DATABASE {TEMPLATE}")).await;
                run(Command::new(env!("CARGO_BIN_EXE_twilio-edge"))
                    .arg("migrate")
                    .env_clear()
                    .env("DATABASE_URL", postgres.url(TEMPLATE)));
            })
            .await;
        postgres.create(&format!("TEMPLATE {TEMPLATE}")).await
    }

    pub(crate) async fn start() -> Postgres {
        let own = TempDir::new().unwrap();
        Postgres::start_in(own.path().to_owned(), Some(own)).await
    }

    async fn start_in(directory: PathBuf, own: Option<TempDir>) -> Postgres {
        let data = directory.join("data");
        let mut initdb = match is_root() {
            // PostgreSQL refuses to run as root.
            true => {
                run(Command::new("chmod").arg("755").arg(&directory));
                run(Command::new("install").args(["-d", "-o", "postgres"]).arg(&data));
                let mut setpriv = Command::new("setpriv");
                setpriv.args(AS_POSTGRES).arg(postgres_program("initdb"));
                setpriv
            }
            false => Command::new(postgres_program("initdb")),
        };
        run(initdb
            .current_dir("/")
            .args(["--no-sync", "-A", "trust", "-U", "edge", "-E", "UTF8", "-D"])
            .arg(&data));
        let mut postgres = Postgres { server: None, port: free_port(), directory, own };
        postgres.start_again().await;
        postgres
    }

    pub(crate) async fn start_again(&mut self) {
        let data = self.directory.join("data").display().to_string();
        let program = postgres_program("postgres").display().to_string();
        let port = self.port.to_string();
        let mut postgres = vec![program.as_str(), "-D", &data, "-p", &port, "-h", "127.0.0.1"];
        postgres.extend(["-k", "", "-F"]);
        postgres.extend(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let (program, args) = match is_root() {
            true => (PathBuf::from("setpriv"), [&AS_POSTGRES[..], &postgres].concat()),
            false => (PathBuf::from(postgres[0]), postgres[1..].to_vec()),
        };
        let _ = std::fs::remove_file(self.directory.join("data/postmaster.pid"));
        // A static is never dropped, so the guard of the shared server removes the files.
        let remove = self.own.is_none().then_some(self.directory.as_path());
        let server = Guarded::start(&program, &args, &[], "QUIT", remove, Stdio::null());
        self.server = Some(server);
        let url = self.url("postgres");
        eventually("postgres answers", || async {
            sqlx::PgConnection::connect(&url).await.is_ok()
        })
        .await;
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://edge:not-checked@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates a database without tables.
    pub(crate) async fn database(&self) -> String {
        self.create("").await
    }

    async fn create(&self, options: &str) -> String {
        let name = format!("edge_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        self.execute(format!("CREATE DATABASE {name} {options}")).await;
        self.url(&name)
    }

    async fn execute(&self, statement: String) {
        let mut connection = sqlx::PgConnection::connect(&self.url("postgres")).await.unwrap();
        connection.execute(sqlx::query(sqlx::AssertSqlSafe(statement))).await.unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.server.as_ref().unwrap().signal(signal);
    }
}

/// Settings of a server whose files need to survive its processes, not the machine, and that has hundreds of databases.
const SETTINGS: [&str; 7] = [
    "max_connections=300",
    "log_min_messages=panic",
    "autovacuum=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "full_page_writes=off",
    "max_wal_size=4GB",
];
const AS_POSTGRES: [&str; 3] = ["--reuid=postgres", "--regid=postgres", "--init-groups"];

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

fn postgres_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    find(name, &folders)
}
