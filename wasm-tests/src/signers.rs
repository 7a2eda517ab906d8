//! Twilio's official SDKs as the reference for signatures: each runs in its own language and signs the requests of a
//! scenario. The code of this project does not decide which signatures are valid.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::process::bounded;

/// SDK that signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// PyPI `twilio`.
    Python,
    /// npm `twilio`.
    Node,
}

/// A webhook's URL as signed, and its `X-Twilio-Signature`.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The requested URL, with `bodySHA256` when a body was signed.
    pub url: String,
    /// Base64.
    pub signature: String,
}

/// Both SDKs, in running processes.
pub struct Signers {
    python: Mutex<Signer>,
    node: Mutex<Signer>,
    turn: AtomicUsize,
}

impl Signers {
    /// Starts both; `python` is an interpreter with the SDK, `folder` is `wasm-tests/signers`.
    pub fn start(python: &Path, folder: &Path) -> Result<Self> {
        ensure!(
            python.exists() && folder.join("node_modules/twilio").exists(),
            "Twilio's SDKs are not installed: run `make setup-test`"
        );
        let mut py = Command::new(python);
        py.arg(folder.join("sign.py"));
        let mut node = Command::new("node");
        node.arg(folder.join("sign.mjs"));
        Ok(Self {
            python: Mutex::new(Signer::start(py)?),
            node: Mutex::new(Signer::start(node)?),
            turn: AtomicUsize::new(0),
        })
    }

    /// Returns the two in turns, so each signs half of the requests of the scenarios.
    pub fn either(&self) -> Sdk {
        match self.turn.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Sdk::Python,
            _ => Sdk::Node,
        }
    }

    /// Signs a form that is posted to `url`; no parameters for a GET.
    pub async fn form(
        &self,
        sdk: Sdk,
        token: &str,
        url: &str,
        params: &[(String, String)],
    ) -> Result<Signed> {
        self.ask(sdk, json!({ "token": token, "url": url, "params": params })).await
    }

    /// Signs `url` with the hash of a body that is no form.
    pub async fn body(&self, sdk: Sdk, token: &str, url: &str, body: &str) -> Result<Signed> {
        self.ask(sdk, json!({ "token": token, "url": url, "body": body })).await
    }

    async fn ask(&self, sdk: Sdk, question: Value) -> Result<Signed> {
        let signer = match sdk {
            Sdk::Python => &self.python,
            Sdk::Node => &self.node,
        };
        let mut signer = signer.lock().await;
        bounded("sign with an SDK", signer.ask(&question)).await
    }
}

struct Signer {
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Signer {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let questions = child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        Ok(Self { questions, answers, _child: child })
    }

    async fn ask(&mut self, question: &Value) -> Result<Signed> {
        self.questions.write_all(format!("{question}\n").as_bytes()).await?;
        let line = self.answers.next_line().await?.context("the SDK's process has ended")?;
        let answer: Value = serde_json::from_str(&line)?;
        let text = |name: &str| {
            answer.get(name).and_then(Value::as_str).map(str::to_owned).context("no answer")
        };
        Ok(Signed { url: text("url")?, signature: text("signature")? })
    }
}
