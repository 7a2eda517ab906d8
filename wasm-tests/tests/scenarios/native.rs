//! The native build of the filter's decisions behind the callbacks of a proxy: a simple counterpart of `filter.rs` and
//! `root.rs`. If both builds give the same results, the parts between them (the SDK, the encoding of host calls, clocks,
//! batches of counts) change nothing.

mod callouts;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow};
use twilio_edge_contract::headers;
use twilio_edge_filter::callouts::{Lanes, Occasion};
use twilio_edge_filter::config::Config;
use twilio_edge_filter::exchange::{Effect, Event, Exchange, Head, ResponseHead};
use twilio_edge_filter::log_limit::{LogLimit, suppressed_refusals};
use twilio_edge_filter::metrics::Counter;
use twilio_edge_filter::overrides::is_override;
use twilio_edge_filter::recent_webhooks::RecentWebhooks;
use twilio_edge_filter::refresh::KeyRefresh;
use twilio_edge_filter::refused_requests::RefusedRequests;
use twilio_edge_wasm_tests::host::{
    Action, BufferKind, Callback, Cost, Filter, MapKind, Pairs, Proxy, Status,
};

use self::callouts::{ClaimOrigin, SettlementOrigin};

/// Equal to the values in `root.rs`, because the test compares the builds by the millisecond.
const TICK_MS: u64 = 10;
const IDLE_TICK_MS: u64 = 250;
const MAX_BYTES: usize = 16 << 20;

struct Root {
    number: u32,
    config: Rc<Config>,
    refresh: Option<KeyRefresh>,
    queue: u32,
    /// The configuration was replaced, but the sidecar has not acknowledged every settlement yet.
    is_leaving: bool,
    callouts: Lanes<ClaimOrigin, SettlementOrigin>,
    recent: RecentWebhooks,
    refusals: LogLimit,
    reports: RefusedRequests,
}

struct Request {
    root: u32,
    exchange: Rc<RefCell<Exchange>>,
}

/// The filter, without a VM.
pub(crate) struct Native {
    proxy: Proxy,
    roots: BTreeMap<u32, Root>,
    requests: BTreeMap<u32, Request>,
    /// The callback belongs to a root context, not to a stream. A stream is resumed by the return value of its callback.
    is_root_callback: bool,
}

impl Filter for Native {
    fn proxy(&mut self) -> &mut Proxy {
        &mut self.proxy
    }

    fn cost(&mut self) -> Option<Cost> {
        None
    }

    fn memory_bytes(&mut self) -> Option<usize> {
        None
    }

    fn call(&mut self, callback: Callback) -> Result<u32> {
        self.is_root_callback = matches!(
            callback,
            Callback::CallResponse { .. } | Callback::QueueReady { .. } | Callback::Tick { .. }
        );
        match callback {
            Callback::Create { root: 0, .. } | Callback::VmStart { .. } => Ok(1),
            Callback::Create { context, root } => self.begin(context, root).map(|()| 1),
            Callback::Configure { root, .. } => self.configure(root),
            Callback::RequestHeaders { stream, ends, .. } => {
                let head = read_head(self.map(MapKind::RequestHeaders)?);
                self.apply(stream, Event::Head(head))?;
                if ends {
                    self.apply(stream, Event::Complete { body: b"" })?;
                }
                self.request_action(stream)
            }
            Callback::RequestBody { stream, bytes, ends } => {
                self.apply(stream, Event::Body { received: bytes })?;
                if ends {
                    self.complete(stream)?;
                }
                self.request_action(stream)
            }
            Callback::RequestTrailers { stream, .. } => {
                for (name, _) in self.map(MapKind::RequestTrailers)? {
                    if headers::is_reserved(name.as_bytes()) {
                        self.count(Counter::Forged)?;
                        let removed = self.proxy.remove_map_value(MapKind::RequestTrailers, &name);
                        done(removed)?;
                    }
                }
                self.complete(stream)?;
                self.request_action(stream)
            }
            Callback::ResponseHeaders { stream, ends, .. } => {
                if self.is(stream, Exchange::awaits_response) {
                    let head = self.read_response(ends)?;
                    self.apply(stream, Event::Response(head))?;
                }
                self.response_action(stream)
            }
            Callback::ResponseBody { stream, bytes, ends } => {
                if self.is(stream, Exchange::copies_response) {
                    let part = done(self.proxy.buffer(BufferKind::ResponseBody, 0, bytes))?;
                    self.apply(stream, Event::ResponseBody { part: &part, is_last: ends })?;
                }
                self.response_action(stream)
            }
            Callback::ResponseTrailers { stream, .. } => {
                self.apply(stream, Event::ResponseBody { part: b"", is_last: true })?;
                self.response_action(stream)
            }
            Callback::CallResponse { root, token, headers, bytes } => {
                self.handle_reply(root, token, headers, bytes).map(|()| 0)
            }
            Callback::QueueReady { root, queue } => {
                while self.proxy.dequeue(queue).is_ok() {}
                self.record_time(root);
                self.send(root, Occasion::Change).map(|()| 0)
            }
            Callback::Tick { root } => self.tick(root).map(|()| 0),
            Callback::Log { context } => self.apply(context, Event::Ended).map(|()| 0),
            Callback::Done { context } if self.roots.contains_key(&context) => {
                self.send(context, Occasion::Tick)?;
                if let Some(suppressed) = self.root(context)?.refusals.take_suppressed() {
                    self.proxy.write_log(3, suppressed_refusals(suppressed));
                }
                let root = self.root(context)?;
                root.is_leaving = root.callouts.settlements() > 0;
                Ok(u32::from(!root.is_leaving))
            }
            Callback::Done { .. } => Ok(1),
            Callback::Delete { context } => {
                self.requests.remove(&context);
                self.roots.remove(&context);
                Ok(0)
            }
        }
    }
}

