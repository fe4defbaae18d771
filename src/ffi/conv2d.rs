//! Convolutions: create, ask, run.

use super::call::call;
use super::handle::{self, grilly_context, grilly_conv2d};
use super::tensor::IoTensors;
use super::types::*;
use super::{desc, out, size};
use crate::error::{Error, Result};
use crate::{Conv2d, Conv2dConfig, PaddingMode, Precision};

/// Sets `struct_size`, stride 1, dilation 1, one group, `GRILLY_PRECISION_FP32`, and everything else to 0.
///
/// # Safety
/// `desc` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_desc_init(desc: *mut grilly_conv2d_desc, size: usize) {
    let initial = grilly_conv2d_desc { stride: [1, 1], dilation: [1, 1], groups: 1, ..desc::zeroed() };
    // SAFETY: promised by the caller.
    unsafe { desc::init(desc, size, initial) };
}

/// Validates a convolution and binds it to a context's device. Weights are not part of it: they are tensors of each
/// call. A one-dimensional convolution has height 1 and kernel height 1.
///
/// # Safety
/// `desc` is initialised; `conv` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_create(
    context: *const grilly_context,
    desc: *const grilly_conv2d_desc,
    conv: *mut *mut grilly_conv2d,
) -> grilly_status {
    call(|call| {
        let conv = out(conv, "conv")?;
        let context = call.get(context)?;
        // SAFETY: promised by the caller.
        let desc = unsafe { desc::read(desc, "desc") }?;
        let created = Conv2d::new(&context, config(&desc)?)?;
        // SAFETY: not null, and writable as the caller promised.
        unsafe { conv.write(handle::insert(created)?) };
        Ok(())
    })
}

fn config(desc: &grilly_conv2d_desc) -> Result<Conv2dConfig> {
    let pair = |name: &str, values: [i64; 2]| -> Result<[u64; 2]> {
        Ok([size(values[0], || format!("{name}[0]"))?, size(values[1], || format!("{name}[1]"))?])
    };
    let begin = pair("padding_begin", desc.padding_begin)?;
    let end = pair("padding_end", desc.padding_end)?;
    if desc.reserved != 0 {
        return Err(Error::invalid(format!("desc->reserved is {}, expected 0", desc.reserved)));
    }
    Ok(Conv2dConfig {
        in_channels: size(desc.in_channels, || "in_channels".into())?,
        out_channels: size(desc.out_channels, || "out_channels".into())?,
        kernel: pair("kernel", desc.kernel)?,
        stride: pair("stride", desc.stride)?,
        padding: [[begin[0], end[0]], [begin[1], end[1]]],
        padding_mode: match desc.padding_mode {
            GRILLY_PADDING_ZEROS => PaddingMode::Zeros,
            GRILLY_PADDING_REFLECT => PaddingMode::Reflect,
            GRILLY_PADDING_REPLICATE => PaddingMode::Replicate,
            GRILLY_PADDING_CIRCULAR => PaddingMode::Circular,
            other => {
                return Err(Error::invalid(format!("padding_mode is {other}, expected GRILLY_PADDING_* (0 to 3)")));
            }
        },
        transposed: match desc.transposed {
            0 => false,
            1 => true,
            other => return Err(Error::invalid(format!("transposed is {other}, expected 0 or 1"))),
        },
        output_padding: pair("output_padding", desc.output_padding)?,
        dilation: pair("dilation", desc.dilation)?,
        groups: size(desc.groups, || "groups".into())?,
        precision: match desc.precision {
            GRILLY_PRECISION_FP32 => Precision::Fp32,
            GRILLY_PRECISION_IEEE => Precision::Ieee,
            GRILLY_PRECISION_FAST => Precision::Fast,
            other => return Err(Error::invalid(format!("precision is {other}, expected GRILLY_PRECISION_* (0 to 2)"))),
        },
    })
}

/// Shape `[N, K, P, Q]` of the output for an input of shape `[N, C, H, W]`.
///
/// # Safety
/// `input` has 4 readable elements, `output` 4 writable ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_output_shape(
    conv: *const grilly_conv2d,
    input: *const i64,
    output: *mut i64,
) -> grilly_status {
    call(|call| {
        let output = out(output, "output")?.cast::<[i64; 4]>();
        let conv = call.get(conv)?;
        // SAFETY: promised by the caller.
        let shape = conv.output_shape(unsafe { input_shape(input) }?)?;
        // SAFETY: not null, and 4 elements as the caller promised.
        unsafe { output.write(shape.map(|size| size as i64)) };
        Ok(())
    })
}

/// # Safety
/// `input` is null or has 4 readable elements.
pub(super) unsafe fn input_shape(input: *const i64) -> Result<[u64; 4]> {
    if input.is_null() {
        return Err(Error::invalid("input is NULL, expected 4 sizes [N, C, H, W]"));
    }
    // SAFETY: not null, and 4 elements as the caller promised.
    let sizes = unsafe { input.cast::<[i64; 4]>().read_unaligned() };
    let mut shape = [0; 4];
    for (axis, value) in sizes.into_iter().enumerate() {
        shape[axis] = size(value, || format!("input[{axis}]"))?;
    }
    Ok(shape)
}

