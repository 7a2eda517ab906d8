//! Throw-away servers on free ports of 127.0.0.1. Each runs under a small shell that ends it, and removes its files, as
//! soon as this process is gone: however the tests end, nothing stays behind.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::OnceCell,
};

const STARTUP: Duration = Duration::from_secs(30);

/// Starts "$@", tells its process id, waits for the end of its own input, then kills with $SIGNAL and removes $REMOVE.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null &
pid=$!
echo $pid
exec 2>/dev/null
read _ <&3
kill -$SIGNAL $pid 2>/dev/null
wait $pid 2>/dev/null
[ -z "$REMOVE" ] || rm -rf "$REMOVE"
"#;

/// A process that does not outlive this one.
pub(crate) struct Guarded {
    guard: Child,
    pub(crate) pid: u32,
}

impl Guarded {
    pub(crate) fn start(
        program: &Path,
        args: &[&str],
        envs: &[(&str, &str)],
        signal: &str,
        remove: Option<&Path>,
        stderr: Stdio,
    ) -> Guarded {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(program)
            .args(args)
            .envs(envs.iter().copied())
            .env("SIGNAL", signal)
            .env("REMOVE", remove.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Guarded { pid: line.trim().parse().unwrap(), guard }
    }

    pub(crate) fn stderr(&mut self) -> std::process::ChildStderr {
        self.guard.stderr.take().unwrap()
    }

    /// Sends a signal to the process itself.
    pub(crate) fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").arg(format!("-{signal}")).arg(self.pid.to_string()).status();
        assert!(status.unwrap().success(), "kill -{signal} {}", self.pid);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A port that nobody listens on: below the ephemeral range, so that nobody's outgoing connection has it a moment later.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    // Two programs of tests at the same time begin far from each other.
    let start = std::process::id().wrapping_mul(7919) % u32::from(COUNT);
    (0..COUNT)
        .find_map(|_| {
            let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let port = FIRST + u16::try_from((start + offset) % u32::from(COUNT)).unwrap();
            TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
        })
        .unwrap()
}

/// Asks until the answer is yes; `what` was expected when it never is.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, ask: impl FnMut() -> F) {
    eventually_within(STARTUP, what, ask).await;
}

