//! The compiled filter in a VM: an interpreter, since callbacks are short and a compiler takes minutes to build. The module is
//! translated once per process; each [`Compiled`] is an instance with its own memory, like that of each of Envoy's workers.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Result, anyhow, ensure};
use wasmi::{
    Caller, CompilationMode, Config, Engine, Error, ExternType, Instance, Linker, Module, Store,
    Val, WasmParams, WasmResults,
};

use super::filter::{Callback, Cost, Filter};
use super::proxy::Proxy;
use super::{calls, wasi};
use crate::repository;

/// Most instructions of one callback: far more than any needs, so that an endless loop ends.
const FUEL: u64 = 2_000_000_000;

/// The module, and what it imports.
struct Program {
    module: Module,
    linker: Linker<Proxy>,
}

/// An instance of the compiled filter.
pub struct Compiled {
    store: Store<Proxy>,
    instance: Instance,
    instructions: u64,
}

impl Compiled {
    /// Starts a VM on `proxy`.
    pub fn start(proxy: Proxy) -> Result<Self> {
        static PROGRAM: OnceLock<Result<Program, String>> = OnceLock::new();
        let program = PROGRAM.get_or_init(|| load().map_err(|error| format!("{error:?}")));
        let Program { module, linker } = program.as_ref().map_err(|error| anyhow!("{error}"))?;
        let mut store = Store::new(module.engine(), proxy);
        store.set_fuel(FUEL)?;
        let instance = linker.instantiate_and_start(&mut store, module)?;
        let mut vm = Self { store, instance, instructions: 0 };
        vm.run::<_, ()>("_initialize", ())?;
        Ok(vm)
    }

    fn run<P: WasmParams, R: WasmResults>(&mut self, name: &str, arguments: P) -> Result<R> {
        self.store.set_fuel(FUEL)?;
        let function = self.instance.get_typed_func::<P, R>(&self.store, name)?;
        let answer = function.call(&mut self.store, arguments)?;
        self.instructions += FUEL - self.store.get_fuel()?;
        Ok(answer)
    }

    fn call_only<P: WasmParams>(&mut self, name: &str, arguments: P) -> Result<u32> {
        self.run::<P, ()>(name, arguments).map(|()| 0)
    }
}

impl Filter for Compiled {
    fn proxy(&mut self) -> &mut Proxy {
        self.store.data_mut()
    }

    fn memory_bytes(&mut self) -> Option<usize> {
        let memory = self.instance.get_memory(&self.store, "memory")?;
        Some(memory.data_size(&self.store))
    }

    fn cost(&mut self) -> Option<Cost> {
        let host_calls = self.store.data().host_calls();
        Some(Cost { instructions: self.instructions, host_calls })
    }

    fn call(&mut self, callback: Callback) -> Result<u32> {
        let size = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        match callback {
            Callback::Create { context, root } => {
                self.call_only("proxy_on_context_create", (context, root))
            }
            Callback::VmStart { root } => self.run("proxy_on_vm_start", (root, 0)),
            Callback::Configure { root, bytes } => {
                self.run("proxy_on_configure", (root, size(bytes)))
            }
            Callback::RequestHeaders { stream, count, ends } => {
                self.run("proxy_on_request_headers", (stream, size(count), u32::from(ends)))
            }
            Callback::RequestBody { stream, bytes, ends } => {
                self.run("proxy_on_request_body", (stream, size(bytes), u32::from(ends)))
            }
            Callback::RequestTrailers { stream, count } => {
                self.run("proxy_on_request_trailers", (stream, size(count)))
            }
            Callback::ResponseHeaders { stream, count, ends } => {
                self.run("proxy_on_response_headers", (stream, size(count), u32::from(ends)))
            }
            Callback::ResponseBody { stream, bytes, ends } => {
                self.run("proxy_on_response_body", (stream, size(bytes), u32::from(ends)))
            }
            Callback::ResponseTrailers { stream, count } => {
                self.run("proxy_on_response_trailers", (stream, size(count)))
            }
            Callback::CallResponse { root, token, headers, bytes } => {
                let arguments = (root, token, size(headers), size(bytes), 0);
                self.call_only("proxy_on_http_call_response", arguments)
            }
            Callback::QueueReady { root, queue } => {
                self.call_only("proxy_on_queue_ready", (root, queue))
            }
            Callback::Tick { root } => self.call_only("proxy_on_tick", (root,)),
            Callback::Log { context } => self.call_only("proxy_on_log", (context,)),
            Callback::Done { context } => self.run("proxy_on_done", (context,)),
            Callback::Delete { context } => self.call_only("proxy_on_delete", (context,)),
        }
    }
}

fn load() -> Result<Program> {
    let path = std::env::var_os("TWILIO_EDGE_WASM")
        .map_or_else(|| repository().join("target/wasm/twilio_edge_filter.wasm"), PathBuf::from);
    ensure!(path.exists(), "there is no {}: run `make wasm`", path.display());
    let mut configuration = Config::default();
    configuration.consume_fuel(true);
    // A lazy translation would take its fuel from the first callback that runs a function.
    configuration.compilation_mode(CompilationMode::Eager);
    let engine = Engine::new(&configuration);
    let module = Module::new(&engine, std::fs::read(&path)?)?;
    let mut linker = Linker::new(&engine);
    calls::link(&mut linker)?;
    wasi::link(&mut linker)?;
    trap_unknown_imports(&mut linker, &module)?;
    Ok(Program { module, linker })
}

/// Defines the imports that the filter never calls. A call of one is a trap with its name.
fn trap_unknown_imports(linker: &mut Linker<Proxy>, module: &Module) -> Result<()> {
    for import in module.imports() {
        let ExternType::Func(kind) = import.ty() else { continue };
        let message = format!("the filter called {}.{}", import.module(), import.name());
        let trap =
            move |_: Caller<'_, Proxy>, _: &[Val], _: &mut [Val]| Err(Error::new(message.clone()));
        let _already_defined = linker.func_new(import.module(), import.name(), kind.clone(), trap);
    }
    Ok(())
}
