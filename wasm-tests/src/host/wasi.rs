//! The WASI calls that Rust's standard library makes in a filter: environment, random bytes, standard output. Random bytes
//! are the same in every run, so that a failure is reproducible.

use anyhow::Result;
use wasmi::{Caller, Error, Linker};

use super::guest::Guest;
use super::proxy::Proxy;

const MODULE: &str = "wasi_snapshot_preview1";
/// Error numbers of WASI.
const SUCCESS: u32 = 0;
const FAULT: u32 = 21;
/// Log level of text that is printed instead of logged.
const WARN: u32 = 3;

pub(super) fn link(linker: &mut Linker<Proxy>) -> Result<()> {
    linker.func_wrap(MODULE, "environ_sizes_get", |caller: Caller<'_, Proxy>, count, bytes| {
        let mut guest = Guest::new(caller);
        let lines = lines(guest.proxy());
        let total: usize = lines.iter().map(Vec::len).sum();
        code(guest.put_size(count, lines.len()).and_then(|()| guest.put_size(bytes, total)))
    })?;
    linker.func_wrap(MODULE, "environ_get", |caller: Caller<'_, Proxy>, pointers, bytes| {
        let mut guest = Guest::new(caller);
        code(write_lines(&mut guest, pointers, bytes))
    })?;
    linker.func_wrap(MODULE, "random_get", |caller: Caller<'_, Proxy>, to, length: u32| {
        let mut guest = Guest::new(caller);
        let bytes: Vec<u8> = (0..length).map(|_| guest.proxy().random_byte()).collect();
        code(guest.put(to, &bytes))
    })?;
    linker.func_wrap(
        MODULE,
        "fd_write",
        |caller: Caller<'_, Proxy>, _: u32, vectors: u32, count: u32, written: u32| {
            let mut guest = Guest::new(caller);
            code(print(&mut guest, vectors, count, written))
        },
    )?;
    linker.func_wrap(MODULE, "proc_exit", |code: u32| -> Result<(), Error> {
        Err(Error::new(format!("the filter exited with {code}")))
    })?;
    Ok(())
}

fn code(done: Result<()>) -> u32 {
    if done.is_ok() { SUCCESS } else { FAULT }
}

fn lines(proxy: &Proxy) -> Vec<Vec<u8>> {
    let lines = proxy.environment().iter();
    lines.map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
}

fn write_lines(guest: &mut Guest<'_>, mut pointers: u32, mut bytes: u32) -> Result<()> {
    for line in lines(guest.proxy()) {
        guest.put_u32(pointers, bytes)?;
        guest.put(bytes, &line)?;
        pointers += 4;
        bytes += u32::try_from(line.len())?;
    }
    Ok(())
}

fn print(guest: &mut Guest<'_>, vectors: u32, count: u32, written: u32) -> Result<()> {
    let mut text = Vec::new();
    for vector in 0..count {
        let at = vectors + vector * 8;
        let (from, length) = (guest.get_u32(at)?, guest.get_u32(at + 4)?);
        text.extend(guest.get(from, length)?);
    }
    guest.put_size(written, text.len())?;
    guest.proxy().write_log(WARN, String::from_utf8_lossy(&text).into_owned());
    Ok(())
}
