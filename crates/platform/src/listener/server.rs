//! Server of one listener: accepts its connections, closes those that take too long, and shuts down gracefully.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
    http::{Extensions, Request, Response, StatusCode, Version},
};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, Sleep},
};

use super::admission::{Admission, Place, Shared};
use crate::tasks::{Panicked, catch_panic};

/// Time in which a closing connection must end.
const GRACE: Duration = Duration::from_secs(1);

/// Pause of a listener after it could not accept a connection for lack of file descriptors.
const RELIEF: Duration = Duration::from_millis(20);

/// Time in which the body of a request must arrive, on every listener. Handlers of the sidecar have less time
/// (`http.request_timeout_ms`).
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

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
                if let Some(place) = admission.admit(address) {
                    let connection = Serving {
                        builder: Arc::clone(&builder),
                        router: router.clone(),
                        admission: admission.clone(),
                        stopped: stopped.clone(),
                    };
                    connections.spawn(connection.run(stream, place, extensions));
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
struct Serving {
    builder: Arc<Builder<TokioExecutor>>,
    router: Router,
    admission: Admission,
    stopped: watch::Receiver<bool>,
}

impl Serving {
    async fn run<S>(self, stream: S, place: Place, extensions: Extensions)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Serving { builder, router, admission, mut stopped } = self;
        let (shared, connection) = (Arc::clone(&place.shared), place.connection());
        let service = service_fn(|mut request: Request<Incoming>| {
            let under_way = UnderWay::begin(&shared, request.version() == Version::HTTP_2);
            request.extensions_mut().extend(extensions.clone());
            request.extensions_mut().insert(connection.clone());
            let answered =
                TowerToHyperService::new(router.clone()).call(request.map(Arriving::begin));
            async move {
                let mut response: Response<Body> = match catch_panic(answered).await {
                    Ok(answered) => answered?,
                    Err(Panicked) => empty(StatusCode::INTERNAL_SERVER_ERROR),
                };
                if under_way.0.has_unread() {
                    response = empty(StatusCode::SERVICE_UNAVAILABLE);
                }
                Ok::<_, std::convert::Infallible>(
                    response.map(|body| Streamed::begin(body, &under_way.0)),
                )
            }
        });
        let io = TokioIo::new(Watched { stream, shared: Arc::clone(&shared) });
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
struct UnderWay(Arc<Shared>);

impl UnderWay {
    fn begin(shared: &Arc<Shared>, is_http2: bool) -> UnderWay {
        shared.asked(is_http2);
        UnderWay(Arc::clone(shared))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.answered();
    }
}

/// Body of a request that ends with an error if it takes too long to arrive.
struct Arriving {
    body: Incoming,
    begun: Instant,
    /// Timer, created when the body has to be waited for.
    late: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    fn begin(body: Incoming) -> Arriving {
        Arriving { body, begun: Instant::now(), late: None }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let until = self.begun + BODY_TIMEOUT;
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        late.as_mut().poll(cx).map(|()| Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Body of a response that records when all of it was taken.
struct Streamed {
    body: Body,
    shared: Arc<Shared>,
}

impl Streamed {
    fn begin(body: Body, shared: &Arc<Shared>) -> Streamed {
        shared.streams(true);
        Streamed { body, shared: Arc::clone(shared) }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.shared.streams(false);
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.shared.progressed();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Stream that records when bytes arrive and leave.
struct Watched<S> {
    stream: S,
    shared: Arc<Shared>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.shared.read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(wrote, Poll::Ready(Ok(1..))) {
            self.shared.wrote();
        }
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        if matches!(wrote, Poll::Ready(Ok(1..))) {
            self.shared.wrote();
        }
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
