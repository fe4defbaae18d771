//! The memory that a thread works in, kept between calls so that none allocates what an earlier one already had.

use super::gather::{Run, Term};
use super::interleaved::Segment;
use crate::error::{Error, Result, Status};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// What the kernels fill. Each says itself what it keeps where, for one item of work or for one call.
#[derive(Default)]
pub(super) struct Workspace {
    /// Packed weights, or the rows of a product.
    pub(super) a: Vec<f32>,
    /// Packed pixels, or a patch.
    pub(super) b: Vec<f32>,
    pub(super) sums: Vec<f32>,
    pub(super) totals: Vec<f32>,
    pub(super) doubles: Vec<f64>,
    pub(super) terms: Vec<Term>,
    pub(super) runs: Vec<Run>,
    pub(super) segments: Vec<Segment>,
    /// Where the panels of B begin, and their rows.
    pub(super) begins: Vec<usize>,
    pub(super) rows: Vec<usize>,
}

/// Makes room for `len` elements, whose contents are whatever they were.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn room<T: Clone + Default>(vec: &mut Vec<T>, len: usize) -> Result<&mut [T]> {
    if vec.len() < len {
        vec.try_reserve_exact(len - vec.len()).map_err(|_| {
            let bytes = len.saturating_mul(size_of::<T>());
            Error::new(Status::OutOfHostMemory, format!("the CPU device could not allocate {bytes} bytes of workspace"))
        })?;
        vec.resize(len, T::default());
    }
    Ok(&mut vec[..len])
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
