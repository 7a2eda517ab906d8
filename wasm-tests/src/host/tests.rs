//! Tests that the host rejects what Envoy rejects: otherwise a filter with such errors would pass every scenario.

use anyhow::Result;

use super::*;

/// A filter that does one thing in each callback, and records its arguments.
struct Scripted {
    proxy: Proxy,
    acts: fn(&mut Proxy, Callback) -> Action,
    callbacks: Vec<Callback>,
}

impl Filter for Scripted {
    fn proxy(&mut self) -> &mut Proxy {
        &mut self.proxy
    }

    fn call(&mut self, callback: Callback) -> Result<u32> {
        self.callbacks.push(callback);
        Ok(match callback {
            Callback::VmStart { .. } | Callback::Configure { .. } => 1,
            callback => u32::from((self.acts)(&mut self.proxy, callback) == Action::Pause),
        })
    }

    fn cost(&mut self) -> Option<Cost> {
        None
    }

    fn memory_bytes(&mut self) -> Option<usize> {
        None
    }
}

fn host(acts: fn(&mut Proxy, Callback) -> Action) -> Host<Scripted> {
    let proxy = Proxy::new(&[], &[("sidecar", Cluster::Up)]);
    let mut host = Host::new(Scripted { proxy, acts, callbacks: Vec::new() });
    assert!(host.configure("{}").unwrap());
    host
}

fn lines(pairs: &[(&str, &str)]) -> Pairs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

fn post() -> Pairs {
    lines(&[(":method", "POST"), (":path", "/")])
}

fn ok() -> Pairs {
    lines(&[(":status", "200")])
}

