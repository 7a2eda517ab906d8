//! `twilio-edge demo`, which is `make run`: Envoy with the filter, the sidecar on its embedded defaults and the demo
//! backend, from the first check to the end of the last process. It does not know how these parts work.

mod banner;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, fs};
use twilio_edge_platform::{file_access, terminal};

use tokio::signal::unix::{SignalKind, signal};

use twilio_edge_demo::account::Account;
use twilio_edge_demo::key;
use twilio_edge_demo::ports::{self, PortUse};
use twilio_edge_demo::processes::{Processes, wait_until_ready};
use twilio_edge_demo::{
    self as demo, BACKEND_CLUSTER, EnvoyConfig, EnvoyConfigError, SIDECAR_CLUSTER,
};

/// Time limit until all parts are ready. They take about a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time in which the link to the console can be opened.
const LINK_LIFETIME: Duration = Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Port of Envoy on 127.0.0.1, where webhooks are sent
    #[arg(long, env = "EDGE_PORT", default_value_t = demo::EDGE_PORT)]
    edge_port: u16,
    /// Port of the sidecar
    #[arg(long, env = "SIDECAR_PORT", default_value_t = 8081)]
    sidecar_port: u16,
    /// Port of the sidecar's listener for administrators, which has the console
    #[arg(long, env = "CONSOLE_PORT", default_value_t = 8082)]
    console_port: u16,
    /// Port of the demo backend
    #[arg(long, env = "BACKEND_PORT", default_value_t = 8084)]
    backend_port: u16,
    /// Port of the simulator, a Twilio on this machine
    #[arg(long, env = "SIMULATOR_PORT", default_value_t = 8083)]
    simulator_port: u16,
    /// Port of Envoy's admin interface
    #[arg(long, env = "ADMIN_PORT", default_value_t = 9901)]
    admin_port: u16,
    /// Folder of the sidecar's data; the next run continues with it
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// Path of the Envoy program
    #[arg(long, default_value = ".venv/bin/envoy")]
    envoy: PathBuf,
    /// Envoy's configuration, with the structure of the shipped one
    #[arg(long, default_value = "envoy/envoy.yaml")]
    config: PathBuf,
    /// Path of the compiled filter
    #[arg(long, default_value = "target/wasm/twilio_edge_filter.wasm")]
    wasm: PathBuf,
    /// Load the native module from this path instead of the compiled filter (docs/NATIVE.md)
    #[arg(long, value_name = "PATH")]
    native: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> ExitCode {
    // One thread: the processes end with the thread that started them (`Processes::start`).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ran = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let demo = Demo::prepare(args)?;
        runtime.block_on(demo.run())
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            terminal::print_error(&format!("twilio-edge demo: {problem}"));
            ExitCode::FAILURE
        }
    }
}

/// Demo whose checks have passed and whose processes have not started.
struct Demo {
    args: Args,
    account: Account,
    envoy_config: PathBuf,
}

impl Demo {
    /// Runs all checks and returns every problem at once.
    fn prepare(args: Args) -> Result<Self, String> {
        let mut problems = Vec::new();
        for (file, remedy) in [
            (&args.envoy, "make setup"),
            args.native
                .as_ref()
                .map_or((&args.wasm, "make wasm"), |native| (native, "make native")),
            (&args.config, "run this from the repository's root"),
        ] {
            if !file.exists() {
                problems.push(format!("there is no {}: {remedy}", file.display()));
            }
        }
        problems.extend(ports::occupied_ports(&args.port_uses()));
        let account = Account::new(|name| env::var(name).ok(), args.edge_port)
            .map_err(|problem| problems.push(problem))
            .ok();
        let envoy_config = fs::create_dir_all(&args.data)
            .map_err(|error| problems.push(format!("{}: {error}", args.data.display())))
            .and_then(|()| args.envoy_config().map_err(|error| problems.push(error.to_string())))
            .ok();
        match (account, envoy_config) {
            (Some(account), Some(envoy_config)) if problems.is_empty() => {
                Ok(Self { args, account, envoy_config })
            }
            _ => Err(problems.join("\n  ")),
        }
    }