/// The same, where something may take longer.
pub(crate) async fn eventually_within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) {
    let deadline = Instant::now() + patience;
    while !ask().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        // Fewer times a second than the API answers one caller (`api.requests_per_second`).
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// A Redis that keeps nothing on disk: a server of one test, or a database of the server that all tests share.
pub(crate) struct Redis {
    /// `None` while it is killed, and for a shared server, which no test may kill.
    server: Option<Guarded>,
    port: u16,
    database: usize,
    /// Of the user it is given to, `name:password@`; empty: of the one that may do everything.
    credentials: String,
}

const NOT_OWNED: &str = "this Redis is shared or killed: see `World::own_redis`";
/// Most tests of one program that use Redis.
const REDIS_DATABASES: &str = "4096";

impl Redis {
    /// Returns an unused database of the server that all tests share.
    pub(crate) async fn shared() -> Redis {
        static SERVER: OnceCell<Redis> = OnceCell::const_new();
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let server = SERVER
            .get_or_init(async || {
                let mut server = Redis::stopped();
                server.run(&["--databases", REDIS_DATABASES], None).await;
                server
            })
            .await;
        let database = NEXT.fetch_add(1, Ordering::Relaxed);
        Redis { port: server.port, database, ..Redis::stopped() }
    }

    pub(crate) async fn start() -> Redis {
        let mut redis = Redis::stopped();
        redis.start_again().await;
        redis
    }

    fn stopped() -> Redis {
        Redis { server: None, port: free_port(), database: 0, credentials: String::new() }
    }

    /// A node of a cluster that has all of its slots: it refuses what a larger one would refuse, a script or a command over
    /// keys of different slots.
    pub(crate) async fn start_cluster() -> Redis {
        let mut redis = Redis::stopped();
        let folder = TempDir::new().unwrap().keep();
        let nodes = folder.join("nodes.conf").display().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-config-file", &nodes];
        redis.run(&cluster, Some(&folder)).await;
        let add = redis.ask_all(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
        assert_eq!(add, Some(redis::Value::Okay));
        eventually("the cluster is up", || async {
            let info = redis.ask_all(&["CLUSTER", "INFO"]).await;
            format!("{info:?}").contains("cluster_state:ok")
        })
        .await;
        redis
    }

    pub(crate) async fn start_again(&mut self) {
        self.run(&[], None).await;
    }

    async fn run(&mut self, more: &[&str], remove: Option<&Path>) {
        let program = find("redis-server", &[PathBuf::from("/usr/bin")]);
        let port = self.port.to_string();
        let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let quiet = ["--loglevel", "warning", "--logfile", "/dev/null"];
        let args = [&args[..], &quiet[..], more].concat();
        self.server = Some(Guarded::start(&program, &args, &[], "KILL", remove, Stdio::null()));
        eventually("redis answers", || async { self.ask("PING").await.is_some() }).await;
    }

    pub(crate) fn url(&self) -> String {
        let Redis { credentials, port, database, .. } = self;
        match database {
            0 => format!("redis://{credentials}127.0.0.1:{port}"),
            _ => format!("redis://{credentials}127.0.0.1:{port}/{database}"),
        }
    }

    /// From now on its URL is that of a user who may do what a command makes it.
    pub(crate) async fn with_user(mut self, credentials: &str, command: &[&str]) -> Redis {
        assert_eq!(self.ask_all(command).await, Some(redis::Value::Okay), "{command:?}");
        self.credentials = format!("{credentials}@");
        self
    }

    /// `kill -9`: everything it knew is gone.
    pub(crate) fn kill(&mut self) {
        let server = self.server.take().unwrap_or_else(|| panic!("{NOT_OWNED}"));
        server.signal("KILL");
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.server.as_ref().unwrap_or_else(|| panic!("{NOT_OWNED}")).signal(signal);
    }

    pub(crate) async fn ask(&self, command: &str) -> Option<redis::Value> {
        self.ask_all(&[command]).await
    }

    pub(crate) async fn ask_all(&self, words: &[&str]) -> Option<redis::Value> {
        let url = format!("redis://127.0.0.1:{}/{}", self.port, self.database);
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(word);
        });
        command.query_async(&mut connection).await.ok()
    }

    /// The same Redis, as if it were far away.
    pub(crate) async fn behind_a_slow_network(&self) -> SlowNetwork {
        SlowNetwork::start(self.port).await
    }
}

/// A way to a server on which everything takes its time.
pub(crate) struct SlowNetwork {
    pub(crate) port: u16,
    /// Milliseconds each packet waits.
    delay_ms: Arc<AtomicU64>,
}

impl SlowNetwork {
    async fn start(server: u16) -> SlowNetwork {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = delay_ms.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, delay.clone()));
                tokio::spawn(carry(from_server, to_client, delay.clone()));
            }
        });
        SlowNetwork { port, delay_ms }
    }

    pub(crate) fn set_delay_ms(&self, delay_ms: u64) {
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay_ms: Arc<AtomicU64>) {
    let mut packet = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut packet).await {
        tokio::time::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
        if to.write_all(&packet[..length]).await.is_err() {
            return;
        }
    }
}

/// A PostgreSQL whose data directory goes with it.
pub(crate) struct Postgres {
    server: Option<Guarded>,
    port: u16,
    directory: PathBuf,
    /// Of a server that one test has for itself and may restart.
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
        // A static is never dropped: there the guard removes the files.
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

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn postgres_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    find(name, &folders)
}

fn find(name: &str, folders: &[PathBuf]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = folders.iter().cloned().chain(std::env::split_paths(&path));
    let mut candidates = known.map(|folder| folder.join(name));
    candidates
        .find(|candidate| candidate.exists())
        .unwrap_or_else(|| panic!("{name} is not installed: run `make setup`"))
}
