//! Header names and the typed headers, one per file. Each is a view that borrows from the message.

mod contact;
mod content_type;
mod cseq;
mod name;
mod name_addr;
mod params;
mod rack;
mod reason;
mod replaces;
mod session_expires;
mod via;

use std::fmt;

pub use contact::Contact;
pub use content_type::ContentType;
pub use cseq::CSeq;
pub use name::HeaderName;
pub(crate) use name::{UNKNOWN, number_of};
pub use name_addr::NameAddr;
pub use params::Params;
pub use rack::RAck;
pub use reason::Reason;
pub use replaces::Replaces;
pub use session_expires::{Refresher, SessionExpires};
pub use via::Via;

/// Why a typed header could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The message has no such header.
    Missing(HeaderName<'static>),
    /// It has one, and its value does not follow the grammar.
    Malformed(HeaderName<'static>),
    /// A number in it is larger than the header allows.
    Overflow(HeaderName<'static>),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "no {name} header"),
            Self::Malformed(name) => write!(f, "malformed {name} header"),
            Self::Overflow(name) => write!(f, "number too large in {name} header"),
        }
    }
}

impl std::error::Error for HeaderError {}
