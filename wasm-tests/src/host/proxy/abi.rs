//! The host calls. Every call answers with the status that Envoy answers with; the SDK panics on most that are not Ok, and
//! so traps.

use std::collections::VecDeque;

use super::super::stream::Stream;
use super::{
    Answer, BufferKind, Callout, Cluster, Deferred, MOST_LINES, MOST_PAIR_BYTES, MOST_PAIRS,
    MapKind, Metric, Pairs, Proxy, Queue, Status, Ticking, find,
};

impl Proxy {
    /// `proxy_log`
    pub fn write_log(&mut self, level: u32, line: String) {
        if self.log.len() < MOST_LINES {
            self.log.push((level, line));
        }
    }

    /// `proxy_set_tick_period_milliseconds`
    pub fn set_tick_period(&mut self, period_ms: u64) {
        let root = self.owner();
        self.ticking.remove(&root);
        if period_ms > 0 {
            let next_ms = self.clock_ms + period_ms;
            self.ticking.insert(root, Ticking { period_ms, next_ms });
        }
    }

    /// `proxy_done`: refused for a root that did not ask to stay.
    pub fn done(&mut self) -> Answer<()> {
        let root = self.owner();
        if !self.staying.remove(&root) {
            return Err(Status::NotFound);
        }
        self.done.push(root);
        Ok(())
    }

    /// `proxy_set_effective_context`
    pub fn set_effective_context(&mut self, context: u32) -> Answer<()> {
        let exists = self.roots.contains(&context)
            || self.streams.get(&context).is_some_and(|stream| !stream.is_over());
        if !exists {
            return Err(Status::BadArgument);
        }
        self.effective = context;
        Ok(())
    }

    /// `proxy_get_header_map_pairs`. In on_log headers can be read once more.
    pub fn map(&mut self, kind: MapKind) -> Answer<Pairs> {
        let log_headers = self.focused().map(|stream| stream.log_headers.clone());
        if let Some([request, response]) = log_headers {
            match (kind, request, response) {
                (MapKind::RequestHeaders, Some(headers), _)
                | (MapKind::ResponseHeaders, _, Some(headers)) => return Ok(headers),
                _ => {}
            }
        }
        self.map_mut(kind).cloned()
    }

    /// Null maps are a bad argument.
    fn map_mut(&mut self, kind: MapKind) -> Answer<&mut Pairs> {
        match kind {
            MapKind::CallResponseHeaders => {
                // A reply that broke off has no map, not an empty one.
                let headers = self.reply.as_mut().map(|reply| &mut reply.headers);
                headers.filter(|headers| !headers.is_empty())
            }
            MapKind::CallResponseTrailers => None,
            MapKind::RequestHeaders => self.focused().and_then(|it| it.request.headers()),
            MapKind::RequestTrailers => self.focused().and_then(|it| it.request.trailers()),
            MapKind::ResponseHeaders => self.focused().and_then(|it| it.response.headers()),
            MapKind::ResponseTrailers => self.focused().and_then(|it| it.response.trailers()),
        }
        .ok_or(Status::BadArgument)
    }

    /// `proxy_get_header_map_value`: the first of several.
    pub fn map_value(&mut self, kind: MapKind, name: &str) -> Answer<Vec<u8>> {
        let map = self.map(kind)?;
        find(&map, &name.to_ascii_lowercase()).map(<[u8]>::to_vec).ok_or(Status::NotFound)
    }

    /// `proxy_set_header_map_pairs`
    pub fn set_map(&mut self, kind: MapKind, pairs: Pairs) -> Answer<()> {
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if pairs.len() > MOST_PAIRS || bytes > MOST_PAIR_BYTES {
            return Err(Status::BadArgument);
        }
        self.check(&pairs);
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        *self.map_mut(kind)? = pairs.collect();
        Ok(())
    }

    /// `proxy_remove_header_map_value`: all of several.
    pub fn remove_map_value(&mut self, kind: MapKind, name: &str) -> Answer<()> {
        self.map_mut(kind)?.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        Ok(())
    }

    /// `proxy_add_header_map_value`
    pub fn add_map_value(&mut self, kind: MapKind, name: &str, value: &[u8]) -> Answer<()> {
        let pair = (name.to_ascii_lowercase(), value.to_vec());
        self.check(std::slice::from_ref(&pair));
        self.map_mut(kind)?.push(pair);
        Ok(())
    }

