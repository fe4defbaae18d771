//! Arrays in host memory, as copies see them: elements in row-major order, wherever each of them lies.

use super::{crew, streaming_copy};
use ndarray::{ArrayViewD, ArrayViewMutD};
use std::marker::PhantomData;
use std::ops::Range;

const MAX_AXES: usize = 8;

/// A float32 array with any strides, which is only read or also written.
pub struct HostArray<'a> {
    first: *mut f32,
    axes: usize,
    /// Outermost first, neighbours that are contiguous made one.
    shape: [usize; MAX_AXES],
    strides: [isize; MAX_AXES],
    elements: usize,
    writeable: bool,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for a borrow of plain data; threads that share it write elements of their own: see `each_row`.
unsafe impl Sync for HostArray<'_> {}

impl<'a> HostArray<'a> {
    /// One that is only read.
    pub fn reading(view: &ArrayViewD<'a, f32>) -> HostArray<'a> {
        HostArray::new(view.as_ptr().cast_mut(), view.shape(), view.strides(), false)
    }

    /// One that is written too.
    pub fn writing<'b>(view: &'b mut ArrayViewMutD<'a, f32>) -> HostArray<'b> {
        let first = view.as_mut_ptr();
        HostArray::new(first, view.shape(), view.strides(), true)
    }

    /// Whole words of memory, to read; `None` if the bytes are not such.
    pub fn reading_words(bytes: &'a [u8]) -> Option<HostArray<'a>> {
        let first = bytes.as_ptr().cast::<f32>().cast_mut();
        let words = first.is_aligned() && bytes.len().is_multiple_of(4);
        words.then(|| HostArray::new(first, &[bytes.len() / 4], &[1], false))
    }

    /// Whole words of memory, to write; `None` if the bytes are not such.
    pub fn writing_words(bytes: &'a mut [u8]) -> Option<HostArray<'a>> {
        let first = bytes.as_mut_ptr().cast::<f32>();
        let words = first.is_aligned() && bytes.len().is_multiple_of(4);
        words.then(|| HostArray::new(first, &[bytes.len() / 4], &[1], true))
    }

    fn new(first: *mut f32, shape: &[usize], strides: &[isize], writeable: bool) -> HostArray<'a> {
        assert!(shape.len() <= MAX_AXES, "an array of {} axes", shape.len());
        let elements = shape.iter().product();
        let mut array = HostArray {
            first,
            axes: 0,
            shape: [1; MAX_AXES],
            strides: [1; MAX_AXES],
            elements,
            writeable,
            owner: PhantomData,
        };
        for (&size, &stride) in shape.iter().zip(strides).filter(|(size, _)| **size != 1) {
            let outer = array.axes.checked_sub(1).filter(|&at| array.strides[at] == stride * size as isize);
            let at = outer.unwrap_or(array.axes);
            array.shape[at] *= size;
            array.strides[at] = stride;
            array.axes = at + 1;
        }
        array
    }

    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The address of its first element, if all follow one another.
    pub fn contiguous(&self) -> Option<*mut f32> {
        let follows = self.axes == 0 || self.axes == 1 && self.strides[0] == 1;
        follows.then_some(self.first)
    }

    /// Copies elements, counted in row-major order, to memory that has room for them.
    ///
    /// # Safety
    /// `to` has `range.len()` elements, which nothing else uses meanwhile.
    pub unsafe fn gather(&self, range: Range<usize>, to: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe {
            self.gather_by(range, to, &|from, to, length| std::ptr::copy_nonoverlapping(from, to, length), || ());
        }
    }

    /// As [`HostArray::gather`], to memory that no processor reads next. Before the caller copies, or helps other threads
    /// to, it does something else.
    ///
    /// # Safety
    /// As there; and what the caller does writes none of these elements.
    pub unsafe fn gather_for_device<T>(&self, range: Range<usize>, to: *mut f32, meanwhile: impl FnOnce() -> T) -> T {
        // SAFETY: promised by the caller.
        unsafe { self.gather_by(range, to, &|from, to, length| streaming_copy::copy(from, to, length), meanwhile) }
    }

    /// # Safety
    /// As for [`HostArray::gather`]; `copy` copies so many elements from one place to another.
    unsafe fn gather_by<T>(
        &self,
        range: Range<usize>,
        to: *mut f32,
        copy: &CopyRun,
        meanwhile: impl FnOnce() -> T,
    ) -> T {
        let to = Destination(to);
        let row = |own: *mut f32, stride: isize, at: usize, length: usize| {
            // SAFETY: `each_row` names elements of this array; `at` counts within the range, for which there is room.
            unsafe {
                let to = to.at(at);
                if stride == 1 {
                    copy(own, to, length);
                } else {
                    for i in 0..length {
                        to.add(i).write(own.offset(i as isize * stride).read());
                    }
                }
            }
        };
        self.each_row(range, &row, meanwhile)
    }

    /// Copies elements, counted in row-major order, from memory that has them one after the other.
    ///
    /// # Safety
    /// `from` has `range.len()` elements, which nothing writes meanwhile.
    pub unsafe fn scatter(&self, range: Range<usize>, from: *const f32) {
        assert!(self.writeable, "an array that is only read");
        let from = Destination(from.cast_mut());
        let row = |own: *mut f32, stride: isize, at: usize, length: usize| {
            // SAFETY: as in `gather`; the array may be written, and rows are disjoint.
            unsafe {
                let from = from.at(at);
                if stride == 1 {
                    std::ptr::copy_nonoverlapping(from, own, length);
                } else {
                    for i in 0..length {
                        own.offset(i as isize * stride).write(from.add(i).read());
                    }
                }
            }
        };
        self.each_row(range, &row, || ());
    }

    /// Calls `row(first element, stride, where in the range it is, elements)` for pieces of the range that lie in one
    /// row, on several threads where there are many elements. The caller first does something else.
    fn each_row<T>(
        &self,
        range: Range<usize>,
        row: &(dyn Fn(*mut f32, isize, usize, usize) + Sync),
        meanwhile: impl FnOnce() -> T,
    ) -> T {
        assert!(range.start <= range.end && range.end <= self.elements, "elements out of range");
        let work = |share: Range<usize>| {
            let (begin, end) = (range.start + share.start, range.start + share.end);
            let inner = self.axes.saturating_sub(1);
            let (size, stride) = (self.shape[inner], self.strides[inner]);
            let mut at = begin;
            while at < end {
                let (mut outer, within) = (at / size, at % size);
                let length = (size - within).min(end - at);
                let mut offset = within as isize * stride;
                for axis in (0..inner).rev() {
                    offset += (outer % self.shape[axis]) as isize * self.strides[axis];
                    outer /= self.shape[axis];
                }
                row(self.first.wrapping_offset(offset), stride, at - range.start, length);
                at += length;
            }
        };
        crew::in_shares(range.len(), size_of::<f32>(), &work, meanwhile)
    }
}

/// Copies elements that follow one another.
type CopyRun = dyn Fn(*const f32, *mut f32, usize) + Sync;

/// Memory that several threads copy to or from, each its own elements.
struct Destination(*mut f32);

// SAFETY: threads touch elements of their own only, see `HostArray::each_row`.
unsafe impl Sync for Destination {}

impl Destination {
    /// # Safety
    /// The memory has more than `at` elements.
    unsafe fn at(&self, at: usize) -> *mut f32 {
        // SAFETY: promised by the caller.
        unsafe { self.0.add(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, ArrayD, Axis, IxDyn, s};

    fn numbered(shape: &[usize]) -> ArrayD<f32> {
        let elements = shape.iter().product::<usize>();
        Array::from_iter((0..elements).map(|value| value as f32)).into_shape_with_order(IxDyn(shape)).expect("it fits")
    }

    fn check(view: ArrayViewD<'_, f32>) {
        let expected: Vec<f32> = view.iter().copied().collect();
        let array = HostArray::reading(&view);
        assert_eq!(array.elements(), expected.len());
        for range in [0..expected.len(), expected.len() / 3..expected.len() / 2, 1..1] {
            let mut to = vec![-1.0; range.len()];
            // SAFETY: `to` is as long as the range.
            unsafe { array.gather(range.clone(), to.as_mut_ptr()) };
            assert_eq!(to, expected[range]);
        }
    }

    #[test]
    fn any_strides_are_read_in_row_major_order() {
        let base = numbered(&[4, 6, 5, 7]);
        check(base.view());
        check(base.view().permuted_axes(IxDyn(&[0, 2, 3, 1])));
        check(base.slice(s![1..;2, .., ..;-1, 2..5]).into_dyn());
        check(base.view().index_axis_move(Axis(3), 2));
        check(numbered(&[1]).broadcast(IxDyn(&[3, 4])).expect("it broadcasts"));
        check(numbered(&[]).view());
        check(numbered(&[300, 700]).view().reversed_axes());
    }

    #[test]
    fn contiguous_arrays_are_known_as_such() {
        let base = numbered(&[4, 1, 5]);
        assert_eq!(HostArray::reading(&base.view()).contiguous(), Some(base.as_ptr().cast_mut()));
        assert!(HostArray::reading(&base.slice(s![1..3, .., ..]).into_dyn()).contiguous().is_some());
        assert_eq!(HostArray::reading(&base.slice(s![.., .., 1..]).into_dyn()).contiguous(), None);
    }

    #[test]
    fn any_strides_are_written_and_what_lies_between_is_left_alone() {
        let mut base = numbered(&[6, 80, 1000]);
        let expected = {
            let mut copy = base.clone();
            copy.slice_mut(s![.., ..;2, 1..]).fill(-7.0);
            copy
        };
        let mut view = base.slice_mut(s![.., ..;2, 1..]).into_dyn();
        let elements = view.len();
        let from = vec![-7.0; elements];
        let array = HostArray::writing(&mut view);
        // SAFETY: `from` has as many elements.
        unsafe {
            array.scatter(0..elements / 2, from.as_ptr());
            array.scatter(elements / 2..elements, from.as_ptr());
        }
        assert_eq!(base, expected);
    }
}
