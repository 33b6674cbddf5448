//! An XDP program on the interface: our relay, or a redirect and nothing else.

use anyhow::{Context, Result};
use aya::programs::XdpMode;
use aya::programs::xdp::XdpLinkId;
use sbc_common::names::PROGRAM;

use super::{Contender, lanes, port};
use crate::dataplane::frames::Lane;
use crate::dataplane::kernel::{Feature, Loaded, Path, object};
use crate::dataplane::testbed::{EGRESS, INGRESS, Testbed};

/// An object with its maps filled.
pub struct Xdp {
    name: &'static str,
    program: &'static str,
    loaded: Loaded,
    lanes: Vec<Lane>,
    link: Option<XdpLinkId>,
}

impl Xdp {
    /// The production program, with everything that it does for learned flows.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn relay(testbed: &Testbed, flows: u32) -> Result<Self> {
        let mut loaded = Loaded::new(&object("SBC_EBPF_OBJECT")?, 1, &[])?;
        let egress = testbed.sbc.interface_index(EGRESS)?;
        let path = Path { ingress: testbed.sbc.interface_index(INGRESS)?, egress, device: egress };
        testbed.sbc.enter(|| loaded.install(flows, |flow| port(flow).into(), Feature::Learned, path))??;
        Ok(Self { name: "xdp_relay", program: PROGRAM, loaded, lanes: lanes(flows), link: None })
    }

    /// The bare redirect.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn bare_redirect(testbed: &Testbed, flows: u32) -> Result<Self> {
        let egress = testbed.sbc.interface_index(EGRESS)?;
        let bench = object("SBC_BENCH_OBJECT")?;
        let mut loaded = Loaded::new(&bench, 1, &[("EGRESS", egress)])?;
        testbed.sbc.enter(|| loaded.add_device(egress, egress))??;
        Ok(Self { name: "bare_redirect", program: "bare_redirect", loaded, lanes: lanes(flows), link: None })
    }
}

impl Contender for Xdp {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rewrites(&self) -> bool {
        self.program == PROGRAM
    }

    fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    fn enter(&mut self, testbed: &Testbed) -> Result<()> {
        let program = self.loaded.program(self.program)?;
        self.link = Some(testbed.sbc.enter(|| program.attach(INGRESS, XdpMode::Driver))??);
        Ok(())
    }

    fn leave(&mut self, _: &Testbed) -> Result<()> {
        let link = self.link.take().context("it is not in place")?;
        Ok(self.loaded.program(self.program)?.detach(link)?)
    }
}
