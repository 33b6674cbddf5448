//! Transactions: one request and its responses, made reliable over transports that are not (RFC 3261 s.17, RFC 6026,
//! RFC 4320).
//!
//! Four closed machines decide what a message, a timer or a broken transport means; [`Transactions`] owns what they
//! act upon: keys, timers, the bytes to repeat. It knows nothing of dialogs and calls.

mod client;
mod client_invite;
mod client_other;
mod clock;
mod event;
mod key;
mod machine;
mod own_messages;
mod peer;
mod response_route;
mod server;
mod server_invite;
mod server_other;
mod table;

pub use event::{ClientTxnId, ServerTxnId, TxnEvent, TxnId, TxnOutput};
pub use peer::Peer;
pub use table::{MAX_TRANSACTIONS, Transactions};

#[cfg(test)]
mod tests;
