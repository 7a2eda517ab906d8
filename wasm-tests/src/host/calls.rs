//! The ABI's host calls (proxy-wasm 0.2.1), by their names, between a guest's memory and [`Proxy`]. Decides nothing.

use anyhow::Result;
use wasmi::{Caller, Linker};

use super::guest::{Guest, encode};
use super::proxy::{Answer, BufferKind, MapKind, Proxy, Status};

/// Distinguishes an invalid pointer from a call that Envoy refuses.
fn code(status: Result<Status>) -> u32 {
    status.unwrap_or(Status::InvalidMemoryAccess) as u32
}

fn of(answer: Answer<()>) -> Status {
    answer.err().unwrap_or(Status::Ok)
}

fn map_kind(number: u32) -> Answer<MapKind> {
    match number {
        0 => Ok(MapKind::RequestHeaders),
        1 => Ok(MapKind::RequestTrailers),
        2 => Ok(MapKind::ResponseHeaders),
        3 => Ok(MapKind::ResponseTrailers),
        6 => Ok(MapKind::CallResponseHeaders),
        7 => Ok(MapKind::CallResponseTrailers),
        _ => Err(Status::BadArgument),
    }
}

fn buffer_kind(number: u32) -> Answer<BufferKind> {
    match number {
        0 => Ok(BufferKind::RequestBody),
        1 => Ok(BufferKind::ResponseBody),
        4 => Ok(BufferKind::CallResponseBody),
        7 => Ok(BufferKind::PluginConfiguration),
        _ => Err(Status::NotFound),
    }
}

pub(super) fn link(linker: &mut Linker<Proxy>) -> Result<()> {
    link_maps(linker)?;
    link_streams(linker)?;
    link_metrics(linker)?;
    link_queues(linker)?;
    linker.func_wrap("env", "proxy_log", |caller: Caller<'_, Proxy>, level, text, length| {
        let mut guest = Guest::new(caller);
        code(guest.text(text, length).map(|line| {
            guest.proxy().write_log(level, line);
            Status::Ok
        }))
    })?;
    linker.func_wrap("env", "proxy_get_log_level", |caller: Caller<'_, Proxy>, to: u32| {
        let mut guest = Guest::new(caller);
        code(guest.put_u32(to, 0).map(|()| Status::Ok))
    })?;
    linker.func_wrap(
        "env",
        "proxy_get_current_time_nanoseconds",
        |caller: Caller<'_, Proxy>, to: u32| {
            let mut guest = Guest::new(caller);
            let nanoseconds = guest.proxy().wall_clock_ms() * 1_000_000;
            code(guest.put(to, &nanoseconds.to_le_bytes()).map(|()| Status::Ok))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_tick_period_milliseconds",
        |mut caller: Caller<'_, Proxy>, period: u32| {
            caller.data_mut().called().set_tick_period(period.into());
            Status::Ok as u32
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_effective_context",
        |mut caller: Caller<'_, Proxy>, context: u32| {
            of(caller.data_mut().called().set_effective_context(context)) as u32
        },
    )?;
    linker.func_wrap("env", "proxy_done", |mut caller: Caller<'_, Proxy>| {
        of(caller.data_mut().called().done()) as u32
    })?;
    Ok(())
}

fn link_maps(linker: &mut Linker<Proxy>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        |caller: Caller<'_, Proxy>, map, pointer, size| {
            let mut guest = Guest::new(caller);
            let pairs = map_kind(map).and_then(|kind| guest.proxy().map(kind));
            code(guest.give_answer(pairs.map(|pairs| encode(&pairs)), pointer, size))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_header_map_pairs",
        |caller: Caller<'_, Proxy>, map, from, length| {
            let mut guest = Guest::new(caller);
            code(
                guest.pairs(from, length).map(|pairs| {
                    of(map_kind(map).and_then(|kind| guest.proxy().set_map(kind, pairs)))
                }),
            )
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_value",
        |caller: Caller<'_, Proxy>, map, name, name_length, pointer, size| {
            let mut guest = Guest::new(caller);
            code(guest.text(name, name_length).and_then(|name| {
                let value = map_kind(map).and_then(|kind| guest.proxy().map_value(kind, &name));
                guest.give_answer(value, pointer, size)
            }))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        |caller: Caller<'_, Proxy>, map, name, name_length| {
            let mut guest = Guest::new(caller);
            code(guest.text(name, name_length).map(|name| {
                of(map_kind(map).and_then(|kind| guest.proxy().remove_map_value(kind, &name)))
            }))
        },
    )?;
    type Change = fn(&mut Proxy, MapKind, &str, &[u8]) -> Answer<()>;
    let changes: [(&str, Change); 2] = [
        ("proxy_add_header_map_value", Proxy::add_map_value),
        ("proxy_replace_header_map_value", Proxy::replace_map_value),
    ];
    for (name, change) in changes {
        linker.func_wrap(
            "env",
            name,
            move |caller: Caller<'_, Proxy>, map, name, name_length, value, value_length| {
                let mut guest = Guest::new(caller);
                code(guest.text(name, name_length).and_then(|name| {
                    let value = guest.get(value, value_length)?;
                    let done =
                        map_kind(map).and_then(|it| change(guest.proxy(), it, &name, &value));
                    Ok(of(done))
                }))
            },
        )?;
    }
    Ok(())
}

