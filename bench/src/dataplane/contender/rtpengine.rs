//! rtpengine in userspace: each two flows are the two directions of a call.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context, Result, bail};
use sbc_tests::process::{Process, Scratch};

use super::Contender;
use crate::dataplane::frames::{self, Lane, rtp_lane};
use crate::dataplane::ng::{Client, Value};
use crate::dataplane::testbed::{OURS, Testbed};

const CONTROL: &str = "127.0.0.1:2223";
/// Each call has two legs with a port for RTP and one for RTCP each.
const PORTS: (u16, u16) = (30_000, 39_999);

/// rtpengine and its calls. It runs only while it is in place.
pub struct Rtpengine<'a> {
    scratch: &'a Scratch,
    flows: u32,
    process: Option<Process>,
    lanes: Vec<Lane>,
}

impl<'a> Rtpengine<'a> {
    /// One that can be started.
    ///
    /// # Errors
    /// If it cannot, or refuses a call.
    pub fn new(testbed: &Testbed, flows: u32, scratch: &'a Scratch) -> Result<Self> {
        let mut rtpengine = Self { scratch, flows, process: None, lanes: Vec::new() };
        rtpengine.enter(testbed)?;
        rtpengine.process = None;
        Ok(rtpengine)
    }
}

fn start(testbed: &Testbed, scratch: &Scratch) -> Result<Process> {
    let (from, to) = PORTS;
    let configuration = scratch.write(
        "rtpengine.conf",
        format!(
            "[rtpengine]\ntable = -1\ninterface = {OURS}\nlisten-ng = {CONTROL}\nforeground = true\n\
             log-stderr = true\nlog-level = 3\ntimeout = 3600\nsilent-timeout = 3600\noffer-timeout = 3600\n\
             port-min = {from}\nport-max = {to}\n",
        ),
    )?;
    let mut command = testbed.sbc.command("rtpengine");
    command.arg("--config-file").arg(&configuration);
    Process::spawn("rtpengine", &mut command, scratch)
}

/// Sets the calls up; what each flow's way is.
fn calls(testbed: &Testbed, flows: u32) -> Result<Vec<Lane>> {
    let socket = testbed.sbc.enter(|| -> Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(CONTROL)?;
        Ok(socket)
    })??;
    let mut client = Client::new(socket)?;
    client.ask(&Value::dictionary([("command", "ping".into())])).context("rtpengine does not answer")?;
    let mut lanes = Vec::new();
    for call in 0..flows / 2 {
        lanes.extend(set_up(&mut client, 2 * call).with_context(|| format!("call {call}"))?);
    }
    Ok(lanes)
}

/// A call between the senders of two flows.
fn set_up(client: &mut Client, flow: u32) -> Result<[Lane; 2]> {
    let call = Value::from(format!("call-{flow}").as_str());
    let common = |command: &str, party: u32| {
        [
            ("command", command.into()),
            ("call-id", call.clone()),
            ("from-tag", "caller".into()),
            ("ICE", "remove".into()),
            ("replace", Value::List(vec!["origin".into()])),
            ("sdp", sdp(party).as_str().into()),
        ]
    };
    let offered = client.ask(&Value::dictionary(common("offer", flow)))?;
    let [command, id, from, ice, replace, sdp] = common("answer", flow + 1);
    let to = ("to-tag", "callee".into());
    let answered = client.ask(&Value::dictionary([command, id, from, to, ice, replace, sdp]))?;
    // What is written into the answer faces the caller, what is written into the offer the callee.
    Ok([
        rtp_lane(flow, OURS, port(answered.text("sdp"))?),
        rtp_lane(flow + 1, OURS, port(offered.text("sdp"))?),
    ])
}

fn sdp(party: u32) -> String {
    let (address, port) = (frames::source(party), frames::SOURCE_PORT);
    format!(
        "v=0\r\no=- {party} 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
    )
}

/// The port in a session description of one audio stream.
fn port(sdp: Option<&str>) -> Result<u16> {
    let line = sdp.and_then(|sdp| sdp.lines().find_map(|line| line.strip_prefix("m=audio ")));
    match line.and_then(|line| line.split(' ').next()).map(str::parse) {
        Some(Ok(port)) if port > 0 => Ok(port),
        _ => bail!("no port in {sdp:?}"),
    }
}

impl Contender for Rtpengine<'_> {
    fn name(&self) -> &'static str {
        "rtpengine_userspace"
    }

    fn rewrites(&self) -> bool {
        true
    }

    fn holds_sender(&self) -> bool {
        false
    }

    fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    fn enter(&mut self, testbed: &Testbed) -> Result<()> {
        let process = start(testbed, self.scratch)?;
        self.lanes = calls(testbed, self.flows).with_context(|| process.log_tail())?;
        self.process = Some(process);
        Ok(())
    }

    fn leave(&mut self, _: &Testbed) -> Result<()> {
        self.process = None;
        Ok(())
    }

    /// Sockets that were full are not read any more.
    fn recover(&mut self, testbed: &Testbed) -> Result<()> {
        self.leave(testbed)?;
        self.enter(testbed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_the_first_audio_stream() {
        assert_eq!(port(Some(&sdp(7))).unwrap(), frames::SOURCE_PORT);
        for none in [None, Some(""), Some("m=audio 0 RTP/AVP 0\r\n"), Some("m=audio x\r\n")] {
            assert!(port(none).is_err());
        }
    }
}