    async fn run(self) -> Result<(), String> {
        let mut asked_to_stop = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        let [Ok(interrupt), Ok(terminate)] = &mut asked_to_stop else {
            return Err("cannot listen for signals".to_owned());
        };
        let mut processes = Processes::new(|text| terminal::print_line(&terminal::line(text)));
        let started = self.start(&mut processes);
        let lived = match started {
            Err(problem) => Err(problem),
            Ok(()) => tokio::select! {
                _ = interrupt.recv() => Ok(()),
                _ = terminate.recv() => Ok(()),
                ended = processes.first_to_end() => Err(match ended.status {
                    Ok(status) => format!("the {} ended by itself ({status}), see its last lines", ended.name),
                    Err(error) => format!("the {} is lost: {error}", ended.name),
                }),
                problem = self.greet_when_ready() => Err(problem),
            },
        };
        say("\nstopping");
        processes.stop().await;
        lived
    }

    fn start(&self, processes: &mut Processes) -> Result<(), String> {
        let mut start = |name, command: Command| {
            let program = command.get_program().to_owned();
            processes
                .start(name, command)
                .map_err(|error| format!("cannot start {}: {error}", Path::new(&program).display()))
        };
        let us =
            env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;

        let sending = self.account.write_sending(&self.args.data);
        let sending = sending.map_err(|error| format!("{}: {error}", self.args.data.display()))?;
        let accounts = self.account.write_accounts(&self.args.data);
        let accounts =
            accounts.map_err(|error| format!("{}: {error}", self.args.data.display()))?;
        let mut sidecar = self.on_our_data(&us);
        sidecar.arg("serve").env("TWILIO_EDGE_TOKEN", &self.account.edge_token);
        sidecar.env("TWILIO_EDGE_DEMO", "true");
        sidecar.env("TWILIO_EDGE_LISTEN", self.args.sidecar().to_string());
        sidecar.env("TWILIO_EDGE_ADMIN_LISTEN", self.args.console().to_string());
        sidecar.env("TWILIO_EDGE_ACCOUNTS_FILE", accounts);
        // Messages go to the simulator with every configured account, so no contact receives one.
        sidecar.env("TWILIO_EDGE_SENDING_FILE", sending);
        sidecar.env("TWILIO_EDGE_SENDING_BASE_URL", format!("http://{}", self.args.simulator()));
        let statuses = format!("{}/twilio/status", self.account.origin);
        sidecar.env("TWILIO_EDGE_SENDING_STATUS_CALLBACK_URL", statuses);
        start("sidecar", sidecar)?;

        let mut backend = Command::new(&us);
        backend.args(["backend", "--listen", &self.args.backend().to_string()]);
        start("backend", backend)?;

        let mut simulator = Command::new(&us);
        simulator.args(["simulator", "--listen", &self.args.simulator().to_string()]);
        simulator.args(["--inbound-url", &format!("{}/twilio/inbound", self.account.origin)]);
        simulator.envs(self.account.environment());
        start("simulator", simulator)?;

        let mut envoy = Command::new(&self.args.envoy);
        envoy.args(["--disable-hot-restart", "--log-level", "warning", "--log-format", "%l: %v"]);
        // Flushes access log lines at once instead of every ten seconds: the user watches them.
        envoy.args(["--file-flush-interval-msec", "50"]).arg("-c").arg(&self.envoy_config);
        envoy.envs(self.account.environment());
        start("envoy", envoy)
    }