#[test]
fn paused_body_is_reported_as_a_whole_and_continue_releases_the_headers() {
    let mut host = host(|_, callback| match callback {
        Callback::RequestBody { ends: true, .. } => Action::Continue,
        _ => Action::Pause,
    });
    let stream = host.request(post(), false).unwrap();
    host.request_body(stream, b"one", false).unwrap();
    host.request_body(stream, b"two", false).unwrap();
    assert!(host.proxy().stream(stream).to_backend().is_none());
    host.request_body(stream, b"", true).unwrap();
    let sizes = host.filter.callbacks.iter().filter_map(|callback| match callback {
        Callback::RequestBody { bytes, .. } => Some(*bytes),
        _ => None,
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [3, 6, 6]);
    let backend = host.proxy().stream(stream).to_backend().unwrap();
    assert_eq!((backend.body.as_slice(), backend.ended), (&b"onetwo"[..], true));
}

#[test]
fn trailers_end_a_request_without_end_of_stream() {
    let mut host = host(|_, callback| match callback {
        Callback::RequestTrailers { .. } => Action::Continue,
        _ => Action::Pause,
    });
    let stream = host.request(post(), false).unwrap();
    host.request_body(stream, b"one", false).unwrap();
    host.request_trailers(stream, lines(&[("x-checksum", "1")])).unwrap();
    let backend = host.proxy().stream(stream).to_backend().unwrap();
    assert!(backend.ended && backend.trailers.len() == 1);
}

#[test]
fn maps_are_null_after_a_message_was_released() {
    let mut host = host(|proxy, callback| match callback {
        Callback::RequestHeaders { .. } => {
            assert!(proxy.map(MapKind::RequestHeaders).is_ok());
            proxy.resume_request();
            assert_eq!(proxy.map(MapKind::RequestHeaders), Err(Status::BadArgument));
            Action::Pause
        }
        Callback::RequestBody { .. } | Callback::ResponseHeaders { .. } | Callback::Done { .. } => {
            assert_eq!(proxy.map(MapKind::RequestHeaders), Err(Status::BadArgument));
            Action::Continue
        }
        Callback::Log { .. } => {
            assert!(proxy.map(MapKind::RequestHeaders).is_ok(), "an access log is shown them");
            let change = proxy.add_map_value(MapKind::RequestHeaders, "x", b"1");
            assert_eq!(change, Err(Status::BadArgument));
            Action::Continue
        }
        _ => Action::Continue,
    });
    let stream = host.request(post(), false).unwrap();
    host.request_body(stream, b"one", true).unwrap();
    host.response(stream, ok(), true).unwrap();
    assert!(host.proxy().stream(stream).is_over());
    assert!(host.proxy().violations().is_empty());
}

#[test]
fn stream_is_logged_before_it_is_done() {
    let mut host = host(|_, _| Action::Continue);
    let context = host.request(post(), true).unwrap();
    host.response(context, ok(), true).unwrap();
    let callbacks = &host.filter.callbacks;
    let end = [Callback::Log { context }, Callback::Done { context }, Callback::Delete { context }];
    assert_eq!(callbacks[callbacks.len() - 3..], end);
}

#[test]
fn host_refuses_a_second_answer_and_a_second_resume() {
    let mut twice = host(|proxy, callback| {
        if let Callback::RequestHeaders { .. } = callback {
            proxy.send_local_response(403, Vec::new(), b"");
            proxy.send_local_response(403, Vec::new(), b"");
        }
        Action::Pause
    });
    twice.request(post(), true).unwrap();
    assert_eq!(twice.proxy().violations().len(), 1);
    let mut flowing = host(|proxy, callback| {
        if let Callback::RequestHeaders { .. } = callback {
            proxy.resume_request();
        }
        Action::Continue
    });
    flowing.request(post(), true).unwrap();
    assert_eq!(flowing.proxy().violations().len(), 1);
    let mut late = host(|proxy, callback| {
        if let Callback::ResponseHeaders { .. } = callback {
            proxy.send_local_response(403, Vec::new(), b"");
        }
        Action::Continue
    });
    let stream = late.request(post(), true).unwrap();
    late.response(stream, ok(), false).unwrap();
    assert!(!late.proxy().violations().is_empty());
}

#[test]
fn response_is_held_only_while_its_body_is_held_too() {
    let mut host = host(|_, callback| match callback {
        Callback::ResponseHeaders { .. } => Action::Pause,
        _ => Action::Continue,
    });
    let stream = host.request(post(), true).unwrap();
    host.response(stream, ok(), false).unwrap();
    assert!(host.proxy().stream(stream).to_client().is_none());
    host.response_body(stream, b"one", false).unwrap();
    assert!(host.proxy().stream(stream).to_client().is_some());
}

#[test]
fn reply_outlives_its_stream_and_may_have_no_headers() {
    let mut host = host(|proxy, callback| match callback {
        Callback::RequestHeaders { .. } => {
            let headers = lines(&[(":method", "POST"), (":path", "/"), (":authority", "sidecar")]);
            assert_eq!(proxy.call("unknown", headers.clone(), b"", 100), Err(Status::BadArgument));
            assert!(proxy.call("sidecar", headers, b"", 100).is_ok());
            Action::Pause
        }
        Callback::CallResponse { headers, .. } => {
            let map = proxy.map(MapKind::CallResponseHeaders);
            assert_eq!(map.is_ok(), headers > 0);
            Action::Continue
        }
        _ => Action::Continue,
    });
    for reply in [Reply::default(), Reply::made_by_envoy(503, "no")] {
        let stream = host.request(post(), true).unwrap();
        host.client_gone(stream).unwrap();
        let token = host.proxy().callouts().next().unwrap().token;
        assert!(host.reply(token, reply).unwrap());
        assert!(matches!(host.filter.callbacks.last(), Some(Callback::CallResponse { .. })));
        assert_eq!(host.proxy().set_effective_context(stream), Err(Status::BadArgument));
    }
    host.request(post(), true).unwrap();
    host.turn_to(99).unwrap();
    assert_eq!(host.proxy().callouts().count(), 1);
    host.turn_to(100).unwrap();
    assert_eq!(host.proxy().callouts().count(), 0, "Envoy gives up waiting, and says 504");
}
