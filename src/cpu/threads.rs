//! A context's threads: helpers that outlive the calls, and the memory that threads work in.
//!
//! A caller computes on its own thread and posts its work for helpers to join. They are started when they are first
//! wanted, watch for more work for a moment after each, and then sleep. A caller never waits for one to wake up: at the
//! end of its work it takes the work back, and waits only for helpers that have begun. Little work wakes nobody, unless
//! it follows closely on other work: then more will come, and find helpers that watch.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::isa::Isa;
use super::workspace::{Lease, Workspace};

/// The name of every helper.
pub(crate) const HELPER: &str = "grilly-cpu";

/// How long a helper watches for work before it sleeps, and a caller for the last helper: about what sleeping and
/// waking up takes.
const WATCH: Duration = Duration::from_micros(100);

/// Floating-point operations that are worth one more helper that watches.
const WORTH_A_HELPER: f64 = 2e6;

/// The threads that one context may keep busy, those of its callers among them.
///
/// Several callers at once share them: each call counts as one, and helpers leave when there are more calls than threads
/// without them.
pub(crate) struct Threads {
    most: usize,
    /// However little work is worth a helper.
    eager: bool,
    /// Which process the helpers are in: a forked child has none.
    process: u32,
    common: Arc<Common>,
    helpers: Mutex<Vec<JoinHandle<()>>>,
    spare: Mutex<Vec<Workspace>>,
}

/// What callers and helpers share.
struct Common {
    /// Callers that are at work.
    callers: AtomicUsize,
    /// The number of the latest job, for helpers to watch without the lock.
    posted: AtomicUsize,
    /// Helpers that are inside the job; changes under the lock.
    helping: AtomicUsize,
    state: Mutex<State>,
    /// There is a job, or the end.
    wake: Condvar,
    /// The last helper has left the job.
    left: Condvar,
    /// Helpers that sleep, or are about to; changes under the lock.
    sleeping: AtomicUsize,
    /// When the latest job ended, in nanoseconds after `began`.
    ended: AtomicU64,
    began: Instant,
}

#[derive(Default)]
struct State {
    /// Stays until its caller has seen the last helper leave, so that nobody takes another job's helpers for its own.
    job: Option<Job>,
    /// The first panic of a helper in this job.
    panic: Option<Box<dyn Any + Send>>,
    ending: bool,
}

/// Work that helpers may join, called with a place among the threads that share it.
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    number: usize,
    helpers: usize,
}

// SAFETY: the work is Sync, and `Posted` keeps it alive for as long as a helper may call it.
unsafe impl Send for Job {}

impl Threads {
    /// At most `most` threads at work; a caller's own always is.
    pub(crate) fn new(most: usize) -> Threads {
        let common = Common {
            callers: AtomicUsize::new(0),
            posted: AtomicUsize::new(0),
            helping: AtomicUsize::new(0),
            state: Mutex::default(),
            wake: Condvar::new(),
            left: Condvar::new(),
            sleeping: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            began: Instant::now(),
        };
        Threads {
            most: most.max(1),
            eager: false,
            process: std::process::id(),
            common: Arc::new(common),
            helpers: Mutex::default(),
            spare: Mutex::default(),
        }
    }

    /// Says whether to share even work that is too little to be worth it.
    pub(crate) fn sharing_all_work(mut self, eager: bool) -> Threads {
        self.eager = eager;
        self
    }

    /// As many as the system says this process may keep busy.
    pub(crate) fn available() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// How many may be at work at once.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// How many a pass of so many floating-point operations should use.
    pub(super) fn worthwhile(&self, flops: f64) -> usize {
        if self.eager { self.most } else { self.most.min(((flops / WORTH_A_HELPER) as usize).saturating_add(1)) }
    }

