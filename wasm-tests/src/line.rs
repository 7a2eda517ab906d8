//! Proxied connection to a server that stores everything in memory. Such a server can be stopped, but not killed: it would
//! lose acknowledged data, and no client could prevent that. Scenarios break the line instead, with the data on it.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use crate::process::{free_port, until};

/// A line that can be cut and restored.
pub struct Line {
    /// Address for the clients.
    near: SocketAddr,
    far: SocketAddr,
    carrier: Mutex<JoinHandle<()>>,
}

impl Line {
    /// Creates a line to the server that listens at `far`, now or later.
    pub async fn to(far: SocketAddr) -> Result<Self> {
        // Another process may take a free port a moment later; the loop tries others.
        let listener = until("a port for a line", async || {
            Ok(TcpListener::bind(("127.0.0.1", free_port()?)).await.ok())
        })
        .await?;
        let near = listener.local_addr()?;
        Ok(Self { near, far, carrier: Mutex::new(carry(listener, far)) })
    }

    /// Returns the address for the clients.
    pub fn near(&self) -> SocketAddr {
        self.near
    }

    /// Returns the address of the server.
    pub fn far(&self) -> SocketAddr {
        self.far
    }

    /// Breaks every connection on it; no new one is accepted.
    pub async fn cut(&self) {
        let carrier = self.carrier.lock().await;
        carrier.abort();
        while !carrier.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// Accepts connections again after [`Self::cut`].
    pub async fn mend(&self) -> Result<()> {
        let listener =
            until("the line to be free", async || Ok(TcpListener::bind(self.near).await.ok()));
        *self.carrier.lock().await = carry(listener.await?, self.far);
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.carrier.get_mut().abort();
    }
}

fn carry(listener: TcpListener, far: SocketAddr) -> JoinHandle<()> {
    tokio::spawn(async move {
        // The set ends its connections with this task.
        let mut carrying = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            carrying.spawn(async move {
                let mut server = TcpStream::connect(far).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
            while carrying.try_join_next().is_some() {}
        }
    })
}
