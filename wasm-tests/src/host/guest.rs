//! A guest's memory during a host call: pointers, lengths and the encoding of maps.

use anyhow::{Context, Result};
use wasmi::{Caller, Extern, Memory};

use super::proxy::{Answer, Pairs, Proxy, Status};

/// A guest during a host call.
pub(super) struct Guest<'a> {
    caller: Caller<'a, Proxy>,
    memory: Option<Memory>,
}

impl<'a> Guest<'a> {
    pub(super) fn new(mut caller: Caller<'a, Proxy>) -> Self {
        caller.data_mut().called();
        let memory = caller.get_export("memory").and_then(Extern::into_memory);
        Self { caller, memory }
    }

    pub(super) fn proxy(&mut self) -> &mut Proxy {
        self.caller.data_mut()
    }

    pub(super) fn get(&mut self, from: u32, length: u32) -> Result<Vec<u8>> {
        let bytes = self.memory.context("no memory")?.data(&self.caller);
        let (from, length) = (usize::try_from(from)?, usize::try_from(length)?);
        let end = from.checked_add(length).context("out of memory")?;
        Ok(bytes.get(from..end).context("out of memory")?.to_vec())
    }

    pub(super) fn get_u32(&mut self, from: u32) -> Result<u32> {
        let bytes = self.get(from, 4)?;
        Ok(u32::from_le_bytes(bytes.as_slice().try_into()?))
    }

    pub(super) fn put(&mut self, to: u32, bytes: &[u8]) -> Result<()> {
        let memory = self.memory.context("no memory")?;
        Ok(memory
            .write(&mut self.caller, usize::try_from(to)?, bytes)
            .map_err(wasmi::Error::from)?)
    }

    pub(super) fn put_u32(&mut self, to: u32, value: u32) -> Result<()> {
        self.put(to, &value.to_le_bytes())
    }

    pub(super) fn put_size(&mut self, to: u32, value: usize) -> Result<()> {
        self.put_u32(to, u32::try_from(value)?)
    }

    pub(super) fn text(&mut self, from: u32, length: u32) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.get(from, length)?).into_owned())
    }

    pub(super) fn pairs(&mut self, from: u32, length: u32) -> Result<Pairs> {
        let bytes = self.get(from, length)?;
        decode(&bytes).context("not an encoded map")
    }

    /// Copies bytes to the guest, into memory that it allocates for them. No bytes are a null pointer.
    fn give(&mut self, bytes: &[u8], to_pointer: u32, to_size: u32) -> Result<()> {
        let mut pointer = 0;
        if !bytes.is_empty() {
            let allocate = self.caller.get_export("proxy_on_memory_allocate");
            let allocate = allocate.and_then(Extern::into_func).context("no allocator")?;
            let allocate = allocate.typed::<u32, u32>(&self.caller)?;
            let length = u32::try_from(bytes.len())?;
            pointer = allocate.call(&mut self.caller, length)?;
            self.put(pointer, bytes)?;
        }
        self.put_u32(to_pointer, pointer)?;
        self.put_size(to_size, bytes.len())
    }

    pub(super) fn give_answer(
        &mut self,
        answer: Answer<Vec<u8>>,
        pointer: u32,
        size: u32,
    ) -> Result<Status> {
        match answer {
            Ok(bytes) => self.give(&bytes, pointer, size).map(|()| Status::Ok),
            Err(status) => Ok(status),
        }
    }
}

/// Encodes a map: the count, then all lengths, then all texts, each followed by a zero.
pub(super) fn encode(pairs: &Pairs) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = number(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for (name, value) in pairs {
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(value);
        bytes.push(0);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Pairs> {
    if bytes.is_empty() {
        return Some(Pairs::new());
    }
    let number = |at: usize| {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let count = number(0)?;
    let mut at = count.checked_mul(8)?.checked_add(4)?;
    let mut text = |length: usize| {
        let text = bytes.get(at..at.checked_add(length)?)?;
        at = at.checked_add(length)?.checked_add(1)?;
        Some(text.to_vec())
    };
    let pairs = (0..count).map(|index| {
        let name = text(number(4 + index * 8)?)?;
        let value = text(number(8 + index * 8)?)?;
        Some((String::from_utf8_lossy(&name).into_owned(), value))
    });
    pairs.collect()
}