impl Native {
    pub(crate) fn start(proxy: Proxy) -> Self {
        Self { proxy, roots: BTreeMap::new(), requests: BTreeMap::new(), is_root_callback: false }
    }

    fn configure(&mut self, number: u32) -> Result<u32> {
        let json = done(self.proxy.buffer(BufferKind::PluginConfiguration, 0, usize::MAX))?;
        let environment = self.proxy.environment().to_vec();
        let look_up = |name: &str| {
            let mut variables = environment.iter();
            variables.find(|(have, _)| have == name).map(|(_, value)| value.clone())
        };
        let config = match Config::parse(&json, &look_up) {
            Ok(config) => Rc::new(config),
            Err(problems) => {
                for problem in problems {
                    self.proxy.write_log(4, problem.to_string());
                }
                return Ok(0);
            }
        };
        let period_ms = if config.sidecar.is_some() { TICK_MS } else { IDLE_TICK_MS };
        self.proxy.set_tick_period(period_ms);
        for counter in Counter::all() {
            self.proxy.define_metric(0, &counter.name());
        }
        let root = Root {
            number,
            refresh: KeyRefresh::new(&config, number.into()),
            reports: RefusedRequests::new(&config),
            config,
            queue: self.proxy.register_queue(format!("native.{number}").as_bytes()),
            is_leaving: false,
            callouts: Lanes::new(MAX_BYTES, MAX_BYTES),
            recent: RecentWebhooks::default(),
            refusals: LogLimit::default(),
        };
        self.roots.insert(number, root);
        Ok(1)
    }

    fn begin(&mut self, stream: u32, root: u32) -> Result<()> {
        let config = Rc::clone(&self.root(root)?.config);
        let exchange = Rc::new(RefCell::new(Exchange::new(config, root.into(), stream)));
        self.requests.insert(stream, Request { root, exchange });
        Ok(())
    }

    fn root(&mut self, root: u32) -> Result<&mut Root> {
        self.roots.get_mut(&root).context("no such root")
    }

    fn is(&self, stream: u32, question: fn(&Exchange) -> bool) -> bool {
        self.requests.get(&stream).is_some_and(|request| question(&request.exchange.borrow()))
    }

    fn request_action(&self, stream: u32) -> Result<u32> {
        Ok(action(self.is(stream, Exchange::holds_request)))
    }

    fn response_action(&self, stream: u32) -> Result<u32> {
        Ok(action(self.is(stream, Exchange::holds_response)))
    }

    fn map(&mut self, kind: MapKind) -> Result<Pairs> {
        done(self.proxy.map(kind))
    }

    fn complete(&mut self, stream: u32) -> Result<()> {
        let body = match self.is(stream, Exchange::needs_body) {
            // There is none if no part of it came.
            true => self.proxy.buffer(BufferKind::RequestBody, 0, usize::MAX).unwrap_or_default(),
            false => Vec::new(),
        };
        self.apply(stream, Event::Complete { body: &body })
    }

    fn read_response(&mut self, ends: bool) -> Result<ResponseHead> {
        let pairs = self.map(MapKind::ResponseHeaders)?;
        let value = |name| pairs.iter().find(|(have, _)| have == name).map(|(_, it)| it.clone());
        let status = value(":status").and_then(|it| std::str::from_utf8(&it).ok()?.parse().ok());
        let details = self.proxy.property(&["response", "code_details"]);
        Ok(ResponseHead {
            status: status.unwrap_or_default(),
            from_backend: details.is_ok_and(|details| details == b"via_upstream"),
            content_type: value("content-type").filter(|_| value("content-encoding").is_none()),
            is_last: ends,
        })
    }

