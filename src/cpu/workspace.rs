//! The memory that a thread works in, kept between calls so that none allocates what an earlier one already had.

use super::bounds::Bounds;
use super::gather::{Run, Term};
use super::interleaved::Segment;
use super::panel::{Span, Stretch};
use crate::error::{Error, Result, Status};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// What the kernels fill. Each says itself what it keeps where, for one item of work or for one call.
#[derive(Default)]
pub(super) struct Workspace {
    /// Packed weights, or the rows of a product.
    pub(super) a: Floats,
    /// Packed pixels, or a patch.
    pub(super) b: Floats,
    pub(super) sums: Floats,
    pub(super) totals: Floats,
    pub(super) doubles: Vec<f64>,
    pub(super) terms: Vec<Term>,
    pub(super) runs: Vec<Run>,
    pub(super) segments: Vec<Segment>,
    /// Which terms tiles sum.
    pub(super) bounds: Vec<Bounds>,
    pub(super) stretches: Vec<Stretch>,
    pub(super) spans: Vec<Span>,
    /// Where the panels of B begin, and their rows; or windows, and their terms; or where a call's weights go.
    pub(super) begins: Vec<usize>,
    pub(super) rows: Vec<usize>,
}

/// Elements that begin at a cache line: vectors of whole panels then cross none.
#[derive(Default)]
pub(super) struct Floats(Vec<Line>);

#[derive(Clone, Default)]
#[repr(C, align(64))]
struct Line([f32; Line::LEN]);

impl Line {
    const LEN: usize = 16;
}

impl Floats {
    /// As [`room`].
    ///
    /// # Errors
    /// `OutOfHostMemory`.
    pub(super) fn room(&mut self, len: usize) -> Result<&mut [f32]> {
        room(&mut self.0, len.div_ceil(Line::LEN))?;
        Ok(&mut self[..len])
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is its elements and nothing else, and the borrow goes on.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * Line::LEN) }
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * Line::LEN) }
    }
}

/// Makes room for `len` elements, whose contents are whatever they were.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn room<T: Clone + Default>(vec: &mut Vec<T>, len: usize) -> Result<&mut [T]> {
    if vec.len() < len {
        vec.try_reserve_exact(len - vec.len()).map_err(|_| no_room::<T>(len))?;
        vec.resize(len, T::default());
    }
    Ok(&mut vec[..len])
}

/// Lists `items`, of which there are `len`.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn list<T>(vec: &mut Vec<T>, len: usize, items: impl Iterator<Item = T>) -> Result<()> {
    vec.clear();
    vec.try_reserve_exact(len).map_err(|_| no_room::<T>(len))?;
    vec.extend(items);
    Ok(())
}

/// There is no memory for so many elements.
pub(super) fn no_room<T>(len: usize) -> Error {
    let bytes = len.saturating_mul(size_of::<T>());
    Error::new(Status::OutOfHostMemory, format!("the CPU device could not allocate {bytes} bytes of workspace"))
}

/// A workspace that goes back when this ends.
pub(super) struct Lease<'a> {
    workspace: Option<Workspace>,
    home: &'a Mutex<Vec<Workspace>>,
}

impl<'a> Lease<'a> {
    pub(super) fn new(workspace: Workspace, home: &'a Mutex<Vec<Workspace>>) -> Lease<'a> {
        Lease { workspace: Some(workspace), home }
    }
}

impl Deref for Lease<'_> {
    type Target = Workspace;

    fn deref(&self) -> &Workspace {
        self.workspace.as_ref().expect("a lease has its workspace until it ends")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Workspace {
        self.workspace.as_mut().expect("a lease has its workspace until it ends")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(workspace) = self.workspace.take() {
            self.home.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        }
    }
}