fn link_streams(linker: &mut Linker<Proxy>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |caller: Caller<'_, Proxy>, buffer, start: u32, max_bytes: u32, pointer, size| {
            let mut guest = Guest::new(caller);
            let (start, max_bytes) = (start as usize, max_bytes as usize);
            let bytes =
                buffer_kind(buffer).and_then(|it| guest.proxy().buffer(it, start, max_bytes));
            code(guest.give_answer(bytes, pointer, size))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_buffer_bytes",
        |caller: Caller<'_, Proxy>, buffer, start: u32, size: u32, from, length| {
            let mut guest = Guest::new(caller);
            let (start, size) = (start as usize, size as usize);
            code(guest.get(from, length).map(|bytes| {
                of(buffer_kind(buffer)
                    .and_then(|kind| guest.proxy().set_buffer(kind, start, size, &bytes)))
            }))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_property",
        |caller: Caller<'_, Proxy>, path, path_length, pointer, size| {
            let mut guest = Guest::new(caller);
            code(guest.text(path, path_length).and_then(|path| {
                let parts: Vec<_> = path.split('\0').collect();
                let value = guest.proxy().property(&parts);
                guest.give_answer(value, pointer, size)
            }))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |caller: Caller<'_, Proxy>, path, path_length, value, value_length| {
            let mut guest = Guest::new(caller);
            code(guest.text(path, path_length).and_then(|path| {
                let value = guest.get(value, value_length)?;
                Ok(of(guest.proxy().set_property(&path, &value)))
            }))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_continue_stream",
        |mut caller: Caller<'_, Proxy>, kind: u32| {
            match kind {
                0 => caller.data_mut().called().resume_request(),
                1 => caller.data_mut().called().resume_response(),
                _ => return Status::BadArgument as u32,
            }
            Status::Ok as u32
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_send_local_response",
        |caller: Caller<'_, Proxy>,
         status: u32,
         _details: u32,
         _details_length: u32,
         body: u32,
         body_length: u32,
         headers: u32,
         headers_length: u32,
         _grpc_status: i32| {
            let mut guest = Guest::new(caller);
            code(guest.get(body, body_length).and_then(|body| {
                let headers = guest.pairs(headers, headers_length)?;
                guest.proxy().send_local_response(status, headers, &body);
                Ok(Status::Ok)
            }))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_http_call",
        |caller: Caller<'_, Proxy>,
         cluster: u32,
         cluster_length: u32,
         headers: u32,
         headers_length: u32,
         body: u32,
         body_length: u32,
         _trailers: u32,
         _trailers_length: u32,
         timeout_ms: u32,
         to_token: u32| {
            let mut guest = Guest::new(caller);
            code(guest.text(cluster, cluster_length).and_then(|cluster| {
                let headers = guest.pairs(headers, headers_length)?;
                let body = guest.get(body, body_length)?;
                match guest.proxy().call(&cluster, headers, &body, timeout_ms.into()) {
                    Ok(token) => guest.put_u32(to_token, token).map(|()| Status::Ok),
                    Err(status) => Ok(status),
                }
            }))
        },
    )?;
    Ok(())
}

fn link_metrics(linker: &mut Linker<Proxy>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_define_metric",
        |caller: Caller<'_, Proxy>, kind, name, name_length, to| {
            let mut guest = Guest::new(caller);
            code(guest.text(name, name_length).and_then(|name| {
                let id = guest.proxy().define_metric(kind, &name);
                guest.put_u32(to, id).map(|()| Status::Ok)
            }))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_increment_metric",
        |mut caller: Caller<'_, Proxy>, metric: u32, by: i64| {
            of(caller.data_mut().called().increment_metric(metric, by)) as u32
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_record_metric",
        |mut caller: Caller<'_, Proxy>, metric: u32, value: u64| {
            of(caller.data_mut().called().record_metric(metric, value)) as u32
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_metric",
        |caller: Caller<'_, Proxy>, metric: u32, to: u32| {
            let mut guest = Guest::new(caller);
            match guest.proxy().metric_value(metric) {
                Ok(value) => code(guest.put(to, &value.to_le_bytes()).map(|()| Status::Ok)),
                Err(status) => status as u32,
            }
        },
    )?;
    Ok(())
}

fn link_queues(linker: &mut Linker<Proxy>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_register_shared_queue",
        |caller: Caller<'_, Proxy>, name, name_length, to| {
            let mut guest = Guest::new(caller);
            code(guest.get(name, name_length).and_then(|name| {
                let id = guest.proxy().register_queue(&name);
                guest.put_u32(to, id).map(|()| Status::Ok)
            }))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_enqueue_shared_queue",
        |caller: Caller<'_, Proxy>, queue: u32, item, length| {
            let mut guest = Guest::new(caller);
            code(guest.get(item, length).map(|item| of(guest.proxy().enqueue(queue, &item))))
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_dequeue_shared_queue",
        |caller: Caller<'_, Proxy>, queue: u32, pointer, size| {
            let mut guest = Guest::new(caller);
            let item = guest.proxy().dequeue(queue);
            code(guest.give_answer(item, pointer, size))
        },
    )?;
    Ok(())
}
