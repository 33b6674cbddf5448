//! The rates of all contenders, in turns, so that what else the machine does meets all of them.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use sbc_tests::process::Scratch;

use super::contender::{Contender, Nftables, Rtpengine, Xdp};
use super::sweep::{Sweep, Turn};
use super::testbed::{OURS, Testbed};

/// Flows of every contender.
pub const FLOWS: u32 = 1000;
/// Rounds over all contenders at full rate, and offers in each.
const ROUNDS: usize = 12;
const BURSTS: usize = 4;
/// Sweeps of each contender.
const SWEEPS: usize = 2;
/// A rate at which something was lost is tried so often: the machine may have been busy.
const TRIES: usize = 2;

/// What a contender reached.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// The highest rate that it delivered, million packets per second.
    pub best_mpps: f64,
    /// The highest rate that it delivered without loss.
    pub lossless_mpps: f64,
}

/// A contender, and its rates or why there are none.
pub type Row = (&'static str, Result<Rates, String>);

/// Measures.
///
/// # Errors
/// If the kernel refuses something, or a contender does not relay as it should.
pub fn measure() -> Result<Vec<Row>> {
    let scratch = Scratch::create("bench")?;
    let mut testbed = Testbed::create(FLOWS)?;
    let mut contenders: Vec<Box<dyn Contender + '_>> = vec![
        Box::new(Xdp::bare_redirect(&testbed, FLOWS)?),
        Box::new(Xdp::relay(&testbed, FLOWS)?),
        Box::new(Nftables::nat(FLOWS, &scratch)?),
        Box::new(Nftables::stateless(FLOWS, &scratch)?),
    ];
    let mut missing = None;
    match Rtpengine::new(&testbed, FLOWS, &scratch) {
        Ok(rtpengine) => contenders.push(Box::new(rtpengine)),
        Err(error) => missing = Some(("rtpengine_userspace", Err(format!("{error:#}")))),
    }
    let rates = testbed.run(|testbed| {
        for contender in &mut contenders {
            let name = contender.name();
            check(testbed, contender.as_mut(), &scratch).with_context(|| format!("{name} does not relay"))?;
        }
        testbed.count()?;
        measure_each(testbed, &mut contenders)
    })?;
    let names = contenders.iter().map(|contender| contender.name());
    Ok(names.zip(rates.into_iter().map(Ok)).chain(missing).collect())
}

/// Every flow arrives at the far end, from our address if it is to be, with checksums that are right.
fn check(testbed: &mut Testbed, contender: &mut dyn Contender, scratch: &Scratch) -> Result<()> {
    contender.enter(testbed)?;
    testbed.set_lanes(contender.lanes())?;
    let arrived = testbed.sample(scratch)?;
    contender.leave(testbed)?;
    let right = |from_us: bool| !contender.rewrites() || from_us;
    let arrived = arrived.iter().filter(|packet| packet.checksums_right && right(packet.source.ip() == OURS));
    // The SSRC is the number of the flow.
    let flows: HashSet<&[u8]> = arrived.filter_map(|packet| packet.payload.get(8..12)).collect();
    ensure!(flows.len() == FLOWS as usize, "of {FLOWS} flows {} arrive as they should", flows.len());
    Ok(())
}

fn measure_each(testbed: &mut Testbed, contenders: &mut [Box<dyn Contender + '_>]) -> Result<Vec<Rates>> {
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, turns) in contenders.iter_mut().zip(&mut turns) {
            if contender.holds_sender() {
                put_in_place(testbed, contender.as_mut())?;
                for _ in 0..BURSTS {
                    turns.extend(testbed.burst()?);
                }
                contender.leave(testbed)?;
            }
        }
    }
    let mut rates: Vec<Rates> = turns.iter().map(|turns| rates(turns)).collect();
    for _ in 0..SWEEPS {
        for (contender, rates) in contenders.iter_mut().zip(&mut rates) {
            put_in_place(testbed, contender.as_mut())?;
            let sweep = sweep(testbed, contender.as_mut())?;
            contender.leave(testbed)?;
            rates.best_mpps = rates.best_mpps.max(sweep.best_pps() / 1e6);
            rates.lossless_mpps = rates.lossless_mpps.max(sweep.lossless_pps().unwrap_or(0.0) / 1e6);
        }
    }
    Ok(rates)
}

/// The rates of some offers at full rate.
fn rates(turns: &[Turn]) -> Rates {
    let best =
        |turns: &mut dyn Iterator<Item = &Turn>| turns.map(Turn::delivered_pps).fold(0.0, f64::max) / 1e6;
    Rates {
        best_mpps: best(&mut turns.iter()),
        lossless_mpps: best(&mut turns.iter().filter(|turn| turn.is_lossless())),
    }
}

fn put_in_place(testbed: &mut Testbed, contender: &mut dyn Contender) -> Result<()> {
    contender.enter(testbed)?;
    testbed.set_lanes(contender.lanes())?;
    testbed.warm_up()
}

fn sweep(testbed: &mut Testbed, contender: &mut dyn Contender) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    while let Some(asked) = sweep.next_pps() {
        let mut best: Option<Turn> = None;
        for _ in 0..TRIES {
            let turn = testbed.offer(asked)?;
            let better = best.is_none_or(|best| turn.received * best.sent > best.received * turn.sent);
            if better {
                best = Some(turn);
            }
            if turn.is_lossless() {
                break;
            }
            contender.recover(testbed)?;
            testbed.set_lanes(contender.lanes())?;
        }
        sweep.add(asked, best.context("an offer without a turn")?);
    }
    Ok(sweep)
}
