//! Traces as OTLP over HTTP. Each request has a span. Each claim also has a span in the trace of its own webhook, because
//! one call carries the claims of many webhooks. Decides the content of spans (no body, no phone number, no secret). If
//! the collector is unavailable, spans are lost and nothing else. If tracing is disabled, its cost is one check of a
//! pointer.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
        TraceFlags, TraceId, TraceState, TracerProvider as _,
    },
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span},
};
use twilio_edge_contract::{Claim, Verdict};

use crate::store_metrics::Step;
use crate::{config, metrics::Metrics};
use twilio_edge_domain::trace::{Trace, Traceparent};

/// Largest number of spans that wait for the collector; further ones are lost.
const QUEUE: usize = 4096;

/// Largest answer of a collector that is read, in bytes.
const LONGEST_ANSWER: u64 = 65_536;

/// Exporter of spans; empty if no endpoint is configured.
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Option<Arc<Exporter>>);

#[derive(Debug)]
struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Span of a request in progress.
#[derive(Debug)]
pub struct RequestSpan {
    span: Span,
    exporter: Arc<Exporter>,
}

/// Context of a call, to which the spans of its claims are linked.
#[derive(Debug, Clone)]
pub struct Callout(SpanContext);

/// Traced claims of a batch, each with its index in the batch.
#[derive(Debug)]
pub struct ClaimSpans {
    exporter: Arc<Exporter>,
    claims: Vec<(usize, Traceparent, [KeyValue; 3])>,
    since: SystemTime,
}

impl Telemetry {
    /// Starts the exporter, if an endpoint is configured.
    pub fn start(settings: &config::Telemetry, metrics: Arc<Metrics>) -> Result<Telemetry, String> {
        if settings.otlp_endpoint.is_empty() {
            return Ok(Telemetry(None));
        }
        let timeout = Duration::from_millis(settings.timeout_ms);
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .build();
        let client =
            Collector { agent: agent.into(), metrics, is_unavailable: AtomicBool::new(false) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(client)
            .with_endpoint(traces_at(&settings.otlp_endpoint))
            .with_timeout(timeout)
            .build()
            .map_err(|error| format!("telemetry.otlp_endpoint: {error}"))?;
        // The exporter has a thread of its own, so ending a span never waits for the collector.
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_scheduled_delay(Duration::from_millis(settings.every_ms));
        let processor =
            BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build();
        let ratio = f64::from(settings.sample_percent) / 100.0;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let resource = Resource::builder()
            .with_service_name("twilio-edge")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler)
            .with_resource(resource.build())
            .build();
        let tracer = provider.tracer("twilio-edge");
        Ok(Telemetry(Some(Arc::new(Exporter { provider, tracer }))))
    }

    /// Starts the span of a request; `None` if tracing is disabled. `route` is a path template without identifiers.
    pub fn request_span(
        &self,
        method: &str,
        route: &str,
        traceparent: Option<&str>,
    ) -> Option<RequestSpan> {
        let exporter = self.0.as_ref()?;
        let parent = traceparent.and_then(Traceparent::parse);
        let span = SpanBuilder::from_name(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("http.route", route.to_owned()),
            ]);
        let span = span.start_with_context(&exporter.tracer, &context(parent.as_ref()));
        Some(RequestSpan { span, exporter: exporter.clone() })
    }

    /// Returns the traced claims of a batch; `None` if tracing is disabled or no claim is traced.
    pub fn claim_spans(&self, claims: &[Claim]) -> Option<ClaimSpans> {
        let exporter = self.0.as_ref()?;
        let spans = claims.iter().enumerate().filter_map(|(place, claim)| {
            let parent = Trace::of(claim).parent?;
            let identity = &claim.identity;
            let attributes = [
                KeyValue::new("webhook.class", identity.class.as_str()),
                KeyValue::new("webhook.sid", identity.message_sid.clone()),
                KeyValue::new("account.sid", identity.account_sid.clone()),
            ];
            Some((place, parent, attributes))
        });
        let claims: Vec<_> = spans.collect();
        let spans = ClaimSpans { exporter: exporter.clone(), claims, since: SystemTime::now() };
        (!spans.claims.is_empty()).then_some(spans)
    }

    /// Exports the waiting spans, for at most `limit`.
    pub async fn finish(self, limit: Duration) {
        let Some(exporter) = self.0 else { return };
        let finished = tokio::task::spawn_blocking(move || {
            exporter.provider.shutdown_with_timeout(limit).is_ok()
        });
        if !matches!(tokio::time::timeout(limit, finished).await, Ok(Ok(true))) {
            tracing::warn!(
                event = "traces.dropped",
                "the sidecar stopped before every span was exported"
            );
        }
    }
}

impl RequestSpan {
    /// Returns the context to which the spans of the claims are linked.
    pub fn callout(&self) -> Callout {
        Callout(self.span.span_context().clone())
    }

    /// Ends the span with the status of the answer and its steps.
    pub fn end(mut self, status: u16, steps: &[Step]) {
        self.exporter.add_steps(&self.span, steps);
        self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            self.span.set_status(Status::error(""));
        }
        self.span.end();
    }
}

