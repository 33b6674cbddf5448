//! Embeds the kernel objects.
//!
//! `cargo xtask` builds them and names the XDP program's in `SBC_EBPF_OBJECT`; the others lie beside it. Without that
//! variable they are empty: everything compiles and every test that needs no kernel runs on a machine that has no BPF
//! toolchain.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const OBJECT: &str = "SBC_EBPF_OBJECT";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var_os("OUT_DIR").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
    let object = env::var_os(OBJECT).filter(|path| !path.is_empty()).map(PathBuf::from);
    embed(object.as_deref(), &out.join("sbc.o"))?;
    for name in ["steer.o", "trace.o"] {
        // Absent where somebody built the one object by hand: the daemon then does without.
        let other = object.as_ref().map(|object| object.with_file_name(name)).filter(|path| path.exists());
        embed(other.as_deref(), &out.join(name))?;
    }
    Ok(())
}

fn embed(object: Option<&Path>, out: &Path) -> io::Result<()> {
    let Some(path) = object else { return fs::write(out, []) };
    println!("cargo::rerun-if-changed={}", path.display());
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    fs::copy(path, out).map(drop).map_err(failed)
}
