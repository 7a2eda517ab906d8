//! HTTP/1.1 messages on a keep-alive connection, as far as a load generator and its backend need them: the end of a message,
//! and its first line. Both only talk to Envoy, which frames by `content-length` here; anything else is an error.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head and longest body; messages of this load are shorter.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Reads one message at a time.
pub(crate) struct Reader<R> {
    from: R,
    buffer: Vec<u8>,
    /// Length of the message that was returned last, still at the front of the buffer.
    given: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, buffer: Vec::with_capacity(4096), given: 0 }
    }

    /// Returns the part of a message that has arrived, at least its first line.
    pub(crate) async fn first_bytes(&mut self) -> Result<&[u8]> {
        while !self.buffer.contains(&b'\n') {
            ensure!(self.from.read_buf(&mut self.buffer).await? > 0, "closed without an answer");
        }
        Ok(&self.buffer)
    }

    /// Returns the next message, or `None` if the peer closed the connection between two.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>> {
        self.buffer.drain(..self.given);
        self.given = 0;
        loop {
            if let Some(length) = message_bytes(&self.buffer)?
                && length <= self.buffer.len()
            {
                self.given = length;
                return Ok(self.buffer.get(..length));
            }
            ensure!(
                self.buffer.len() < MAX_MESSAGE_BYTES,
                "a message over {MAX_MESSAGE_BYTES} bytes"
            );
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                ensure!(self.buffer.is_empty(), "closed in the middle of a message");
                return Ok(None);
            }
        }
    }
}

/// Returns the status of a response.
pub(crate) fn status(response: &[u8]) -> Result<u16> {
    let digits = response.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).context("no status line")
}

/// Returns the length of head and body of the first message, once its head is complete.
fn message_bytes(buffer: &[u8]) -> Result<Option<usize>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head_bytes) = buffer.windows(END.len()).position(|window| window == END) else {
        return Ok(None);
    };
    let mut body_bytes = 0;
    for line in buffer.get(..head_bytes).unwrap_or_default().split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = value.get(1..).unwrap_or_default().trim_ascii();
            body_bytes = std::str::from_utf8(digits)?.parse::<usize>().context("content-length")?;
            ensure!(body_bytes <= MAX_MESSAGE_BYTES, "content-length {body_bytes}");
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            bail!("a chunked message");
        }
    }
    Ok(Some(head_bytes + END.len() + body_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_distinguished_in_any_order_of_arrival() {
        let bytes = b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyesHTTP/1.1 403 F\r\ncontent-length:0\r\n\r\n";
        for size in 1..bytes.len() {
            let mut input = tokio_test_input(bytes, size);
            let mut reader = Reader::new(&mut input);
            for expected in [204, 200, 403] {
                assert_eq!(status(reader.next().await.unwrap().unwrap()).unwrap(), expected);
            }
            assert!(reader.next().await.unwrap().is_none());
        }
    }

    /// A peer that sends the bytes in parts of `size`, then closes.
    fn tokio_test_input(bytes: &'static [u8], size: usize) -> tokio::io::DuplexStream {
        let (ours, mut theirs) = tokio::io::duplex(size);
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut theirs, bytes).await });
        ours
    }

    #[test]
    fn response_without_framing_is_an_error() {
        assert!(message_bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(message_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n").is_err());
        assert!(message_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n").is_err());
        assert_eq!(message_bytes(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
    }
}
