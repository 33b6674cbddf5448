//! The guard in front of the SIP ports: whose packets reach the stack, and how many of them.
//!
//! The order: the operator's block list; who is denied at present; what is certainly no SIP, or a scanner's probe; who is
//! trusted on the realm of the socket, and not counted; the level; whether all together are over their limit; each
//! source's own limit; the limit of all together. A limit drops for the rest of its window and no longer, because the
//! source of a datagram may be forged; who is to be denied for a time the daemon decides. All of it works as it stands
//! while no daemon runs.
//!
//! What forged sources can cost is bounded by the limit of all: while it is exceeded no source is entered and none told
//! of, and to be entered counts, whatever the packet. So events are at most as many in a window of all as the limit of
//! all has of the limit of one.
//!
//! Media is not judged here: a media port admits its flow's own source and nobody else, denied or not.

pub mod arrival;
pub mod key;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sbc_common::event::ExceededRecord;
use sbc_common::first_line::{LOOKED_AT, PROBE_BYTES, is_probe, may_be_sip};
use sbc_common::guard::{Exceeded, GuardConfig, Level, SCOPE_UDP, SourceKey, SourceWindows, TotalWindows};
use sbc_common::window::{Decision, Limit, Window};

use crate::ctx::{Frame, SharedWord};
use crate::maps::{BLOCK, DENY, GUARD, SIP_SOCKETS, SOURCES, TOTALS, TRUSTED};
use crate::outcome::{DropReason, Outcome, PassReason};
use crate::parse::UDP_BYTES;
use crate::{clock, emit};
use arrival::{Arrival, Kind, TCP};

/// How often a CPU tries to count an arrival while others count theirs. One that does not come through is not counted.
const TRIES: u32 = 4;

/// What becomes of a packet that is not media. `reason` is why it is not: it stays the reason if the packet is not for a
/// SIP socket of ours.
#[inline(always)]
pub fn admit(ctx: &XdpContext, reason: PassReason) -> Outcome {
    Outcome::from_counter(admit_called(ctx.ctx, reason as u32)).unwrap_or(reason.into())
}

/// A function that the kernel calls, from the number of the reason to that of the outcome: the verifier follows it once,
/// whatever path led there, and its stack is its own.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
extern "C" fn admit_called(ctx: *mut xdp_md, reason: u32) -> u32 {
    match Outcome::from_counter(reason) {
        Some(Outcome::Pass(reason)) => try_admit(&XdpContext::new(ctx), reason).counter(),
        _ => reason,
    }
}

#[inline(always)]
fn try_admit(ctx: &XdpContext, reason: PassReason) -> Outcome {
    let frame = Frame::of(ctx);
    let Some(arrival) = arrival::read(&frame) else { return reason.into() };
    let socket = key::socket(arrival.destination, arrival.port, arrival.protocol);
    let Some(realm) = SIP_SOCKETS.get_ptr(socket.as_key()) else { return reason.into() };
    // SAFETY: the map returned the pointer; only the daemon writes the value, as one aligned word.
    let realm = unsafe { *realm };
    match judge(&frame, &arrival, realm) {
        Ok(PassReason::Sip) if arrival.kind == Kind::Unread => reason.into(),
        Ok(passed) => passed.into(),
        Err(dropped) => dropped.into(),
    }
}

#[inline(always)]
fn judge(frame: &Frame, arrival: &Arrival, realm: u32) -> Result<PassReason, DropReason> {
    if BLOCK.get(key::blocked(arrival.source).as_key()).is_some() {
        return Err(DropReason::Blocked);
    }
    refuse_denied(arrival)?;
    if let Kind::Datagram { payload_offset, udp_bytes } = arrival.kind {
        // Over IPv6 the host takes a length of 0 for the packet's (RFC 2675 s.4), and would read what we did not.
        let payload_bytes = udp_bytes.checked_sub(UDP_BYTES).ok_or(DropReason::NotSip)?;
        check_first_line(frame, payload_offset, payload_bytes)?;
    }
    if TRUSTED.get(key::trusted(realm, arrival.source).as_key()).is_some() {
        return Ok(PassReason::SipTrusted);
    }
    let config = GUARD.get(0).ok_or(DropReason::NotAllowed)?;
    if config.level == Level::AllowListOnly as u32 {
        return Err(DropReason::NotAllowed);
    }
    if config.level == Level::AutoProtection as u32 {
        count(arrival, config)?;
    }
    Ok(PassReason::Sip)
}

/// Refuses who is denied, as long as that lasts.
#[inline(always)]
fn refuse_denied(arrival: &Arrival) -> Result<(), DropReason> {
    let Some(entry) = DENY.get_ptr_mut(arrival.key.as_key()) else { return Ok(()) };
    // SAFETY: the map returned the pointer; the daemon replaces entries as a whole, so none is ever half written.
    let (until_ns, scope) = unsafe { ((*entry).until_ns, (*entry).scope) };
    if scope == SCOPE_UDP && arrival.protocol == TCP {
        return Ok(());
    }
    if until_ns != 0 && clock::coarse_ns() >= until_ns {
        return Ok(());
    }
    // SAFETY: the map returned the pointer.
    unsafe { SharedWord::of_hits(entry) }.add(1);
    Err(DropReason::Denied)
}

