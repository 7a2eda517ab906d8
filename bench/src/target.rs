//! What is compared: the shipped Envoy configuration without the filter, with it, and with a sidecar on either kind of
//! store. All parts are real and run as their documents say; only addresses differ.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use twilio_edge::demo::{
    ACCOUNT_SID, AUTH_TOKEN, BACKEND_CLUSTER, EDGE_TOKEN, EnvoyConfig, SIDECAR_CLUSTER,
};

use crate::backend::Backend;
use crate::process::{Cores, Process, Program, Usage, find, free_port};
use crate::webhook::ORIGIN;

/// What stands between the load and the backend.
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
}

impl Plan {
    pub(crate) const ALL: [Self; 4] =
        [Self::Passthrough, Self::Filter, Self::Embedded, Self::Stores];

    /// For the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Passthrough => "(a) Envoy without the filter",
            Self::Filter => "(b) filter",
            Self::Embedded => "(c) filter, sidecar, SQLite",
            Self::Stores => "(d) filter, sidecar, Redis, Postgres",
        }
    }

    /// Whether somebody checks signatures.
    pub(crate) fn verifies(self) -> bool {
        self != Self::Passthrough
    }

    /// Whether somebody knows what was seen.
    pub(crate) fn remembers(self) -> bool {
        matches!(self, Self::Embedded | Self::Stores)
    }

    /// What this machine lacks for it.
    pub(crate) fn lacks(self) -> Option<&'static str> {
        match self {
            Self::Stores if find("redis-server", &[]).is_none() => Some("redis-server"),
            Self::Stores if postgres_program("initdb").is_none() => Some("PostgreSQL"),
            _ => None,
        }
    }
}

/// Where the parts are.
pub(crate) struct Parts {
    pub(crate) envoy: PathBuf,
    pub(crate) wasm: PathBuf,
    pub(crate) sidecar: PathBuf,
    pub(crate) config: PathBuf,
}

/// A plan that runs. Its Envoy goes first when it ends, its files last.
pub(crate) struct Target {
    pub(crate) plan: Plan,
    pub(crate) address: SocketAddr,
    envoy: Process,
    /// Sidecar and stores.
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
        let folder = TempDir::with_prefix("twilio-edge-bench-")?;
        let mut helpers = Vec::new();
        let sidecar_port = free_port()?;
        if plan.remembers() {
            let (database, redis) = match plan {
                Plan::Stores => {
                    let (redis, redis_url) = start_redis(cores, folder.path())?;
                    let (postgres, database) = start_postgres(cores, folder.path())?;
                    helpers.extend([redis, postgres]);
                    (database, redis_url)
                }
                _ => {
                    (format!("sqlite://{}", folder.path().join("edge.db").display()), String::new())
                }
            };
            let sidecar = Program {
                name: "sidecar",
                command: vec![parts.sidecar.as_os_str(), OsStr::new("serve")],
                environment: vec![
                    ("TWILIO_EDGE_LISTEN", format!("127.0.0.1:{sidecar_port}")),
                    ("TWILIO_EDGE_TOKEN", EDGE_TOKEN.to_owned()),
                    ("DATABASE_URL", database),
                    ("REDIS_URL", redis),
                    // A PostgreSQL that was just made takes its time.
                    ("TWILIO_EDGE_DATABASE_CONNECT_TIMEOUT_MS", "30000".to_owned()),
                ],
                signal: "KILL",
            };
            let sidecar = Process::start(cores, sidecar, folder.path())?;
            sidecar.until_ready(sidecar_port, "/readyz").await?;
            helpers.insert(0, sidecar);
        }
        let (edge, admin) = (free_port()?, free_port()?);
        let mut config = EnvoyConfig::load(&parts.config)?;
        config.set_listener(local(edge))?;
        config.set_admin(local(admin))?;
        config.set_module(&parts.wasm)?;
        config.set_cluster(BACKEND_CLUSTER, backend.address())?;
        config.set_cluster(SIDECAR_CLUSTER, local(sidecar_port))?;
        if !plan.remembers() {
            let plugin = config.plugin.as_object_mut().context("the filter's configuration")?;
            plugin.remove("sidecar").context("no sidecar in the filter's configuration")?;
        }
        let mut bootstrap: Value = serde_json::from_str(&config.to_json()?)?;
        if !plan.verifies() {
            remove_filter(&mut bootstrap)?;
        }
        let path = folder.path().join("envoy.json");
        std::fs::write(&path, bootstrap.to_string())?;
        let flags = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"];
        let mut command = vec![parts.envoy.as_os_str()];
        command.extend(flags.map(OsStr::new));
        command.push(path.as_os_str());
        let environment = [
            ("TWILIO_ACCOUNT_SID", ACCOUNT_SID),
            ("TWILIO_AUTH_TOKEN", AUTH_TOKEN),
            ("TWILIO_EDGE_TOKEN", EDGE_TOKEN),
            ("PUBLIC_ORIGIN", ORIGIN),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec();
        let envoy = Program { name: "envoy", command, environment, signal: "KILL" };
        let envoy = Process::start(cores, envoy, folder.path())?;
        envoy.until_ready(admin, "/ready").await?;
        Ok(Self { plan, address: local(edge), envoy, helpers, _folder: folder })
    }

