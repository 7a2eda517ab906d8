//! Authorization service for `envoy.filters.http.ext_authz`, as a team with Envoy and without the filter would write it. It
//! uses HTTP with the request's body, verifies, and asks Redis whether the webhook was seen and its sender suppressed. One
//! thread, one multiplexed connection, one pipeline per webhook. It stores a webhook when it lets it through, regardless of
//! the backend's answer: no settlement, no ledger.

mod gate;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::http::{Method, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::net::TcpListener;
use twilio_edge_contract::Class;
use twilio_edge_filter::form::Webhook;

use crate::gate::Gate;

/// Prefix that Envoy puts before the path of the checked request.
const CHECK: &str = "/check";
/// Largest body; Envoy is configured to send no more.
const MAX_BODY_BYTES: usize = 65_536;
/// Time for which a webhook is stored: the sidecar's `leases.result_ttl_s`, in milliseconds.
const KNOWN_MS: u64 = 604_800_000;
/// Redis set of suppressed addresses.
const SUPPRESSED: &str = "suppressed";

// One thread, because it has one core.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let gate = Gate::new(
        variable("PUBLIC_ORIGIN")?,
        variable("TWILIO_ACCOUNT_SID")?,
        &variable("TWILIO_AUTH_TOKEN")?,
    )?;
    let redis = redis::Client::open(variable("REDIS_URL")?)?;
    // No retries: Twilio waits for the answer.
    let limits = ConnectionManagerConfig::new().set_number_of_retries(0);
    let service = Arc::new(Service {
        gate,
        redis: ConnectionManager::new_lazy_with_config(redis, limits)?,
        claims: AtomicU64::new(0),
    });
    let listener = TcpListener::bind(variable("LISTEN")?).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| service.answer(request));
            // Envoy, its only client, treats a broken connection as a check without an answer.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

struct Service {
    gate: Gate,
    redis: ConnectionManager,
    /// Number of the next claim.
    claims: AtomicU64,
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        if request.method() == Method::GET && request.uri().path() == "/readyz" {
            return Ok(empty(self.readiness().await));
        }
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
            return Ok(empty(StatusCode::PAYLOAD_TOO_LARGE));
        };
        let target =
            head.uri.path_and_query().and_then(|target| target.as_str().strip_prefix(CHECK));
        let proven = target.and_then(|target| {
            self.gate.prove(&head.method, target, &head.headers, &body.to_bytes())
        });
        let Some(webhook) = proven else { return Ok(empty(StatusCode::FORBIDDEN)) };
        Ok(match self.seen_and_suppressed(&webhook).await {
            Ok((true, _)) => duplicate(&webhook),
            Ok((false, suppressed)) => self.passed(&webhook, suppressed),
            Err(_) => empty(StatusCode::SERVICE_UNAVAILABLE),
        })
    }

    async fn readiness(&self) -> StatusCode {
        let answer: redis::RedisResult<String> =
            redis::cmd("PING").query_async(&mut self.redis.clone()).await;
        answer.map_or(StatusCode::SERVICE_UNAVAILABLE, |_| StatusCode::OK)
    }

    /// Claims the webhook, if it is not claimed yet, and looks up its sender.
    async fn seen_and_suppressed(&self, webhook: &Webhook) -> redis::RedisResult<(bool, bool)> {
        let Some(identity) = &webhook.identity else { return Ok((false, false)) };
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("SET")
            .arg(identity.dedupe_key())
            .arg(self.claims.fetch_add(1, Ordering::Relaxed))
            .arg(&["NX", "PX"])
            .arg(KNOWN_MS);
        pipeline.cmd("SISMEMBER").arg(SUPPRESSED).arg(webhook.from.as_deref().unwrap_or_default());
        let (taken, suppressed): (bool, bool) =
            pipeline.query_async(&mut self.redis.clone()).await?;
        Ok((!taken, suppressed))
    }

    fn passed(&self, webhook: &Webhook, suppressed: bool) -> Answer {
        let mut answer = Response::new(Full::default());
        for (name, value) in self.gate.trusted(webhook, suppressed) {
            // Some channels allow addresses that are not valid in a header.
            if let Ok(value) = value.parse() {
                answer.headers_mut().insert(name, value);
            }
        }
        answer
    }
}

/// Returns the answer to a repeated webhook. Any status but 200 makes Envoy answer by itself.
fn duplicate(webhook: &Webhook) -> Answer {
    if webhook.class != Class::Inbound {
        return empty(StatusCode::NO_CONTENT);
    }
    let mut answer = Response::new(Full::from("<Response/>"));
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/xml"));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
