//! The deployment that README.md shows works as it is written there.
#![allow(clippy::unwrap_used, reason = "a test file")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sbc_tests::process::Scratch;
use sbc_tests::sbc::{Carried, Networks, OUTSIDE, PBX, SBC_INSIDE, SBC_OUTSIDE, SIP, Sbcd, binaries};
use sbc_tests::sipp::{ANSWER_WITH_AUDIO, Answering, Batch, CALL_WITH_AUDIO, Calling, Outcome};
use sbc_tests::{is_root, skip};

/// The first TOML block of the README, with the addresses of these networks in place of the reader's.
fn configuration() -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let block = readme.split_once("```toml\n").unwrap().1;
    let mut block = block.split_once("```").unwrap().0.to_owned();
    for (theirs, ours) in [
        ("198.51.100.10", SBC_OUTSIDE.to_string()),
        ("192.0.2.0/24", format!("{OUTSIDE}/32")),
        ("192.0.2.7", OUTSIDE.to_string()),
        ("10.0.0.5", SBC_INSIDE.to_string()),
        ("10.0.0.20", PBX.to_string()),
    ] {
        assert!(block.contains(theirs), "the README has other addresses than this test knows: no {theirs}");
        block = block.replace(theirs, &ours);
    }
    block
}

#[test]
fn a_call_passes_through_the_readmes_configuration() {
    const NAME: &str = "a_call_passes_through_the_readmes_configuration";
    if !is_root() {
        return skip(NAME, "needs root");
    }
    let binaries = match binaries() {
        Ok(binaries) => binaries,
        Err(error) => return skip(NAME, &format!("{error:#}")),
    };
    let scratch = Scratch::create("readme").unwrap();
    let networks = Networks::create().unwrap();
    let sbcd = Sbcd::start_with(&networks, &binaries, &configuration(), &scratch).unwrap();
    let audio = Duration::from_secs(1);
    let pbx = SocketAddr::new(PBX, SIP);
    let _answering = Answering::start(&networks.pbx, ANSWER_WITH_AUDIO, pbx, audio, &scratch).unwrap();
    let batch = Batch { calls: 2, per_second: 10, audio, hold: Duration::from_millis(1500) };
    let (carrier, sbc) = (SocketAddr::new(OUTSIDE, SIP), SocketAddr::new(SBC_OUTSIDE, SIP));
    let calling =
        Calling::start(&networks.outside, CALL_WITH_AUDIO, carrier, sbc, "100", batch, &scratch).unwrap();
    let limit = Duration::from_secs(20);
    assert_eq!(calling.finish(limit).unwrap(), Outcome { succeeded: 2, failed: 0 }, "{}", sbcd.log());
    let records = sbcd.wait_for_records(2, limit).unwrap();
    assert_eq!(Carried::sum(&records, "rtp_kernel").unwrap().both(), 2 * 2 * 50);
    assert!(sbcd.stop().unwrap().success());
}
