//! The part of Envoy's ABI for dynamic modules that an HTTP filter needs: types, numbers and callbacks of version v0.2.0, as
//! Envoy 1.40 declares them in `source/extensions/dynamic_modules/abi/abi.h`.
//!
//! The callbacks are looked up by name when Envoy loads the module. An Envoy that lacks one gets a line that names it; with
//! undefined symbols the loader would refuse the file with an error of its own. So the crate also links without an Envoy.

#![expect(unsafe_code, reason = "the types of functions are those of a C header")]

use std::ffi::{CStr, c_char, c_void};

/// Version of the ABI that the module reports to Envoy.
pub(crate) const ABI_VERSION: &CStr = c"v0.2.0";

/// A pointer of Envoy that the module only passes back.
pub(crate) type EnvoyPtr = *mut c_void;
/// A pointer of the module that Envoy only passes back.
pub(crate) type ModulePtr = *const c_void;

/// Borrowed bytes, of Envoy or of the module.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) ptr: *const u8,
    pub(crate) len: usize,
}

impl Buffer {
    /// No buffer, which is not the same as an empty one: as a value it removes a header.
    pub(crate) const NONE: Self = Self { ptr: std::ptr::null(), len: 0 };

    /// Lends bytes to Envoy for one call.
    pub(crate) fn lend(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// Returns the bytes.
    ///
    /// # Safety
    ///
    /// The buffer is one that Envoy has lent, and nothing has changed or freed it since.
    pub(crate) unsafe fn bytes<'b>(self) -> &'b [u8] {
        if self.ptr.is_null() {
            return &[];
        }
        // SAFETY: Envoy lends `len` bytes at `ptr`; the caller keeps their lifetime.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// A header or trailer, of Envoy or of the module.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) name: Buffer,
    pub(crate) value: Buffer,
}

impl Header {
    pub(crate) const NONE: Self = Self { name: Buffer::NONE, value: Buffer::NONE };

    /// Lends a header to Envoy for one call.
    pub(crate) fn lend(name: &str, value: &str) -> Self {
        Self { name: Buffer::lend(name.as_bytes()), value: Buffer::lend(value.as_bytes()) }
    }
}

/// `envoy_dynamic_module_type_http_header_type`
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub(crate) enum HeaderKind {
    Request = 0,
    RequestTrailer = 1,
    Response = 2,
}

/// `envoy_dynamic_module_type_http_body_type`
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub(crate) enum BodyKind {
    /// The part that a body hook is called with.
    ReceivedRequest = 0,
    /// The parts before it.
    BufferedRequest = 1,
    ReceivedResponse = 2,
}

/// `envoy_dynamic_module_type_log_level`
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub(crate) enum LogLevel {
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// `envoy_dynamic_module_type_attribute_id_ResponseCodeDetails`
pub(crate) const RESPONSE_CODE_DETAILS: u32 = 16;
/// `envoy_dynamic_module_type_http_callout_init_result_Success` and `.._http_callout_result_Success`
pub(crate) const CALLOUT_SUCCESS: u32 = 0;
/// `envoy_dynamic_module_type_metrics_result_Success`
pub(crate) const METRIC_SUCCESS: u32 = 0;

/// `FilterHeadersStatus`, `FilterDataStatus` and `FilterTrailersStatus` begin with the same two values: continue, or stop. For a body
/// the second one also buffers.
pub(crate) const CONTINUE: u32 = 0;
/// As [`CONTINUE`].
pub(crate) const STOP: u32 = 1;

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// Returns the function of Envoy with this name.
fn look_up(name: &'static CStr) -> Result<*mut c_void, &'static CStr> {
    // SAFETY: the name ends with NUL; the null pointer is RTLD_DEFAULT, the global symbols of the process.
    let function = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    if function.is_null() { Err(name) } else { Ok(function) }
}

/// Declares [`Callbacks`]: fields, symbols and types of functions.
macro_rules! callbacks {
    ($($name:ident: $symbol:literal, fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of Envoy that the module calls.
        pub(crate) struct Callbacks {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Callbacks {
            /// Looks up all functions.
            ///
            /// # Errors
            ///
            /// Returns the name of a function that the process does not have.
            pub(crate) fn look_up() -> Result<Self, &'static CStr> {
                Ok(Self {
                    $($name: {
                        type Function = unsafe extern "C" fn($($argument),*) $(-> $result)?;
                        let function = look_up($symbol)?;
                        // SAFETY: the function with this name has this type in every version of the ABI that has it;
                        // released functions never change.
                        unsafe { std::mem::transmute::<*mut c_void, Function>(function) }
                    },)*
                })
            }
        }
    };
}

callbacks! {
    log: c"envoy_dynamic_module_callback_log", fn(u32, Buffer);
    concurrency: c"envoy_dynamic_module_callback_get_concurrency", fn() -> u32;
    is_validation_mode: c"envoy_dynamic_module_callback_is_validation_mode", fn() -> bool;
    register_shared_data: c"envoy_dynamic_module_callback_register_shared_data", fn(Buffer, *mut c_void) -> bool;
    shared_data: c"envoy_dynamic_module_callback_get_shared_data", fn(Buffer, *mut *mut c_void) -> bool;

    define_counter: c"envoy_dynamic_module_callback_http_filter_config_define_counter",
        fn(EnvoyPtr, Buffer, *mut Buffer, usize, *mut usize) -> u32;
    define_gauge: c"envoy_dynamic_module_callback_http_filter_config_define_gauge",
        fn(EnvoyPtr, Buffer, *mut Buffer, usize, *mut usize) -> u32;
    define_histogram: c"envoy_dynamic_module_callback_http_filter_config_define_histogram",
        fn(EnvoyPtr, Buffer, *mut Buffer, usize, *mut usize) -> u32;
    // Envoy 1.38 and older have none of these four.
    config_increment_counter: c"envoy_dynamic_module_callback_http_filter_config_increment_counter",
        fn(EnvoyPtr, usize, *mut Buffer, usize, u64) -> u32;
    config_increment_gauge: c"envoy_dynamic_module_callback_http_filter_config_increment_gauge",
        fn(EnvoyPtr, usize, *mut Buffer, usize, u64) -> u32;
    config_decrement_gauge: c"envoy_dynamic_module_callback_http_filter_config_decrement_gauge",
        fn(EnvoyPtr, usize, *mut Buffer, usize, u64) -> u32;
    config_set_gauge: c"envoy_dynamic_module_callback_http_filter_config_set_gauge",
        fn(EnvoyPtr, usize, *mut Buffer, usize, u64) -> u32;
    record_histogram_value: c"envoy_dynamic_module_callback_http_filter_record_histogram_value",
        fn(EnvoyPtr, usize, *mut Buffer, usize, u64) -> u32;

    headers_size: c"envoy_dynamic_module_callback_http_get_headers_size", fn(EnvoyPtr, u32) -> usize;
    headers: c"envoy_dynamic_module_callback_http_get_headers", fn(EnvoyPtr, u32, *mut Header) -> bool;
    add_header: c"envoy_dynamic_module_callback_http_add_header", fn(EnvoyPtr, u32, Buffer, Buffer) -> bool;
    set_header: c"envoy_dynamic_module_callback_http_set_header", fn(EnvoyPtr, u32, Buffer, Buffer) -> bool;
    clear_route_cache: c"envoy_dynamic_module_callback_http_clear_route_cache", fn(EnvoyPtr);
    send_response: c"envoy_dynamic_module_callback_http_send_response",
        fn(EnvoyPtr, u32, *mut Header, usize, Buffer, Buffer);
    body_size: c"envoy_dynamic_module_callback_http_get_body_size", fn(EnvoyPtr, u32) -> usize;
    body_chunks_size: c"envoy_dynamic_module_callback_http_get_body_chunks_size", fn(EnvoyPtr, u32) -> usize;
    body_chunks: c"envoy_dynamic_module_callback_http_get_body_chunks", fn(EnvoyPtr, u32, *mut Buffer) -> bool;
    append_body: c"envoy_dynamic_module_callback_http_append_body", fn(EnvoyPtr, u32, Buffer) -> bool;
    drain_body: c"envoy_dynamic_module_callback_http_drain_body", fn(EnvoyPtr, u32, usize) -> bool;
    received_buffered_request_body: c"envoy_dynamic_module_callback_http_received_buffered_request_body",
        fn(EnvoyPtr) -> bool;
    set_filter_state: c"envoy_dynamic_module_callback_http_set_filter_state_bytes",
        fn(EnvoyPtr, Buffer, Buffer) -> bool;
    attribute_string: c"envoy_dynamic_module_callback_http_filter_get_attribute_string",
        fn(EnvoyPtr, u32, *mut Buffer) -> bool;
    continue_decoding: c"envoy_dynamic_module_callback_http_filter_continue_decoding", fn(EnvoyPtr);
    continue_encoding: c"envoy_dynamic_module_callback_http_filter_continue_encoding", fn(EnvoyPtr);
    worker_index: c"envoy_dynamic_module_callback_http_filter_get_worker_index", fn(EnvoyPtr) -> u32;

    http_callout: c"envoy_dynamic_module_callback_http_filter_http_callout",
        fn(EnvoyPtr, *mut u64, Buffer, *mut Header, usize, Buffer, u64) -> u32;
    config_http_callout: c"envoy_dynamic_module_callback_http_filter_config_http_callout",
        fn(EnvoyPtr, *mut u64, Buffer, *mut Header, usize, Buffer, u64) -> u32;

    scheduler_new: c"envoy_dynamic_module_callback_http_filter_scheduler_new", fn(EnvoyPtr) -> EnvoyPtr;
    scheduler_commit: c"envoy_dynamic_module_callback_http_filter_scheduler_commit", fn(EnvoyPtr, u64);
    scheduler_delete: c"envoy_dynamic_module_callback_http_filter_scheduler_delete", fn(EnvoyPtr);
    config_scheduler_new: c"envoy_dynamic_module_callback_http_filter_config_scheduler_new",
        fn(EnvoyPtr) -> EnvoyPtr;
    config_scheduler_commit: c"envoy_dynamic_module_callback_http_filter_config_scheduler_commit",
        fn(EnvoyPtr, u64);
    config_scheduler_delete: c"envoy_dynamic_module_callback_http_filter_config_scheduler_delete",
        fn(EnvoyPtr);
}
