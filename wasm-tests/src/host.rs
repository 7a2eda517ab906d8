//! A proxy-wasm host that imitates Envoy. It is used for situations that the real Envoy cannot be forced into, such as a
//! reply that comes a millisecond after its stream has ended, and for thousands of unusual histories.
//!
//! It behaves as observed with Envoy 1.36 to 1.40, with `allow_on_headers_stop_iteration` on:
//!
//! - Header maps are null after a message was forwarded.
//! - A paused body is reported cumulatively, and Continue from a body releases the held headers.
//! - A request with trailers never reports that its body has ended.
//! - Callouts belong to the root context and outlive the stream. A reply may have no headers at all.
//! - on_log comes before on_done.
//!
//! A filter that violates the rules gets the status that Envoy gives, at which the SDK panics. Behaviour that makes Envoy
//! crash or hang is recorded in [`Proxy::violations`].
//!
//! [`stream`] is one stream, [`proxy`] is the state that host calls act on, [`Host`] determines the order of callbacks, and
//! [`vm`] is the compiled module. [`Host`] drives any [`Filter`], so the native build can replace the module.

mod calls;
mod filter;
mod guest;
mod proxy;
mod stream;
mod vm;
mod wasi;

pub use self::filter::{Action, Callback, Cost, Filter};
pub use self::proxy::{Answer, BufferKind, Callout, Cluster, MapKind, Pairs, Proxy, Reply, Status};
pub use self::stream::{HttpMessage, Stream};
pub use self::vm::Compiled;

use anyhow::{Context, Result, ensure};

use self::proxy::Deferred;

/// Drives a filter as Envoy's filter manager does, on one worker.
pub struct Host<F> {
    filter: F,
    /// Roots in the order of their configuration; the last one gets new streams.
    roots: Vec<u32>,
}

impl<F: Filter> Host<F> {
    /// Creates a host for a filter that has not been called yet.
    pub fn new(filter: F) -> Self {
        Self { filter, roots: Vec::new() }
    }

    /// Returns the state that host calls act on.
    pub fn proxy(&mut self) -> &mut Proxy {
        self.filter.proxy()
    }

    /// Returns the memory that the filter uses, in bytes.
    pub fn memory_bytes(&mut self) -> Option<usize> {
        self.filter.memory_bytes()
    }

    /// Returns the instructions and host calls that the filter has used so far.
    pub fn cost(&mut self) -> Option<Cost> {
        self.filter.cost()
    }

    /// Adds a plugin configuration, at the start or as a push: a new root context is created beside the existing ones.
    /// Returns whether the filter accepted it; new streams belong to it then.
    pub fn configure(&mut self, json: &str) -> Result<bool> {
        let root = self.proxy().add_root(json.as_bytes());
        self.call(Callback::Create { context: root, root: 0 })?;
        if self.roots.is_empty() {
            ensure!(self.call(Callback::VmStart { root })? != 0, "the VM did not start");
        }
        let bytes = json.len();
        let accepted = self.call(Callback::Configure { root, bytes })? != 0;
        self.proxy().configured();
        if accepted {
            self.roots.push(root);
        }
        Ok(accepted)
    }

    /// Drains the oldest configuration, whose streams have ended. Its root is removed, with the callouts it owns:
    /// immediately, or, if it asks to stay, when it reports that it is done.
    pub fn retire(&mut self) -> Result<()> {
        ensure!(self.roots.len() > 1, "the only configuration is never drained");
        let root = self.roots.remove(0);
        match self.call(Callback::Done { context: root })? {
            0 => {
                self.proxy().await_done(root);
                Ok(())
            }
            _ => self.delete_root(root),
        }
    }

    /// Stops Envoy: roots that ask to stay are removed all the same. Streams have ended by then.
    pub fn shut_down(&mut self) -> Result<()> {
        for root in std::mem::take(&mut self.roots) {
            self.call(Callback::Done { context: root })?;
        }
        for root in self.proxy().roots() {
            self.delete_root(root)?;
        }
        Ok(())
    }

    fn delete_root(&mut self, root: u32) -> Result<()> {
        self.call(Callback::Delete { context: root })?;
        self.proxy().remove_root(root);
        Ok(())
    }

    /// Starts a request. Returns the stream's number.
    pub fn request(&mut self, headers: Pairs, ends: bool) -> Result<u32> {
        let root = *self.roots.last().context("no configuration was accepted")?;
        let stream = self.proxy().add_stream(root);
        self.call(Callback::Create { context: stream, root })?;
        let count = headers.len();
        self.stream(stream).request.offer_headers(headers, ends);
        let callback = Callback::RequestHeaders { stream, count, ends };
        self.pass_request(stream, callback)?;
        Ok(stream)
    }

