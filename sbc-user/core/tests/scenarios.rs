//! Whole calls through the engine, between two user agents that know nothing of it.

#![allow(missing_docs, clippy::unwrap_used)]

mod pair;

use pair::Pair;

#[test]
fn basic_call() {
    let mut pair = Pair::new();
    pair.basic_call();
    assert_eq!(pair.a.count("INVITE", 100), 1);
    assert_eq!(pair.a.count("INVITE", 180), 1);
    assert_eq!(pair.b.count("ACK", 0), 1);
    let stream = &pair.plan().streams[0];
    assert_eq!(stream.caller.peer.unwrap().rtp, "198.51.100.10:40000".parse().unwrap());
    assert_eq!(stream.callee.peer.unwrap().rtp, "10.9.0.20:50000".parse().unwrap());
    assert!(pair.b.last("INVITE", 0).body().contains(&format!("m=audio {} ", stream.callee.local_rtp_port)));
    assert!(
        pair.a.last("INVITE", 200).body().contains(&format!("m=audio {} ", stream.caller.local_rtp_port))
    );
    pair.a.bye();
    pair.run_ms(100);
    assert!(pair.b.ended);
    assert_eq!(pair.a.count("BYE", 200), 1);
    pair.assert_nothing_left(1);
    let record = &pair.records[0];
    assert_eq!((record.status, record.ended_by), (200, sbc_core::record::EndedBy::Caller));
    assert_eq!(record.media[0].from_caller.rtp_kernel, 7);
}
