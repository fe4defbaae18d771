//! A few threads that help to copy: one alone cannot keep up with the link to a GPU.
//!
//! They belong to the process, start with the first large copy, and sleep when there is nothing to do. A forked child
//! has none of its parent's threads and starts its own.

use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More threads do not copy faster: memory is the limit.
const MOST: usize = 8;
/// A helper stays awake for so long after a piece of work, because the next is often near.
const AWAKE: Duration = Duration::from_micros(200);

/// The threads of a process.
struct Crew {
    process: u32,
    helpers: usize,
    state: Mutex<State>,
    wake: Condvar,
    /// Counts pieces of work, so that those who are awake see new ones without the lock.
    calls: AtomicU64,
}

struct State {
    /// Oldest first.
    jobs: Vec<Job>,
    sleeping: usize,
    started: bool,
}

/// Work being done. What it points to lives on its caller's stack, who waits until no helper has it.
#[derive(Clone, Copy)]
struct Job(*const Shared<'static>);

// SAFETY: the pointer is followed only under the crew's lock while the job is there, and between a helper's entry in
// `Shared::helpers`, made there, and the end of that entry, for which the caller waits.
unsafe impl Send for Job {}

struct Shared<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    items: usize,
    next: AtomicUsize,
    helpers: AtomicUsize,
}

impl Shared<'_> {
    fn run(&self) {
        loop {
            let item = self.next.fetch_add(1, Ordering::Relaxed);
            if item >= self.items {
                break;
            }
            (self.work)(item);
        }
    }
}

static CREW: AtomicPtr<Crew> = AtomicPtr::new(std::ptr::null_mut());

/// Calls `work` once for each item in `0..items`, on several threads if there is more than one item. The caller first
/// does something else, which may be another such call, and then helps. `work` must not panic, and no two calls of it may
/// touch the same memory.
fn for_each<T>(items: usize, work: &(dyn Fn(usize) + Sync), meanwhile: impl FnOnce() -> T) -> T {
    let shared = Shared { work, items, next: AtomicUsize::new(0), helpers: AtomicUsize::new(0) };
    let _offered = (items > 1).then(|| Offered::new(&shared));
    let value = meanwhile();
    shared.run();
    value
}

/// Work that helpers may do. Dropped, no helper has it.
struct Offered<'a> {
    crew: &'static Crew,
    shared: &'a Shared<'a>,
}

impl<'a> Offered<'a> {
    fn new(shared: &'a Shared<'a>) -> Offered<'a> {
        let crew = crew();
        crew.offer(shared);
        Offered { crew, shared }
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.crew.withdraw(self.shared);
    }
}

/// Copies bytes, on several threads where there are many.
///
/// # Safety
/// `from` has so many bytes, which nobody writes meanwhile; `to` has as many that nobody else uses.
pub unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    struct Ends(*const u8, *mut u8);
    // SAFETY: items copy bytes of their own, between memories that are the caller's meanwhile.
    unsafe impl Sync for Ends {}
    impl Ends {
        /// # Safety
        /// Both have `range.end` bytes, and no other call has those of the range.
        unsafe fn copy(&self, range: Range<usize>) {
            // SAFETY: promised by the caller.
            unsafe { std::ptr::copy_nonoverlapping(self.0.add(range.start), self.1.add(range.start), range.len()) }
        }
    }
    let ends = Ends(from, to);
    // SAFETY: within the memories, and each share is a range of its own.
    in_shares(bytes, 1, &|share| unsafe { ends.copy(share) }, || ());
}

/// Calls `work` once for each part of `0..elements`, elements of so many bytes, on several threads where there are many.
/// The caller first does something else. `work` must not panic, and no two calls of it may touch the same memory.
pub fn in_shares<T>(
    elements: usize,
    bytes: usize,
    work: &(dyn Fn(Range<usize>) + Sync),
    meanwhile: impl FnOnce() -> T,
) -> T {
    let share = if elements * bytes < SEVERAL { elements.max(1) } else { SHARE / bytes };
    for_each(elements.div_ceil(share), &|item| work(item * share..elements.min((item + 1) * share)), meanwhile)
}

/// Bytes from which on several threads copy: for fewer, waking them takes longer.
const SEVERAL: usize = 256 << 10;
/// Bytes that a thread takes at a time: with larger shares, a few threads are busy with the last ones while the others wait.
const SHARE: usize = 32 << 10;

