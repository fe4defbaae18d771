//! Copies that leave the processor's caches alone, for memory that the device reads next: lines that lie changed in some
//! core's cache reach a discrete GPU at little more than half of the link's speed.

/// For fewer elements, the lines that they share with their neighbours and the fence cost more than is gained.
const LEAST: usize = 1024;

/// Copies elements.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
pub unsafe fn copy(from: *const f32, to: *mut f32, elements: usize) {
    if elements < LEAST {
        // SAFETY: promised by the caller.
        return unsafe { std::ptr::copy_nonoverlapping(from, to, elements) };
    }
    let head = to.align_offset(LINE).min(elements);
    let lines = (elements - head) / FLOATS;
    let tail = head + lines * FLOATS;
    // SAFETY: the three ranges are parts of the caller's; the second one's lines are aligned.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, head);
        copy_lines(from.add(head), to.add(head), lines);
        std::ptr::copy_nonoverlapping(from.add(tail), to.add(tail), elements - tail);
    }
}

/// Bytes of a line of the caches, and floats.
const LINE: usize = 64;
const FLOATS: usize = LINE / 4;

/// # Safety
/// Both have so many lines, and `to` is aligned to them.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_lines(from: *const f32, to: *mut f32, lines: usize) {
    use std::arch::x86_64::{_mm_loadu_ps, _mm_sfence, _mm_stream_ps};
    for line in 0..lines {
        // SAFETY: promised by the caller. Every x86-64 processor has these instructions.
        unsafe {
            let (from, to) = (from.add(line * FLOATS), to.add(line * FLOATS));
            let quarters = [0, 4, 8, 12].map(|at| _mm_loadu_ps(from.add(at)));
            for (at, quarter) in [0, 4, 8, 12].into_iter().zip(quarters) {
                _mm_stream_ps(to.add(at), quarter);
            }
        }
    }
    // SAFETY: as above. Such stores are ordered by this alone.
    unsafe { _mm_sfence() };
}

/// # Safety
/// Both have so many lines.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_lines(from: *const f32, to: *mut f32, lines: usize) {
    // SAFETY: promised by the caller.
    unsafe { std::ptr::copy_nonoverlapping(from, to, lines * FLOATS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_copied_wherever_it_lies() {
        let from: Vec<f32> = (0..5000).map(|value| value as f32).collect();
        for (first, to_first, length) in [(0, 0, 5000), (1, 3, 4000), (7, 16, LEAST), (5, 2, LEAST - 1), (9, 1, 0)] {
            let mut to = vec![-1.0; 5016];
            // SAFETY: both have as many elements from there on.
            unsafe { copy(from[first..].as_ptr(), to[to_first..].as_mut_ptr(), length) };
            assert_eq!(to[to_first..to_first + length], from[first..first + length]);
            assert!(to[..to_first].iter().chain(&to[to_first + length..]).all(|&value| value == -1.0));
        }
    }
}
