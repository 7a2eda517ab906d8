//! HTTP/1.1 clients that can do what Twilio does, and also misbehave: stop halfway, disconnect, send bytes that are no text.
//! They write the given bytes and read the response; nothing is repaired.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http1::{Head, Reader};
use crate::process::bounded;
use crate::webhook::Request;

/// Response of a server.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines.
    pub head: Head,
    /// Body bytes.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the only value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.one(name)
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An HTTP/1.1 connection. Dropping it disconnects the client.
pub struct Connection {
    stream: TcpStream,
    reader: Reader,
    /// The request was HEAD, whose answer has a length and no body.
    asked_head: bool,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, reader: Reader::default(), asked_head: false })
    }

    /// Writes bytes unchanged.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.asked_head = bytes.starts_with(b"HEAD ");
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Reads the next response that is not a `100 Continue`.
    pub async fn response(&mut self) -> Result<Response> {
        let (status, head) = self.response_head().await?;
        bounded("read the body of a response", async {
            let body = if self.asked_head {
                Vec::new()
            } else {
                self.reader.response_body(&mut self.stream, &head).await?.bytes
            };
            Ok(Response { status, head, body })
        })
        .await
    }

    /// Reads the headers of the next response that is not a `100 Continue`, and its status code.
    pub async fn response_head(&mut self) -> Result<(u16, Head)> {
        bounded("read the headers of a response", async {
            loop {
                let head = self.reader.head(&mut self.stream).await?;
                let head = head.context("the connection was closed without a response")?;
                let status = head.word(1).parse().context("a status code")?;
                if !(100..200).contains(&status) {
                    return Ok((status, head));
                }
            }
        })
        .await
    }

    /// Disconnects with a TCP reset, and discards data that is still on its way.
    pub fn reset(self) -> Result<()> {
        Ok(self.stream.set_zero_linger()?)
    }
}

/// Sends a request on a connection of its own.
pub async fn send(address: SocketAddr, request: &Request) -> Result<Response> {
    send_bytes(address, &request.bytes()).await
}

/// Sends bytes on a connection of their own.
pub async fn send_bytes(address: SocketAddr, bytes: &[u8]) -> Result<Response> {
    let mut connection = Connection::open(address).await?;
    // A server may answer and close before it has read everything: then the answer decides, not the failed write.
    let written = connection.write(bytes).await;
    let response = connection.response().await;
    if response.is_err() { written.and(response) } else { response }
}

/// Sends a GET, for the admin pages of the processes under test.
pub async fn get(address: SocketAddr, target: &str) -> Result<Response> {
    let bytes = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    send_bytes(address, bytes.as_bytes()).await
}
