//! The functions that Envoy calls. Each catches panics: one that left the module would end Envoy and all its listeners.
//!
//! Pointers of the module are an [`Arc`] of [`Edge`] for a configuration and an [`Rc`] of [`Stream`] for a stream. Envoy creates
//! a stream after its configuration and destroys it before, calls the hooks of a stream on its worker, and those of a
//! configuration on the main thread. Hooks may nest, so they borrow their stream immutably.

#![expect(unsafe_code, reason = "the functions are those of a C header")]

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use twilio_edge_filter::callouts::Occasion;

use crate::abi::{
    ABI_VERSION, Buffer, CALLOUT_SUCCESS, CONTINUE, EnvoyPtr, Header, ModulePtr, STOP,
};
use crate::edge::{EVENT_POSTED, EVENT_TICK, Edge};
use crate::envoy::{self, EnvoyConfig, EnvoyStream, Reply};
use crate::handover;
use crate::stream::Stream;

/// Runs a hook. Returns `None` if it panics.
fn guarded<R>(run: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

/// Borrows the configuration of a hook.
///
/// # Safety
///
/// `config` is a pointer that `config_new` has returned, and `config_destroy` has not been called with it.
unsafe fn edge_of<'h>(config: ModulePtr) -> &'h Edge {
    // SAFETY: the pointer is that of an `Arc` that `config_destroy` will drop.
    unsafe { &*config.cast::<Edge>() }
}

/// Runs a hook of a stream. If it panics, the client gets a 500, and Envoy `after_panic`.
///
/// # Safety
///
/// `filter` is a pointer that `filter_new` has returned, and `filter_destroy` has not been called with it.
unsafe fn in_stream<R>(filter: ModulePtr, after_panic: R, run: impl FnOnce(&Rc<Stream>) -> R) -> R {
    // SAFETY: the pointer is that of an `Rc`; one more owner keeps the stream until the hook returns, also if a nested hook
    // destroyed it.
    let stream = unsafe {
        Rc::increment_strong_count(filter.cast::<Stream>());
        Rc::from_raw(filter.cast::<Stream>())
    };
    guarded(|| run(&stream)).unwrap_or_else(|| {
        let _ = guarded(|| stream.break_off());
        after_panic
    })
}

/// Called once when Envoy loads the library. Returns the version of the ABI, or null if this Envoy lacks a function.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    let version = guarded(|| match envoy::load() {
        Ok(()) => {
            // Without the message, which may contain input.
            std::panic::set_hook(Box::new(|panic| {
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                let _ = guarded(|| envoy::error(&format!("twilio-edge panicked at {place}")));
            }));
            ABI_VERSION.as_ptr()
        }
        Err(missing) => {
            refuse(&format!(
                "twilio-edge {} needs Envoy 1.39 or later: this Envoy has no {}\n",
                env!("CARGO_PKG_VERSION"),
                missing.to_string_lossy()
            ));
            std::ptr::null()
        }
    });
    version.unwrap_or(std::ptr::null())
}