    /// Prints the banner as soon as all parts are ready, and returns only on an error.
    async fn greet_when_ready(&self) -> String {
        for (part, address, path) in [
            ("sidecar", self.args.sidecar(), "/readyz"),
            ("backend", self.args.backend(), "/healthz"),
            ("simulator", self.args.simulator(), "/simulator/healthz"),
            ("envoy", self.args.admin(), "/ready"),
        ] {
            if !wait_until_ready(address, path, PATIENCE).await {
                return format!(
                    "the {part} is not ready after {PATIENCE:?} (http://{address}{path})"
                );
            }
        }
        match self.link_to_console().await {
            Ok(link) => say(&self.banner(&link)),
            Err(problem) => return problem,
        }
        std::future::pending().await
    }

    /// Ensures that the keys of the demo exist, and returns a link that signs a browser in.
    async fn link_to_console(&self) -> Result<String, String> {
        let sidecar = self.args.sidecar();
        self.keep_key(&self.args.key(), "app", "make run").await?;
        let key = self.args.console_key();
        self.keep_key(&key, "admin", "make run, console").await?;
        let token = key::start_session(&key, sidecar, LINK_LIFETIME).await?;
        let console = self.args.console();
        Ok(format!("http://{console}/console/sign-in?next=/console/phone&token={token}"))
    }

    async fn keep_key(&self, file: &Path, scope: &str, name: &str) -> Result<(), String> {
        let us =
            env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let mut create = self.on_our_data(&us);
        create.args(["keys", "create", "--json", "--scope", scope, "--name", name]);
        create.args(["--account", &self.account.sid]);
        file_access::repair(file);
        key::ensure_key(file, self.args.sidecar(), create).await
    }

    /// Returns a command of this program that uses the demo's database.
    fn on_our_data(&self, us: &Path) -> Command {
        let mut command = Command::new(us);
        if env::var_os("DATABASE_URL").is_none() {
            let database = self.args.data.join("twilio-edge.db");
            command.env("DATABASE_URL", format!("sqlite://{}", database.display()));
        }
        command
    }
}

impl Args {
    fn edge(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.edge_port).into()
    }

    fn sidecar(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.sidecar_port).into()
    }

    fn console(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.console_port).into()
    }

    fn backend(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.backend_port).into()
    }

    fn admin(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.admin_port).into()
    }

    fn simulator(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.simulator_port).into()
    }

    /// Returns the path of the file with the API key for trying the demo.
    fn key(&self) -> PathBuf {
        self.data.join("demo.key")
    }

    /// Returns the path of the file with the API key of the console.
    fn console_key(&self) -> PathBuf {
        self.data.join("console.key")
    }

    fn port_uses(&self) -> [PortUse; 6] {
        [
            PortUse { part: "edge", address: self.edge(), variable: "EDGE_PORT" },
            PortUse { part: "sidecar", address: self.sidecar(), variable: "SIDECAR_PORT" },
            PortUse { part: "console", address: self.console(), variable: "CONSOLE_PORT" },
            PortUse { part: "backend", address: self.backend(), variable: "BACKEND_PORT" },
            PortUse { part: "simulator", address: self.simulator(), variable: "SIMULATOR_PORT" },
            PortUse { part: "Envoy admin", address: self.admin(), variable: "ADMIN_PORT" },
        ]
    }

    /// Writes the shipped configuration with the addresses of this run beside the data, and returns its path.
    fn envoy_config(&self) -> Result<PathBuf, EnvoyConfigError> {
        let mut config = EnvoyConfig::load(&self.config)?;
        config.set_listener(self.edge())?;
        config.set_admin(self.admin())?;
        config.set_cluster(BACKEND_CLUSTER, self.backend())?;
        config.set_cluster(SIDECAR_CLUSTER, self.sidecar())?;
        match &self.native {
            Some(native) => config.use_native(native)?,
            None => config.set_module(&self.wasm)?,
        }
        let path = self.data.join("envoy.json");
        config.write(&path)?;
        Ok(path)
    }
}

/// Prints a line; a closed output is no failure.
fn say(text: &str) {
    terminal::print_line(text);
}