    /// `proxy_replace_header_map_value`: one value instead of all existing ones.
    pub fn replace_map_value(&mut self, kind: MapKind, name: &str, value: &[u8]) -> Answer<()> {
        self.remove_map_value(kind, name)?;
        self.add_map_value(kind, name, value)
    }

    /// `proxy_get_buffer_bytes`. A missing buffer is NotFound; bytes beyond its end are left out.
    pub fn buffer(&mut self, kind: BufferKind, start: usize, max_bytes: usize) -> Answer<Vec<u8>> {
        let buffer = match kind {
            BufferKind::RequestBody => self.focused().and_then(|it| it.request.body()).cloned(),
            BufferKind::ResponseBody => self.focused().and_then(|it| it.response.body()).cloned(),
            BufferKind::CallResponseBody => self.reply.as_ref().map(|reply| reply.body.clone()),
            BufferKind::PluginConfiguration => self.configuration.clone(),
        };
        let buffer = buffer.ok_or(Status::NotFound)?;
        let end = start.saturating_add(max_bytes).min(buffer.len());
        Ok(buffer.get(start..end).unwrap_or_default().to_vec())
    }

    /// `proxy_set_buffer_bytes`: replaces part of a body. The filter must set the content length.
    pub fn set_buffer(
        &mut self,
        kind: BufferKind,
        start: usize,
        length: usize,
        bytes: &[u8],
    ) -> Answer<()> {
        let buffer = match kind {
            BufferKind::RequestBody => self.focused().and_then(|it| it.request.body()),
            BufferKind::ResponseBody => self.focused().and_then(|it| it.response.body()),
            BufferKind::CallResponseBody | BufferKind::PluginConfiguration => None,
        };
        let buffer = buffer.ok_or(Status::NotFound)?;
        let start = start.min(buffer.len());
        let end = start.saturating_add(length).min(buffer.len());
        buffer.splice(start..end, bytes.iter().copied());
        Ok(())
    }

    /// `proxy_get_property`. Provides only the properties on which the filter may rely.
    pub fn property(&mut self, path: &[&str]) -> Answer<Vec<u8>> {
        let stream = self.focused().ok_or(Status::NotFound)?;
        match path {
            ["response", "code_details"] => {
                stream.code_details().map(<[u8]>::to_vec).ok_or(Status::NotFound)
            }
            _ => Err(Status::NotFound),
        }
    }

    /// `proxy_set_property`: filter state of the stream; NotFound without a stream.
    pub fn set_property(&mut self, name: &str, value: &[u8]) -> Answer<()> {
        let stream = self.focused().ok_or(Status::NotFound)?;
        stream.set_filter_state(format!("wasm.{name}"), value.to_vec());
        Ok(())
    }

    /// `proxy_continue_stream` of the request. It has no effect without a stream. Request maps are null from now on.
    pub fn resume_request(&mut self) {
        self.resume(Deferred::ResumeRequest);
    }

    /// `proxy_continue_stream` of the response. It, too, makes the request's maps null.
    pub fn resume_response(&mut self) {
        self.resume(Deferred::ResumeResponse);
    }

    fn resume(&mut self, what: Deferred) {
        let id = self.effective;
        if let Some(stream) = self.focused() {
            stream.request.hide();
            self.deferred.push_back((id, what));
        }
    }

    /// `proxy_send_local_response`. Without a stream in focus it is lost, but still returns Ok.
    pub fn send_local_response(&mut self, status: u32, headers: Pairs, body: &[u8]) {
        self.check(&headers);
        let id = self.effective;
        if self.focused().is_none() {
            return self.offend("answered without a stream in focus");
        }
        if self.is_answering(id) {
            return self.offend("answered twice");
        }
        let mut all = vec![(":status".to_owned(), status.to_string().into_bytes())];
        all.extend(headers);
        if !body.is_empty() {
            all.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
        }
        self.deferred.push_back((id, Deferred::Answer { headers: all, body: body.to_vec() }));
    }

