//! An application in a separate process, so that scenarios can kill it. It records each request, and then answers. Now and
//! then it refuses, or breaks off. Its records survive a kill.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex as Lock;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::http1::Reader;
use crate::process::{Process, free_port, isolated, until};
use crate::recorder::CASE;

/// First argument of a program that must call [`serve`] with the two others.
pub const ROLE: &str = "application";

const JOURNAL: &str = "journal";

/// Record of one request.
#[derive(Debug, Clone)]
pub struct Note {
    /// Status of the intended answer; 0 for none.
    pub answer: u16,
    /// Its path.
    pub path: String,
    /// Id of the client's request, if it sent one.
    pub case: String,
    /// True if the request was marked `unknown`: no verdict said whether the application already has it.
    pub unknown: bool,
    /// The body as received.
    pub body: String,
}

/// A running application.
pub struct Application {
    address: SocketAddr,
    program: PathBuf,
    folder: PathBuf,
    process: Mutex<Process>,
}

impl Application {
    /// Starts one with its files in `folder`, by a program that handles [`ROLE`]; waits until it answers.
    pub async fn start(program: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let process = Mutex::new(launch(program, address, folder)?);
        let (program, folder) = (program.to_owned(), folder.to_owned());
        let application = Self { address, program, folder, process };
        application.until_ready().await?;
        Ok(application)
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `kill -9`.
    pub async fn kill(&self) -> Result<()> {
        self.process.lock().await.kill().await
    }

    /// Starts it again, at the same address with the same journal.
    pub async fn restart(&self) -> Result<()> {
        *self.process.lock().await = launch(&self.program, self.address, &self.folder)?;
        self.until_ready().await
    }

    /// Sends it a signal.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.process.lock().await.signal(signal)
    }

    /// Returns everything it recorded, in order. It ignores half a line, which a kill left without an answer.
    pub fn notes(&self) -> Result<Vec<Note>> {
        let text = std::fs::read(self.folder.join(JOURNAL)).context("an application's journal")?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let notes = lines.map(|line| {
            let text = |name: &str| {
                line.get(name).and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
            };
            let answer = line.get("answer").and_then(Value::as_u64).context("an answer")?;
            Ok(Note {
                answer: answer.try_into()?,
                path: text("path"),
                case: text("case"),
                unknown: text("dedupe") == "unknown",
                body: text("body"),
            })
        });
        notes.collect()
    }

    async fn until_ready(&self) -> Result<()> {
        until("an application to listen", async || {
            self.process.lock().await.check_alive()?;
            Ok(TcpStream::connect(self.address).await.ok())
        })
        .await
        .map(drop)
    }
}

fn launch(program: &Path, address: SocketAddr, folder: &Path) -> Result<Process> {
    let mut command = isolated(program);
    command.arg(ROLE).arg(address.to_string()).arg(folder.join(JOURNAL));
    Process::start(ROLE, command, folder)
}

/// Runs the process forever: listens at `address` and appends to the file `journal`.
pub async fn serve(address: SocketAddr, journal: &Path) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(journal)?;
    // Ends the line that the previous process may have left incomplete.
    file.write_all(b"\n")?;
    let desk: &'static Desk =
        Box::leak(Box::new(Desk { journal: Lock::new(file), count: AtomicUsize::new(0) }));
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A client that breaks off will connect again.
            let _broken_off = answer_all(stream, desk).await;
        });
    }
}

struct Desk {
    journal: Lock<File>,
    count: AtomicUsize,
}

async fn answer_all(mut stream: TcpStream, desk: &Desk) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::default();
    while let Some(head) = reader.head(&mut stream).await? {
        let body = reader.request_body(&mut stream, &head).await?;
        let nth = desk.count.fetch_add(1, Ordering::Relaxed);
        let answer = match nth % 100 {
            17 | 57 => 503,
            83 => 0,
            _ => 200,
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let note = json!({
            "at_ms": u64::try_from(since.as_millis())?,
            "answer": answer,
            "path": head.word(1),
            "case": head.one(CASE),
            "dedupe": head.one("x-twilio-edge-dedupe"),
            "body": String::from_utf8_lossy(&body.bytes),
        });
        // Some requests take longer, so that copies meet in flight.
        if nth.is_multiple_of(4) {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let line = format!("{note}\n");
        // In one write, before the answer: after the answer the record is in the kernel's care.
        desk.journal.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())?;
        match answer {
            0 => return Ok(()),
            503 => stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await?,
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?,
        }
    }
    Ok(())
}
