//! The real Envoy with the compiled filter, started from the shipped configuration. Other addresses and the settings of a
//! scenario are changes to that file; there is no second configuration for tests. A scenario that tests the push of a
//! configuration gets the same listener by LDS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use twilio_edge_demo::EnvoyConfig;

use crate::client::{Connection, get};
use crate::process::{Process, free_port, isolated, until};
use crate::repository;
use crate::sabotage::copy_trapping;
use crate::webhook::Request;

const BOOTSTRAP: &str = "envoy.json";
const DRAIN_SECONDS: &str = "3";

/// Version of Envoy. The tests cover the newest and the oldest supported one, and assume that those between work too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// The version that `make run` uses.
    Newest,
    /// The oldest supported.
    Oldest,
}

impl Version {
    /// Returns the word for it in the names of scenarios.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Newest => "newest",
            Version::Oldest => "oldest",
        }
    }

    fn binary(self) -> PathBuf {
        let (variable, environment) = match self {
            Version::Newest => ("TWILIO_EDGE_ENVOY", ".venv"),
            Version::Oldest if is_native() => {
                ("TWILIO_EDGE_ENVOY_OLDEST_NATIVE", ".venv-oldest-native")
            }
            Version::Oldest => ("TWILIO_EDGE_ENVOY_OLDEST", ".venv-oldest"),
        };
        std::env::var_os(variable)
            .map_or_else(|| repository().join(environment).join("bin/envoy"), PathBuf::from)
    }
}

/// Version of an Envoy, and the way in which the filter is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Make {
    /// The version.
    pub version: Version,
    /// True if its listener comes by LDS, from a file, instead of with the bootstrap.
    pub pushed: bool,
    /// The export of the filter that traps; the hook that panics, of the native module.
    pub trap_in: Option<&'static str>,
}

/// A running Envoy.
pub struct Envoy {
    make: Make,
    /// `None` if the shape of the bootstrap is not that of the shipped one.
    config: Mutex<Option<EnvoyConfig>>,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    edge: SocketAddr,
    admin: SocketAddr,
    process: Mutex<Process>,
}

impl Envoy {
    /// Starts one in `folder` and waits until it accepts requests.
    pub async fn start(
        make: Make,
        mut config: EnvoyConfig,
        mut environment: Vec<(String, String)>,
        folder: &Path,
    ) -> Result<Self> {
        let module = match make.trap_in {
            Some(hook) if is_native() => {
                environment.push(("TWILIO_EDGE_PANIC_IN".to_owned(), hook.to_owned()));
                panicking_module()?
            }
            None if is_native() => native_module()?,
            Some(export) => {
                let trapping = folder.join("trapping.wasm");
                copy_trapping(&module()?, &trapping, export)?;
                trapping
            }
            None => module()?,
        };
        let edge = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        config.set_listener(edge)?;
        config.set_admin(admin)?;
        if config.is_native()? {
            // A scenario has chosen the file.
        } else if is_native() {
            config.use_native(&module)?;
        } else {
            config.set_module(&module)?;
        }
        write(&make, &config, folder, 0)?;
        Self::launch(make, Some(config), environment, folder, [edge, admin]).await
    }

    /// Starts one in `folder` with a bootstrap of any shape, which listens at `edge` and answers administrators at `admin`.
    pub async fn start_with(
        version: Version,
        bootstrap: &Value,
        environment: Vec<(String, String)>,
        folder: &Path,
        [edge, admin]: [SocketAddr; 2],
    ) -> Result<Self> {
        std::fs::write(folder.join(BOOTSTRAP), bootstrap.to_string())?;
        let make = Make { version, pushed: false, trap_in: None };
        Self::launch(make, None, environment, folder, [edge, admin]).await
    }

    async fn launch(
        make: Make,
        config: Option<EnvoyConfig>,
        environment: Vec<(String, String)>,
        folder: &Path,
        [edge, admin]: [SocketAddr; 2],
    ) -> Result<Self> {
        let process = Mutex::new(launch(&make, &environment, folder)?);
        let (config, folder) = (Mutex::new(config), folder.to_owned());
        let envoy = Self { make, config, folder, environment, edge, admin, process };
        envoy.until_ready().await?;
        Ok(envoy)
    }