    /// Delivers a part of a request's body.
    pub fn request_body(&mut self, stream: u32, part: &[u8], ends: bool) -> Result<()> {
        if !self.stream(stream).takes_request() {
            return Ok(());
        }
        let bytes = self.stream(stream).request.offer_body(part, ends);
        self.pass_request(stream, Callback::RequestBody { stream, bytes, ends })
    }

    /// Delivers a request's trailers, which end it.
    pub fn request_trailers(&mut self, stream: u32, trailers: Pairs) -> Result<()> {
        if !self.stream(stream).takes_request() {
            return Ok(());
        }
        let count = trailers.len();
        self.stream(stream).request.offer_trailers(trailers);
        self.pass_request(stream, Callback::RequestTrailers { stream, count })
    }

    /// Starts a request that the connection manager refuses as malformed: the filter only sees it when it is logged.
    pub fn broken_request(&mut self) -> Result<u32> {
        let root = *self.roots.last().context("no configuration was accepted")?;
        let stream = self.proxy().add_stream(root);
        self.call(Callback::Create { context: stream, root })?;
        self.finish(stream)?;
        Ok(stream)
    }

    /// Starts the backend's response. Only a backend that has the request can answer it.
    pub fn response(&mut self, stream: u32, headers: Pairs, ends: bool) -> Result<()> {
        if !self.stream(stream).takes_response() {
            return Ok(());
        }
        self.begin_response(stream, b"via_upstream", headers, ends)
    }

    /// Delivers a part of the response's body.
    pub fn response_body(&mut self, stream: u32, part: &[u8], ends: bool) -> Result<()> {
        if !self.stream(stream).continues_response() {
            return Ok(());
        }
        let bytes = self.stream(stream).response.offer_body(part, ends);
        self.pass_response(stream, Callback::ResponseBody { stream, bytes, ends })
    }

    /// Delivers the response's trailers, which end it.
    pub fn response_trailers(&mut self, stream: u32, trailers: Pairs) -> Result<()> {
        if !self.stream(stream).continues_response() {
            return Ok(());
        }
        let count = trailers.len();
        self.stream(stream).response.offer_trailers(trailers);
        self.pass_response(stream, Callback::ResponseTrailers { stream, count })
    }

    /// Answers by Envoy itself: a timeout, a reset upstream, a limit. `details` are `response.code_details`.
    pub fn own_response(&mut self, stream: u32, status: u16, details: &str) -> Result<()> {
        if !self.stream(stream).takes_own_response() {
            return Ok(());
        }
        self.stream(stream).close_request();
        let headers = vec![
            (":status".to_owned(), status.to_string().into_bytes()),
            ("content-type".to_owned(), b"text/plain".to_vec()),
        ];
        self.begin_response(stream, details.as_bytes(), headers, false)?;
        self.response_body(stream, details.as_bytes(), true)
    }

    /// Breaks the backend's connection. Before its response Envoy answers instead; during its response the client's stream
    /// breaks too.
    pub fn reset_by_backend(&mut self, stream: u32) -> Result<()> {
        if self.stream(stream).takes_response() {
            let details = "upstream_reset_before_response_started{connection_termination}";
            return self.own_response(stream, 503, details);
        }
        match self.stream(stream).continues_response() {
            true => self.finish(stream),
            false => Ok(()),
        }
    }

    /// Disconnects the client.
    pub fn client_gone(&mut self, stream: u32) -> Result<()> {
        match self.stream(stream).is_over() {
            true => Ok(()),
            false => self.finish(stream),
        }
    }

    /// Delivers a reply to a callout. Returns false if it is too late: its root was removed, or the callout has timed out.
    pub fn reply(&mut self, token: u32, reply: Reply) -> Result<bool> {
        let Some(callout) = self.proxy().take_callout(token) else { return Ok(false) };
        let (headers, bytes) = (reply.headers.len(), reply.body.len());
        self.proxy().begin_reply(reply);
        self.call(Callback::CallResponse { root: callout.root, token, headers, bytes })?;
        self.proxy().end_reply();
        Ok(true)
    }

    /// Wakes the roots for which a queue was filled, as the event loop does once the present callback is over.
    pub fn wake(&mut self) -> Result<()> {
        while let Some((root, queue)) = self.proxy().next_wake() {
            self.call(Callback::QueueReady { root, queue })?;
        }
        Ok(())
    }

    /// Returns the time of the next timer: a tick, or the timeout of a callout.
    pub fn next_ms(&mut self) -> Option<u64> {
        self.proxy().next_ms()
    }