    /// `proxy_http_call`
    pub fn call(
        &mut self,
        cluster: &str,
        headers: Pairs,
        body: &[u8],
        timeout_ms: u64,
    ) -> Answer<u32> {
        let complete =
            [":method", ":path", ":authority"].iter().all(|name| find(&headers, name).is_some());
        match self.clusters.get(cluster) {
            Some(_) if !complete => return Err(Status::BadArgument),
            None => return Err(Status::BadArgument),
            Some(Cluster::NoEndpoint) => return Err(Status::InternalFailure),
            Some(Cluster::Up) => {}
        }
        self.check(&headers);
        self.tokens += 1;
        let callout = Callout {
            token: self.tokens,
            root: self.owner(),
            headers,
            body: body.to_vec(),
            deadline_ms: (timeout_ms > 0).then(|| self.clock_ms + timeout_ms),
        };
        self.callouts.insert(self.tokens, callout);
        Ok(self.tokens)
    }

    /// `proxy_register_shared_queue`: one queue per name; its events go to the root that registered it last.
    pub fn register_queue(&mut self, name: &[u8]) -> u32 {
        let root = self.owner();
        let at = self.queues.iter().position(|queue| queue.name == name).unwrap_or_else(|| {
            self.queues.push(Queue { name: name.to_vec(), root, items: VecDeque::new() });
            self.queues.len() - 1
        });
        if let Some(queue) = self.queues.get_mut(at) {
            queue.root = root;
        }
        u32::try_from(at + 1).unwrap_or_default()
    }

    /// `proxy_enqueue_shared_queue`
    pub fn enqueue(&mut self, queue: u32, item: &[u8]) -> Answer<()> {
        let found = self.queue(queue).ok_or(Status::NotFound)?;
        found.items.push_back(item.to_vec());
        let root = found.root;
        if self.roots.contains(&root) {
            self.wakes.push_back((root, queue));
        }
        Ok(())
    }

    /// `proxy_dequeue_shared_queue`
    pub fn dequeue(&mut self, queue: u32) -> Answer<Vec<u8>> {
        self.queue(queue).ok_or(Status::NotFound)?.items.pop_front().ok_or(Status::Empty)
    }

    /// `proxy_define_metric`: the same name is the same metric for every context.
    pub fn define_metric(&mut self, kind: u32, name: &str) -> u32 {
        let at = self.metrics.iter().position(|metric| metric.name == name).unwrap_or_else(|| {
            self.metrics.push(Metric { kind, name: name.to_owned(), value: 0 });
            self.metrics.len() - 1
        });
        u32::try_from(at).unwrap_or_default()
    }

    /// `proxy_increment_metric`: counters only rise, histograms have nothing to add to.
    pub fn increment_metric(&mut self, metric: u32, by: i64) -> Answer<()> {
        let metric = self.metric_mut(metric)?;
        match (metric.kind, by) {
            (0, 1..) | (1, _) => metric.value = metric.value.saturating_add_signed(by),
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }

    /// `proxy_record_metric`
    pub fn record_metric(&mut self, metric: u32, value: u64) -> Answer<()> {
        self.metric_mut(metric)?.value = value;
        Ok(())
    }

    /// `proxy_get_metric`
    pub fn metric_value(&mut self, metric: u32) -> Answer<u64> {
        self.metric_mut(metric).map(|metric| metric.value)
    }

    fn metric_mut(&mut self, metric: u32) -> Answer<&mut Metric> {
        let at = usize::try_from(metric).map_err(|_| Status::NotFound)?;
        self.metrics.get_mut(at).ok_or(Status::NotFound)
    }

    fn queue(&mut self, queue: u32) -> Option<&mut Queue> {
        let at = usize::try_from(queue).ok()?.checked_sub(1)?;
        self.queues.get_mut(at)
    }

    /// Returns the stream that host calls act on; `None` if that is a root, or a stream that has ended.
    fn focused(&mut self) -> Option<&mut Stream> {
        self.streams.get_mut(&self.effective).filter(|stream| !stream.is_over())
    }

    /// Returns the root of the context in focus.
    fn owner(&self) -> u32 {
        self.streams.get(&self.effective).map_or(self.effective, |stream| stream.root)
    }

    /// Records headers that a codec refuses, or at which it splits the message.
    fn check(&mut self, pairs: &[(String, Vec<u8>)]) {
        let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
        for (name, value) in pairs {
            if name.is_empty() || name.bytes().any(|it| breaks(&it)) || value.iter().any(breaks) {
                self.offend("handed over a header that breaks the message");
            }
        }
    }
}
