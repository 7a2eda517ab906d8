//! Media server whose paths select its behaviour, at an address of this machine that tests trust; and a trap, to which the
//! sidecar must never connect.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Address that represents the public internet.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

pub(crate) const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";

/// Counts connections, and records the first bytes that each client sends.
#[derive(Clone, Default)]
pub(crate) struct Trap {
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) first_bytes: Arc<Mutex<Vec<u8>>>,
}

impl Trap {
    /// Listens at this address; port 0 selects a free port. Returns the port.
    pub(crate) async fn set(address: impl Into<SocketAddr>) -> (u16, Trap) {
        let listener = TcpListener::bind(address.into()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let trap = Trap::default();
        let counting = trap.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counting.connections.fetch_add(1, SeqCst);
                let mut first = vec![0; 2048];
                let length = stream.read(&mut first).await.unwrap_or_default();
                counting.first_bytes.lock().unwrap().extend(&first[..length]);
            }
        });
        (port, trap)
    }

    pub(crate) fn count(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) base: String,
    /// Each request, as `GET /path`.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// Number of requests that wait at `/hold`, and the maximum of that number.
    pub(crate) holding: Arc<(AtomicUsize, AtomicUsize)>,
    /// Releases the requests at `/hold`, and removes `/there`.
    pub(crate) go: watch::Sender<bool>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        let listener = TcpListener::bind((OUTSIDE, 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = Server {
            base,
            asked: Arc::default(),
            holding: Arc::default(),
            go: watch::Sender::new(false),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                // Some tests disconnect during the answer, so the result is ignored.
                tokio::spawn(async move { drop(server.serve(stream).await) });
            }
        });
        server
    }

    pub(crate) fn count(&self, asked: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|one| *one == asked).count()
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        self.asked.lock().unwrap().push(format!("{method} {target}"));
        let is_head = method == "HEAD";
        let length = PNG.len();
        let png = format!("200 OK\r\ncontent-type: image/png\r\ncontent-length: {length}");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let gone = path == "/there" && *self.go.borrow();
        let (status, body): (String, &[u8]) = match path {
            "/good.png" | "/there" if !gone => (png, PNG),
            "/hold" => {
                if !is_head {
                    let now = self.holding.0.fetch_add(1, SeqCst) + 1;
                    self.holding.1.fetch_max(now, SeqCst);
                    let _ = self.go.subscribe().wait_for(|go| *go).await;
                    self.holding.0.fetch_sub(1, SeqCst);
                }
                (png, PNG)
            }
            "/no-head" if is_head => ("405 No\r\ncontent-length: 0".into(), b""),
            "/no-head" => (png, PNG),
            "/two-tongues" if is_head => {
                ("200 OK\r\ncontent-type: text/html\r\ncontent-length: 9".into(), b"")
            }
            "/two-tongues" => (png, PNG),
            "/lies-more" => {
                ("200 OK\r\ncontent-type: image/png\r\ncontent-length: 5000".into(), PNG)
            }
            "/lies-less" => ("200 OK\r\ncontent-type: image/png\r\ncontent-length: 20".into(), PNG),
            "/no-length" => ("200 OK\r\ncontent-type: image/png".into(), PNG),
            "/html" => (
                "200 OK\r\ncontent-type: image/png\r\ncontent-length: 36".into(),
                b"<!DOCTYPE html><html>sign in</html>\n",
            ),
            "/wrong-type" => (
                "200 OK\r\ncontent-type: text/html\r\ncontent-length: 36".into(),
                b"<!DOCTYPE html><html>sign in</html>\n",
            ),
            "/no-type" => (format!("200 OK\r\ncontent-length: {length}"), PNG),
            "/gzip" => (format!("{png}\r\ncontent-encoding: gzip"), PNG),
            "/large" => {
                ("200 OK\r\ncontent-type: image/png\r\ncontent-length: 6000000".into(), PNG)
            }
            "/huge" => {
                ("200 OK\r\ncontent-type: video/mp4\r\ncontent-length: 99000000000".into(), b"")
            }
            "/endless" | "/drip" => ("200 OK\r\ncontent-type: image/png".into(), PNG),
            "/403" => ("403 No\r\ncontent-length: 0".into(), b""),
            "/503" => ("503 No\r\ncontent-length: 0".into(), b""),
            "/cut" => return Ok(()),
            "/once" => ("302 Over there\r\nlocation: /good.png\r\ncontent-length: 0".into(), b""),
            "/loop" => ("302 Over there\r\nlocation: /loop\r\ncontent-length: 0".into(), b""),
            "/nowhere" => ("302 Over there\r\ncontent-length: 0".into(), b""),
            "/to" => (format!("302 Over there\r\nlocation: {query}\r\ncontent-length: 0"), b""),
            _ => ("404 No\r\ncontent-length: 0".into(), b""),
        };
        stream
            .write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n").as_bytes())
            .await?;
        if is_head {
            return stream.shutdown().await;
        }
        stream.write_all(body).await?;
        let more = vec![0; 64 << 10];
        match path {
            "/large" => stream.write_all(&vec![0; 6_000_000 - length]).await?,
            // Sends until the client disconnects.
            "/endless" => loop {
                stream.write_all(&more).await?;
            },
            "/drip" => loop {
                stream.write_all(&more[..1]).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            },
            _ => {}
        }
        stream.shutdown().await
    }
}