impl ClaimSpans {
    /// Writes a span for each claim into the trace of its webhook, from [`Telemetry::claim_spans`] until now, with a child
    /// span for each step of the batch in the stores.
    pub fn end(self, verdicts: &[Verdict], callout: Option<&Callout>, steps: &[Step]) {
        let now = SystemTime::now();
        for (place, parent, attributes) in self.claims {
            let links = callout.map(|callout| Link::with_context(callout.0.clone()));
            let span = SpanBuilder::from_name("claim")
                .with_kind(SpanKind::Server)
                .with_start_time(self.since)
                .with_attributes(attributes)
                .with_links(links.into_iter().collect());
            let context = context(Some(&parent));
            let mut span = span.start_with_context(&self.exporter.tracer, &context);
            if let Some(verdict) = verdicts.get(place) {
                span.set_attribute(KeyValue::new("decision", verdict.decision.as_str()));
                if let Some(attempt) = verdict.attempt {
                    span.set_attribute(KeyValue::new("attempt", i64::from(attempt)));
                }
            }
            self.exporter.add_steps(&span, steps);
            span.end_with_timestamp(now);
        }
    }
}

impl Exporter {
    /// Writes the store steps as children of a span, if the span is sampled.
    fn add_steps(&self, span: &Span, steps: &[Step]) {
        if !span.is_recording() {
            return;
        }
        let parent = Context::new().with_remote_span_context(span.span_context().clone());
        for Step { operation, began, took, done } in steps {
            let step = SpanBuilder::from_name(operation.as_str())
                .with_kind(SpanKind::Client)
                .with_start_time(*began);
            let mut step = step.start_with_context(&self.tracer, &parent);
            if !done {
                step.set_status(Status::error("failed, or did not complete in time"));
            }
            step.end_with_timestamp(*began + *took);
        }
    }
}

/// Returns the context of a parent span; without a parent, a new trace begins.
fn context(parent: Option<&Traceparent>) -> Context {
    let context = Context::new();
    let Some(parent) = parent else { return context };
    let ids =
        TraceId::from_hex(parent.trace_id()).ok().zip(SpanId::from_hex(parent.span_id()).ok());
    match ids {
        Some((trace, span)) => {
            let flags = TraceFlags::new(parent.flags());
            let remote = SpanContext::new(trace, span, flags, true, TraceState::NONE);
            context.with_remote_span_context(remote)
        }
        None => context,
    }
}

/// Returns the URL for traces. By the OTLP standard, the endpoint is a base URL, and the path for traces is appended.
fn traces_at(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}

/// HTTP client of the collector. It blocks only the thread of the exporter.
#[derive(Debug)]
struct Collector {
    agent: ureq::Agent,
    metrics: Arc<Metrics>,
    /// True while the collector is unavailable, so that an outage is logged once and not for each batch.
    is_unavailable: AtomicBool,
}

impl Collector {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = response.into_parts();
        let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }

    fn note(&self, problem: Option<String>) {
        let was_unavailable = self.is_unavailable.swap(problem.is_some(), Ordering::Relaxed);
        if problem.is_some() {
            self.metrics.spans_lost();
        }
        match problem {
            Some(reason) if !was_unavailable => {
                tracing::warn!(event = "traces.export_failed", %reason, "the trace collector did not accept spans; spans are lost until it does");
            }
            None if was_unavailable => {
                tracing::info!(
                    event = "traces.export_recovered",
                    "the trace collector accepted spans again"
                )
            }
            _ => {}
        }
    }
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let answer = self.send(request);
            self.note(match &answer {
                Ok(response) if response.status().is_success() => None,
                Ok(response) => Some(format!("it answers {}", response.status())),
                Err(error) => Some(error.to_string()),
            });
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use twilio_edge_contract::{Class, Decision, Identity};

    use super::*;
    use crate::store_metrics::Operation;

    /// Tracing and metrics allocate nothing for a claim that is not traced.
    #[test]
    fn claim_that_is_not_traced_allocates_nothing() {
        let (telemetry, metrics) = (Telemetry::default(), Metrics::default());
        let identity = Identity {
            class: Class::Inbound,
            account_sid: "AC1".into(),
            message_sid: "SM1".into(),
            status: None,
            error_code: None,
        };
        let mut claim = Claim::new("c1".into(), identity, "/in".into(), "From=%2B1".into());
        claim.traceparent = Some(format!("00-{}-{}-01", "1".repeat(32), "2".repeat(16)));
        let claims = [claim];
        let observe = || {
            assert!(telemetry.request_span("POST", "/edge/v1/exchange", None).is_none());
            assert!(telemetry.claim_spans(&claims).is_none());
            for operation in Operation::ALL {
                let done =
                    metrics.stores.timed(operation, async { Ok::<u8, u8>(1) }).now_or_never();
                assert_eq!(done, Some(Ok(1)));
            }
            metrics.webhooks.claimed(Decision::Proceed, Class::Inbound);
            metrics.webhooks.claims_took(Duration::from_millis(1));
            metrics.answered("/edge/v1/exchange", 200, Duration::from_millis(1));
        };
        // The first request of a route creates its series.
        observe();
        assert_eq!(allocation_counter::measure(observe).count_total, 0);
        let counts = allocation_counter::measure(|| drop(Metrics::default()));
        assert!(counts.count_total > 0, "the counter counts allocations");
    }

    #[test]
    fn endpoint_is_a_base_url_or_the_path_of_traces() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_at(endpoint), "http://c:4318/v1/traces");
        }
    }
}