fn crew() -> &'static Crew {
    let process = std::process::id();
    loop {
        let known = CREW.load(Ordering::Acquire);
        // SAFETY: the pointer is null or came from `Box::leak` below.
        if let Some(crew) = unsafe { known.as_ref() }
            && crew.process == process
        {
            return crew;
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        // Half of a large machine is enough, and leaves the rest to its user.
        let threads = if cores <= 4 { cores } else { (cores / 2).clamp(4, MOST) };
        let fresh: *mut Crew = Box::leak(Box::new(Crew {
            process,
            helpers: threads - 1,
            state: Mutex::new(State { jobs: Vec::new(), sleeping: 0, started: false }),
            wake: Condvar::new(),
            calls: AtomicU64::new(0),
        }));
        // A lost race leaves a few bytes behind and takes the winner's.
        let _ = CREW.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Crew {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&'static self, shared: &Shared<'_>) {
        let mut state = self.state();
        if !state.started {
            state.started = true;
            // A thread that the system refuses is done without.
            for _ in 0..self.helpers {
                let _ = std::thread::Builder::new().name("grilly-copy".into()).spawn(move || self.help());
            }
        }
        state.jobs.push(Job(std::ptr::from_ref(shared).cast()));
        // Under the lock: whoever went to sleep on the old number is counted by now.
        self.calls.fetch_add(1, Ordering::Release);
        let asleep = state.sleeping > 0;
        drop(state);
        if asleep {
            self.wake.notify_all();
        }
    }

    /// Lets no more helpers in, and waits for those that are.
    fn withdraw(&self, shared: &Shared<'_>) {
        self.state().jobs.retain(|job| !std::ptr::addr_eq(job.0, shared));
        let mut rounds = 0u32;
        while shared.helpers.load(Ordering::Acquire) > 0 {
            rounds += 1;
            if rounds < 1000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    fn help(&self) {
        let mut seen = 0;
        loop {
            seen = self.next_call(seen);
            while let Some(job) = self.enter() {
                // SAFETY: the entry keeps the caller waiting.
                let shared = unsafe { &*job.0 };
                shared.run();
                shared.helpers.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Enters the oldest job that has anything left to do.
    fn enter(&self) -> Option<Job> {
        let state = self.state();
        // SAFETY: the jobs are there and the lock is held, so their callers have not begun to wait for helpers.
        let shared = |job: &Job| unsafe { &*job.0 };
        let job = *state.jobs.iter().find(|job| shared(job).next.load(Ordering::Relaxed) < shared(job).items)?;
        shared(&job).helpers.fetch_add(1, Ordering::AcqRel);
        Some(job)
    }

    /// Waits for another call than those seen.
    fn next_call(&self, seen: u64) -> u64 {
        let began = Instant::now();
        while began.elapsed() < AWAKE {
            for _ in 0..64 {
                std::hint::spin_loop();
            }
            let calls = self.calls.load(Ordering::Acquire);
            if calls != seen {
                return calls;
            }
        }
        let mut state = self.state();
        loop {
            let calls = self.calls.load(Ordering::Acquire);
            if calls != seen {
                return calls;
            }
            state.sleeping += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_whoever_does_it() {
        for items in [0, 1, 2, 100, 10_000] {
            let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            for_each(items, &|item| _ = counts[item].fetch_add(1, Ordering::Relaxed), || ());
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{items} items");
        }
    }

    #[test]
    fn what_the_caller_does_meanwhile_may_be_more_work() {
        let counts: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        let count = |item: usize| _ = counts[item].fetch_add(1, Ordering::Relaxed);
        for round in 1..=100 {
            let value = for_each(1000, &count, || for_each(1000, &count, || round));
            assert_eq!(value, round);
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 2 * round), "round {round}");
        }
    }

    #[test]
    fn no_helper_has_the_work_that_a_panic_leaves() {
        for _ in 0..100 {
            let sum = AtomicUsize::new(0);
            let work = |item| _ = sum.fetch_add(item, Ordering::Relaxed);
            let panic = || for_each(1000, &work, || -> () { std::panic::resume_unwind(Box::new("meanwhile")) });
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panic)).is_err());
            let done = sum.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(100));
            assert_eq!(sum.load(Ordering::Relaxed), done);
        }
    }

    #[test]
    fn callers_on_many_threads_do_not_wait_for_one_another() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = AtomicUsize::new(0);
                        for_each(50, &|item| _ = sum.fetch_add(item, Ordering::Relaxed), || ());
                        assert_eq!(sum.into_inner(), 49 * 50 / 2);
                    }
                });
            }
        });
    }
}
