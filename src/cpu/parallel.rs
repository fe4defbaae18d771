//! Work shared out to threads, in a way that cannot change a result.
//!
//! A pass is cut into items by the problem alone. Every item writes elements of its own, so which thread takes which
//! item, and how many threads there are, never shows in the bits.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result, Status};

/// Below this many floating-point operations a second thread costs more to wake than it saves.
const WORTH_A_THREAD: f64 = 2e6;

/// How many threads a pass of so many operations should use, of those allowed.
pub(super) fn worthwhile(flops: f64, threads: usize) -> usize {
    threads.clamp(1, 1 + (flops / WORTH_A_THREAD) as usize)
}

/// Calls `work` once for each item in `0..items`, on at most `threads` threads, the caller's own among them.
///
/// Each thread first makes itself a workspace.
///
/// # Errors
/// The first one of `workspace` or `work`; what was written until then is unspecified.
pub(super) fn for_each<W>(
    items: usize,
    threads: usize,
    workspace: impl Fn() -> Result<W> + Sync,
    work: impl Fn(&mut W, usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let run = || -> Result<()> {
        let mut own = workspace()?;
        while !failed.load(Ordering::Relaxed) {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= items {
                break;
            }
            work(&mut own, item)?;
        }
        Ok(())
    };
    let run = || run().inspect_err(|_| failed.store(true, Ordering::Relaxed));
    if items == 0 {
        return Ok(());
    }
    std::thread::scope(|scope| {
        // A thread that the system refuses is done without: the others take its items.
        let helpers: Vec<_> = (1..threads.min(items))
            .map_while(|_| std::thread::Builder::new().name("grilly-cpu".into()).spawn_scoped(scope, run).ok())
            .collect();
        let own = run();
        helpers
            .into_iter()
            .map(|helper| {
                helper
                    .join()
                    .unwrap_or_else(|_| Err(Error::new(Status::Internal, "a thread of the CPU device panicked")))
            })
            .fold(own, Result::and)
    })
}

/// A zeroed vector, or `OutOfHostMemory`.
pub(super) fn zeroed<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(len).map_err(|_| {
        let bytes = len.saturating_mul(size_of::<T>());
        Error::new(Status::OutOfHostMemory, format!("the CPU device could not allocate {bytes} bytes of workspace"))
    })?;
    vec.resize(len, T::default());
    Ok(vec)
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

    #[test]
    fn every_item_is_done_once_by_any_number_of_threads() {
        for threads in [1, 2, 5, 100] {
            let mut counts = vec![0u32; 37];
            let shared = Shared::new(&mut counts);
            let work = |_: &mut (), item| {
                // SAFETY: each item takes the element of its own number.
                let count = unsafe { shared.slice(item, 1) };
                count[0] += 1;
                Ok(())
            };
            for_each(37, threads, || Ok(()), work).unwrap();
            assert!(counts.iter().all(|&c| c == 1), "{threads} threads");
        }
    }

    #[test]
    fn an_error_on_any_thread_comes_back() {
        let failing = for_each(9, 3, || Ok(()), |_, item| if item == 5 { Err(Error::invalid("five")) } else { Ok(()) });
        assert_eq!(failing.unwrap_err().message(), "five");
        let starved = for_each(9, 2, || zeroed::<f32>(usize::MAX / 8), |_, _| Ok(()));
        assert_eq!(starved.unwrap_err().status(), Status::OutOfHostMemory);
    }

    #[test]
    fn small_work_stays_on_the_callers_thread() {
        assert_eq!(worthwhile(1e6, 8), 1);
        assert_eq!(worthwhile(5e6, 8), 3);
        assert_eq!(worthwhile(1e12, 8), 8);
        assert_eq!(worthwhile(1e12, 0), 1);
    }
}
