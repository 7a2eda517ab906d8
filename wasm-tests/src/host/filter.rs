//! A filter as the host sees it.

use anyhow::Result;

use super::proxy::Proxy;

/// What a callback returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let go what is here, and what was held.
    Continue,
    /// Hold it.
    Pause,
}

/// What the host calls in a filter. Contexts are named by their number.
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
    /// The context it is about, on which host calls act until the filter names another.
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
    /// The host's side of it.
    fn proxy(&mut self) -> &mut Proxy;

    /// Calls it. Returns its answer, an error if it trapped.
    fn call(&mut self, callback: Callback) -> Result<u32>;

    /// Bytes of memory it has taken from the machine; none if that cannot be told.
    fn memory_bytes(&mut self) -> Option<usize>;

    /// What it has used so far; none if that cannot be told.
    fn cost(&mut self) -> Option<Cost>;
}

/// What a filter has used: no times, so any machine tells the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Instructions of WebAssembly.
    pub instructions: u64,
    /// Calls to the host.
    pub host_calls: u64,
}
