//! The real Envoy with the compiled filter, started from the shipped configuration. Other addresses, and what a
//! scenario wants otherwise, are changes to that file; there is no second configuration for tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::sync::Mutex;
use twilio_edge::demo::EnvoyConfig;

use crate::client::get;
use crate::process::{Process, free_port, isolated, until};
use crate::repository;

/// Which Envoy: what works with these two works with those between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// What `make run` uses.
    Newest,
    /// The oldest supported.
    Oldest,
}

impl Version {
    /// The word for it in the names of scenarios.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Newest => "newest",
            Version::Oldest => "oldest",
        }
    }

    fn binary(self) -> PathBuf {
        let (variable, environment) = match self {
            Version::Newest => ("TWILIO_EDGE_ENVOY", ".venv"),
            Version::Oldest => ("TWILIO_EDGE_ENVOY_OLDEST", ".venv-oldest"),
        };
        std::env::var_os(variable)
            .map_or_else(|| repository().join(environment).join("bin/envoy"), PathBuf::from)
    }
}

/// A running Envoy.
pub struct Envoy {
    binary: PathBuf,
    config: PathBuf,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    edge: SocketAddr,
    admin: SocketAddr,
    process: Mutex<Process>,
}

impl Envoy {
    /// Starts one in `folder` and waits until it takes requests.
    pub async fn start(
        version: Version,
        mut config: EnvoyConfig,
        environment: Vec<(String, String)>,
        folder: &Path,
    ) -> Result<Self> {
        let binary = version.binary();
        let module = std::env::var_os("TWILIO_EDGE_WASM").map_or_else(
            || repository().join("target/wasm/twilio_edge_filter.wasm"),
            PathBuf::from,
        );
        ensure!(binary.exists(), "there is no {}: run `make setup-test`", binary.display());
        ensure!(module.exists(), "there is no {}: run `make wasm`", module.display());
        let edge = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        config.set_listener(edge)?;
        config.set_admin(admin)?;
        config.set_module(&module)?;
        let path = folder.join("envoy.json");
        config.write(&path)?;
        let process = launch(&binary, &path, &environment, folder)?;
        let envoy = Self {
            binary,
            config: path,
            folder: folder.to_owned(),
            environment,
            edge,
            admin,
            process: Mutex::new(process),
        };
        envoy.until_ready().await?;
        Ok(envoy)
    }

    /// Where webhooks come in.
    pub fn address(&self) -> SocketAddr {
        self.edge
    }

    /// `kill -9`.
    pub async fn kill(&self) -> Result<()> {
        self.process.lock().await.kill().await
    }

    /// Starts it again after [`Self::kill`], at the same address with the same configuration.
    pub async fn restart(&self) -> Result<()> {
        *self.process.lock().await =
            launch(&self.binary, &self.config, &self.environment, &self.folder)?;
        self.until_ready().await
    }

    /// The counters and gauges whose names match the regular expression `filter`.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>> {
        let page = get(self.admin, &format!("/stats?filter={filter}")).await?.text();
        let lines = page.lines().filter_map(|line| line.rsplit_once(": "));
        let numbers =
            lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Ok(numbers.collect())
    }

    /// One counter of the filter, 0 if it is not there.
    pub async fn counter(&self, name: &str) -> Result<u64> {
        let stats = self.stats(&format!("^wasmcustom.twilio_edge.{name}$")).await?;
        Ok(stats.values().copied().next().unwrap_or_default())
    }

    /// What Prometheus would scrape.
    pub async fn prometheus(&self) -> Result<String> {
        Ok(get(self.admin, "/stats/prometheus").await?.text())
    }

    /// An error if a VM of the filter ever trapped: by Envoy's statistics, and by its log, which remembers those of
    /// a process that was killed since.
    pub async fn check_no_trap(&self) -> Result<()> {
        self.process.lock().await.check_alive()?;
        let reloads = self.stats("vm_reload").await?;
        ensure!(
            reloads.values().all(|count| *count == 0),
            "the filter's VM was reloaded: {reloads:?}"
        );
        let log = std::fs::read(self.folder.join("envoy.log")).context("read Envoy's log")?;
        let log = String::from_utf8_lossy(&log);
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

fn launch(
    binary: &Path,
    config: &Path,
    environment: &[(String, String)],
    folder: &Path,
) -> Result<Process> {
    let mut command = isolated(binary);
    // Two workers: what one of them knows, the other does not.
    command.args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]);
    command.arg("-c").arg(config).envs(environment.iter().cloned());
    Process::start("envoy", command, folder)
}
