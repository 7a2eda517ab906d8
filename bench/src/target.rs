//! Targets of the comparison: the shipped Envoy configuration without the filter, with it, with a sidecar on either kind of
//! store, with the native module, and with Envoy's own filter for authorization services instead. All parts are real and run as documented; only
//! addresses differ.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use twilio_edge_demo::account::write_private;
use twilio_edge_demo::{
    ACCOUNT_SID, AUTH_TOKEN, BACKEND_CLUSTER, EDGE_TOKEN, EnvoyConfig, SIDECAR_CLUSTER,
};

use crate::backend::Backend;
use crate::chain;
use crate::process::{Cores, Process, Program, Usage, find, free_port, private_folder};
use crate::webhook::ORIGIN;

/// Components between the load and the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Envoy alone.
    Passthrough,
    /// The filter: verified, not deduplicated.
    Filter,
    /// The filter and a sidecar on SQLite.
    Embedded,
    /// The filter and a sidecar on Redis and PostgreSQL.
    Stores,
    /// The native module: verified, not deduplicated.
    Native,
    /// The native module and a sidecar on Redis and PostgreSQL.
    NativeStores,
    /// No filter: Envoy asks a service that does the same check with Redis.
    ExtAuthz,
    /// The filter and a sidecar whose database writes to a slow disk.
    Slow(Stores),
    /// The filter and a sidecar in accept delivery; the application is unavailable, and there is no backend.
    Accepting(Stores),
}

impl Plan {
    pub(crate) const ALL: [Self; 9] = [
        Self::Passthrough,
        Self::Filter,
        Self::Embedded,
        Self::Stores,
        Self::ExtAuthz,
        Self::Slow(Stores::Sqlite),
        Self::Slow(Stores::RedisPostgres),
        Self::Native,
        Self::NativeStores,
    ];

    /// Returns the title in the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Passthrough => "(a) Envoy without the filter",
            Self::Filter => "(b) filter",
            Self::Embedded => "(c) filter, sidecar, SQLite",
            Self::Stores => "(d) filter, sidecar, Redis, Postgres",
            Self::ExtAuthz => "(e) ext_authz service, Redis",
            Self::Slow(Stores::Sqlite) => "(f) as (c), fsync takes 20 ms",
            Self::Slow(Stores::RedisPostgres) => "(g) as (d), fsync takes 20 ms",
            Self::Native => "(n) native module",
            Self::NativeStores => "(s) native, sidecar, Redis, Postgres",
            Self::Accepting(stores) => stores.title(),
        }
    }

    /// Reports whether the disk of the database is slow. Such a target is measured for its latency, not for its CPU.
    pub(crate) fn is_slow(self) -> bool {
        matches!(self, Self::Slow(_))
    }

    /// Returns the letter for sentences, such as `(a)`.
    pub(crate) fn letter(self) -> &'static str {
        self.title().split_at_checked(3).map_or(self.title(), |(letter, _)| letter)
    }

    /// Reports whether the filter is in Envoy's chain.
    pub(crate) fn filters(self) -> bool {
        matches!(self, Self::Filter | Self::Native) || self.has_sidecar()
    }

    /// Reports whether the filter asks a sidecar.
    pub(crate) fn has_sidecar(self) -> bool {
        matches!(
            self,
            Self::Embedded | Self::Stores | Self::NativeStores | Self::Slow(_) | Self::Accepting(_)
        )
    }

    /// Reports whether the filter is the native module.
    pub(crate) fn is_native(self) -> bool {
        matches!(self, Self::Native | Self::NativeStores)
    }

    /// Reports whether signatures are verified.
    pub(crate) fn verifies(self) -> bool {
        self != Self::Passthrough
    }

    /// Reports whether duplicates are recognized.
    pub(crate) fn remembers(self) -> bool {
        self.has_sidecar() || self == Self::ExtAuthz
    }

    /// Returns the program that this machine lacks for it.
    pub(crate) fn lacks(self) -> Option<&'static str> {
        match self {
            Self::Slow(Stores::Sqlite) if find("strace", &[]).is_none() => Some("strace"),
            Self::Stores | Self::NativeStores | Self::Slow(Stores::RedisPostgres) => {
                Stores::RedisPostgres.lack()
            }
            Self::ExtAuthz if find("redis-server", &[]).is_none() => Some("redis-server"),
            _ => None,
        }
    }
}

