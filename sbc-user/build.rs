//! Embeds the kernel object.
//!
//! `cargo xtask` builds it and names it in `SBC_EBPF_OBJECT`. Without that variable the object is empty: everything
//! compiles and every test that needs no kernel runs on a machine that has no BPF toolchain.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    const OBJECT: &str = "SBC_EBPF_OBJECT";
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let out = env::var_os("OUT_DIR").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?.join("sbc.o");
    match env::var_os(OBJECT).filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            fs::copy(&path, out).map_err(|error| {
                io::Error::new(error.kind(), format!("{OBJECT}={}: {error}", path.display()))
            })?;
        }
        None => {
            println!("cargo::rerun-if-changed=build.rs");
            fs::write(out, [])?;
        }
    }
    Ok(())
}
