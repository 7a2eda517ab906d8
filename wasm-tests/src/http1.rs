//! HTTP/1.1 messages as bytes, for both ends of the proxy. What was sent is stored exactly (case, order, repeats, bytes that
//! are no text), and nothing is corrected. Reads one message; decides nothing about it.

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Start line and header lines, as they were sent.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// `POST /twilio/inbound HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub start_line: String,
    /// Name and value of every line, in order; values without surrounding blanks.
    pub lines: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// Returns every value sent under `name`, in any letter case.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let same = self.lines.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_slice()).collect()
    }

    /// Returns the only value sent under `name`; `None` if there is none, or if there are several.
    pub fn one(&self, name: &str) -> Option<String> {
        match self.all(name).as_slice() {
            [value] => Some(String::from_utf8_lossy(value).into_owned()),
            _ => None,
        }
    }

    /// Returns the `n`th word of the start line, from 0.
    pub fn word(&self, n: usize) -> &str {
        self.start_line.split(' ').nth(n).unwrap_or_default()
    }

    fn says(&self, name: &str, value: &[u8]) -> bool {
        self.all(name).iter().any(|have| have.eq_ignore_ascii_case(value))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let start_line = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let mut head = Head { start_line, lines: Vec::new() };
        for line in lines.filter(|line| !line.is_empty()) {
            let colon = line.iter().position(|byte| *byte == b':').context("a line without ':'")?;
            let (name, value) = line.split_at(colon);
            let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
            head.lines.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
        }
        Ok(head)
    }
}

/// Body and trailers of a message.
#[derive(Debug, Clone, Default)]
pub struct Body {
    /// The bytes, with any chunking removed.
    pub bytes: Vec<u8>,
    /// Header lines after the last chunk.
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// Bytes that were read from a connection and not yet consumed.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// Reads up to the end of the next head; none if the peer closed the connection between two messages.
    pub async fn head(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Head>> {
        let Some(bytes) = self.take_through(stream, b"\r\n\r\n").await? else { return Ok(None) };
        Head::parse(&bytes).map(Some)
    }

    /// Reads the body that belongs to the head of a request.
    pub async fn request_body(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        head: &Head,
    ) -> Result<Body> {
        if head.says("transfer-encoding", b"chunked") {
            self.chunked(stream).await
        } else {
            let length = head.one("content-length").map_or(Ok(0), |value| value.parse())?;
            let bytes = self.take(stream, length).await?;
            Ok(Body { bytes, trailers: Vec::new() })
        }
    }

    /// Reads the body that belongs to the head of a response: one without a length ends with the connection.
    pub async fn response_body(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        head: &Head,
    ) -> Result<Body> {
        let framed = head.says("transfer-encoding", b"chunked")
            || !head.all("content-length").is_empty()
            || ["204", "304"].contains(&head.word(1));
        if framed {
            return self.request_body(stream, head).await;
        }
        while self.more(stream).await? {}
        Ok(Body { bytes: std::mem::take(&mut self.buffer), trailers: Vec::new() })
    }

    async fn chunked(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Body> {
        let mut body = Body::default();
        loop {
            let line = self.take_through(stream, b"\r\n").await?.context("no chunk size")?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = usize::from_str_radix(line.trim(), 16).context("chunk size")?;
            if size == 0 {
                break;
            }
            body.bytes.extend(self.take(stream, size).await?);
            self.take(stream, 2).await?;
        }
        let mut trailers = b"trailers\r\n".to_vec();
        loop {
            let line = self.take_through(stream, b"\r\n").await?.context("no end of trailers")?;
            if line == b"\r\n" {
                break;
            }
            trailers.extend(line);
        }
        body.trailers = Head::parse(&trailers)?.lines;
        Ok(body)
    }

    /// Takes everything through the next `end`; `None` at a clean end of the connection.
    async fn take_through(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        end: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.take(stream, at + end.len()).await.map(Some);
            }
            if !self.more(stream).await? {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                bail!("closed in the middle of a message");
            }
        }
    }

    async fn take(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        length: usize,
    ) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more(stream).await? {
                bail!("closed {} bytes before the end", length - self.buffer.len());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<bool> {
        Ok(stream.read_buf(&mut self.buffer).await? > 0)
    }
}
