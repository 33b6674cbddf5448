//! The sans-IO engine of the session border controller.
//!
//! Everything that *decides* lives here: SIP messages, transactions, dialogs, calls, SDP offer/answer and the media
//! plans that follow from them. Nothing here *does* anything: no sockets, clocks, threads, files or randomness from
//! the system. Bytes, results and the current time come in as [`Input`] and [`Now`]; what must be done leaves as
//! [`Output`]; the caller performs it and feeds the result back.

pub mod call;
pub mod command;
pub mod config;
pub mod counter;
pub mod dialog;
pub mod engine;
pub mod flow;
pub mod guard;
pub mod id;
pub mod identity;
pub mod input;
pub mod media;
mod mention;
pub mod output;
pub mod peer_media;
pub mod policy;
pub mod record;
pub mod restart;
pub mod rng;
pub mod sdp;
pub mod sip;
pub mod time;
pub mod timers;
pub mod txn;

pub use engine::Engine;
pub use input::Input;
pub use output::Output;
pub use time::Now;
