//! HTTP/2 clients that can misbehave like those over HTTP/1.1: odd frames, trailers, streams that are reset. One worker of
//! Envoy serves all streams of a connection.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::client::Response;
use crate::http1::Head;
use crate::process::bounded;
use crate::recorder::CASE;
use crate::webhook::Request;

/// Framing of the body by an HTTP/2 client.
#[derive(Debug, Clone, Copy, Default)]
pub struct Framing<'a> {
    /// Bytes per DATA frame; 0 for the whole body in one.
    pub frame: usize,
    /// Trailers after the body.
    pub trailers: &'a [(&'a str, &'a [u8])],
    /// True if `content-length` is sent, which HTTP/2 does not need.
    pub content_length: bool,
}

/// An HTTP/2 connection.
pub struct Connection {
    client: SendRequest<Bytes>,
    driving: JoinHandle<Result<(), h2::Error>>,
}

/// One request, and its future answer. If it is dropped before the answer, the stream is reset (RST_STREAM).
pub struct Stream {
    upload: Upload,
    answer: ResponseFuture,
}

/// An answer that has begun to arrive.
pub struct Begun {
    /// Status code.
    pub status: u16,
    head: Head,
    rest: RecvStream,
}

struct Upload(SendStream<Bytes>);

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        bounded("connect over HTTP/2", async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (client, connection) = h2::client::handshake(stream).await?;
            Ok(Self { client, driving: tokio::spawn(connection) })
        })
        .await
    }

    /// Sends a whole request and does not wait for the answer.
    pub async fn call(&mut self, request: &Request, framing: Framing<'_>) -> Result<Stream> {
        let mut stream = self.start(request, framing)?;
        if !has_no_body(request, framing) {
            stream.upload.send(&request.body, framing).await?;
        }
        Ok(stream)
    }

    /// Sends the head of a request; a body must follow, unless there is none.
    pub fn start(&mut self, request: &Request, framing: Framing<'_>) -> Result<Stream> {
        let mut head = http::Request::builder()
            .method(request.method.as_str())
            .uri(format!("http://hooks.example.com{}", request.target))
            .header(CASE, &request.case);
        for (name, value) in &request.headers {
            let name = HeaderName::from_bytes(name.to_lowercase().as_bytes())?;
            head = head.header(name, HeaderValue::from_bytes(value)?);
        }
        if framing.content_length {
            head = head.header("content-length", request.body.len());
        }
        let (answer, upload) =
            self.client.send_request(head.body(())?, has_no_body(request, framing))?;
        Ok(Stream { upload: Upload(upload), answer })
    }

    /// Closes the connection, with everything in progress on it.
    pub fn cut(self) {
        self.driving.abort();
    }

    /// Sends no more requests. Returns when all of its streams have ended and everything is written.
    pub async fn finish(self) -> Result<()> {
        let Self { client, driving } = self;
        drop(client);
        bounded("the end of a connection", async { Ok(driving.await??) }).await
    }
}

impl Stream {
    /// Sends part of the body.
    pub fn send_part(&mut self, part: &[u8]) -> Result<()> {
        self.upload.part(part, false)
    }

    /// Waits for the headers of the answer. An error may be a reset of the stream.
    pub async fn begun(self) -> Result<Begun> {
        begun(self.answer).await
    }

    /// Resets the request's stream (RST_STREAM).
    pub fn reset(mut self) {
        self.upload.0.send_reset(Reason::CANCEL);
    }
}

impl Begun {
    /// Waits for the rest. If the stream is reset in between, the result is the part received until then.
    pub async fn whole(mut self) -> Result<Response> {
        bounded("the rest of an answer over HTTP/2", async {
            let mut body = Vec::new();
            while let Some(Ok(data)) = self.rest.data().await {
                self.rest.flow_control().release_capacity(data.len())?;
                body.extend_from_slice(&data);
            }
            Ok(Response { status: self.status, head: self.head, body })
        })
        .await
    }
}

impl Upload {
    async fn send(&mut self, body: &[u8], framing: Framing<'_>) -> Result<()> {
        let size = if framing.frame == 0 { body.len().max(1) } else { framing.frame };
        let mut rest = body;
        while !rest.is_empty() {
            self.0.reserve_capacity(rest.len().min(size));
            let granted = std::future::poll_fn(|context| self.0.poll_capacity(context)).await;
            let granted = granted.context("the stream was closed while its body was sent")??;
            let (now, later) = rest.split_at(granted.min(size).min(rest.len()));
            rest = later;
            self.part(now, rest.is_empty() && framing.trailers.is_empty())?;
        }
        if framing.trailers.is_empty() {
            return if body.is_empty() { self.part(b"", true) } else { Ok(()) };
        }
        let mut trailers = HeaderMap::new();
        for (name, value) in framing.trailers {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            trailers.append(name, HeaderValue::from_bytes(value)?);
        }
        Ok(self.0.send_trailers(trailers)?)
    }

    fn part(&mut self, part: &[u8], ends: bool) -> Result<()> {
        Ok(self.0.send_data(Bytes::copy_from_slice(part), ends)?)
    }
}

/// Sends a request on a connection of its own. An error may be a reset of the stream.
pub async fn send_h2(
    address: SocketAddr,
    request: &Request,
    framing: Framing<'_>,
) -> Result<Response> {
    let mut connection = Connection::open(address).await?;
    let Stream { mut upload, answer } = connection.start(request, framing)?;
    let sending = async {
        match has_no_body(request, framing) {
            true => Ok(()),
            false => bounded("send a body over HTTP/2", upload.send(&request.body, framing)).await,
        }
    };
    // An answer may come, and the stream be reset, while the body is still being sent.
    let (sent, answered) = tokio::join!(sending, begun(answer));
    let response = match answered {
        Ok(begun) => begun.whole().await,
        Err(error) => Err(sent.err().unwrap_or(error)),
    };
    connection.driving.abort();
    response
}

/// Sends the head of a request over HTTP/2 and the first `bytes` of its body, then resets the stream (RST_STREAM).
pub async fn abandon_h2(address: SocketAddr, request: &Request, bytes: usize) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    let mut stream = connection.start(request, Framing::default())?;
    stream.send_part(request.body.get(..bytes).context("more than the body")?)?;
    stream.reset();
    connection.finish().await
}

fn has_no_body(request: &Request, framing: Framing<'_>) -> bool {
    request.body.is_empty() && framing.trailers.is_empty()
}

async fn begun(answer: ResponseFuture) -> Result<Begun> {
    bounded("an answer over HTTP/2", async {
        let (parts, rest) = answer.await?.into_parts();
        let lines = parts.headers.iter();
        let lines = lines.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        let start_line = format!("HTTP/2 {}", parts.status.as_u16());
        let head = Head { start_line, lines: lines.collect() };
        Ok(Begun { status: parts.status.as_u16(), head, rest })
    })
    .await
}
