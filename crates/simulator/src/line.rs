//! Connections that can be closed without an answer, to simulate a connection that breaks during a request.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use twilio_edge_platform::listener::server::{Accept, prepare};

/// Handle that cuts the connection of a request: no more bytes are written to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut(Arc<AtomicBool>);

impl Cut {
    pub(super) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Listener whose connections can be cut.
pub(super) struct Lines(pub(super) TcpListener);

/// Connection that can be cut.
pub(super) struct Line {
    stream: TcpStream,
    cut: Cut,
}

impl Accept for Lines {
    type Io = Line;

    async fn accept(&mut self) -> io::Result<(Line, Option<IpAddr>, Extensions)> {
        let (stream, address) = self.0.accept().await?;
        prepare(&stream);
        let (cut, mut extensions) = (Cut::default(), Extensions::new());
        extensions.insert(ConnectInfo(cut.clone()));
        Ok((Line { stream, cut }, Some(address.ip()), extensions))
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cut.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
