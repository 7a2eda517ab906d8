//! Minimal application behind the edge: it accepts every webhook, answers a message with empty TwiML and a status with 204,
//! and counts. Its cost is the same for every target and is not counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::http1::Reader;

const TO_MESSAGE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: 11\r\n\r\n<Response/>";
const TO_STATUS: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// A backend that serves until the runtime ends.
pub(crate) struct Backend {
    address: SocketAddr,
    delivered: Arc<AtomicU64>,
}

impl Backend {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let delivered = Arc::new(AtomicU64::new(0));
        let counter = delivered.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counter = counter.clone();
                // A broken connection is a request without an answer: the generator reports it.
                tokio::spawn(async move { serve(stream, &counter).await });
            }
        });
        Ok(Self { address, delivered })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of webhooks accepted so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, delivered: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.split();
    let mut reader = Reader::new(from);
    while let Some(request) = reader.next().await? {
        let is_message = request.starts_with(b"POST /twilio/inbound ");
        delivered.fetch_add(1, Ordering::Relaxed);
        to.write_all(if is_message { TO_MESSAGE } else { TO_STATUS }).await?;
    }
    Ok(())
}
