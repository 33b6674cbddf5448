//! The work of the XDP program, apart from its entry: the production object and the bench's object share it,
//! and on the host it compiles for clippy and for the unit tests of what needs no kernel.
//!
//! It forwards the media of flows that the daemon installed, holds off floods from the SIP ports and passes what is not
//! ours. What a SIP message means, ciphers and policy are not here.

#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod clock;
pub mod ctx;
pub mod emit;
pub mod entry;
pub mod guard;
pub mod l2;
pub mod maps;
pub mod media;
pub mod outcome;
pub mod parse;