/// Stores of a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stores {
    Sqlite,
    RedisPostgres,
}

impl Stores {
    /// Returns the title in the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::RedisPostgres => "Redis, Postgres",
        }
    }

    /// Returns the program that this machine lacks for them.
    pub(crate) fn lack(self) -> Option<&'static str> {
        match self {
            Self::RedisPostgres if find("redis-server", &[]).is_none() => Some("redis-server"),
            Self::RedisPostgres if postgres_program("initdb").is_none() => Some("PostgreSQL"),
            _ => None,
        }
    }
}

/// Paths of the parts.
pub(crate) struct Parts {
    pub(crate) envoy: PathBuf,
    pub(crate) wasm: PathBuf,
    pub(crate) native: PathBuf,
    pub(crate) sidecar: PathBuf,
    pub(crate) ext_authz: PathBuf,
    pub(crate) config: PathBuf,
}

/// A running plan. When it ends, Envoy ends first, and its files are removed last.
pub(crate) struct Target {
    pub(crate) plan: Plan,
    pub(crate) address: SocketAddr,
    envoy: Process,
    /// Sidecar or service, and stores.
    helpers: Vec<Process>,
    _folder: TempDir,
}

impl Target {
    /// Starts everything, with one worker of Envoy, and waits until it is ready.
    pub(crate) async fn start(
        plan: Plan,
        parts: &Parts,
        cores: Cores,
        backend: &Backend,
    ) -> Result<Self> {
        let folder = private_folder()?;
        let sinks = matches!(plan, Plan::Accepting(_)).then(|| folder.path().join("sinks.toml"));
        let closed_port = local(free_port()?);
        if let Some(file) = &sinks {
            let sink = "[[sink]]\nname = \"app\"\ntype = \"http\"";
            write_private(file, &format!("{sink}\nurl = \"http://{closed_port}/\"\n"))?;
        }
        let sinks = sinks.as_deref();
        let slow_disk = plan.is_slow();
        let place =
            Place { cores, folder: folder.path(), database_timeout_ms: None, sinks, slow_disk };
        let sidecar_port = free_port()?;
        let with_sidecar = async |stores| {
            let started = place.start_stores(stores, parts, sidecar_port).await?;
            let sidecar = std::iter::once(started.sidecar);
            Ok::<_, anyhow::Error>(sidecar.chain(started.helpers).collect())
        };
        let helpers = match plan {
            Plan::Passthrough | Plan::Filter | Plan::Native => Vec::new(),
            Plan::Embedded => with_sidecar(Stores::Sqlite).await?,
            Plan::Stores | Plan::NativeStores => with_sidecar(Stores::RedisPostgres).await?,
            Plan::Slow(stores) | Plan::Accepting(stores) => with_sidecar(stores).await?,
            Plan::ExtAuthz => {
                let (redis, redis_url) = place.start_redis()?;
                vec![place.start_ext_authz(parts, sidecar_port, redis_url).await?, redis]
            }
        };
        let (edge, admin) = (free_port()?, free_port()?);
        let mut config = EnvoyConfig::load(&parts.config)?;
        config.set_listener(local(edge))?;
        config.set_admin(local(admin))?;
        if plan.is_native() {
            config.use_native(&parts.native)?;
        } else {
            config.set_module(&parts.wasm)?;
        }
        config.set_cluster(BACKEND_CLUSTER, backend.address())?;
        config.set_cluster(SIDECAR_CLUSTER, local(sidecar_port))?;
        let bootstrap = match plan {
            Plan::Passthrough => chain::without_filter(&config)?,
            Plan::Filter | Plan::Native => chain::without_sidecar(config)?,
            Plan::Embedded | Plan::Stores | Plan::NativeStores | Plan::Slow(_) => {
                config.to_json()?
            }
            Plan::Accepting(_) => {
                config.set_cluster(BACKEND_CLUSTER, closed_port)?;
                chain::accepting(config)?
            }
            Plan::ExtAuthz => chain::with_ext_authz(&config)?,
        };
        let path = folder.path().join("envoy.json");
        std::fs::write(&path, bootstrap)?;
        let flags = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"];
        let mut command = vec![parts.envoy.as_os_str()];
        command.extend(flags.map(OsStr::new));
        command.push(path.as_os_str());
        let environment = owned(&[&SECRETS[..], &[("TWILIO_EDGE_TOKEN", EDGE_TOKEN)]].concat());
        let envoy = Program { name: "envoy", command, environment, signal: "KILL" };
        let envoy = Process::start(cores, envoy, folder.path())?;
        envoy.until_ready(admin, "/ready").await?;
        Ok(Self { plan, address: local(edge), envoy, helpers, _folder: folder })
    }

