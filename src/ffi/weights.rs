//! Packed weights.

use super::call::call;
use super::handle::{self, grilly_conv2d, grilly_weights};
use super::tensor::ReadTensor;
use super::types::{grilly_status, grilly_tensor};
use super::{desc, out};
use crate::Weights;
use std::sync::Arc;

/// Packs a weight once, for both forward and backward calls of this convolution or any other of the same weight shape
/// and groups on the same context. Later changes of the raw weight do not show.
///
/// # Safety
/// `weight` is initialised and has the bytes that it claims; `weights` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_weights_create(
    conv: *const grilly_conv2d,
    weight: *const grilly_tensor,
    weights: *mut *mut grilly_weights,
) -> grilly_status {
    call(|call| {
        let weights = out(weights, "weights")?;
        let conv = call.get(conv)?;
        // SAFETY: promised by the caller.
        let weight = unsafe { ReadTensor::new(call, &desc::read(weight, "weight")?, "weight") }?;
        let created = Weights::new(&conv, weight.input()?)?;
        // SAFETY: not null, and writable as the caller promised.
        unsafe { weights.write(handle::insert(Arc::new(created))?) };
        Ok(())
    })
}

/// Ends the handle. Of NULL it does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_weights_destroy(weights: *mut grilly_weights) -> grilly_status {
    call(|_| handle::remove(weights).map(drop))
}
