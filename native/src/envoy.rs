//! Envoy behind safe calls. The pointers that it lends are in types of this module, so that the unsafe calls are here and in
//! `hooks`, where Envoy calls the module.

#![expect(unsafe_code, reason = "the functions of Envoy are those of a C header")]

mod config;
mod stream;

use std::ffi::CStr;
use std::sync::OnceLock;

use twilio_edge_contract::EXCHANGE_MEDIA_TYPE;
use twilio_edge_filter::adapter::{MAX_REPLY_BYTES, is_reply_of, sidecar_headers};
use twilio_edge_filter::config::Sidecar;

pub(crate) use self::config::{ConfigScheduler, EnvoyConfig};
pub(crate) use self::stream::{EnvoyStream, StreamScheduler};
use crate::abi::{Buffer, CALLOUT_SUCCESS, Callbacks, EnvoyPtr, Header, LogLevel};

static CALLBACKS: OnceLock<Callbacks> = OnceLock::new();

/// Looks up the functions of Envoy.
///
/// # Errors
///
/// Returns the name of a function that this Envoy does not have.
pub(crate) fn load() -> Result<(), &'static CStr> {
    if CALLBACKS.get().is_none() {
        let _ = CALLBACKS.set(Callbacks::look_up()?);
    }
    Ok(())
}

fn abi() -> &'static Callbacks {
    match CALLBACKS.get() {
        Some(callbacks) => callbacks,
        // Envoy calls no hook of a module whose first hook has returned null.
        None => std::process::abort(),
    }
}

fn log(level: LogLevel, line: &str) {
    // SAFETY: the line is lent for the call; Envoy copies it. Any thread may log.
    unsafe { (abi().log)(level as u32, Buffer::lend(line.as_bytes())) }
}

/// Logs a line for the operator, once per start.
pub(crate) fn info(line: &str) {
    log(LogLevel::Info, line);
}

/// Logs a line for the operator.
pub(crate) fn warn(line: &str) {
    log(LogLevel::Warn, line);
}

/// Logs an error for the operator: the filter does not work until it is corrected.
pub(crate) fn error(line: &str) {
    log(LogLevel::Error, line);
}

/// Returns the number of workers. Only on the main thread.
pub(crate) fn concurrency() -> usize {
    // SAFETY: called in `config_new`, which runs on the main thread.
    let workers = unsafe { (abi().concurrency)() };
    usize::try_from(workers).unwrap_or(1)
}

/// Reports whether Envoy only validates its configuration. Only on the main thread.
pub(crate) fn is_validation_mode() -> bool {
    // SAFETY: called in `config_new`, which runs on the main thread.
    unsafe { (abi().is_validation_mode)() }
}

/// Stores a pointer to an object of the process, under a name that all modules of the process see. The object must live as
/// long as the process.
pub(crate) fn register_shared<T>(name: &str, object: &'static T) {
    let object = std::ptr::from_ref(object).cast_mut().cast();
    // SAFETY: the object is static, and its users only read it.
    unsafe { (abi().register_shared_data)(Buffer::lend(name.as_bytes()), object) };
}

/// Returns the pointer that was stored last under a name.
pub(crate) fn shared(name: &str) -> Option<EnvoyPtr> {
    let mut object = std::ptr::null_mut();
    // SAFETY: the pointer is to a live variable.
    let is_found = unsafe { (abi().shared_data)(Buffer::lend(name.as_bytes()), &raw mut object) };
    (is_found && !object.is_null()).then_some(object)
}

/// Reply to a callout; the bytes are lent for the duration of the hook.
pub(crate) struct Reply<'h> {
    pub(crate) is_complete: bool,
    pub(crate) headers: &'h [Header],
    pub(crate) body: &'h [Buffer],
}

impl Reply<'_> {
    /// Returns the body if the reply can be the sidecar's: 200 and of this content type.
    pub(crate) fn body_of(&self, media_type: &str) -> Option<Vec<u8>> {
        let size: usize = self.body.iter().map(|part| part.len).sum();
        if !self.is_complete || size > MAX_REPLY_BYTES {
            return None;
        }
        let value = |name: &[u8]| {
            // SAFETY: Envoy lends the headers until the hook returns, and `self` is borrowed from the hook.
            let pairs =
                self.headers.iter().map(|it| unsafe { (it.name.bytes(), it.value.bytes()) });
            pairs.into_iter().find(|(have, _)| *have == name).map(|(_, value)| value)
        };
        if !is_reply_of(value(b":status"), value(b"content-type"), media_type) {
            return None;
        }
        let mut body = Vec::with_capacity(size);
        for part in self.body {
            // SAFETY: as for the headers.
            body.extend_from_slice(unsafe { part.bytes() });
        }
        Some(body)
    }
}

type Callout =
    unsafe extern "C" fn(EnvoyPtr, *mut u64, Buffer, *mut Header, usize, Buffer, u64) -> u32;

/// Sends a request to the sidecar, and returns the id under which the reply comes. `None`: Envoy cannot send it.
fn call(
    function: Callout,
    envoy: EnvoyPtr,
    sidecar: &Sidecar,
    own: &[(&str, &str)],
    body: &[u8],
) -> Option<u64> {
    let headers = sidecar_headers(sidecar, own);
    let mut lent: Vec<Header> =
        headers.into_iter().map(|(name, value)| Header::lend(name, value)).collect();
    let (mut id, cluster) = (0, Buffer::lend(sidecar.cluster.as_bytes()));
    let (count, body) = (lent.len(), Buffer::lend(body));
    // SAFETY: all arguments are lent for the call, which copies them; `envoy` is valid (see the types that call this).
    let result = unsafe {
        function(envoy, &raw mut id, cluster, lent.as_mut_ptr(), count, body, sidecar.timeout_ms)
    };
    (result == CALLOUT_SUCCESS).then_some(id)
}

fn post_headers(path: &str) -> [(&str, &str); 3] {
    [(":method", "POST"), (":path", path), ("content-type", EXCHANGE_MEDIA_TYPE)]
}
