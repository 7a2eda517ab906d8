//! A client that has sent its whole request, waits for the answer, and can disconnect at any moment before, in each of the
//! possible ways.

use std::net::SocketAddr;

use anyhow::Result;

use crate::http2::Framing;
use crate::webhook::Request;
use crate::{client, http2};

/// Way in which a client disconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It closes its HTTP/1.1 connection.
    Close,
    /// It resets its HTTP/1.1 connection.
    Reset,
    /// It resets its stream, and keeps its HTTP/2 connection.
    TakeBack,
    /// It closes its HTTP/2 connection with the stream still open.
    CloseHttp2,
}

impl Leaving {
    /// Every way.
    pub const ALL: [Leaving; 4] =
        [Leaving::Close, Leaving::Reset, Leaving::TakeBack, Leaving::CloseHttp2];
}

/// A waiting client.
pub struct Caller {
    line: Line,
    leaving: Leaving,
}

enum Line {
    Http1(client::Connection),
    Asked(http2::Connection, http2::Stream),
    Answered(http2::Connection, http2::Begun),
}

impl Caller {
    /// Sends a request on a connection of its own, and keeps the connection open.
    pub async fn call(address: SocketAddr, request: &Request, leaving: Leaving) -> Result<Self> {
        let line = match leaving {
            Leaving::Close | Leaving::Reset => {
                let mut connection = client::Connection::open(address).await?;
                connection.write(&request.bytes()).await?;
                Line::Http1(connection)
            }
            Leaving::TakeBack | Leaving::CloseHttp2 => {
                let mut connection = http2::Connection::open(address).await?;
                let stream = connection.call(request, Framing::default()).await?;
                Line::Asked(connection, stream)
            }
        };
        Ok(Self { line, leaving })
    }

    /// Waits until the answer has begun to arrive. Returns its status code.
    pub async fn answered(self) -> Result<(u16, Self)> {
        let (status, line) = match self.line {
            Line::Http1(mut connection) => {
                (connection.response_head().await?.0, Line::Http1(connection))
            }
            Line::Asked(connection, stream) => {
                let begun = stream.begun().await?;
                (begun.status, Line::Answered(connection, begun))
            }
            Line::Answered(connection, begun) => (begun.status, Line::Answered(connection, begun)),
        };
        Ok((status, Self { line, leaving: self.leaving }))
    }

    /// Disconnects.
    pub async fn leave(self) -> Result<()> {
        match (self.line, self.leaving) {
            (Line::Http1(connection), Leaving::Reset) => connection.reset(),
            (Line::Http1(_), _) => Ok(()),
            (Line::Asked(connection, _) | Line::Answered(connection, _), Leaving::CloseHttp2) => {
                connection.cut();
                Ok(())
            }
            (Line::Asked(connection, stream), _) => {
                stream.reset();
                connection.finish().await
            }
            (Line::Answered(connection, begun), _) => {
                // The rest is not read: the stream is reset.
                drop(begun);
                connection.finish().await
            }
        }
    }
}