    /// Returns the usage of each part; Envoy first.
    pub(crate) fn usage(&self) -> Result<Vec<(&'static str, Usage)>> {
        let all = std::iter::once(&self.envoy).chain(&self.helpers);
        all.map(|process| Ok((process.name(), process.usage()?))).collect()
    }
}

/// Secrets that a verifying component needs.
const SECRETS: [(&str, &str); 3] = [
    ("TWILIO_ACCOUNT_SID", ACCOUNT_SID),
    ("TWILIO_AUTH_TOKEN", AUTH_TOKEN),
    ("PUBLIC_ORIGIN", ORIGIN),
];

fn owned(environment: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A sidecar, the processes of its stores, and their URLs.
pub(crate) struct Started {
    pub(crate) sidecar: Process,
    pub(crate) helpers: Vec<Process>,
    pub(crate) database: String,
    pub(crate) redis: String,
}

/// Environment in which helpers run.
pub(crate) struct Place<'a> {
    pub(crate) cores: Cores,
    pub(crate) folder: &'a Path,
    /// Timeout of the sidecar's database, in milliseconds; `None` for the default.
    pub(crate) database_timeout_ms: Option<u32>,
    /// Sinks file of a sidecar.
    pub(crate) sinks: Option<&'a Path>,
    /// Each wait for the database's disk takes [`SLOW_DISK_US`].
    pub(crate) slow_disk: bool,
}

/// Time of one fsync on a slow disk, in microseconds.
const SLOW_DISK_US: u32 = 20_000;

