//! Stack of all parts: the filter in Envoy, the sidecar behind it, the recording backend. Also the operations of the
//! scenarios: sign, send, and check that nothing reached the backend.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use twilio_edge_demo::{BACKEND_CLUSTER, EnvoyConfig, SIDECAR_CLUSTER};

use crate::client::{Response, send};
use crate::dependencies::{Dependencies, Sink};
use crate::envoy::{Envoy, Make, Version};
use crate::ledger::Ledger;
use crate::process::{free_port, isolated, tail};
use crate::recorder::Recorder;
use crate::redis::Redis;
use crate::repository;
use crate::sidecar::{Sidecar, binary, write_accounts};
use crate::signers::{Sdk, Signers};
use crate::webhook::{ACCOUNT, Form, Request};

/// Public origin that Twilio calls.
pub const ORIGIN: &str = "https://hooks.example.com";
/// Second public origin, with a port.
pub const ORIGIN_WITH_PORT: &str = "https://hooks.example.com:8443";
/// The account's auth token.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The token to which the account is rotating.
pub const NEXT_TOKEN: &str = "fedcba9876543210fedcba9876543210";
/// A path that reaches the backend and is not that of a webhook.
pub const PASS_THROUGH: &str = "/app/orders";

/// Token with which the filter authenticates to the sidecar.
pub const EDGE_TOKEN: &str = "the-token-between-filter-and-sidecar";

/// Resources that all stacks share.
pub struct Bench {
    signers: Signers,
}

impl Bench {
    /// Starts Twilio's SDKs.
    pub fn start() -> Result<Self> {
        let python = std::env::var_os("TWILIO_EDGE_PYTHON")
            .map_or_else(|| repository().join(".venv/bin/python"), Into::into);
        let signers = Signers::start(&python, &repository().join("wasm-tests/signers"))?;
        Ok(Self { signers })
    }
}

/// The process that answers the filter's claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SidecarPlan {
    /// None: the filter is configured without a sidecar.
    Absent,
    /// The real one on SQLite alone.
    Sqlite,
    /// The real one on Redis and SQLite.
    Redis,
    /// The real one on PostgreSQL alone.
    Postgres,
    /// The real one on Redis and PostgreSQL.
    RedisPostgres,
    /// A [`Recorder`] with the answers that the scenario scripts.
    Scripted,
}

/// Parts of a stack, and differences from the shipped configuration.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The shipped configuration to start from, by its path from the root of the repository.
    pub file: &'static str,
    /// The process that answers claims.
    pub sidecar: SidecarPlan,
    /// Changes to Envoy's configuration and the filter's.
    pub adapt: fn(&mut EnvoyConfig) -> Result<()>,
    /// Changes to the sidecar's configuration, as environment variables.
    pub settings: &'static [(&'static str, &'static str)],
    /// Sinks of accepted webhooks.
    pub sinks: &'static [Sink],
    /// Contents of the sidecar's sinks file, instead of `sinks`.
    pub sinks_file: Option<&'static str>,
    /// True if webhooks are archived.
    pub archives: bool,
    /// True if messages can be sent.
    pub sends: bool,
    /// First contents of the sidecar's accounts file; `None` if it has no such file.
    pub accounts: Option<&'static str>,
    /// True if the listener comes by LDS, so that another can be pushed.
    pub pushed: bool,
    /// Place at which the filter fails on purpose: a callback of the wasm filter by the name of its export, in which its VM traps, or a
    /// hook of the native module, in which it panics.
    pub trap_in: Option<&'static str>,
}

impl Plan {
    /// Creates a plan with the shipped configuration.
    pub const fn new(sidecar: SidecarPlan) -> Self {
        Self::adapted(sidecar, |_| Ok(()))
    }

    /// Creates a plan with the shipped configuration and changes.
    pub const fn adapted(sidecar: SidecarPlan, adapt: fn(&mut EnvoyConfig) -> Result<()>) -> Self {
        Self {
            file: "envoy/envoy.yaml",
            sidecar,
            adapt,
            settings: &[],
            sinks: &[],
            sinks_file: None,
            archives: false,
            sends: false,
            accounts: None,
            pushed: false,
            trap_in: None,
        }
    }
}

/// Way in which a webhook is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signing<'a> {
    /// SDK that signs; the two in turns if it is `None`.
    pub sdk: Option<Sdk>,
    /// Auth token for the signature.
    pub token: &'a str,
    /// Origin of the signed URL.
    pub origin: &'a str,
}

impl Default for Signing<'_> {
    fn default() -> Self {
        Self { sdk: None, token: TOKEN, origin: ORIGIN }
    }
}

/// The processes of one or many scenarios.
pub struct Stack {
    /// The edge.
    pub envoy: Envoy,
    /// Backend that records the requests of the application.
    pub backend: Recorder,
    sidecar: Option<Sidecar>,
    scripted: Option<Recorder>,
    dependencies: Dependencies,
    plan: Plan,
    bench: Arc<Bench>,
    version: Version,
    folder: TempDir,
}

