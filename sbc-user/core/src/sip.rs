//! The SIP wire layer: where a message ends, what is in it, and how one is written.
//!
//! A received message stays the bytes that arrived. [`Message::parse`] makes one pass over them and keeps a table of
//! offsets; headers are typed only when somebody asks; what nobody asks for is copied through byte for byte. Whether
//! a message makes sense is a second question, asked once by [`judge`](judge::judge).
//!
//! Peers' bytes are hostile: nothing here panics on them, takes more than linear time or keeps more than
//! [`limits`] allow. Nothing here knows about transactions, dialogs or calls.

pub mod frame;
pub mod header;
pub mod judge;
mod lex;
pub mod limits;
mod message;
mod method;
mod parse;
mod typed;
mod urgent;
pub mod uri;
pub mod write;

pub use header::{HeaderError, HeaderName};
pub use judge::{Judgement, judge};
pub use message::{Header, Message};
pub use method::Method;
pub use parse::{ParseError, ParseErrorKind};
pub use urgent::is_urgent;
pub use uri::{Host, Uri};
pub use write::{Edit, MessageBuilder};
