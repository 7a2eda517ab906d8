//! Modification of the compiled filter that makes it trap. The filter has no trap that can be reached from outside, and must
//! not get one for a test. So a copy of the module gets a function whose first instruction is `unreachable`. The rest of the
//! copy is the filter as it ships.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// `0` groups of locals, then `unreachable`.
const TRAP: [u8; 2] = [0x00, 0x00];
const NOP: u8 = 0x01;
const END: u8 = 0x0b;

/// Copies the module `from` to `into`, with an exported function that traps as soon as the host calls it.
pub fn copy_trapping(from: &Path, into: &Path, export: &str) -> Result<()> {
    let mut module = std::fs::read(from).with_context(|| from.display().to_string())?;
    let range = body_of(&module, export)?;
    // The body keeps its length, so nothing else in the file has to move.
    let body = module.get_mut(range).context("a body outside of the module")?;
    ensure!(body.len() > TRAP.len(), "{export} is too short to trap");
    body.fill(NOP);
    for (byte, trap) in body.iter_mut().zip(TRAP) {
        *byte = trap;
    }
    if let Some(last) = body.last_mut() {
        *last = END;
    }
    std::fs::write(into, module).with_context(|| into.display().to_string())
}

/// Returns the range of the body of an exported function, including its locals and its last `end`.
fn body_of(module: &[u8], export: &str) -> Result<Range<usize>> {
    let (mut imported, mut exported, mut bodies) = (0, None, Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports {
                    imported += usize::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::ExportSection(exports) => {
                for found in exports {
                    let found = found?;
                    if found.kind == ExternalKind::Func && found.name == export {
                        exported = Some(usize::try_from(found.index)?);
                    }
                }
            }
            Payload::CodeSectionEntry(body) => bodies.push(body.range()),
            _ => {}
        }
    }
    let exported = exported.with_context(|| format!("the module exports no {export}"))?;
    let index = exported.checked_sub(imported).context("it is imported, not defined")?;
    bodies.into_iter().nth(index).context("it has no body")
}