    /// Applies an event to an exchange and carries out its effects in its stream.
    fn apply(&mut self, stream: u32, event: Event<'_>) -> Result<()> {
        let Some(request) = self.requests.get(&stream) else { return Ok(()) };
        let root = request.root;
        let effects = request.exchange.borrow_mut().step(event);
        if effects.is_empty() {
            return Ok(());
        }
        done(self.proxy.set_effective_context(stream))?;
        for effect in effects {
            self.carry_out(root, stream, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, root: u32, stream: u32, effect: Effect) -> Result<()> {
        let kind = MapKind::RequestHeaders;
        match effect {
            Effect::Remove(name) => done(self.proxy.remove_map_value(kind, &name)),
            Effect::SetUpstream(upstream) => {
                for (name, value) in upstream.headers() {
                    done(self.proxy.replace_map_value(kind, name, value.as_bytes()))?;
                }
                match &upstream.body {
                    Some(body) => {
                        let bytes = body.as_bytes();
                        done(self.proxy.set_buffer(BufferKind::RequestBody, 0, usize::MAX, bytes))
                    }
                    None => Ok(()),
                }
            }
            Effect::Answer(answer) => {
                let lines = answer.headers.into_iter();
                let lines = lines.map(|(name, value)| (name.to_owned(), value.into_bytes()));
                let status = answer.status.into();
                self.proxy.send_local_response(status, lines.collect(), answer.body.as_bytes());
                Ok(())
            }
            Effect::Forward => {
                if self.is_root_callback {
                    self.proxy.resume_request();
                }
                Ok(())
            }
            Effect::Respond => {
                self.proxy.resume_response();
                Ok(())
            }
            Effect::Claim { claim, lane } => self.claim(root, stream, &claim, lane),
            Effect::Withdraw => self.withdraw(root, stream),
            Effect::Settle { settlement, urgent } => self.settle(root, stream, &settlement, urgent),
            Effect::AccessLog(word) => {
                done(self.proxy.set_property("twilio_edge.verdict", word.as_bytes()))
            }
            Effect::Count(counter) => self.count(counter),
            Effect::Warn(line) => {
                if self.root(root)?.refusals.admits() {
                    self.proxy.write_log(3, line);
                }
                Ok(())
            }
            Effect::Report(request) => self.report_refusal(root, *request),
        }
    }

    fn count(&mut self, counter: Counter) -> Result<()> {
        let metric = self.proxy.define_metric(0, &counter.name());
        done(self.proxy.increment_metric(metric, 1))
    }

    fn record_time(&mut self, root: u32) {
        let now_ms = self.proxy.wall_clock_ms();
        if let Some(root) = self.roots.get_mut(&root) {
            root.callouts.record_time(now_ms);
        }
    }

    fn tick(&mut self, root: u32) -> Result<()> {
        self.record_time(root);
        let now_ms = self.proxy.wall_clock_ms();
        self.root(root)?.recent.record_time(now_ms);
        let waiting = self
            .requests
            .iter()
            .filter(|(_, request)| request.root == root && request.exchange.borrow().waits());
        for stream in waiting.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.apply(stream, Event::Tick { now_ms })?;
        }
        self.send(root, Occasion::Tick)?;
        self.request_keys(root)?;
        self.send_report(root)?;
        if let Some(suppressed) = self.root(root)?.refusals.refill(now_ms) {
            self.proxy.write_log(3, suppressed_refusals(suppressed));
        }
        let state = self.root(root)?;
        if state.is_leaving && state.callouts.settlements() == 0 {
            state.is_leaving = false;
            done(self.proxy.set_effective_context(root))?;
            done(self.proxy.done())?;
        }
        Ok(())
    }
}

/// Returns an error for a status at which the SDK would panic.
fn done<T>(answer: Result<T, Status>) -> Result<T> {
    answer.map_err(|status| anyhow!("a host call gave {status:?}"))
}

fn action(holds: bool) -> u32 {
    match if holds { Action::Pause } else { Action::Continue } {
        Action::Continue => 0,
        Action::Pause => 1,
    }
}

fn read_head(pairs: Pairs) -> Head {
    let mut head = Head::default();
    for (name, value) in pairs {
        if headers::is_reserved(name.as_bytes()) {
            head.forged.push(name);
            continue;
        }
        let once = match name.as_str() {
            ":method" => {
                head.method = value;
                continue;
            }
            ":path" => {
                head.target = value;
                continue;
            }
            "content-length" => {
                head.content_length =
                    std::str::from_utf8(&value).ok().and_then(|it| it.parse().ok());
                continue;
            }
            "x-request-id" => {
                head.request_id = Some(value);
                continue;
            }
            "traceparent" => {
                head.traceparent = Some(value);
                continue;
            }
            "i-twilio-idempotency-token" => {
                head.idempotency_token = Some(value);
                continue;
            }
            "content-type" => &mut head.content_type,
            "content-encoding" => {
                head.add_content_encoding(&value);
                continue;
            }
            "x-twilio-signature" => &mut head.signature,
            "x-twilio-webhooks-signature-settings" => &mut head.signature_settings,
            _ if is_override(name.as_bytes()) => {
                head.overrides.push((name, value));
                continue;
            }
            _ => continue,
        };
        head.ambiguous |= once.replace(value).is_some();
    }
    head
}
