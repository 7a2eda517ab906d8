//! Interface between the host and a filter.

use anyhow::Result;

use super::proxy::Proxy;

/// Result of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Forward this part, and the held parts.
    Continue,
    /// Hold it.
    Pause,
}

/// Callbacks of a filter. Contexts are identified by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names and arguments of the ABI")]
pub enum Callback {
    Create { context: u32, root: u32 },
    VmStart { root: u32 },
    Configure { root: u32, bytes: usize },
    RequestHeaders { stream: u32, count: usize, ends: bool },
    RequestBody { stream: u32, bytes: usize, ends: bool },
    RequestTrailers { stream: u32, count: usize },
    ResponseHeaders { stream: u32, count: usize, ends: bool },
    ResponseBody { stream: u32, bytes: usize, ends: bool },
    ResponseTrailers { stream: u32, count: usize },
    CallResponse { root: u32, token: u32, headers: usize, bytes: usize },
    QueueReady { root: u32, queue: u32 },
    Tick { root: u32 },
    Log { context: u32 },
    Done { context: u32 },
    Delete { context: u32 },
}

impl Callback {
    /// Returns the context of the callback, on which host calls act until the filter selects another.
    pub(super) fn context(self) -> u32 {
        match self {
            Callback::Create { context, .. }
            | Callback::Log { context }
            | Callback::Done { context }
            | Callback::Delete { context } => context,
            Callback::VmStart { root }
            | Callback::Configure { root, .. }
            | Callback::CallResponse { root, .. }
            | Callback::QueueReady { root, .. }
            | Callback::Tick { root } => root,
            Callback::RequestHeaders { stream, .. }
            | Callback::RequestBody { stream, .. }
            | Callback::RequestTrailers { stream, .. }
            | Callback::ResponseHeaders { stream, .. }
            | Callback::ResponseBody { stream, .. }
            | Callback::ResponseTrailers { stream, .. } => stream,
        }
    }
}

/// A filter, compiled or native.
pub trait Filter {
    /// Returns the host's side of it.
    fn proxy(&mut self) -> &mut Proxy;

    /// Calls it. Returns its answer, or an error if it trapped.
    fn call(&mut self, callback: Callback) -> Result<u32>;

    /// Returns the bytes of memory that it uses; `None` if that is unknown.
    fn memory_bytes(&mut self) -> Option<usize>;

    /// Returns its cost so far; `None` if that is unknown.
    fn cost(&mut self) -> Option<Cost>;
}

/// Cost of a filter. It contains no times, so it is the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Instructions of WebAssembly.
    pub instructions: u64,
    /// Calls to the host.
    pub host_calls: u64,
}
