//! Server of one listener: accepts its connections, closes those that take too long, and shuts down gracefully.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{Extensions, Request, Response, StatusCode, Version},
};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};

use super::{
    admission::{Admission, ConnectionState, Slot},
    bodies::{ObservedStream, RequestBody, ResponseBody},
};
use crate::tasks::{Panicked, catch_panic};

/// Time in which a closing connection must end.
const GRACE: Duration = Duration::from_secs(1);

/// Pause of a listener after it could not accept a connection for lack of file descriptors.
const RELIEF: Duration = Duration::from_millis(20);

/// Interval of HTTP/2 pings to a caller, and the time in which it must answer one.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in milliseconds after which a connection is closed whose caller takes nothing of its answer.
#[cfg(target_os = "linux")]
const STALLED_MS: u32 = 20_000;

/// Time without a packet after which the kernel probes the caller.
#[cfg(target_os = "linux")]
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Smallest buffer of a connection that hyper accepts, in bytes.
const LEAST_BUFFER: usize = 8192;

/// Source of connections.
pub trait Accept: Send + 'static {
    /// Stream of a connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Accepts the next connection, and returns its remote address and the extensions of its requests.
    fn accept(
        &mut self,
    ) -> impl Future<Output = io::Result<(Self::Io, Option<IpAddr>, Extensions)>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<IpAddr>, Extensions)> {
        let (stream, address) = TcpListener::accept(self).await?;
        prepare(&stream);
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo::<SocketAddr>(address));
        Ok((stream, Some(address.ip()), extensions))
    }
}

impl Accept for UnixListener {
    type Io = UnixStream;

    /// Callers on a Unix socket have no address, so bad tokens are not counted against one.
    async fn accept(&mut self) -> io::Result<(UnixStream, Option<IpAddr>, Extensions)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((stream, None, Extensions::new()))
    }
}

/// Sets the socket options of a connection.
pub fn prepare(stream: &TcpStream) {
    // Small replies must not wait for the next packet (Nagle's algorithm).
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt;
        let _ = sockopt::set_tcp_user_timeout(stream, STALLED_MS);
        let _ = sockopt::set_socket_keepalive(stream, true);
        let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE);
        let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE / 4);
        let _ = sockopt::set_tcp_keepcnt(stream, 4);
    }
}

/// Answers callers until `stop` resolves, then closes each connection once its requests are answered.
pub async fn serve<A: Accept>(
    mut listener: A,
    router: Router,
    admission: Admission,
    stop: impl Future<Output = ()> + Send,
) {
    let (stopping, stopped) = watch::channel(false);
    let builder = Arc::new(builder(&admission));
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address, extensions)) => {
                if let Some(slot) = admission.admit(address) {
                    let connection = ConnectionTask {
                        builder: Arc::clone(&builder),
                        router: router.clone(),
                        admission: admission.clone(),
                        stopped: stopped.clone(),
                    };
                    connections.spawn(connection.run(stream, slot, extensions));
                }
            }
            Err(error) if is_of_caller(&error) => {}
            Err(error) => {
                tracing::warn!(event = "connections.refused", reason = %error, "the sidecar could not accept a connection");
                admission.relieve();
                tokio::time::sleep(RELIEF).await;
            }
        }
    }
    drop(listener);
    let _ = stopping.send(true);
    while connections.join_next().await.is_some() {}
}

/// Returns whether the caller disconnected before it was accepted.
fn is_of_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn builder(admission: &Admission) -> Builder<TokioExecutor> {
    let limits = &admission.limits;
    let mut builder = Builder::new(TokioExecutor::new());
    // hyper's timer would also count the wait for the next request, so `admission` sets the deadlines instead.
    builder.http1().header_read_timeout(None).max_buf_size(limits.header_bytes.max(LEAST_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    builder
}

/// Everything that the task of a connection needs.
struct ConnectionTask {
    builder: Arc<Builder<TokioExecutor>>,
    router: Router,
    admission: Admission,
    stopped: watch::Receiver<bool>,
}

impl ConnectionTask {
    async fn run<S>(self, stream: S, slot: Slot, extensions: Extensions)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let ConnectionTask { builder, router, admission, mut stopped } = self;
        let (shared, connection) = (Arc::clone(&slot.shared), slot.connection());
        let service = service_fn(|mut request: Request<Incoming>| {
            let in_flight = InFlightRequest::begin(&shared, request.version() == Version::HTTP_2);
            request.extensions_mut().extend(extensions.clone());
            request.extensions_mut().insert(connection.clone());
            let answered =
                TowerToHyperService::new(router.clone()).call(request.map(RequestBody::begin));
            async move {
                let mut response: Response<Body> = match catch_panic(answered).await {
                    Ok(answered) => answered?,
                    Err(Panicked) => empty(StatusCode::INTERNAL_SERVER_ERROR),
                };
                if in_flight.0.has_unread() {
                    response = empty(StatusCode::SERVICE_UNAVAILABLE);
                }
                Ok::<_, std::convert::Infallible>(
                    response.map(|body| ResponseBody::begin(body, &in_flight.0)),
                )
            }
        });
        let io = TokioIo::new(ObservedStream { stream, shared: Arc::clone(&shared) });
        let mut served = pin!(builder.serve_connection(io, service));
        let mut over: Option<Instant> = None;
        let mut is_stopping = false;
        loop {
            let now = Instant::now();
            let check = now + admission.limits.header_timeout;
            let deadline = shared.deadline(&admission.limits);
            let wake = over.unwrap_or_else(|| deadline.map_or(check, |(at, _)| at.min(check)));
            tokio::select! {
                _ = served.as_mut() => return,
                () = shared.replaced.notified() => return,
                () = tokio::time::sleep_until(wake) => {}
                _ = stopped.wait_for(|stopped| *stopped), if !is_stopping => {
                    is_stopping = true;
                    served.as_mut().graceful_shutdown();
                    // A request that has not arrived by then is not served.
                    over = over.or_else(|| Some(Instant::now() + GRACE));
                    continue;
                }
            }
            if over.is_some_and(|at| at <= Instant::now()) {
                let is_done = match is_stopping {
                    true => shared.is_quiet(GRACE),
                    false => shared.is_idle(),
                };
                if is_done {
                    return;
                }
                over = Some(Instant::now() + GRACE);
            }
            if over.is_none()
                && let Some((at, wait)) = shared.deadline(&admission.limits)
                && at <= Instant::now()
            {
                admission.metrics.timed_out(wait);
                served.as_mut().graceful_shutdown();
                over = Some(Instant::now() + GRACE);
            }
        }
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// Guard of a request in a handler.
struct InFlightRequest(Arc<ConnectionState>);

impl InFlightRequest {
    fn begin(shared: &Arc<ConnectionState>, is_http2: bool) -> InFlightRequest {
        shared.begin_request(is_http2);
        InFlightRequest(Arc::clone(shared))
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.end_request();
    }
}
