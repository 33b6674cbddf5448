//! The same work as `cargo xtask bench parse`, with criterion's statistics and history.

#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sbc_bench::parse::{INVITE, ours, rsip, rsipstack};
use std::hint::black_box;

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("invite");
    group.throughput(Throughput::Bytes(INVITE.len() as u64));
    group.bench_function("ours", |b| b.iter(|| ours(black_box(INVITE))));
    group.bench_function("rsip", |b| b.iter(|| rsip(black_box(INVITE))));
    group.bench_function("rsipstack", |b| b.iter(|| rsipstack(black_box(INVITE))));
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
