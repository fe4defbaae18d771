//! Buffers of the CPU device.

use crate::context::Stats;
use crate::error::{Error, Result, Status};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the buffers of one context hold together.
pub struct Accounts {
    budget: u64,
    stats: Mutex<Stats>,
    work: AtomicU64,
}

impl Accounts {
    /// `budget`: bytes that may be held; 0 means any number.
    pub fn new(budget: u64) -> Accounts {
        Accounts {
            budget: if budget == 0 { u64::MAX } else { budget },
            stats: Mutex::default(),
            work: AtomicU64::new(0),
        }
    }

    /// Counts a pass that was run.
    pub fn count_work(&self) {
        self.work.fetch_add(1, Ordering::Relaxed);
    }

    /// What is held, and has been done.
    pub fn stats(&self) -> Stats {
        let work = self.work.load(Ordering::Relaxed);
        Stats { dispatches: work, submits: work, ..*self.stats.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// Zeroed host memory that several tensors may share.
pub struct Memory {
    words: Box<[UnsafeCell<f32>]>,
    bytes: u64,
    accounts: Arc<Accounts>,
}

// SAFETY: a buffer's contract has its user order accesses to its contents: while one call writes a range, no other may
// touch that range. Under it no two threads race.
unsafe impl Sync for Memory {}

impl Memory {
    /// # Errors
    /// `OutOfDeviceMemory` beyond the budget, `OutOfHostMemory` beyond what there is.
    pub fn new(accounts: &Arc<Accounts>, bytes: u64) -> Result<Memory> {
        let mut stats = accounts.stats.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > accounts.budget.saturating_sub(stats.bytes_held) {
            return Err(Error::new(
                Status::OutOfDeviceMemory,
                format!(
                    "{bytes} bytes more than the {} held exceed the context's memory_budget of {}",
                    stats.bytes_held, accounts.budget
                ),
            ));
        }
        let length = bytes.div_ceil(4) as usize;
        let mut words = Vec::new();
        words.try_reserve_exact(length).map_err(|_| {
            Error::new(Status::OutOfHostMemory, format!("no host memory for a buffer of {bytes} bytes"))
        })?;
        words.resize_with(length, UnsafeCell::default);
        stats.bytes_held += bytes;
        stats.bytes_in_use += bytes;
        stats.bytes_peak = stats.bytes_peak.max(stats.bytes_held);
        stats.blocks_in_use += 1;
        stats.allocations += 1;
        drop(stats);
        Ok(Memory { words: words.into_boxed_slice(), bytes, accounts: accounts.clone() })
    }

    /// Copies into the memory; the range was checked.
    pub fn write(&self, offset: u64, data: &[u8]) {
        assert!(offset + data.len() as u64 <= self.bytes);
        // SAFETY: within the memory, see above; nobody else touches the range, by the buffer's contract.
        unsafe {
            let to = self.words.as_ptr().cast::<u8>().cast_mut().add(offset as usize);
            std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
        }
    }

    /// Copies out of the memory; the range was checked.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        assert!(offset + data.len() as u64 <= self.bytes);
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
        let mut stats = self.accounts.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.bytes_held -= self.bytes;
        stats.bytes_in_use -= self.bytes;
        stats.blocks_in_use -= 1;
    }
}