    /// Fails with the output of `envoy --mode validate` if the file at `path` is not valid.
    pub async fn validate(&self, path: &Path) -> Result<()> {
        let mut command = isolated(self.make.version.binary());
        command.args(["--mode", "validate", "--log-level", "warning", "-c"]).arg(path);
        command.envs(self.environment.iter().cloned()).current_dir(repository());
        let output = command.kill_on_drop(true).output().await?;
        ensure!(
            output.status.success(),
            "{}: {}{}",
            path.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Returns the address for webhooks.
    pub fn address(&self) -> SocketAddr {
        self.edge
    }

    /// `kill -9`.
    pub async fn kill(&self) -> Result<()> {
        self.process.lock().await.kill().await
    }

    /// Sends a signal to the process.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.process.lock().await.signal(signal)
    }

    /// Starts it again after [`Self::kill`], at the same address with the same configuration.
    pub async fn restart(&self) -> Result<()> {
        *self.process.lock().await = launch(&self.make, &self.environment, &self.folder)?;
        self.until_ready().await
    }

    /// Pushes a listener by LDS, changed by `change`, and waits until Envoy has accepted or rejected it. Returns whether
    /// Envoy accepted it. The next push does not build on a rejected change.
    pub async fn push(&self, change: impl FnOnce(&mut EnvoyConfig) -> Result<()>) -> Result<bool> {
        ensure!(self.make.pushed, "this Envoy has its listener from the bootstrap");
        let mut config = self.config.lock().await;
        let mut changed = config.clone().context("this Envoy has a bootstrap of its own")?;
        change(&mut changed)?;
        let counts = async || {
            let stats = self.stats("^listener_manager.lds.update_").await?;
            let count = |name| stats.get(&format!("listener_manager.lds.update_{name}")).copied();
            anyhow::Ok((count("success").unwrap_or(0), count("rejected").unwrap_or(0)))
        };
        let (accepted, rejected) = counts().await?;
        write(&self.make, &changed, &self.folder, accepted + rejected + 1)?;
        let is_accepted = until("Envoy to accept or reject a listener", async || {
            Ok(match counts().await? {
                (now, _) if now > accepted => Some(true),
                (_, now) if now > rejected => Some(false),
                _ => None,
            })
        })
        .await?;
        if is_accepted {
            *config = Some(changed);
        }
        Ok(is_accepted)
    }

    /// Returns the counters and gauges whose names match the regular expression `filter`.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>> {
        let page = get(self.admin, &format!("/stats?filter={filter}")).await?.text();
        let lines = page.lines().filter_map(|line| line.rsplit_once(": "));
        let numbers =
            lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Ok(numbers.collect())
    }

    /// Returns one counter of the filter, 0 if it is not there.
    pub async fn counter(&self, name: &str) -> Result<u64> {
        let stats = self.stats(&format!("^wasmcustom.twilio_edge.{name}$")).await?;
        Ok(stats.values().copied().next().unwrap_or_default())
    }

    /// Returns the page that Prometheus would scrape.
    pub async fn prometheus(&self) -> Result<String> {
        Ok(get(self.admin, "/stats/prometheus").await?.text())
    }

    /// Returns its configuration, as any client of the admin interface can read it.
    pub async fn config_dump(&self) -> Result<String> {
        Ok(get(self.admin, "/config_dump?include_eds").await?.text())
    }

    /// Returns its log since the first start, including its access log.
    pub fn log(&self) -> Result<String> {
        let log = std::fs::read(self.folder.join("envoy.log")).context("read Envoy's log")?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// Opens a connection to each worker, in no order; workers do not share state. Only while there are no other new
    /// connections.
    pub async fn workers(&self) -> Result<Vec<Connection>> {
        let mut workers = BTreeMap::new();
        let mut before = self.accepted().await?;
        until("a connection to each worker", async || {
            let mut connection = Connection::open(self.edge).await?;
            // Once it answers, a worker has accepted the connection.
            connection.write(&Request::new("GET", "/", "").bytes()).await?;
            connection.response().await?;
            let now = self.accepted().await?;
            let grown = now.iter().find(|(name, count)| before.get(*name) != Some(count));
            let worker = grown.context("no worker accepted a connection")?.0.clone();
            workers.insert(worker, connection);
            before = now;
            Ok((workers.len() == before.len()).then_some(()))
        })
        .await?;
        Ok(workers.into_values().collect())
    }

    /// Returns the number of connections that each worker has accepted.
    async fn accepted(&self) -> Result<BTreeMap<String, u64>> {
        self.stats("^listener\\..*\\.worker_[0-9]\\.downstream_cx_total$").await
    }

    /// Fails if a VM of the filter ever trapped: according to Envoy's statistics, and to its log, which also covers
    /// processes that were killed since. Not for a filter that was made to trap.
    pub async fn check_no_trap(&self) -> Result<()> {
        self.process.lock().await.check_alive()?;
        if self.make.trap_in.is_some() {
            return Ok(());
        }
        let crashes = self.stats("vm_reload|twilio_edge.hook_panics").await?;
        ensure!(crashes.values().all(|count| *count == 0), "the filter crashed: {crashes:?}");
        ensure!(!is_native() || crashes.len() == 1, "no counter of panics: {crashes:?}");
        let log = self.log()?;
        let trap = log.lines().find(|line| {
            ["panicked at", "RuntimeError", "Proxy-Wasm plugin in-VM backtrace"]
                .iter()
                .any(|sign| line.contains(sign))
        });
        ensure!(trap.is_none(), "the filter trapped: {}", trap.unwrap_or_default());
        Ok(())
    }

    async fn until_ready(&self) -> Result<()> {
        until("Envoy to be ready", async || {
            self.process.lock().await.check_alive()?;
            let page = get(self.admin, "/ready").await;
            Ok(page.is_ok_and(|page| page.status == 200).then_some(()))
        })
        .await
    }
}

/// Returns the path of the compiled filter.
pub fn module() -> Result<PathBuf> {
    let built = std::env::var_os("TWILIO_EDGE_WASM")
        .map_or_else(|| repository().join("target/wasm/twilio_edge_filter.wasm"), PathBuf::from);
    ensure!(built.exists(), "there is no {}: run `make wasm`", built.display());
    Ok(built)
}

/// Reports whether the tests are those of the native module, by the variable `TWILIO_EDGE_NATIVE`.
pub fn is_native() -> bool {
    native_extent().is_some()
}

/// Reports whether only the scenarios run that are different for the native module (`TWILIO_EDGE_NATIVE=brief`).
pub fn is_brief() -> bool {
    native_extent() == Some("brief")
}

fn native_extent() -> Option<&'static str> {
    static EXTENT: OnceLock<Option<String>> = OnceLock::new();
    let extent = EXTENT.get_or_init(|| std::env::var("TWILIO_EDGE_NATIVE").ok());
    extent.as_deref().filter(|extent| !extent.is_empty())
}