impl Place<'_> {
    /// Starts a sidecar on new stores, and the processes of these.
    pub(crate) async fn start_stores(
        &self,
        stores: Stores,
        parts: &Parts,
        port: u16,
    ) -> Result<Started> {
        let (database, redis, helpers) = match stores {
            Stores::Sqlite => {
                let file = self.folder.join("edge.db");
                (format!("sqlite://{}", file.display()), String::new(), Vec::new())
            }
            Stores::RedisPostgres => {
                let (redis, redis_url) = self.start_redis()?;
                let (postgres, database) = self.start_postgres()?;
                (database, redis_url, vec![redis, postgres])
            }
        };
        let sidecar = self.start_sidecar(parts, port, database.clone(), redis.clone()).await?;
        Ok(Started { sidecar, helpers, database, redis })
    }

    async fn start_sidecar(
        &self,
        parts: &Parts,
        port: u16,
        database: String,
        redis: String,
    ) -> Result<Process> {
        let is_sqlite = database.starts_with("sqlite:");
        let mut environment = vec![
            ("TWILIO_EDGE_LISTEN", local(port).to_string()),
            ("TWILIO_EDGE_ADMIN_LISTEN", "off".to_owned()),
            ("TWILIO_EDGE_TOKEN", EDGE_TOKEN.to_owned()),
            ("TWILIO_EDGE_DEMO", "true".to_owned()),
            ("DATABASE_URL", database),
            ("REDIS_URL", redis),
            (
                "TWILIO_EDGE_EVENTS_SPOOL_DIR",
                self.folder.join("spool").to_string_lossy().into_owned(),
            ),
            // A new PostgreSQL takes some time to start.
            ("TWILIO_EDGE_DATABASE_CONNECT_TIMEOUT_MS", "30000".to_owned()),
        ];
        let time_limit = self.database_timeout_ms.map(|ms| ms.to_string());
        environment.extend(time_limit.map(|ms| ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", ms)));
        let sinks = self.sinks.map(|file| file.to_string_lossy().into_owned());
        environment.extend(sinks.map(|file| ("TWILIO_EDGE_SINKS_FILE", file)));
        let delay = format!("--inject=fsync,fdatasync:delay_exit={SLOW_DISK_US}");
        let slow = ["strace", "-f", "--seccomp-bpf", "--trace=fsync,fdatasync"];
        // With an output file, strace ignores TERM by default.
        let options = [delay.as_str(), "--output=/dev/null", "--interruptible=waiting"];
        let slow = slow.into_iter().chain(options).map(OsStr::new);
        // SQLite waits for the disk in this process, PostgreSQL in its own.
        let is_slow = self.slow_disk && is_sqlite;
        let mut command: Vec<&OsStr> = slow.filter(|_| is_slow).collect();
        command.extend([parts.sidecar.as_os_str(), OsStr::new("serve")]);
        // strace ends its program with the signal that it receives, except for KILL.
        let signal = if is_slow { "TERM" } else { "KILL" };
        let program = Program { name: "sidecar", command, environment, signal };
        let sidecar = Process::start(self.cores, program, self.folder)?;
        sidecar.until_ready(port, "/readyz").await?;
        Ok(sidecar)
    }

    async fn start_ext_authz(&self, parts: &Parts, port: u16, redis: String) -> Result<Process> {
        let mut environment = owned(&SECRETS);
        environment.extend([("LISTEN", local(port).to_string()), ("REDIS_URL", redis)]);
        let command = vec![parts.ext_authz.as_os_str()];
        let program = Program { name: "service", command, environment, signal: "KILL" };
        let service = Process::start(self.cores, program, self.folder)?;
        service.until_ready(port, "/readyz").await?;
        Ok(service)
    }

    fn start_redis(&self) -> Result<(Process, String)> {
        let port = free_port()?.to_string();
        let program = find("redis-server", &[]).context("no redis-server")?;
        let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let mut command = vec![program.as_os_str()];
        command.extend(args.map(OsStr::new));
        let program = Program { name: "redis", command, environment: Vec::new(), signal: "KILL" };
        let redis = Process::start(self.cores, program, self.folder)?;
        Ok((redis, format!("redis://127.0.0.1:{port}")))
    }

    /// Starts a new PostgreSQL with the defaults of its packages, including `fsync`.
    fn start_postgres(&self) -> Result<(Process, String)> {
        let data = self.folder.join("data");
        let (initdb, server) = (postgres_program("initdb"), postgres_program("postgres"));
        let (initdb, server) = initdb.zip(server).context("no PostgreSQL")?;
        // PostgreSQL refuses to run as root.
        let demoted = rustix::process::geteuid().is_root();
        let demotion: &[&str] = match demoted {
            true => &["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"],
            false => &[],
        };
        let demotion = demotion.iter().map(OsStr::new);
        if demoted {
            run(&["chmod".as_ref(), "755".as_ref(), self.folder.as_os_str()])?;
            let install = ["install", "-d", "-m", "700", "-o", "postgres"].map(OsStr::new);
            run(&[&install, [data.as_os_str()].as_slice()].concat())?;
        }
        let args = ["-A", "trust", "-U", "edge", "-E", "UTF8", "-D"].map(OsStr::new);
        let mut command: Vec<&OsStr> = demotion.clone().collect();
        command.push(initdb.as_os_str());
        command.extend(args);
        command.push(data.as_os_str());
        run(&command)?;
        let port = free_port()?.to_string();
        let mut command: Vec<&OsStr> = demotion.collect();
        command.extend([server.as_os_str(), OsStr::new("-D"), data.as_os_str()]);
        command.extend(["-p", &port, "-h", "127.0.0.1", "-k", ""].map(OsStr::new));
        // PostgreSQL's own delay before each flush of a commit.
        let delay = format!("commit_delay={SLOW_DISK_US}");
        let slow = ["-c", &delay, "-c", "commit_siblings=0"].map(OsStr::new);
        command.extend(slow.into_iter().filter(|_| self.slow_disk));
        // QUIT is its immediate shutdown, children included.
        let environment = Vec::new();
        let program = Program { name: "postgres", command, environment, signal: "QUIT" };
        let url = format!("postgres://edge:not-checked@127.0.0.1:{port}/postgres");
        Ok((Process::start(self.cores, program, self.folder)?, url))
    }
}

fn run(command: &[&OsStr]) -> Result<()> {
    let (program, args) = command.split_first().context("the command is empty")?;
    let output = Command::new(program).args(args).current_dir("/").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("run {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", stderr.trim());
    Ok(())
}

/// Finds a program in the folder of the newest version. Debian keeps them off PATH, in a folder for each version.
fn postgres_program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    find(name, &folders)
}