/// Sets `struct_size`, and everything else to 0.
///
/// # Safety
/// `io` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_io_init(io: *mut grilly_conv2d_io, size: usize) {
    // SAFETY: promised by the caller.
    unsafe { desc::init(io, size, desc::zeroed()) };
}

/// `y = x ⋆ weight + bias` (transposed: the adjoint of `⋆`), and waits for it. Needs `x`, `y` and one of `weight` and
/// `prepared`; `bias` may be NULL. Host and device tensors may be mixed. No tensor may overlap `y`. After an error the
/// contents of `y` are unspecified.
///
/// # Safety
/// `io` is initialised, and its host tensors have the bytes that they claim, unused by others during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_forward(
    conv: *const grilly_conv2d,
    io: *const grilly_conv2d_io,
) -> grilly_status {
    call(|call| {
        let conv = call.get(conv)?;
        // SAFETY: promised by the caller.
        let mut tensors = unsafe { IoTensors::read(call, io) }?;
        conv.forward(tensors.forward()?)?;
        tensors.finish()
    })
}

/// Those gradients whose tensors are given: `dx` (needs `weight` or `prepared`), `dweight` and `dbias` (`dweight`
/// needs `x`), each from `dy`; and waits for them. They are overwritten, or added to with
/// `GRILLY_ACCUMULATE_INPUT` (`dx`) and `GRILLY_ACCUMULATE_PARAMETERS` (`dweight` and `dbias`). No tensor may overlap a
/// gradient. After an error the gradients' contents are unspecified.
///
/// # Safety
/// As for `grilly_conv2d_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_backward(
    conv: *const grilly_conv2d,
    io: *const grilly_conv2d_io,
) -> grilly_status {
    call(|call| {
        let conv = call.get(conv)?;
        // SAFETY: promised by the caller.
        let mut tensors = unsafe { IoTensors::read(call, io) }?;
        conv.backward(tensors.backward()?)?;
        tensors.finish()
    })
}

/// Fills a weight and a bias (NULL: none) in host memory with PyTorch's default initialisation: Kaiming uniform, both
/// U(−1/√fan_in, 1/√fan_in) with fan_in = (in_channels / groups) · kernel height · kernel width, or transposed,
/// (out_channels / groups) · kernel height · kernel width. The same seed gives the same values everywhere.
///
/// # Safety
/// `weight` has out_channels · fan_in writable floats (transposed: in_channels · fan_in), `bias` is NULL or has
/// out_channels of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_init_parameters(
    conv: *const grilly_conv2d,
    seed: u64,
    weight: *mut f32,
    bias: *mut f32,
) -> grilly_status {
    call(|call| {
        let weight = out(weight, "weight")?;
        let conv = call.get(conv)?;
        let config = conv.config();
        let elements = usize::try_from(config.weight_bytes() / 4).unwrap_or(usize::MAX);
        // SAFETY: not null, and as long as the caller promised.
        let weight = unsafe { std::slice::from_raw_parts_mut(weight, elements) };
        let bias = (!bias.is_null())
            // SAFETY: as above.
            .then(|| unsafe { std::slice::from_raw_parts_mut(bias, config.out_channels as usize) });
        crate::init::kaiming_uniform(config, seed, weight, bias);
        Ok(())
    })
}

/// Sets `struct_size`, and everything else to 0.
///
/// # Safety
/// `memory` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_memory_init(memory: *mut grilly_memory, size: usize) {
    // SAFETY: promised by the caller.
    unsafe { desc::init(memory, size, desc::zeroed()) };
}

/// Bytes of the convolution's tensors for an input of shape `[N, C, H, W]`, and of its scratch memory on this device.
///
/// # Safety
/// `input` has 4 readable elements; `memory` is initialised and writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grilly_conv2d_memory(
    conv: *const grilly_conv2d,
    input: *const i64,
    memory: *mut grilly_memory,
) -> grilly_status {
    call(|call| {
        let conv = call.get(conv)?;
        // SAFETY: promised by the caller.
        let sizes = conv.memory(unsafe { input_shape(input) }?)?;
        let value = grilly_memory {
            struct_size: 0,
            weight: sizes.weight,
            bias: sizes.bias,
            input: sizes.input,
            output: sizes.output,
            forward_workspace: sizes.forward_workspace,
            backward_input_workspace: sizes.backward_input_workspace,
            backward_weight_workspace: sizes.backward_weight_workspace,
        };
        // SAFETY: promised by the caller.
        unsafe { desc::write(memory, "memory", &value) }
    })
}

/// Ends the handle. Of NULL it does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn grilly_conv2d_destroy(conv: *mut grilly_conv2d) -> grilly_status {
    call(|_| handle::remove(conv).map(drop))
}
