//! What the transaction layer and its user say to each other.

use bytes::Bytes;

use crate::flow::Flow;
use crate::id::OpId;
use crate::sip::Message;

/// A client transaction: a request of ours. Unique for the life of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientTxnId(pub(super) u64);

/// A server transaction: a request of a peer. Unique for the life of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerTxnId(pub(super) u64);

/// A transaction of either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TxnId {
    /// Ours is the request.
    Client(ClientTxnId),
    /// The peer's is the request.
    Server(ServerTxnId),
}

/// What [`Transactions::poll`](super::Transactions::poll) gives.
#[derive(Debug)]
pub enum TxnOutput {
    /// Send these bytes.
    Send {
        /// Names the transaction; give it to [`send_failed`](super::Transactions::send_failed) if they could not be
        /// delivered. The same for every send of one transaction.
        op: OpId,
        /// Where to.
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// Something for the transaction's user.
    Event(TxnEvent),
}

/// What a transaction tells its user.
#[derive(Debug)]
pub enum TxnEvent {
    /// A new request, never a copy and never ACK. An INVITE has been answered with 100 (Trying) already.
    Request {
        /// Answer it with [`respond`](super::Transactions::respond).
        txn: ServerTxnId,
        /// The request.
        message: Box<Message>,
        /// Where it came from.
        flow: Flow,
    },
    /// An ACK that belongs to a 2xx: it is its own end-to-end message, for the dialog to match (RFC 3261 s.13.2.2.4).
    Ack {
        /// The ACK.
        message: Box<Message>,
        /// Where it came from.
        flow: Flow,
    },
    /// A response: each 1xx, the first final one, and every 2xx to an INVITE (each needs an ACK).
    Response {
        /// The request's transaction.
        txn: ClientTxnId,
        /// The response.
        message: Box<Message>,
        /// Where it came from.
        flow: Flow,
    },
    /// A response that no transaction waits for. A 2xx to an INVITE may still need its ACK repeated; all others are to
    /// be dropped (RFC 6026 s.7.2).
    ResponseOutside {
        /// The response.
        message: Box<Message>,
        /// Where it came from.
        flow: Flow,
    },
    /// Client: no (final) answer in time, to be treated as 408 (RFC 3261 s.8.1.3.1). Server: no ACK to a refusal, or
    /// the user itself never answered. `Terminated` follows.
    TimedOut {
        /// The transaction.
        txn: TxnId,
    },
    /// What was sent could not be delivered. Client: to be treated as 503 (RFC 3261 s.8.1.3.1); `Terminated` follows.
    /// Server: it lives on, since the peer may be reached when it repeats its request (RFC 6026 s.8.8).
    TransportFailed {
        /// The transaction.
        txn: TxnId,
    },
    /// The transaction is over and its id means nothing any more.
    Terminated {
        /// The transaction.
        txn: TxnId,
    },
    /// A new request was refused because as many transactions live as are allowed.
    Overloaded {
        /// Where it came from.
        flow: Flow,
    },
}

/// How an [`OpId`] names a transaction: the kind in the two highest bits, the number in the others.
const KIND_SHIFT: u32 = 62;
const CLIENT: u64 = 1;
const SERVER: u64 = 2;
const STATELESS: u64 = 3;

impl TxnId {
    /// The operation that its sends carry. Operations below 2^62 are never used by transactions.
    pub(super) const fn op(self) -> OpId {
        match self {
            Self::Client(ClientTxnId(number)) => OpId((CLIENT << KIND_SHIFT) | number),
            Self::Server(ServerTxnId(number)) => OpId((SERVER << KIND_SHIFT) | number),
        }
    }

    /// The operation of a send that belongs to no transaction.
    pub(super) const STATELESS_OP: OpId = OpId(STATELESS << KIND_SHIFT);

    /// Back from the operation; `None` if it names no transaction.
    pub(super) const fn from_op(op: OpId) -> Option<Self> {
        let number = op.0 & !(STATELESS << KIND_SHIFT);
        match op.0 >> KIND_SHIFT {
            CLIENT => Some(Self::Client(ClientTxnId(number))),
            SERVER => Some(Self::Server(ServerTxnId(number))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_names_its_transaction() {
        for txn in [
            TxnId::Client(ClientTxnId(0)),
            TxnId::Server(ServerTxnId(7)),
            TxnId::Client(ClientTxnId(1 << 50)),
        ] {
            assert_eq!(TxnId::from_op(txn.op()), Some(txn));
        }
        assert_eq!(TxnId::from_op(TxnId::STATELESS_OP), None);
        assert_eq!(TxnId::from_op(OpId(12)), None);
    }
}