#[inline(always)]
fn check_first_line(frame: &Frame, offset: usize, payload_bytes: usize) -> Result<(), DropReason> {
    let start = if payload_bytes < LOOKED_AT {
        0
    } else {
        frame.window::<LOOKED_AT>(offset).ok_or(DropReason::NotSip)?.load64::<0>()
    };
    if !may_be_sip(start.to_ne_bytes(), payload_bytes) {
        return Err(DropReason::NotSip);
    }
    if let Some(line) = frame.window::<PROBE_BYTES>(offset)
        && payload_bytes >= PROBE_BYTES
        && is_probe(line.load64::<0>(), line.load64::<8>())
    {
        return Err(DropReason::Scanner);
    }
    Ok(())
}

/// Counts the arrival against its source's limit and against that of all.
#[inline(always)]
fn count(arrival: &Arrival, config: &GuardConfig) -> Result<(), DropReason> {
    let now = clock::ticks();
    let Some(totals) = TOTALS.get_ptr_mut(0) else { return Ok(()) };
    let totals = totals.cast::<Window>();
    // SAFETY: the map returned the pointer, to `TotalWindows`.
    let (all, fragments) = unsafe {
        (
            SharedWord::of_window(totals.add(TotalWindows::ARRIVALS)),
            SharedWord::of_window(totals.add(TotalWindows::FRAGMENTS)),
        )
    };
    if arrival.kind == Kind::Unread {
        let within = keep(&fragments, now, config.fragments, Exceeded::Fragments, *arrival.key.as_key());
        return if within { Ok(()) } else { Err(DropReason::Fragments) };
    }
    // Segments of those who are known belong to a connection that was counted when it was opened.
    let counts_for_all = arrival.kind != Kind::Segment;
    if counts_for_all && Window::from_word(all.read()).is_full(now, config.total) {
        return Err(DropReason::Total);
    }
    let Some((windows, is_new)) = windows(arrival.key.as_key(), &all, now, config.total) else {
        return Err(DropReason::Total);
    };
    let (position, limit, exceeded, reason) = match arrival.kind {
        Kind::Connection => (
            SourceWindows::CONNECTIONS,
            config.connections,
            Exceeded::Connections,
            DropReason::SourceConnections,
        ),
        Kind::Segment => {
            (SourceWindows::SEGMENTS, config.segments, Exceeded::Segments, DropReason::SourceSegments)
        }
        Kind::Datagram { .. } | Kind::Unread => {
            (SourceWindows::DATAGRAMS, config.datagrams, Exceeded::Datagrams, DropReason::SourceDatagrams)
        }
    };
    // SAFETY: the map returned the pointer, to `SourceWindows`, and the position is one of it.
    let own = unsafe { SharedWord::of_window(windows.add(position)) };
    if !keep(&own, now, limit, exceeded, *arrival.key.as_key()) {
        return Err(reason);
    }
    if (counts_for_all || is_new) && !keep(&all, now, config.total, Exceeded::Total, *arrival.key.as_key()) {
        return Err(DropReason::Total);
    }
    Ok(())
}

/// The windows of a source, and whether they were made now. None are made while all together are over their limit: then
/// nothing of an unknown source passes, and forged ones shall not push known ones out of the table.
#[inline(always)]
fn windows(key: &SourceKey, all: &SharedWord, now: u32, total: Limit) -> Option<(*mut Window, bool)> {
    if let Some(windows) = SOURCES.get_ptr_mut(key) {
        return Some((windows.cast(), false));
    }
    if Window::from_word(all.read()).is_full(now, total) {
        return None;
    }
    // If another CPU was first, or there is no memory, the look-up tells.
    let _ = SOURCES.insert(key, SourceWindows::default(), 0);
    SOURCES.get_ptr_mut(key).map(|windows| (windows.cast(), true))
}

/// Counts an arrival in a window. Whether it is within the limit; the first that is not is told.
#[inline(always)]
fn keep(window: &SharedWord, now: u32, limit: Limit, exceeded: Exceeded, source: SourceKey) -> bool {
    for _ in 0..TRIES {
        let word = window.read();
        let (next, decision) = Window::from_word(word).arrive(now, limit);
        match decision {
            Decision::Over => return false,
            Decision::Within | Decision::Exceeded => {
                if next.to_word() != word && !window.replace(word, next.to_word()) {
                    continue;
                }
                if decision == Decision::Exceeded {
                    emit::exceeded(ExceededRecord::new(exceeded, source));
                    return false;
                }
                return true;
            }
        }
    }
    true
}
