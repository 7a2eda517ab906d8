//! Redis servers.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{Guarded, SlowNetwork, eventually, free_port, process::find};

/// Redis without persistence: a server of one test, or a database of the server that all tests share.
pub(crate) struct Redis {
    /// `None` while it is killed, and for a shared server, which no test may kill.
    server: Option<Guarded>,
    port: u16,
    database: usize,
    /// `name:password@` of the user in the URL; empty for the default user, who may do everything.
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

    /// Starts a cluster of one node with all slots. Like a larger cluster, it refuses a script or command with keys of
    /// different slots.
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

    /// Creates a user with `command`. From then on the URL is that of the user.
    pub(crate) async fn with_user(mut self, credentials: &str, command: &[&str]) -> Redis {
        assert_eq!(self.ask_all(command).await, Some(redis::Value::Okay), "{command:?}");
        self.credentials = format!("{credentials}@");
        self
    }

    /// Kills it with `kill -9`. Its data are lost.
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

    /// Starts a proxy to it that delays each packet.
    pub(crate) async fn behind_a_slow_network(&self) -> SlowNetwork {
        SlowNetwork::start(self.port).await
    }
}
