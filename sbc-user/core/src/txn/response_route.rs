//! Where the responses to a request go (RFC 3261 s.18.2.2, RFC 3581 s.4).

use super::peer::Peer;
use crate::flow::{Flow, Transport};
use crate::sip::Message;

/// The flow for responses to a request that arrived on `arrived`.
///
/// Over a stream: the same connection; if it is gone, a new one to the address it came from and the port of the
/// sent-by. Over UDP: the source, if the sender asks for it by `rport` or stands behind a NAT, else the source address and
/// the port of the sent-by.
///
/// RFC 3581 answers at the source port only if asked. A peer that is known to stand behind a NAT is answered there in any
/// case: its sent-by names a port of its own network, at which nothing that we send arrives.
///
/// A `maddr` is not followed: it would let a sender direct our responses at anyone.
pub(super) fn response_flow(request: &Message, arrived: Flow, peer: Peer) -> Flow {
    let Ok(via) = request.top_via() else { return arrived };
    let default_port = match arrived.transport {
        Transport::Udp | Transport::Tcp => 5060,
        Transport::Tls => 5061,
    };
    let mut flow = arrived;
    if flow.transport.is_reliable() || (via.rport().is_none() && !peer.behind_nat) {
        flow.remote.set_port(via.port().unwrap_or(default_port));
    }
    flow
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnId, ListenerId, TrunkId};

    fn to(transport: Transport, via: &str) -> String {
        to_peer(transport, via, false)
    }

    fn to_peer(transport: Transport, via: &str, behind_nat: bool) -> String {
        let text = format!("OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/{} {via}\r\n\r\n", transport.via_token());
        let conn = transport.is_reliable().then_some(ConnId(3));
        let remote = "192.0.2.9:40000".parse().unwrap();
        let arrived = Flow { listener: ListenerId(1), transport, remote, conn };
        let flow = response_flow(
            &Message::parse(text.into()).unwrap(),
            arrived,
            Peer { trunk: TrunkId(0), behind_nat },
        );
        assert_eq!((flow.listener, flow.transport, flow.conn), (arrived.listener, transport, conn));
        flow.remote.to_string()
    }

    #[test]
    fn udp() {
        assert_eq!(to(Transport::Udp, "h.example.com;branch=z9hG4bKx"), "192.0.2.9:5060");
        assert_eq!(to(Transport::Udp, "192.0.2.1:5070;branch=z9hG4bKx"), "192.0.2.9:5070");
        assert_eq!(to(Transport::Udp, "192.0.2.1:5070;rport;branch=z9hG4bKx"), "192.0.2.9:40000");
        assert_eq!(to(Transport::Udp, "192.0.2.1:5070;maddr=198.51.100.7;branch=z9hG4bKx"), "192.0.2.9:5070");
    }

    #[test]
    fn a_peer_behind_nat_is_answered_through_its_binding() {
        for via in ["192.168.1.7:5070;branch=z9hG4bKx", "192.168.1.7;rport;branch=z9hG4bKx", "192.168.1.7"] {
            assert_eq!(to_peer(Transport::Udp, via, true), "192.0.2.9:40000", "{via}");
        }
        assert_eq!(to_peer(Transport::Tcp, "192.0.2.1:5070;branch=z9hG4bKx", true), "192.0.2.9:5070");
    }

    #[test]
    fn a_stream_names_what_to_connect_to_when_it_is_gone() {
        assert_eq!(to(Transport::Tcp, "192.0.2.1:5070;rport;branch=z9hG4bKx"), "192.0.2.9:5070");
        assert_eq!(to(Transport::Tcp, "192.0.2.1;branch=z9hG4bKx"), "192.0.2.9:5060");
        assert_eq!(to(Transport::Tls, "192.0.2.1;branch=z9hG4bKx"), "192.0.2.9:5061");
    }
}
