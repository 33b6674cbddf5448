//! A trace of chosen packets: a program of its own in the place of the ordinary one, as long as the trace lasts.
//!
//! Both do the same with a packet and share all maps; the link is given the one or the other, so no packet goes by. The
//! program tells of a packet through aya-log, in numbers; here they become words. It stops by itself when its time is
//! over, whether or not a daemon is there to take it out.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aya::Ebpf;
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::Xdp as Program;
use aya_log::EbpfLogger;
use sbc_common::counter::Counter;
use sbc_common::guard::mapped;
use sbc_common::names;
use sbc_common::trace::{FLOW, LINES, SOURCE, TraceFilter, WINDOW_TICKS};
use sbc_common::window::Limit;

use super::error::{StartError, chain};
use super::guard::monotonic_ns;
use super::load::{Kernel, take};
use super::object::TRACING_OBJECT;
use crate::trace::{Ends, LONGEST, Target, TraceOrder, TraceView, TracedLine, TracedPacket};

/// How often lines are taken from the kernel. Its ring has room for a second's.
const PERIOD: Duration = Duration::from_millis(100);
/// Lines kept for operators who ask.
const KEPT: usize = 1000;

const OTHER_OBJECT: &str = "the tracing object is another one";

/// The trace that runs, and what was told so far.
#[derive(Default)]
pub(crate) struct Tracer {
    running: Option<Running>,
    last_number: u64,
    suppressed: u64,
    lines: VecDeque<TracedLine>,
}

struct Running {
    target: Target,
    ends: Instant,
    ends_wall: SystemTime,
    next: Instant,
    /// Holds the program.
    _ebpf: Ebpf,
    /// Its way to the other one: gone with the last who holds it.
    _next: ProgramArray<MapData>,
    filter: Array<MapData, TraceFilter>,
    log: TraceLog,
}

impl Tracer {
    /// Carries out an order.
    ///
    /// # Errors
    /// Why it cannot be, for the operator.
    pub(crate) fn order(
        &mut self,
        now: Instant,
        kernel: &mut Kernel,
        interfaces: &[String],
        order: TraceOrder,
    ) -> Result<TraceView, String> {
        let after = match order {
            TraceOrder::Begin { target, lasts } => {
                self.end(kernel, interfaces);
                self.begin(now, kernel, interfaces, target, lasts.min(LONGEST))?;
                self.last_number
            }
            TraceOrder::End => {
                self.end(kernel, interfaces);
                self.last_number
            }
            TraceOrder::Show { after } => {
                self.hear();
                after
            }
        };
        Ok(TraceView {
            running: self.running.as_ref().map(|running| (running.target, running.ends_wall)),
            suppressed: self.suppressed,
            last: self.last_number,
            lines: self.lines.iter().filter(|line| line.number > after).copied().collect(),
        })
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.running.as_ref().map(|running| running.next.min(running.ends))
    }

    /// Takes what was told, and ends a trace whose time is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant, kernel: &mut Kernel, interfaces: &[String]) {
        let Some(running) = &mut self.running else { return };
        let is_over = running.ends <= now;
        if is_over {
            self.end(kernel, interfaces);
        } else if running.next <= now {
            running.next = now + PERIOD;
            self.hear();
        }
    }

    fn begin(
        &mut self,
        now: Instant,
        kernel: &mut Kernel,
        interfaces: &[String],
        target: Target,
        lasts: Duration,
    ) -> Result<(), String> {
        if TRACING_OBJECT.is_empty() {
            return Err("this build has no tracing program".to_owned());
        }
        let failed = |error: StartError| chain(&error);
        let mut ebpf = kernel.load_beside(TRACING_OBJECT).map_err(failed)?;
        let mut filter: Array<MapData, TraceFilter> = take(&mut ebpf, names::TRACE).map_err(failed)?;
        let value = wanted(target, monotonic_ns(), lasts);
        filter.set(0, value, 0).map_err(|error| chain(&error))?;
        let log = TraceLog::take(&mut ebpf)?;
        let next = prepare(&mut ebpf)?;
        let program = program(&mut ebpf, names::TRACING_PROGRAM)?;
        for interface in interfaces {
            if let Err(error) = kernel.put(program, interface) {
                put_back(kernel, interfaces);
                return Err(format!("{interface}: {error}"));
            }
        }
        tracing::info!(target: "trace", seconds = lasts.as_secs(), "a trace begins");
        tracing::debug!(target: "trace", %target, "what is traced");
        self.suppressed = 0;
        self.running = Some(Running {
            target,
            ends: now + lasts,
            ends_wall: SystemTime::now() + lasts,
            next: now + PERIOD,
            _ebpf: ebpf,
            _next: next,
            filter,
            log,
        });
        Ok(())
    }

    fn end(&mut self, kernel: &mut Kernel, interfaces: &[String]) {
        if self.running.is_none() {
            return;
        }
        put_back(kernel, interfaces);
        self.hear();
        self.running = None;
        tracing::info!(target: "trace", suppressed = self.suppressed, "the trace is over");
    }

    fn hear(&mut self) {
        let Some(running) = &mut self.running else { return };
        self.suppressed = running.filter.get(&0, 0).map_or(self.suppressed, |filter| filter.suppressed);
        for packet in running.log.drain() {
            let Ends { from, to, frame_bytes } = packet.arrived;
            let left =
                packet.left.map(|left| tracing::field::display(format!("{} > {}", left.from, left.to)));
            tracing::debug!(
                target: "trace",
                outcome = packet.outcome, interface = packet.ifindex, %from, %to, frame_bytes, left, "packet"
            );
            self.last_number += 1;
            if self.lines.len() >= KEPT {
                self.lines.pop_front();
            }
            self.lines.push_back(TracedLine { number: self.last_number, heard: SystemTime::now(), packet });
        }
    }
}