    /// What each part uses; Envoy first.
    pub(crate) fn usage(&self) -> Result<Vec<(&'static str, Usage)>> {
        let all = std::iter::once(&self.envoy).chain(&self.helpers);
        all.map(|process| Ok((process.name(), process.usage()?))).collect()
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Takes the filter out of the chain; everything else stays as shipped.
fn remove_filter(bootstrap: &mut Value) -> Result<()> {
    let chain = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
    let chain = bootstrap.pointer_mut(chain).and_then(Value::as_array_mut);
    let chain = chain.context("the shipped configuration has no http_filters where they were")?;
    let before = chain.len();
    chain.retain(|filter| filter.get("name").is_none_or(|name| name != "twilio_edge"));
    ensure!(chain.len() + 1 == before, "the shipped configuration has not one filter twilio_edge");
    Ok(())
}

fn start_redis(cores: Cores, folder: &Path) -> Result<(Process, String)> {
    let port = free_port()?.to_string();
    let program = find("redis-server", &[]).context("no redis-server")?;
    let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let mut command = vec![program.as_os_str()];
    command.extend(args.map(OsStr::new));
    let program = Program { name: "redis", command, environment: Vec::new(), signal: "KILL" };
    Ok((Process::start(cores, program, folder)?, format!("redis://127.0.0.1:{port}")))
}

/// A new PostgreSQL as its packages make it, `fsync` and all.
fn start_postgres(cores: Cores, folder: &Path) -> Result<(Process, String)> {
    let data = folder.join("data");
    let (initdb, server) = (postgres_program("initdb"), postgres_program("postgres"));
    let (initdb, server) = initdb.zip(server).context("no PostgreSQL")?;
    // It refuses to run as root.
    let demoted = rustix::process::geteuid().is_root();
    let demotion: &[&str] = match demoted {
        true => &["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"],
        false => &[],
    };
    let demotion = demotion.iter().map(OsStr::new);
    if demoted {
        run(&["chmod".as_ref(), "755".as_ref(), folder.as_os_str()])?;
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
    // QUIT is its immediate shutdown, children included.
    let program = Program { name: "postgres", command, environment: Vec::new(), signal: "QUIT" };
    let url = format!("postgres://edge:not-checked@127.0.0.1:{port}/postgres");
    Ok((Process::start(cores, program, folder)?, url))
}

fn run(command: &[&OsStr]) -> Result<()> {
    let (program, args) = command.split_first().context("nothing to run")?;
    let output = Command::new(program).args(args).current_dir("/").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("run {command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", complaint.trim());
    Ok(())
}

/// Debian keeps them off PATH, in a folder for each version; the newest.
fn postgres_program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    find(name, &folders)
}
