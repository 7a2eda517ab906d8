//! Envoy's side of a configuration: metrics, callouts of the main thread, and calls into it from other threads.

use twilio_edge_filter::config::Sidecar;

use super::{abi, call, post_headers};
use crate::abi::{Buffer, EnvoyPtr, METRIC_SUCCESS};

/// Envoy's side of a configuration. Valid from `config_new` until `config_destroy` has returned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnvoyConfig(EnvoyPtr);

// SAFETY: Envoy allows the functions about metrics on any thread; the callouts are private to the main thread, which the only
// caller (`main_thread`) cannot leave.
unsafe impl Send for EnvoyConfig {}
// SAFETY: as above.
unsafe impl Sync for EnvoyConfig {}

type Define = unsafe extern "C" fn(EnvoyPtr, Buffer, *mut Buffer, usize, *mut usize) -> u32;

impl EnvoyConfig {
    /// Takes the pointer of a hook.
    ///
    /// # Safety
    ///
    /// It is the pointer that Envoy gave to `config_new`, and no copy is used after `config_destroy`.
    pub(crate) unsafe fn new(envoy: EnvoyPtr) -> Self {
        Self(envoy)
    }

    fn define(self, function: Define, name: &str) -> Option<usize> {
        let (mut id, name) = (0, Buffer::lend(name.as_bytes()));
        // SAFETY: the name is lent for the call; there are no labels, so the list of them may be null.
        let result = unsafe { function(self.0, name, std::ptr::null_mut(), 0, &raw mut id) };
        (result == METRIC_SUCCESS).then_some(id)
    }

    /// Defines a counter. Only in `config_new`, as the two below.
    pub(crate) fn define_counter(self, name: &str) -> Option<usize> {
        self.define(abi().define_counter, name)
    }

    pub(crate) fn define_gauge(self, name: &str) -> Option<usize> {
        self.define(abi().define_gauge, name)
    }

    pub(crate) fn define_histogram(self, name: &str) -> Option<usize> {
        self.define(abi().define_histogram, name)
    }

    /// Adds to a counter.
    pub(crate) fn increment_counter(self, id: usize, by: u64) {
        // SAFETY: an id that Envoy does not know is an error, not undefined; no labels as when it was defined.
        unsafe { (abi().config_increment_counter)(self.0, id, std::ptr::null_mut(), 0, by) };
    }

    /// Changes a gauge, which several configurations share, by a difference.
    pub(crate) fn change_gauge(self, id: usize, by: i64) {
        let function = match by >= 0 {
            true => abi().config_increment_gauge,
            false => abi().config_decrement_gauge,
        };
        // SAFETY: as for the counter.
        unsafe { function(self.0, id, std::ptr::null_mut(), 0, by.unsigned_abs()) };
    }

    /// Sets a gauge.
    pub(crate) fn set_gauge(self, id: usize, value: u64) {
        // SAFETY: as for the counter.
        unsafe { (abi().config_set_gauge)(self.0, id, std::ptr::null_mut(), 0, value) };
    }

    /// Posts a body to the sidecar. Only on the main thread. The callout ends with the configuration, not with a stream.
    pub(crate) fn post(self, sidecar: &Sidecar, path: &str, body: &[u8]) -> Option<u64> {
        call(abi().config_http_callout, self.0, sidecar, &post_headers(path), body)
    }

    /// Requests `path` of the sidecar with GET; otherwise as [`Self::post`].
    pub(crate) fn get(self, sidecar: &Sidecar, path: &str) -> Option<u64> {
        let headers = [(":method", "GET"), (":path", path)];
        call(abi().config_http_callout, self.0, sidecar, &headers, b"")
    }

    /// Creates the means to call the main thread from other threads.
    pub(crate) fn scheduler(self) -> ConfigScheduler {
        // SAFETY: the pointer is valid in `config_new`.
        ConfigScheduler(unsafe { (abi().config_scheduler_new)(self.0) })
    }
}

/// Calls the hook `config_scheduled` on the main thread.
#[derive(Debug)]
pub(crate) struct ConfigScheduler(EnvoyPtr);

// SAFETY: Envoy allows `commit` on any thread, and any number of them at the same time.
unsafe impl Send for ConfigScheduler {}
// SAFETY: as above.
unsafe impl Sync for ConfigScheduler {}

impl ConfigScheduler {
    /// Schedules the hook; it does nothing once the configuration has ended.
    pub(crate) fn commit(&self, event: u64) {
        // SAFETY: the scheduler exists until it is dropped.
        unsafe { (abi().config_scheduler_commit)(self.0, event) }
    }
}

impl Drop for ConfigScheduler {
    fn drop(&mut self) {
        // SAFETY: it was created by Envoy for this owner, and is not used again.
        unsafe { (abi().config_scheduler_delete)(self.0) }
    }
}