/// Writes the reason of a refusal to standard error, Envoy's log: its function may be the missing one.
#[expect(clippy::disallowed_methods, reason = "no terminal of a command is meant")]
fn refuse(line: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config_envoy: EnvoyPtr,
    name: Buffer,
    config: Buffer,
) -> ModulePtr {
    let edge = guarded(|| {
        // SAFETY: Envoy lends both texts for the call, and the pointer until `config_destroy`, after which no stream and no
        // thread of the module is left.
        let (envoy, name, json) =
            unsafe { (EnvoyConfig::new(config_envoy), name.bytes(), config.bytes()) };
        let edge = Edge::load(envoy, name, json)?;
        handover::register(&edge);
        Some(edge)
    });
    match edge.flatten() {
        Some(edge) => Arc::into_raw(edge).cast(),
        None => std::ptr::null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: ModulePtr) {
    let _ = guarded(|| {
        // SAFETY: Envoy gives back the pointer of `config_new`, once, after all streams have ended.
        let edge = unsafe { Arc::from_raw(config.cast::<Edge>()) };
        edge.stop_ticker();
        let left = edge.main.get().map(|main| main.end(&edge)).unwrap_or_default();
        handover::hand_over(&edge, &left);
    });
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(
    _: EnvoyPtr,
    config: ModulePtr,
    event: u64,
) {
    // SAFETY: Envoy calls no hook of a configuration after its destruction.
    let edge = unsafe { edge_of(config) };
    let handled = guarded(|| {
        let Some(main) = edge.main.get() else { return };
        match event {
            EVENT_TICK => main.tick(edge),
            EVENT_POSTED => main.send_settlements(edge, Occasion::Change),
            _ => {}
        }
    });
    if handled.is_none() {
        edge.count_panic();
    }
}

/// Lends the reply of a hook.
///
/// # Safety
///
/// The arguments are those of a hook, and the result is not used after it.
unsafe fn reply<'h>(
    result: u32,
    headers: *const Header,
    headers_size: usize,
    body: *const Buffer,
    body_size: usize,
) -> Reply<'h> {
    let is_complete = result == CALLOUT_SUCCESS;
    // SAFETY: Envoy lends lists of these lengths, or null.
    unsafe {
        Reply {
            is_complete,
            headers: if headers.is_null() {
                &[]
            } else {
                std::slice::from_raw_parts(headers, headers_size)
            },
            body: if body.is_null() { &[] } else { std::slice::from_raw_parts(body, body_size) },
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_http_callout_done(
    _: EnvoyPtr,
    config: ModulePtr,
    id: u64,
    result: u32,
    headers: *const Header,
    headers_size: usize,
    body: *const Buffer,
    body_size: usize,
) {
    // SAFETY: Envoy calls no hook of a configuration after its destruction, and lends the reply until the hook returns.
    let (edge, reply) =
        unsafe { (edge_of(config), reply(result, headers, headers_size, body, body_size)) };
    let handled = guarded(|| {
        if let Some(main) = edge.main.get() {
            main.handle_reply(edge, id, &reply);
        }
    });
    if handled.is_none() {
        edge.count_panic();
    }
}

/// Null makes Envoy close the stream.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_new(
    config: ModulePtr,
    filter_envoy: EnvoyPtr,
) -> ModulePtr {
    let stream = guarded(|| {
        // SAFETY: the configuration is destroyed after its streams. It is the pointer of an `Arc`, of which the stream becomes
        // one more owner.
        let edge = unsafe {
            Arc::increment_strong_count(config.cast::<Edge>());
            Arc::from_raw(config.cast::<Edge>())
        };
        // SAFETY: the stream exists until `filter_destroy`, after which the module does not use the pointer.
        Stream::new(&edge, unsafe { EnvoyStream::new(filter_envoy) })
    });
    match stream.flatten() {
        Some(stream) => Rc::into_raw(stream).cast(),
        None => std::ptr::null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_destroy(filter: ModulePtr) {
    // SAFETY: Envoy calls no hook of a stream after this one.
    unsafe { in_stream(filter, (), Stream::on_destroy) };
    // SAFETY: it gives back the pointer of `filter_new`, once.
    let stream = unsafe { Rc::from_raw(filter.cast::<Stream>()) };
    let _ = guarded(|| drop(stream));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    _: EnvoyPtr,
    filter: ModulePtr,
    end_of_stream: bool,
) -> u32 {
    // SAFETY: Envoy calls the hook between `filter_new` and `filter_destroy`; so it is for all hooks below.
    unsafe { in_stream(filter, STOP, |stream| stream.on_request_headers(end_of_stream)) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    _: EnvoyPtr,
    filter: ModulePtr,
    end_of_stream: bool,
) -> u32 {
    // SAFETY: see `request_headers`.
    unsafe { in_stream(filter, STOP, |stream| stream.on_request_body(end_of_stream)) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    _: EnvoyPtr,
    filter: ModulePtr,
) -> u32 {
    // SAFETY: see `request_headers`.
    unsafe { in_stream(filter, STOP, Stream::on_request_trailers) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    _: EnvoyPtr,
    filter: ModulePtr,
    end_of_stream: bool,
) -> u32 {
    // SAFETY: see `request_headers`.
    unsafe { in_stream(filter, CONTINUE, |stream| stream.on_response_headers(end_of_stream)) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    _: EnvoyPtr,
    filter: ModulePtr,
    end_of_stream: bool,
) -> u32 {
    // SAFETY: see `request_headers`.
    unsafe { in_stream(filter, CONTINUE, |stream| stream.on_response_body(end_of_stream)) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    _: EnvoyPtr,
    filter: ModulePtr,
) -> u32 {
    // SAFETY: see `request_headers`.
    unsafe { in_stream(filter, CONTINUE, Stream::on_response_trailers) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(_: EnvoyPtr, filter: ModulePtr) {
    // SAFETY: see `request_headers`.
    unsafe { in_stream(filter, (), Stream::on_complete) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    _: EnvoyPtr,
    filter: ModulePtr,
    event: u64,
) {
    // SAFETY: see `request_headers`.
    unsafe { in_stream(filter, (), |stream| stream.on_scheduled(event)) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_callout_done(
    _: EnvoyPtr,
    filter: ModulePtr,
    id: u64,
    result: u32,
    headers: *const Header,
    headers_size: usize,
    body: *const Buffer,
    body_size: usize,
) {
    // SAFETY: Envoy lends the reply until the hook returns; for the stream see `request_headers`.
    unsafe {
        let reply = reply(result, headers, headers_size, body, body_size);
        in_stream(filter, (), |stream| stream.on_callout_done(id, &reply));
    }
}

/// Hooks that Envoy requires, and that concern functions which the module does not use.
macro_rules! unused_hooks {
    ($($name:ident($($argument:ty),*);)*) => {
        $(#[unsafe(no_mangle)] extern "C" fn $name($(_: $argument),*) {})*
    };
}

unused_hooks! {
    envoy_dynamic_module_on_http_filter_http_stream_headers(EnvoyPtr, ModulePtr, u64, *const Header, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data(EnvoyPtr, ModulePtr, u64, *const Buffer, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers(EnvoyPtr, ModulePtr, u64, *const Header, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete(EnvoyPtr, ModulePtr, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset(EnvoyPtr, ModulePtr, u64, u32);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(EnvoyPtr, ModulePtr);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(EnvoyPtr, ModulePtr);
}
