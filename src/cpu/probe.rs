//! What the CPU can do at best, measured.

use super::Threads;
use super::parallel::for_each;
use std::hint::black_box;
use std::time::Instant;

const RUNS: usize = 5;

/// fp32 operations a second of all threads, a fused multiply-add counted as two.
pub(crate) fn flops(threads: &Threads) -> f64 {
    const ROUNDS: usize = 4_000_000;
    let operations = super::isa::fma_rounds(ROUNDS);
    let seconds = fastest(threads, || {
        black_box(super::isa::fma_rounds(black_box(ROUNDS)));
    });
    operations * threads.most() as f64 / seconds
}

/// Bytes a second of all threads copying, read and written bytes counted.
pub(crate) fn bytes(threads: &Threads) -> f64 {
    let count = threads.most();
    const ELEMENTS: usize = 16 << 20;
    let from = vec![1.0f32; ELEMENTS];
    let seconds = fastest_with(
        threads,
        || vec![0.0f32; ELEMENTS / count],
        |to| {
            let length = to.len();
            to.copy_from_slice(&from[..length]);
            black_box(to);
        },
    );
    2.0 * (ELEMENTS / count * count * size_of::<f32>()) as f64 / seconds
}

fn fastest(threads: &Threads, work: impl Fn() + Sync) -> f64 {
    fastest_with(threads, || (), |()| work())
}

/// The best time of a few in which every thread did the work once, its own memory made before.
fn fastest_with<W: Send>(threads: &Threads, make: impl Fn() -> W, work: impl Fn(&mut W) + Sync) -> f64 {
    let mut own: Vec<W> = (0..threads.most()).map(|_| make()).collect();
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let shared: Vec<_> = own.iter_mut().map(std::sync::Mutex::new).collect();
        let started = Instant::now();
        let done = for_each(threads, f64::INFINITY, shared.len(), |_, item| {
            if let Ok(mut memory) = shared[item].lock() {
                work(&mut memory);
            }
            Ok(())
        });
        if done.is_ok() {
            best = best.min(started.elapsed().as_secs_f64());
        }
    }
    best
}