/// The ordinary program again, everywhere.
fn put_back(kernel: &mut Kernel, interfaces: &[String]) {
    for interface in interfaces {
        if let Err(error) = kernel.put_ordinary(interface) {
            tracing::error!(
                interface,
                error,
                "the tracing program stays in place; it tells nothing any more"
            );
        }
    }
}

fn wanted(target: Target, now_ns: u64, lasts: Duration) -> TraceFilter {
    let address = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    };
    let (address, port, kind) = match target {
        Target::Source(source) => (address(source), 0, SOURCE),
        Target::Flow(flow) => (address(flow.ip()), flow.port(), FLOW),
    };
    TraceFilter {
        until_ns: now_ns.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX)),
        limit: Limit { count: LINES, ticks: WINDOW_TICKS },
        address,
        port: port.to_be_bytes(),
        kind,
        ..TraceFilter::default()
    }
}

/// Loads both programs of the tracing object and joins them.
///
/// # Errors
/// It is another object, or the kernel does not take it.
pub fn prepare(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, String> {
    let map = ebpf.take_map(names::TRACE_NEXT).ok_or(OTHER_OBJECT)?;
    let mut next = ProgramArray::try_from(map).map_err(|error| chain(&error))?;
    for name in [names::TRACING_PROGRAM, names::TELLING_PROGRAM] {
        program(ebpf, name)?.load().map_err(|error| chain(&error))?;
    }
    let telling = program(ebpf, names::TELLING_PROGRAM)?.fd().map_err(|error| chain(&error))?;
    next.set(0, telling, 0).map_err(|error| chain(&error))?;
    Ok(next)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, String> {
    let program = ebpf.program_mut(name).ok_or(OTHER_OBJECT)?;
    program.try_into().map_err(|error| chain(&error))
}

/// What the tracing program says, taken out of its ring.
pub struct TraceLog {
    logger: EbpfLogger<Sink>,
    told: Arc<Mutex<Vec<TracedPacket>>>,
}

impl TraceLog {
    /// Of a loaded tracing object.
    ///
    /// # Errors
    /// It is another object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, String> {
        let told = Arc::<Mutex<Vec<TracedPacket>>>::default();
        let logger = EbpfLogger::init_with_logger(ebpf, Sink(told.clone())).map_err(|error| chain(&error))?;
        Ok(Self { logger, told })
    }

    /// What was said since the last time.
    pub fn drain(&mut self) -> Vec<TracedPacket> {
        self.logger.flush();
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where aya-log hands each line as text.
struct Sink(Arc<Mutex<Vec<TracedPacket>>>);

impl log::Log for Sink {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        match packet(&line) {
            Some(packet) => self.0.lock().unwrap_or_else(PoisonError::into_inner).push(packet),
            None => tracing::warn!(line, "the tracing program says something unknown"),
        }
    }

    fn flush(&self) {}
}

/// A line: outcome, interface, and twice frame bytes, from and to.
fn packet(line: &str) -> Option<TracedPacket> {
    let mut words = line.split(' ');
    let outcome = Counter::from_number(words.next()?.parse().ok()?)?;
    let ifindex = words.next()?.parse().ok()?;
    let arrived = ends(&mut words)?;
    let left = Some(ends(&mut words)?).filter(|left| *left != arrived);
    Some(TracedPacket { outcome: outcome.name(), ifindex, arrived, left }).filter(|_| words.next().is_none())
}

fn ends<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Ends> {
    let frame_bytes = words.next()?.parse().ok()?;
    let mut socket = || {
        let address: Ipv6Addr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(IpAddr::V6(address).to_canonical(), words.next()?.parse().ok()?))
    };
    Some(Ends { from: socket()?, to: socket()?, frame_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_words() {
        let line = "1 7 214 ::ffff:203.0.113.5 4000 ::ffff:192.0.2.1 20000 \
                    234 2001:db8::1 20002 2001:db8::9 5000";
        let ends = |frame_bytes, from: &str, to: &str| Ends {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            frame_bytes,
        };
        let arrived = ends(214, "203.0.113.5:4000", "192.0.2.1:20000");
        let left = Some(ends(234, "[2001:db8::1]:20002", "[2001:db8::9]:5000"));
        let expected = TracedPacket { outcome: "forward_other", ifindex: 7, arrived, left };
        assert_eq!(packet(line), Some(expected));
        let same = "97 7 60 ::ffff:203.0.113.5 1 ::ffff:192.0.2.1 5060 60 ::ffff:203.0.113.5 1 ::ffff:192.0.2.1 5060";
        let dropped = packet(same).unwrap();
        assert_eq!((dropped.outcome, dropped.left), ("drop_denied", None));
        for broken in ["", "1", "127 7", &line[..40], &format!("{line} 1")] {
            assert_eq!(packet(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_filter_is_the_kernels() {
        let flow = wanted(Target::Flow("203.0.113.5:4000".parse().unwrap()), 1, Duration::from_secs(2));
        assert_eq!((flow.address, flow.port, flow.kind), (mapped([203, 0, 113, 5]), [0x0f, 0xa0], FLOW));
        assert_eq!((flow.until_ns, flow.limit.count), (2_000_000_001, LINES));
        let source = wanted(Target::Source("2001:db8::9".parse().unwrap()), 0, LONGEST);
        assert_eq!((source.address[..2].to_vec(), source.port, source.kind), (vec![0x20, 1], [0, 0], SOURCE));
    }
}
