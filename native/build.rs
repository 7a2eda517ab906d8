//! Links the unwinder of libgcc into the module. Envoy's distroless images have no `libgcc_s.so.1`.
//!
//! The standard library asks the linker for `gcc_s`. The linker searches the folder of this script first, and finds a linker
//! script there that names the static libraries instead.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV")? == "gnu"
        && std::env::var("CARGO_CFG_TARGET_OS")? == "linux"
    {
        let folder = PathBuf::from(std::env::var("OUT_DIR")?);
        std::fs::write(folder.join("libgcc_s.so"), "INPUT(-l:libgcc_eh.a -l:libgcc.a)\n")?;
        println!("cargo::rustc-link-search=native={}", folder.display());
    }
    Ok(())
}
