//! `cargo xtask bench parse`: what one hop of an INVITE costs here, in rsip and in rsipstack, measured in turns in one
//! run. The last line of stdout is the result; it passes if the ratios below hold.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sbc_bench::parse::{INVITE, ours, rsip, rsipstack};

/// Turns; the fastest of each contender counts, since whatever else the machine does only adds.
const TURNS: usize = 200;
/// Messages in a turn.
const MESSAGES: u32 = 500;

/// At most this part of rsip's time.
const OF_RSIP: f64 = 0.4;
/// At most this part of rsipstack's time.
const OF_RSIPSTACK: f64 = 0.9;
/// At most this many allocations for a message.
const ALLOCATIONS: u64 = 6;

/// The system's allocator, counting.
///
/// The count is a plain load and store, not an atomic addition: there is one thread, and the contenders that allocate
/// most should not pay for being counted.
struct Counting;

fn count() {
    ALLOCATED.store(ALLOCATED.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn turn<T>(work: impl Fn(&[u8]) -> T) -> Duration {
    let start = Instant::now();
    for _ in 0..MESSAGES {
        black_box(work(black_box(INVITE)));
    }
    start.elapsed()
}

fn allocations<T>(work: impl Fn(&[u8]) -> T) -> u64 {
    let before = ALLOCATED.load(Ordering::Relaxed);
    black_box(work(black_box(INVITE)));
    ALLOCATED.load(Ordering::Relaxed) - before
}

fn main() -> ExitCode {
    // The result is one object whether or not it is asked for.
    if let Some(argument) = std::env::args().skip(1).find(|argument| argument != "--json") {
        eprintln!("unexpected argument {argument:?}; usage: parse [--json]");
        return ExitCode::from(2);
    }
    let mut best = [Duration::MAX; 3];
    for _ in 0..TURNS {
        let turns = [turn(ours), turn(rsip), turn(rsipstack)];
        for (best, turn) in best.iter_mut().zip(turns) {
            *best = turn.min(*best);
        }
    }
    let [ours_us, rsip_us, rsipstack_us] = best.map(|turn| turn.as_secs_f64() * 1e6 / f64::from(MESSAGES));
    let counts = [allocations(ours), allocations(rsip), allocations(rsipstack)];
    eprintln!("per message of {} bytes, best of {TURNS} turns of {MESSAGES}:", INVITE.len());
    for (name, us, count) in
        [("ours", ours_us, counts[0]), ("rsip", rsip_us, counts[1]), ("rsipstack", rsipstack_us, counts[2])]
    {
        eprintln!("{name:>10} {us:7.3} us {count:4} allocations; ours is {:.2} of it", ours_us / us);
    }
    let round = |us: f64| (us * 1e3).round() / 1e3;
    let result = serde_json::json!({
        "schema": 1,
        "ours_us": round(ours_us),
        "ours_allocs": counts[0],
        "rsip_us": round(rsip_us),
        "rsipstack_us": round(rsipstack_us),
    });
    println!("{result}");
    let passed =
        ours_us <= OF_RSIP * rsip_us && ours_us <= OF_RSIPSTACK * rsipstack_us && counts[0] <= ALLOCATIONS;
    if passed {
        ExitCode::SUCCESS
    } else {
        eprintln!("wanted: {OF_RSIP} of rsip, {OF_RSIPSTACK} of rsipstack, {ALLOCATIONS} allocations");
        ExitCode::FAILURE
    }
}
