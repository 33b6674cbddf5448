//! Who sent a message, as far as transactions must know it.

use crate::id::TrunkId;

/// The sender of a message; the caller found it by the source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The trunk: its transactions are its own, whatever others write into their requests.
    pub trunk: TrunkId,
    /// It stands behind a NAT and reaches us through a binding that only its source address and port name.
    pub behind_nat: bool,
}
