//! The kernel object, embedded at build time.

/// The object as an ELF file; empty where the build had none (see `build.rs`).
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sbc.o"));

/// Whether there is an object to load.
pub fn is_embedded() -> bool {
    !OBJECT.is_empty()
}