    /// Sets the clock to `now_ms` and runs the timers that are due.
    pub fn turn_to(&mut self, now_ms: u64) -> Result<()> {
        self.proxy().set_clock(now_ms);
        while let Some(token) = self.proxy().overdue_callout() {
            self.reply(token, Reply::made_by_envoy(504, "upstream request timeout"))?;
        }
        while let Some(root) = self.proxy().due_tick() {
            self.call(Callback::Tick { root })?;
        }
        Ok(())
    }

    fn stream(&mut self, stream: u32) -> &mut Stream {
        self.proxy().stream(stream)
    }

    fn call(&mut self, callback: Callback) -> Result<u32> {
        let answer = self.call_only(callback)?;
        self.do_deferred()?;
        while let Some(root) = self.proxy().next_done() {
            self.delete_root(root)?;
        }
        Ok(answer)
    }

    /// Calls the filter without the work that the host does after a callback.
    fn call_only(&mut self, callback: Callback) -> Result<u32> {
        self.proxy().focus(callback.context());
        let answer = self.filter.call(callback).with_context(|| format!("{callback:?}"));
        answer.with_context(|| format!("the filter's log:\n{}", self.proxy().log_tail()))
    }

    fn pass_request(&mut self, stream: u32, callback: Callback) -> Result<()> {
        let action = action(self.call_only(callback)?);
        // A stream that is answered is not decoded further, with any return value of the filter.
        if !self.proxy().is_answering(stream) {
            self.let_go(stream, action, |it| &mut it.request);
        }
        self.do_deferred()
    }

    fn begin_response(
        &mut self,
        id: u32,
        details: &[u8],
        headers: Pairs,
        ends: bool,
    ) -> Result<()> {
        let count = headers.len();
        let stream = self.stream(id);
        stream.begin_response(details);
        stream.response.offer_headers(headers, ends);
        self.pass_response(id, Callback::ResponseHeaders { stream: id, count, ends })
    }

    fn pass_response(&mut self, stream: u32, callback: Callback) -> Result<()> {
        let action = action(self.call_only(callback)?);
        self.let_go(stream, action, |it| &mut it.response);
        self.do_deferred()?;
        self.finish_if_answered(stream)
    }

    fn let_go(&mut self, stream: u32, action: Action, flow: fn(&mut Stream) -> &mut stream::Flow) {
        let moment = self.proxy().moment();
        let flow = flow(self.stream(stream));
        match action {
            Action::Continue => flow.pass(moment),
            Action::Pause => flow.hold(),
        }
    }

    fn finish_if_answered(&mut self, stream: u32) -> Result<()> {
        let stream_ends = self.stream(stream).is_answered() && !self.stream(stream).is_over();
        if stream_ends { self.finish(stream) } else { Ok(()) }
    }

    fn finish(&mut self, context: u32) -> Result<()> {
        self.stream(context).begin_log();
        self.call(Callback::Log { context })?;
        self.stream(context).end_log();
        self.call(Callback::Done { context })?;
        self.call(Callback::Delete { context })?;
        self.stream(context).close();
        Ok(())
    }

    /// Carries out what the filter requested during a callback, after that callback.
    fn do_deferred(&mut self) -> Result<()> {
        while let Some((id, deferred)) = self.proxy().next_deferred() {
            if self.stream(id).is_ending() {
                continue;
            }
            match deferred {
                Deferred::ResumeRequest => self.resume(id, |it| &mut it.request)?,
                Deferred::ResumeResponse => {
                    self.resume(id, |it| &mut it.response)?;
                    self.finish_if_answered(id)?;
                }
                Deferred::Answer { headers, body } => self.answer(id, headers, &body)?,
            }
        }
        Ok(())
    }

    fn resume(&mut self, id: u32, flow: fn(&mut Stream) -> &mut stream::Flow) -> Result<()> {
        let moment = self.proxy().moment();
        let stream = self.stream(id);
        let can = flow(stream).is_held();
        if can {
            flow(stream).pass(moment);
        } else {
            self.proxy().offend("resumed what was not paused");
        }
        Ok(())
    }

    fn answer(&mut self, id: u32, headers: Pairs, body: &[u8]) -> Result<()> {
        let stream = self.stream(id);
        if stream.has_response() {
            self.proxy().offend("answered a request that had a response already");
            return Ok(());
        }
        if stream.request.passed().is_some() {
            self.proxy().offend("answered a request that the backend had already");
        }
        self.stream(id).close_request();
        self.begin_response(id, b"", headers, body.is_empty())?;
        if body.is_empty() { Ok(()) } else { self.response_body(id, body, true) }
    }
}

fn action(answer: u32) -> Action {
    if answer == 0 { Action::Continue } else { Action::Pause }
}

#[cfg(test)]
mod tests;
