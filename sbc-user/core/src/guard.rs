//! The guard's memory and judgement: who is blocked, trusted or denied, for how long, and why.
//!
//! The dataplane holds off floods by itself and tells once in a window that a limit was exceeded ([`GuardEvent`]); what
//! follows from that is decided here and goes back as [`GuardCommand`]s. What the dataplane cannot count, requests
//! inside of connections, is counted here, by the same rule and against the same limit. Where no kernel stands in front
//! of the sockets, the lists hold here all the same.

pub mod command;
mod deny_list;
mod judge;
mod prefix_list;
mod window;

pub use command::{
    Denial, DenyReason, DenyScope, Exceeded, GuardCommand, GuardEvent, GuardPolicy, GuardSetup, Level, Limit,
    Source,
};
pub use deny_list::{Denied, DenyList};
pub use judge::{Evidence, Guard, Sender, Verdict};
pub use prefix_list::{ListKind, ListRefusal, PrefixList};