impl Stack {
    /// Starts everything and waits until it is ready.
    pub async fn start(bench: &Arc<Bench>, version: Version, plan: Plan) -> Result<Self> {
        Self::start_with(bench, version, plan, |_| Ok(())).await
    }

    async fn start_with(
        bench: &Arc<Bench>,
        version: Version,
        plan: Plan,
        adapt: impl FnOnce(&mut EnvoyConfig) -> Result<()>,
    ) -> Result<Self> {
        let folder = TempDir::with_prefix("twilio-edge-e2e-")?;
        let backend = Recorder::start().await?;
        let dependencies = Dependencies::start(&plan, folder.path()).await?;
        let (mut sidecar, mut scripted) = (None, None);
        let sidecar_address = match plan.sidecar {
            SidecarPlan::Scripted => scripted.insert(Recorder::start().await?).address(),
            _ => SocketAddr::from(([127, 0, 0, 1], free_port()?)),
        };
        if !matches!(plan.sidecar, SidecarPlan::Absent | SidecarPlan::Scripted) {
            let ours = [
                ("TWILIO_EDGE_TOKEN", EDGE_TOKEN),
                // Like the filter's timeout below: a busy machine is no outage.
                ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "4000"),
            ];
            let mut environment = pairs(&[&ours, plan.settings].concat());
            environment.extend(dependencies.settings(&plan, backend.address(), folder.path())?);
            if let Some(accounts) = plan.accounts {
                let file = write_accounts(folder.path(), accounts)?.display().to_string();
                environment.push(("TWILIO_EDGE_ACCOUNTS_FILE".to_owned(), file));
            }
            sidecar = Some(Sidecar::start(sidecar_address, environment, folder.path()).await?);
        }
        let mut config = EnvoyConfig::load(&repository().join(plan.file))?;
        config.set_cluster(BACKEND_CLUSTER, backend.address())?;
        config.set_cluster(SIDECAR_CLUSTER, sidecar_address)?;
        config.routes()?.insert(
            0,
            json!({ "match": { "prefix": "/app/" }, "route": { "cluster": BACKEND_CLUSTER } }),
        );
        let plugin = config.plugin.as_object_mut().context("the filter's configuration")?;
        // Scenarios also send webhooks as GET, which a route must enable.
        let routes = plugin.get_mut("routes").and_then(serde_json::Value::as_array_mut);
        for route in routes.into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
            route.insert("methods".into(), json!(["GET", "POST"]));
        }
        plugin.insert("origins".into(), json!([{ "env": "PUBLIC_ORIGIN" }, ORIGIN_WITH_PORT]));
        match plugin.get_mut("sidecar").and_then(|sidecar| sidecar.get_mut("timeout_ms")) {
            _ if plan.sidecar == SidecarPlan::Absent => {
                plugin.remove("sidecar");
            }
            // Far above the usual duration: only scenarios cause outages, not a busy machine.
            Some(timeout) => *timeout = json!(5_000),
            None => ensure!(false, "the filter's configuration has no sidecar.timeout_ms"),
        }
        (plan.adapt)(&mut config)?;
        adapt(&mut config)?;
        let make = Make { version, pushed: plan.pushed, trap_in: plan.trap_in };
        let envoy = Envoy::start(make, config, environment(), folder.path()).await?;
        let bench = bench.clone();
        Ok(Self { envoy, backend, sidecar, scripted, dependencies, plan, bench, version, folder })
    }

    /// Starts another stack, on the same version of Envoy.
    pub async fn another(&self, plan: Plan) -> Result<Self> {
        Self::start(&self.bench, self.version, plan).await
    }

    /// Starts another stack, on the same version of Envoy, with changes that a constant plan cannot contain.
    pub async fn another_with(
        &self,
        plan: Plan,
        adapt: impl FnOnce(&mut EnvoyConfig) -> Result<()>,
    ) -> Result<Self> {
        Self::start_with(&self.bench, self.version, plan, adapt).await
    }

    /// Returns the real sidecar of the plan.
    pub fn sidecar(&self) -> Result<&Sidecar> {
        self.sidecar.as_ref().context("this stack has no real sidecar")
    }

    /// Returns the version of its Envoy.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the scripted sidecar of the plan.
    pub fn scripted(&self) -> Result<&Recorder> {
        self.scripted.as_ref().context("this stack has no scripted sidecar")
    }

    /// Returns the sinks of its accepted webhooks.
    pub fn sinks(&self) -> &'static [Sink] {
        self.plan.sinks
    }

    /// Returns the URL of the sidecar's database.
    pub fn database_url(&self) -> Result<String> {
        match self.dependencies.postgres() {
            Ok(postgres) => Ok(postgres.url()),
            Err(_) => Ok(format!("sqlite://{}", self.sidecar()?.database().display())),
        }
    }

    /// Returns the dependencies of the sidecar.
    pub fn dependencies(&self) -> &Dependencies {
        &self.dependencies
    }

    /// Returns the Redis of the plan.
    pub fn redis(&self) -> Result<&Redis> {
        self.dependencies.redis()
    }

    /// Opens the sidecar's tables.
    pub async fn ledger(&self) -> Result<Ledger> {
        match self.dependencies.postgres() {
            Ok(postgres) => Ledger::ask(&postgres.url()).await,
            Err(_) => Ledger::open(&self.sidecar()?.database()).await,
        }
    }

    /// Creates an API key of an application and returns its token.
    pub async fn api_key(&self) -> Result<String> {
        let mut command = isolated(binary()?);
        command.args(["keys", "create", "--scope", "app", "--name", "application", "--json"]);
        command.env("DATABASE_URL", self.database_url()?);
        let created = command.output().await?;
        ensure!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        let created: Value = serde_json::from_slice(&created.stdout)?;
        Ok(created.get("token").and_then(|token| token.as_str()).context("no token")?.to_owned())
    }

    /// Creates a signed POST of `form`.
    pub async fn post(&self, form: &Form) -> Result<Request> {
        self.post_as(form, Signing::default()).await
    }

    /// Creates a POST of `form`, signed as given.
    pub async fn post_as(&self, form: &Form, signing: Signing<'_>) -> Result<Request> {
        let sdk = signing.sdk.unwrap_or_else(|| self.bench.signers.either());
        let url = format!("{}{}", signing.origin, form.target);
        let signed = self.bench.signers.form(sdk, signing.token, &url, &form.params).await?;
        Ok(Request::new("POST", &form.target, form.encoded())
            .header("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
            .header("X-Twilio-Signature", signed.signature))
    }

    /// Creates a GET with `form` in the query, signed as given.
    pub async fn get_as(&self, form: &Form, signing: Signing<'_>) -> Result<Request> {
        let sdk = signing.sdk.unwrap_or_else(|| self.bench.signers.either());
        let target = format!("{}?{}", form.target, form.encoded());
        let url = format!("{}{target}", signing.origin);
        let signed = self.bench.signers.form(sdk, signing.token, &url, &[]).await?;
        Ok(Request::new("GET", &target, "").header("X-Twilio-Signature", signed.signature))
    }

    /// Creates a POST of JSON, whose hash is in the URL, signed as given.
    pub async fn json_as(&self, target: &str, body: &str, signing: Signing<'_>) -> Result<Request> {
        let sdk = signing.sdk.unwrap_or_else(|| self.bench.signers.either());
        let url = format!("{}{target}", signing.origin);
        let signed = self.bench.signers.body(sdk, signing.token, &url, body).await?;
        let target = signed.url.strip_prefix(signing.origin).context("another origin")?.to_owned();
        Ok(Request::new("POST", &target, body)
            .header("Content-Type", "application/json")
            .header("X-Twilio-Signature", signed.signature))
    }

    /// Sends a request to the edge, on a connection of its own.
    pub async fn send(&self, request: &Request) -> Result<Response> {
        send(self.envoy.address(), request).await
    }

    /// Fails if any part of `request` ever reached the backend. A later request that does arrive bounds the time in which it
    /// could have.
    pub async fn nothing_reached(&self, request: &Request) -> Result<()> {
        let later = Request::new("GET", PASS_THROUGH, "");
        self.send(&later).await?;
        self.backend.wait(&later.case, 1).await?;
        let seen = self.backend.seen(&request.case);
        ensure!(seen.is_empty(), "the backend saw what was not to be forwarded: {seen:?}");
        Ok(())
    }

    /// Fails if the filter's VM ever trapped, or Envoy or the sidecar ended by itself.
    pub async fn judge(&self) -> Result<()> {
        if let Some(sidecar) = &self.sidecar {
            sidecar.check_alive().await?;
        }
        // Envoy counts a VM that trapped at the next request to it, on each worker.
        for _ in 0..8 {
            self.send(&Request::new("GET", PASS_THROUGH, "")).await?;
        }
        self.envoy.check_no_trap().await
    }

    /// Returns the ends of all logs, for a failed scenario.
    pub fn logs(&self) -> String {
        let logs =
            ["envoy", "sidecar", "redis", "postgres/postgres", "broker", "objects"].map(|name| {
                let end = tail(&self.folder.path().join(format!("{name}.log")), 12);
                if end.is_empty() { end } else { format!("--- {name}\n{end}\n") }
            });
        logs.concat()
    }
}

/// Returns the HTTP connection manager of the shipped configuration.
pub fn connection_manager(config: &mut EnvoyConfig) -> Result<&mut Value> {
    let place = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    config.bootstrap.pointer_mut(place).context(place)
}

/// Returns the environment of Envoy.
pub fn environment() -> Vec<(String, String)> {
    pairs(&[
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("TWILIO_AUTH_TOKEN_NEXT", NEXT_TOKEN),
        ("TWILIO_EDGE_TOKEN", EDGE_TOKEN),
        ("PUBLIC_ORIGIN", ORIGIN),
    ])
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
