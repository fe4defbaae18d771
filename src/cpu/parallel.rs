//! Work shared out to threads, in a way that cannot change a result.
//!
//! A pass is cut into items by the problem alone. Every item writes elements of its own, so which thread takes which
//! item, and how many threads there are, never shows in the bits.

use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::threads::Threads;
use super::workspace::Workspace;
use crate::error::{Error, Result};

/// Calls `work` once for each item in `0..items`, on as many threads as `flops` floating-point operations are worth,
/// the caller's own among them. Each thread has a workspace, with whatever an earlier item left in it.
///
/// # Errors
/// The first one of `work`; what was written until then is unspecified.
pub(super) fn for_each(
    threads: &Threads,
    flops: f64,
    items: usize,
    work: impl Fn(&mut Workspace, usize) -> Result<()> + Sync,
) -> Result<()> {
    if items == 0 {
        return Ok(());
    }
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let failure = OnceLock::<Error>::new();
    let run = |place: usize| {
        let mut own = threads.lease();
        while threads.has_place(place) && !failed.load(Ordering::Relaxed) {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= items {
                break;
            }
            if let Err(error) = work(&mut own, item) {
                let _ = failure.set(error);
                failed.store(true, Ordering::Relaxed);
            }
        }
    };
    threads.run_worthwhile(flops, items, &run);
    failure.into_inner().map_or(Ok(()), Err)
}

/// A result that several threads write at once, each its own elements.
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: `Shared` stands for an exclusive borrow of plain data; its only access is `slice`, whose caller promises
// that no element is reached by two threads.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(data: &'a mut [T]) -> Shared<'a, T> {
        Shared { start: data.as_mut_ptr(), len: data.len(), owner: PhantomData }
    }

    /// Where `rows` rows of `len` elements begin, `apart` elements from each other.
    ///
    /// # Safety
    /// While the rows are used, nobody else may use one of their elements.
    #[inline]
    pub(super) unsafe fn rows(&self, offset: usize, rows: usize, apart: usize, len: usize) -> *mut T {
        let end = (rows - 1) * apart + len;
        assert!(offset <= self.len && end <= self.len - offset, "rows of a result are out of range");
        // SAFETY: in range by the assertion.
        unsafe { self.start.add(offset) }
    }

    /// The elements `offset..offset + len`.
    ///
    /// # Safety
    /// While the slice lives, no other slice may hold one of its elements.
    #[allow(clippy::mut_from_ref)] // that is the point of this type; disjointness is the caller's promise
    #[inline]
    pub(super) unsafe fn slice(&self, offset: usize, len: usize) -> &mut [T] {
        assert!(offset <= self.len && len <= self.len - offset, "a result index is out of range");
        // SAFETY: in range by the assertion, borrowed for 'a by `owner`, and unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    #[test]
    fn every_item_is_done_once_by_any_number_of_threads() {
        for most in [1, 2, 5, 100] {
            let threads = Threads::new(most);
            for _ in 0..20 {
                let mut counts = vec![0u32; 37];
                let shared = Shared::new(&mut counts);
                let work = |_: &mut Workspace, item| {
                    // SAFETY: each item takes the element of its own number.
                    let count = unsafe { shared.slice(item, 1) };
                    count[0] += 1;
                    Ok(())
                };
                for_each(&threads, 1e12, 37, work).unwrap();
                assert!(counts.iter().all(|&c| c == 1), "{most} threads");
            }
        }
    }

    #[test]
    fn an_error_on_any_thread_comes_back() {
        let threads = Threads::new(3);
        let failing = |_: &mut Workspace, item| if item == 5 { Err(Error::invalid("five")) } else { Ok(()) };
        assert_eq!(for_each(&threads, 1e12, 9, failing).unwrap_err().message(), "five");
        let starved = |own: &mut Workspace, _| own.sums.room(usize::MAX / 8).map(drop);
        assert_eq!(for_each(&threads, 1e12, 9, starved).unwrap_err().status(), Status::OutOfHostMemory);
    }
}
