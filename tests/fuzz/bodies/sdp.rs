//! Reading a session description never panics, what we write we read as the same, and anchoring keeps every m-line
//! and leaves no address of the describing side behind.

use std::net::{IpAddr, Ipv4Addr};

use sbc_core::sdp::Sdp;
use sbc_core::sdp::anchor::{Addressing, rewrite, survey};

const ADVERTISED: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));

pub(crate) fn run(data: &[u8]) {
    let Ok(sdp) = Sdp::parse(data) else { return };
    assert!(
        Sdp::parse(&sdp.to_bytes()).is_ok_and(|again| again == sdp),
        "what we write, we read as the same"
    );
    let _ = survey(&sdp);
    let ports = [Some(20_000), None, Some(20_002)];
    let to = Addressing {
        advertised: ADVERTISED,
        ports: &ports,
        rtcp_mux: &[true, false],
        session_id: 1,
        session_version: 2,
    };
    let anchored = rewrite(&sdp, &to).to_bytes();
    let again = Sdp::parse(&anchored);
    assert_eq!(again.map(|a| a.media_count()), Ok(sdp.media_count()), "every m-line keeps its place");
    for line in anchored.split(|b| *b == b'\n').filter(|line| line.starts_with(b"c=")) {
        let ours = line.windows(12).any(|w| w == b"203.0.113.77");
        let nowhere = line.windows(7).any(|w| w == b"0.0.0.0");
        assert!(ours || nowhere, "{}", line.escape_ascii());
    }
}
