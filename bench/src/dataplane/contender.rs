//! Who relays the frames of the testbed: our program, what bounds it, and what an operator could use instead.

mod nftables;
mod rtpengine;
mod xdp;

use anyhow::Result;

pub use nftables::Nftables;
pub use rtpengine::Rtpengine;
pub use xdp::Xdp;

use super::frames::{Lane, rtp_lane};
use super::testbed::{OURS, Testbed};

/// One of them. Only one stands in the network at a time; what makes it up stays ready when it leaves.
pub trait Contender: Send {
    /// Its name in the result.
    fn name(&self) -> &'static str;

    /// Whether it rewrites the frames, so that they leave from our address; else it only forwards them.
    fn rewrites(&self) -> bool;

    /// Whether its work is done before the sender goes on, so that it can be offered as much as goes without loss.
    fn holds_sender(&self) -> bool {
        true
    }

    /// Where the frames of each flow must go.
    fn lanes(&self) -> &[Lane];

    /// Puts it in place.
    ///
    /// # Errors
    /// If the host refuses.
    fn enter(&mut self, testbed: &Testbed) -> Result<()>;

    /// Takes it away.
    ///
    /// # Errors
    /// If the host refuses.
    fn leave(&mut self, testbed: &Testbed) -> Result<()>;

    /// Makes it as new after it was offered more than it could take.
    ///
    /// # Errors
    /// If the host refuses.
    fn recover(&mut self, _testbed: &Testbed) -> Result<()> {
        Ok(())
    }
}

/// The port of a flow where the contender lets us choose: even ones, as for RTP.
fn port(flow: u32) -> u16 {
    (20_000 + 2 * flow) as u16
}

/// The flows at these ports.
fn lanes(flows: u32) -> Vec<Lane> {
    (0..flows).map(|flow| rtp_lane(flow, OURS, port(flow))).collect()
}