    /// Memory to work in, which goes back when the lease ends.
    pub(super) fn lease(&self) -> Lease<'_> {
        let spare = lock(&self.spare).pop();
        Lease::new(spare.unwrap_or_default(), &self.spare)
    }

    /// Gives memory that no call works in back to the system.
    pub(crate) fn trim(&self) {
        lock(&self.spare).clear();
    }

    /// As [`Threads::run`], on as many threads as `flops` floating-point operations are worth, if there is something
    /// to do for so many as `most`.
    ///
    /// # Panics
    /// As [`Threads::run`].
    pub(super) fn run_worthwhile(&self, flops: f64, most: usize, work: &(dyn Fn(usize) + Sync)) {
        self.share(self.worthwhile(flops).min(most), self.eager || flops >= worth_waking(), work);
    }

    /// Calls `work(0)` on this thread, and `work(1)`, `work(2)`, … up to `threads` on helpers that come before this one
    /// is done. Any of the calls must be able to do everything that is left to do.
    ///
    /// # Panics
    /// If a call does, on whichever thread.
    #[cfg(test)]
    pub(crate) fn run(&self, threads: usize, work: &(dyn Fn(usize) + Sync)) {
        self.share(threads, true, work);
    }

    fn share(&self, threads: usize, wake: bool, work: &(dyn Fn(usize) + Sync)) {
        let _caller = Counted::new(&self.common.callers);
        let helpers = threads.min(self.most) - 1;
        if helpers == 0 || std::process::id() != self.process {
            return work(0);
        }
        let wake = wake || self.common.was_busy();
        if wake {
            self.start(helpers);
        }
        let Some(posted) = self.common.post(work, helpers, wake) else { return work(0) };
        work(0);
        let panic = posted.finish();
        self.common.ended.store(self.common.now(), Ordering::Relaxed);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Whether the thread in a place that `run` gave may go on: not if callers need it.
    pub(super) fn has_place(&self, place: usize) -> bool {
        place == 0 || self.common.callers.load(Ordering::Relaxed) + place <= self.most
    }

    /// Starts helpers until there are so many. One that the system refuses is done without.
    fn start(&self, count: usize) {
        let mut helpers = lock(&self.helpers);
        while helpers.len() < count {
            let common = self.common.clone();
            match std::thread::Builder::new().name(HELPER.into()).spawn(move || common.help()) {
                Ok(helper) => helpers.push(helper),
                Err(_) => return,
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let helpers = std::mem::take(self.helpers.get_mut().unwrap_or_else(PoisonError::into_inner));
        if std::process::id() != self.process {
            // They do not exist here, and nobody may wait for them.
            helpers.into_iter().for_each(std::mem::forget);
            return;
        }
        lock(&self.common.state).ending = true;
        self.common.posted.fetch_add(1, Ordering::Release);
        self.common.wake.notify_all();
        for helper in helpers {
            let _ = helper.join();
        }
    }
}

/// Floating-point operations from which it pays to wake a helper: about what a thread does meanwhile.
fn worth_waking() -> f64 {
    if Isa::detect() == Isa::Portable { 2e6 } else { 10e6 }
}

impl Common {
    /// Nanoseconds since these threads were made.
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Whether there was a job so lately that a helper of it would still watch, or only just sleep.
    fn was_busy(&self) -> bool {
        let ended = self.ended.load(Ordering::Relaxed);
        ended > 0 && self.now().saturating_sub(ended) < 2 * WATCH.as_nanos() as u64
    }

    /// Offers work to helpers, unless they have other work; to those that sleep, if they are to `wake`.
    fn post<'a>(&'a self, work: &'a (dyn Fn(usize) + Sync), helpers: usize, wake: bool) -> Option<Posted<'a>> {
        let mut state = lock(&self.state);
        if state.job.is_some() {
            return None;
        }
        let number = self.posted.load(Ordering::Relaxed).wrapping_add(1);
        // SAFETY: only the lifetime changes; `Posted` takes the job back and waits for its helpers before 'a ends.
        let work: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(work as *const _) };
        state.job = Some(Job { work, number, helpers });
        self.posted.store(number, Ordering::Release);
        let asleep = self.sleeping.load(Ordering::Relaxed);
        drop(state);
        match asleep.min(helpers) {
            0 => {}
            _ if !wake => {}
            1 => self.wake.notify_one(),
            _ => self.wake.notify_all(),
        }
        Some(Posted { common: self, done: false })
    }

    /// The life of a helper.
    fn help(&self) {
        let mut latest = self.posted.load(Ordering::Acquire).wrapping_sub(1);
        loop {
            watch(|| self.posted.load(Ordering::Acquire) != latest);
            let state = lock(&self.state);
            if state.ending {
                return;
            }
            let posted = self.posted.load(Ordering::Relaxed);
            let open = |job: &Job| job.number != latest && self.helping.load(Ordering::Relaxed) < job.helpers;
            let Some(job) = state.job.filter(open) else {
                // Whoever came too late watches for the next job; whoever saw none sleeps.
                if posted == latest {
                    self.sleeping.fetch_add(1, Ordering::Relaxed);
                    let state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                    self.sleeping.fetch_sub(1, Ordering::Relaxed);
                    drop(state);
                } else {
                    latest = posted;
                }
                continue;
            };
            latest = job.number;
            let place = self.helping.fetch_add(1, Ordering::Relaxed) + 1;
            drop(state);
            // SAFETY: the job was on offer under the lock and this helper is counted, so `Posted` keeps the work alive.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.work)(place) }));
            let mut state = lock(&self.state);
            if let Err(panic) = outcome {
                state.panic.get_or_insert(panic);
            }
            if self.helping.fetch_sub(1, Ordering::Release) == 1 {
                self.left.notify_one();
            }
        }
    }
}

/// Work that helpers have. When this ends, none is inside it, and none will be.
struct Posted<'a> {
    common: &'a Common,
    done: bool,
}