/// Returns the path of the native module.
pub fn native_module() -> Result<PathBuf> {
    built("TWILIO_EDGE_NATIVE_MODULE", "target/native/libtwilio_edge_native.so")
}

/// Returns the path of the native module that panics in the hook that its environment names.
fn panicking_module() -> Result<PathBuf> {
    built("TWILIO_EDGE_PANICKING_MODULE", "target/native/panicking/libtwilio_edge_native.so")
}

fn built(variable: &str, path: &str) -> Result<PathBuf> {
    let built = std::env::var_os(variable).map_or_else(|| repository().join(path), PathBuf::from);
    ensure!(built.exists(), "there is no {}: run `make native-test`", built.display());
    Ok(built)
}

/// Writes the bootstrap and, if the listener is not in it, the listener, as one atomic change.
fn write(make: &Make, config: &EnvoyConfig, folder: &Path, version: u64) -> Result<()> {
    let bootstrap = folder.join(BOOTSTRAP);
    if !make.pushed {
        return Ok(config.write(&bootstrap)?);
    }
    let mut json: Value = serde_json::from_str(&config.to_json()?)?;
    let statics = json.get_mut("static_resources").and_then(Value::as_object_mut);
    let mut listeners = statics.and_then(|all| all.remove("listeners")).context("no listeners")?;
    for listener in listeners.as_array_mut().into_iter().flatten() {
        let listener = listener.as_object_mut().context("a listener")?;
        let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
        listener.insert("@type".to_owned(), kind.into());
    }
    let (path, new) = (folder.join("listeners.json"), folder.join("listeners.new"));
    let response = json!({ "version_info": version.to_string(), "resources": listeners });
    std::fs::write(&new, response.to_string())?;
    std::fs::rename(&new, &path)?;
    if version == 0 {
        let json = json.as_object_mut().context("a bootstrap")?;
        json.insert("node".to_owned(), json!({ "id": "edge", "cluster": "edge" }));
        let source =
            json!({ "resource_api_version": "V3", "path_config_source": { "path": path } });
        json.insert("dynamic_resources".to_owned(), json!({ "lds_config": source }));
        std::fs::write(&bootstrap, serde_json::to_string(json)?)?;
    }
    Ok(())
}

fn launch(make: &Make, environment: &[(String, String)], folder: &Path) -> Result<Process> {
    let binary = make.version.binary();
    ensure!(binary.exists(), "there is no {}: run `make setup-test`", binary.display());
    let mut command = isolated(binary);
    // Two workers, which do not share state.
    command.args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]);
    // Log the start of the filter, and write the access log at once.
    command.args(["--component-log-level", "wasm:info,dynamic_modules:info"]);
    command.args(["--file-flush-interval-msec", "50"]);
    // Replaced listeners are removed while the scenario still runs.
    command.args(["--drain-strategy", "immediate", "--drain-time-s", DRAIN_SECONDS]);
    command.arg("-c").arg(folder.join(BOOTSTRAP)).envs(environment.iter().cloned());
    Process::start("envoy", command, folder)
}
