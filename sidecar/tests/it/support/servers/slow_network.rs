//! Slow network in front of a server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Proxy to a server that delays each packet.
pub(crate) struct SlowNetwork {
    pub(crate) port: u16,
    /// Delay of each packet, in milliseconds.
    delay_ms: Arc<AtomicU64>,
}

impl SlowNetwork {
    pub(super) async fn start(server: u16) -> SlowNetwork {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = delay_ms.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, delay.clone()));
                tokio::spawn(carry(from_server, to_client, delay.clone()));
            }
        });
        SlowNetwork { port, delay_ms }
    }

    pub(crate) fn set_delay_ms(&self, delay_ms: u64) {
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay_ms: Arc<AtomicU64>) {
    let mut packet = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut packet).await {
        tokio::time::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
        if to.write_all(&packet[..length]).await.is_err() {
            return;
        }
    }
}
