//! Clients that can do what Twilio does, and what no honest client would: stop halfway, go away, send bytes that are no
//! text. They write what they are given and read what comes back; nothing is repaired.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http1::{Head, Reader};
use crate::process::bounded;
use crate::recorder::CASE;
use crate::webhook::Request;

/// What came back.
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
    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.one(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An HTTP/1.1 connection. Dropping it is how a client goes away.
pub struct Connection {
    stream: TcpStream,
    reader: Reader,
    /// The answer to HEAD has a length and no body.
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

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.asked_head = bytes.starts_with(b"HEAD ");
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Reads the next response that is not a `100 Continue`.
    pub async fn response(&mut self) -> Result<Response> {
        bounded("read a response", async {
            loop {
                let head = self.reader.head(&mut self.stream).await?;
                let head = head.context("the connection was closed without a response")?;
                let status = head.word(1).parse().context("a status code")?;
                if (100..200).contains(&status) {
                    continue;
                }
                let body = if self.asked_head {
                    Vec::new()
                } else {
                    self.reader.response_body(&mut self.stream, &head).await?.bytes
                };
                return Ok(Response { status, head, body });
            }
        })
        .await
    }
}

/// Sends a request on a connection of its own.
pub async fn send(address: SocketAddr, request: &Request) -> Result<Response> {
    send_bytes(address, &request.bytes()).await
}

/// Sends bytes on a connection of their own.
pub async fn send_bytes(address: SocketAddr, bytes: &[u8]) -> Result<Response> {
    let mut connection = Connection::open(address).await?;
    // A server may answer and close before it has read all: then the answer counts, not the failed write.
    let written = connection.write(bytes).await;
    let response = connection.response().await;
    if response.is_err() { written.and(response) } else { response }
}

/// GET, for the admin pages of the processes under test.
pub async fn get(address: SocketAddr, target: &str) -> Result<Response> {
    let bytes = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    send_bytes(address, bytes.as_bytes()).await
}

/// What an HTTP/2 client does with the body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Framing<'a> {
    /// Bytes per DATA frame; 0 for the whole body in one.
    pub frame: usize,
    /// Trailers after the body.
    pub trailers: &'a [(&'a str, &'a [u8])],
    /// Whether `content-length` is sent, which HTTP/2 does not need.
    pub content_length: bool,
}

/// Sends a request over HTTP/2. An error may be a reset of the stream.
pub async fn send_h2(
    address: SocketAddr,
    request: &Request,
    framing: Framing<'_>,
) -> Result<Response> {
    bounded("an exchange over HTTP/2", async {
        let stream = TcpStream::connect(address).await?;
        let (mut client, connection) = h2::client::handshake(stream).await?;
        let driving = tokio::spawn(connection);
        let mut head = h2_head(request)?;
        if framing.content_length {
            head = head.header("content-length", request.body.len());
        }
        let bodiless = request.body.is_empty() && framing.trailers.is_empty();
        let (response, mut upload) = client.send_request(head.body(())?, bodiless)?;
        let sending = async {
            if !bodiless {
                upload_body(&mut upload, &request.body, framing).await?;
            }
            Ok(())
        };
        let receiving = async { anyhow::Ok(response.await?) };
        // An answer may come, and the stream be reset, while the body is still being sent.
        let (sent, received): (Result<()>, _) = tokio::join!(sending, receiving);
        let (parts, mut incoming) = match received {
            Ok(response) => response.into_parts(),
            Err(error) => return Err(sent.err().unwrap_or(error)),
        };
        let mut body = Vec::new();
        while let Some(data) = incoming.data().await {
            let Ok(data) = data else { break };
            incoming.flow_control().release_capacity(data.len())?;
            body.extend_from_slice(&data);
        }
        driving.abort();
        let lines = parts.headers.iter();
        let lines = lines.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        let start_line = format!("HTTP/2 {}", parts.status.as_u16());
        let head = Head { start_line, lines: lines.collect() };
        Ok(Response { status: parts.status.as_u16(), head, body })
    })
    .await
}

/// Sends the head of a request over HTTP/2 and the first `bytes` of its body, then takes it back (RST_STREAM).
pub async fn abandon_h2(address: SocketAddr, request: &Request, bytes: usize) -> Result<()> {
    bounded("half an exchange over HTTP/2", async {
        let (mut client, connection) =
            h2::client::handshake(TcpStream::connect(address).await?).await?;
        let driving = tokio::spawn(connection);
        let (response, mut upload) = client.send_request(h2_head(request)?.body(())?, false)?;
        let part = request.body.get(..bytes).context("more than the body")?;
        upload.send_data(Bytes::copy_from_slice(part), false)?;
        upload.send_reset(h2::Reason::CANCEL);
        // The connection ends when all of it is written and both halves of the stream are gone.
        drop((client, response, upload));
        Ok(driving.await??)
    })
    .await
}

fn h2_head(request: &Request) -> Result<http::request::Builder> {
    let mut head = http::Request::builder()
        .method(request.method.as_str())
        .uri(format!("http://hooks.example.com{}", request.target))
        .header(CASE, &request.case);
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.to_lowercase().as_bytes())?;
        head = head.header(name, HeaderValue::from_bytes(value)?);
    }
    Ok(head)
}

async fn upload_body(
    upload: &mut h2::SendStream<Bytes>,
    body: &[u8],
    framing: Framing<'_>,
) -> Result<()> {
    let size = if framing.frame == 0 { body.len().max(1) } else { framing.frame };
    let mut rest = body;
    while !rest.is_empty() {
        upload.reserve_capacity(rest.len().min(size));
        let granted = std::future::poll_fn(|context| upload.poll_capacity(context)).await;
        let granted = granted.context("the stream was closed while its body was sent")??;
        let (now, later) = rest.split_at(granted.min(size).min(rest.len()));
        rest = later;
        upload.send_data(
            Bytes::copy_from_slice(now),
            rest.is_empty() && framing.trailers.is_empty(),
        )?;
    }
    if framing.trailers.is_empty() {
        if body.is_empty() {
            upload.send_data(Bytes::new(), true)?;
        }
        return Ok(());
    }
    let mut trailers = HeaderMap::new();
    for (name, value) in framing.trailers {
        trailers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_bytes(value)?);
    }
    ensure!(!trailers.is_empty(), "no trailers");
    upload.send_trailers(trailers)?;
    Ok(())
}
