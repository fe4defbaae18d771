//! Buffers of the CPU device, from a pool: memory that was touched before is the fastest there is.

use crate::context::Stats;
use crate::error::{Error, Result, Status};
use crate::pool::size_class;
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Host memory that several tensors may share.
type Words = Box<[UnsafeCell<f32>]>;

/// The memory of one context.
pub struct Pool {
    budget: u64,
    state: Mutex<State>,
    work: AtomicU64,
}

#[derive(Default)]
struct State {
    stats: Stats,
    /// Blocks that nothing uses, by their bytes.
    free: HashMap<u64, Vec<Words>>,
}

impl State {
    /// Gives unused blocks back to the system.
    fn trim(&mut self) {
        for (class, blocks) in self.free.drain() {
            self.stats.bytes_held -= class * blocks.len() as u64;
        }
    }

    /// Counts a block that is about to be taken from the system, within the budget.
    fn claim(&mut self, budget: u64, class: u64) -> Result<()> {
        if class > budget.saturating_sub(self.stats.bytes_held) {
            self.trim();
        }
        if class > budget.saturating_sub(self.stats.bytes_held) {
            return Err(Error::new(
                Status::OutOfDeviceMemory,
                format!(
                    "{class} bytes more than the {} held exceed the context's memory_budget of {budget}",
                    self.stats.bytes_held
                ),
            ));
        }
        self.stats.bytes_held += class;
        Ok(())
    }
}

/// Memory of so many bytes, zeroed; `None` where the system has none.
fn allocate(class: u64) -> Option<Words> {
    let length = (class / 4) as usize;
    let mut words = Vec::new();
    words.try_reserve_exact(length).ok()?;
    words.resize_with(length, UnsafeCell::default);
    Some(words.into_boxed_slice())
}

impl Pool {
    /// `budget`: bytes that may be held; 0 means any number.
    pub fn new(budget: u64) -> Pool {
        Pool { budget: if budget == 0 { u64::MAX } else { budget }, state: Mutex::default(), work: AtomicU64::new(0) }
    }

    /// Counts a pass that was run.
    pub fn count_work(&self) {
        self.work.fetch_add(1, Ordering::Relaxed);
    }

    /// What is held, and has been done.
    pub fn stats(&self) -> Stats {
        let work = self.work.load(Ordering::Relaxed);
        Stats { dispatches: work, submits: work, ..self.state().stats }
    }

    /// Gives blocks that nothing uses back to the system.
    pub fn trim(&self) {
        self.state().trim();
    }

    /// Takes a new block from the system. Others may use the pool meanwhile: touching new memory takes its time.
    fn create(&self, class: u64) -> Result<Words> {
        self.state().claim(self.budget, class)?;
        let words = allocate(class).or_else(|| {
            self.trim();
            allocate(class)
        });
        let mut state = self.state();
        let Some(words) = words else {
            state.stats.bytes_held -= class;
            return Err(Error::new(Status::OutOfHostMemory, format!("no host memory for a buffer of {class} bytes")));
        };
        state.stats.bytes_peak = state.stats.bytes_peak.max(state.stats.bytes_held);
        state.stats.allocations += 1;
        Ok(words)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block of the pool. Dropped, it returns there.
pub struct Memory {
    words: Words,
    pool: Arc<Pool>,
}

// SAFETY: a buffer's contract has its user order accesses to its contents: while one call writes a range, no other may
// touch that range. Under it no two threads race.
unsafe impl Sync for Memory {}

impl Memory {
    /// A block of at least `bytes` bytes. Its contents are whatever they were.
    ///
    /// # Errors
    /// `OutOfDeviceMemory` beyond the budget, `OutOfHostMemory` beyond what there is.
    pub fn new(pool: &Arc<Pool>, bytes: u64) -> Result<Memory> {
        let class = size_class(bytes);
        let reused = pool.state().free.get_mut(&class).and_then(Vec::pop);
        let words = reused.map_or_else(|| pool.create(class), Ok)?;
        let mut state = pool.state();
        state.stats.bytes_in_use += class;
        state.stats.blocks_in_use += 1;
        Ok(Memory { words, pool: pool.clone() })
    }

    /// All of it, for its only owner.
    pub fn own(&mut self) -> &mut [f32] {
        let words = &mut self.words[..];
        // SAFETY: an UnsafeCell<f32> has the layout of an f32, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<f32>(), words.len()) }
    }

    fn bytes(&self) -> u64 {
        4 * self.words.len() as u64
    }

    /// Its first byte.
    pub fn start(&self) -> *mut u8 {
        self.words.as_ptr().cast::<u8>().cast_mut()
    }

    /// Fills it with zeros; nobody else may have it yet.
    pub fn zero(&mut self) {
        self.words.iter_mut().for_each(|word| *word.get_mut() = 0.0);
    }

    /// Copies into the memory; the range was checked.
    pub fn write(&self, offset: u64, data: &[u8]) {
        assert!(offset + data.len() as u64 <= self.bytes());
        // SAFETY: within the memory, see above; nobody else touches the range, by the buffer's contract.
        unsafe {
            let to = self.words.as_ptr().cast::<u8>().cast_mut().add(offset as usize);
            std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
        }
    }

    /// Copies out of the memory; the range was checked.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        assert!(offset + data.len() as u64 <= self.bytes());
        // SAFETY: as in `write`.
        unsafe {
            let from = self.words.as_ptr().cast::<u8>().add(offset as usize);
            std::ptr::copy_nonoverlapping(from, data.as_mut_ptr(), data.len());
        }
    }

    /// A range of elements, to read.
    ///
    /// # Safety
    /// Nobody writes the range while the slice lives.
    pub unsafe fn floats(&self, range: Range<usize>) -> &[f32] {
        let words = &self.words[range];
        // SAFETY: an UnsafeCell<f32> has the layout of an f32; promised by the caller.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<f32>(), words.len()) }
    }

    /// A range of elements, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes the range while the slice lives.
    #[allow(clippy::mut_from_ref)] // the buffer's contract stands in for the borrow checker
    pub unsafe fn floats_mut(&self, range: Range<usize>) -> &mut [f32] {
        let words = &self.words[range];
        // SAFETY: as in `floats`; UnsafeCell allows writing through a shared reference.
        unsafe { std::slice::from_raw_parts_mut(words.as_ptr().cast::<f32>().cast_mut(), words.len()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let (class, words) = (self.bytes(), std::mem::take(&mut self.words));
        let mut state = self.pool.state();
        state.stats.bytes_in_use -= class;
        state.stats.blocks_in_use -= 1;
        state.free.entry(class).or_default().push(words);
    }
}
