//! The kernel objects, embedded at build time.

/// The XDP program's object as an ELF file; empty where the build had none (see `build.rs`).
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sbc.o"));

/// The steering program's object, likewise.
pub(super) static STEER_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.o"));
/// The object of the tracing program; empty as above.
pub(super) static TRACING_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trace.o"));

/// Whether there is an object to load.
pub fn is_embedded() -> bool {
    !OBJECT.is_empty()
}