impl Posted<'_> {
    /// Takes the work back, and gives the first panic of a helper.
    fn finish(mut self) -> Option<Box<dyn Any + Send>> {
        self.take_back()
    }

    fn take_back(&mut self) -> Option<Box<dyn Any + Send>> {
        self.done = true;
        let mut state = lock(&self.common.state);
        if self.common.helping.load(Ordering::Acquire) > 0 {
            // No more may enter.
            state.job.iter_mut().for_each(|job| job.helpers = 0);
            drop(state);
            watch(|| self.common.helping.load(Ordering::Acquire) == 0);
            state = lock(&self.common.state);
            while self.common.helping.load(Ordering::Acquire) > 0 {
                state = self.common.left.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.job = None;
        state.panic.take()
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        if !self.done {
            // This thread panics already; that of a helper adds nothing.
            drop(self.take_back());
        }
    }
}

/// Counts this thread while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits a moment for something to become true.
fn watch(seen: impl Fn() -> bool) {
    let mut until = None;
    loop {
        for _ in 0..64 {
            if seen() {
                return;
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + WATCH) {
            return;
        }
    }
}

/// No panic happens under these locks, so what they guard is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn helpers_join_and_stay_for_later_work() {
        let threads = Threads::new(3);
        for _ in 0..100 {
            // Nobody passes before all three are here.
            let (all, places) = (Barrier::new(3), Mutex::new(Vec::new()));
            threads.run(3, &|place| {
                all.wait();
                lock(&places).push(place);
            });
            let mut places = places.into_inner().unwrap();
            places.sort_unstable();
            assert_eq!(places, [0, 1, 2]);
        }
        assert_eq!(lock(&threads.helpers).len(), 2);
    }

    #[test]
    fn little_work_wakes_nobody() {
        let threads = Threads::new(3);
        assert_eq!(threads.worthwhile(WORTH_A_HELPER - 1.0), 1);
        assert_eq!(threads.worthwhile(1e12), 3);
        threads.run_worthwhile(worth_waking() - 1.0, 100, &|place| assert_eq!(place, 0));
        assert_eq!(lock(&threads.helpers).len(), 0);
    }

    #[test]
    fn a_panic_on_any_thread_reaches_the_caller_and_ends_nothing_else() {
        let threads = Threads::new(2);
        for guilty in [0, 1] {
            let both = Barrier::new(2);
            let run = || {
                threads.run(2, &|place| {
                    both.wait();
                    if place == guilty {
                        resume_unwind(Box::new("as asked")); // which prints nothing
                    }
                });
            };
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"as asked"));
        }
        let both = Barrier::new(2);
        threads.run(2, &|_| {
            both.wait();
        });
    }

    #[test]
    fn helpers_make_room_for_callers() {
        let threads = Threads::new(2);
        assert!(threads.has_place(0));
        threads.run(1, &|_| {
            assert!(threads.has_place(1));
            threads.run(1, &|_| assert!(threads.has_place(0) && !threads.has_place(1)));
        });
        assert!(threads.has_place(1));
    }

    #[test]
    fn callers_that_follow_closely_on_one_another_all_come_back() {
        let threads = Arc::new(Threads::new(3));
        let (done, came_back) = std::sync::mpsc::channel();
        for _ in 0..4 {
            let (threads, done) = (threads.clone(), done.clone());
            // Not scoped: a caller that never comes back must not keep the test from saying so.
            std::thread::spawn(move || {
                for _ in 0..500 {
                    // Helpers go on for longer than their caller stays awake, which only time can bring about.
                    threads.run(3, &|place| std::thread::sleep(WATCH * if place == 0 { 1 } else { 3 }));
                }
                done.send(()).unwrap();
            });
        }
        for caller in 0..4 {
            let waited = came_back.recv_timeout(Duration::from_secs(60));
            assert!(waited.is_ok(), "{caller} of 4 callers came back");
        }
    }

    #[test]
    fn a_second_caller_computes_alone_while_helpers_are_busy() {
        let threads = Threads::new(2);
        let both = Barrier::new(2);
        threads.run(2, &|place| {
            both.wait();
            if place == 0 {
                threads.run(2, &|place| assert_eq!(place, 0));
            }
            both.wait();
        });
    }
}
