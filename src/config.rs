//! What a convolution is, before anything is known of its input's size.

use crate::error::{Error, Result};

/// The accuracy that a convolution promises; every algorithm within it may be used.
///
/// K is the number of products summed into one output, S the sum of their magnitudes plus the bias's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// `|y − ŷ| ≤ 4·√K·2⁻²³·S` for every finite input, and relative Frobenius error ≤ 1e-6 on N(0,1).
    #[default]
    Fp32,
    /// Only fp32 fused multiply-adds: `|y − ŷ| ≤ (K+2)·2⁻²⁴·S`.
    Ieee,
    /// The class of TF32: relative Frobenius error ≤ 1e-3.
    Fast,
}

/// What surrounds an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PaddingMode {
    /// Zeros.
    #[default]
    Zeros,
    /// The input mirrored at its edge, which is not repeated; each padding is less than that axis's size.
    Reflect,
    /// The input's edge, repeated.
    Replicate,
    /// The input again, from its other side; each padding is at most that axis's size.
    Circular,
}

/// A 2-D convolution (cross-correlation, as in PyTorch and ONNX). One-dimensional ones have height 1.
///
/// Pairs are (height, width). The fields are plain data; [`Conv2dConfig::validate`] says what is legal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dConfig {
    /// Channels of the input; a multiple of `groups`.
    pub in_channels: u64,
    /// Channels of the output; a multiple of `groups`.
    pub out_channels: u64,
    /// Kernel height and width, at least 1.
    pub kernel: [u64; 2],
    /// Step between output pixels, at least 1.
    pub stride: [u64; 2],
    /// Elements before and after each axis: `[[top, bottom], [left, right]]`.
    pub padding: [[u64; 2]; 2],
    /// What those elements are.
    pub padding_mode: PaddingMode,
    /// A transposed convolution: the input gradient of a convolution from `out_channels` to `in_channels`.
    pub transposed: bool,
    /// Transposed: elements after each axis of the output (bottom, right), less than the stride or the dilation.
    /// Otherwise 0.
    pub output_padding: [u64; 2],
    /// Distance between kernel elements, at least 1; 1 means none is skipped.
    pub dilation: [u64; 2],
    /// Independent blocks of channels, at least 1.
    pub groups: u64,
    /// The accuracy contract.
    pub precision: Precision,
}

/// Sizes above this are refused: index arithmetic in the kernels is 32 bits wide.
const MAX_SIZE: u64 = i32::MAX as u64;

impl Conv2dConfig {
    /// A convolution with stride 1, no padding, dilation 1 and one group.
    pub fn new(in_channels: u64, out_channels: u64, kernel: [u64; 2]) -> Conv2dConfig {
        Conv2dConfig {
            in_channels,
            out_channels,
            kernel,
            stride: [1, 1],
            padding: [[0, 0], [0, 0]],
            padding_mode: PaddingMode::default(),
            transposed: false,
            output_padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
            precision: Precision::default(),
        }
    }

    /// Checks everything that does not depend on an input.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the field, its value and what is legal.
    pub fn validate(&self) -> Result<()> {
        positive(self.in_channels, || "in_channels".into())?;
        positive(self.out_channels, || "out_channels".into())?;
        positive(self.groups, || "groups".into())?;
        for axis in 0..2 {
            positive(self.kernel[axis], || format!("kernel[{axis}]"))?;
            positive(self.stride[axis], || format!("stride[{axis}]"))?;
            positive(self.dilation[axis], || format!("dilation[{axis}]"))?;
            for (end, name) in ["begin", "end"].iter().enumerate() {
                let value = self.padding[axis][end];
                if value > MAX_SIZE {
                    return Err(Error::invalid(format!("padding_{name}[{axis}] is {value}, expected 0 to {MAX_SIZE}")));
                }
            }
            let (extra, most) = (self.output_padding[axis], self.stride[axis].max(self.dilation[axis]) - 1);
            if self.transposed && extra > most {
                return Err(Error::invalid(format!(
                    "output_padding[{axis}] is {extra}, expected 0 to {most}: less than stride[{axis}] = {} or \
                     dilation[{axis}] = {}",
                    self.stride[axis], self.dilation[axis]
                )));
            }
            if !self.transposed && extra != 0 {
                return Err(Error::invalid(format!(
                    "output_padding[{axis}] is {extra}, expected 0: the convolution is not transposed"
                )));
            }
            if self.window(axis) > MAX_SIZE {
                return Err(Error::invalid(format!(
                    "kernel[{axis}] = {} with dilation[{axis}] = {} spans {} elements, expected at most {MAX_SIZE}",
                    self.kernel[axis],
                    self.dilation[axis],
                    self.window(axis)
                )));
            }
        }
        if self.transposed && self.padding_mode != PaddingMode::Zeros {
            return Err(Error::invalid(format!(
                "padding_mode is {:?}, expected Zeros: the convolution is transposed",
                self.padding_mode
            )));
        }
        for (name, channels) in [("in_channels", self.in_channels), ("out_channels", self.out_channels)] {
            if !channels.is_multiple_of(self.groups) {
                return Err(Error::invalid(format!(
                    "{name} is {channels}, expected a multiple of groups = {}",
                    self.groups
                )));
            }
        }
        self.weight_shape()
            .iter()
            .try_fold(4u64, |bytes, &size| bytes.checked_mul(size))
            .filter(|&bytes| bytes <= i64::MAX as u64)
            .ok_or_else(|| {
                Error::invalid(format!("weight of shape {:?} overflows 64-bit byte sizes", self.weight_shape()))
            })?;
        Ok(())
    }

    /// Shape of the weight: `[out_channels, in_channels / groups, kernel height, kernel width]`; transposed,
    /// `[in_channels, out_channels / groups, kernel height, kernel width]`.
    pub fn weight_shape(&self) -> [u64; 4] {
        let [outer, inner] =
            if self.transposed { [self.in_channels, self.out_channels] } else { [self.out_channels, self.in_channels] };
        [outer, inner / self.groups, self.kernel[0], self.kernel[1]]
    }

    /// Bytes of the weight as float32.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_shape().iter().product::<u64>() * 4
    }

    /// The convolution that a transposed one is the input gradient of; of another one, itself. Both have the same
    /// weight.
    pub(crate) fn direct(&self) -> Conv2dConfig {
        if !self.transposed {
            return self.clone();
        }
        Conv2dConfig {
            in_channels: self.out_channels,
            out_channels: self.in_channels,
            transposed: false,
            output_padding: [0, 0],
            ..self.clone()
        }
    }

    /// Elements that the dilated kernel spans along an axis.
    pub(crate) fn window(&self, axis: usize) -> u64 {
        self.dilation[axis].saturating_mul(self.kernel[axis] - 1).saturating_add(1)
    }
}

fn positive(value: u64, name: impl FnOnce() -> String) -> Result<()> {
    if value == 0 || value > MAX_SIZE {
        return Err(Error::invalid(format!("{} is {value}, expected 1 to {MAX_SIZE}", name())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_checked_by_name() {
        let good = Conv2dConfig::new(4, 6, [3, 3]);
        type Break = fn(&mut Conv2dConfig);
        let cases: [(Break, &str); 11] = [
            (|c| c.in_channels = 0, "in_channels is 0, expected 1 to 2147483647"),
            (|c| c.groups = 0, "groups is 0, expected 1 to 2147483647"),
            (|c| c.groups = 3, "in_channels is 4, expected a multiple of groups = 3"),
            (|c| c.groups = 4, "out_channels is 6, expected a multiple of groups = 4"),
            (|c| c.stride = [1, 0], "stride[1] is 0, expected 1 to 2147483647"),
            (|c| c.dilation = [0, 1], "dilation[0] is 0, expected 1 to 2147483647"),
            (|c| c.padding[1][1] = 1 << 40, "padding_end[1] is 1099511627776, expected 0 to 2147483647"),
            (|c| c.output_padding = [0, 1], "output_padding[1] is 1, expected 0: the convolution is not transposed"),
            (
                |c| (c.transposed, c.stride, c.dilation, c.output_padding) = (true, [2, 2], [1, 3], [2, 2]),
                "output_padding[0] is 2, expected 0 to 1: less than stride[0] = 2 or dilation[0] = 1",
            ),
            (
                |c| (c.transposed, c.padding_mode) = (true, PaddingMode::Circular),
                "padding_mode is Circular, expected Zeros: the convolution is transposed",
            ),
            (
                |c| c.dilation = [1 << 30, 1],
                "kernel[0] = 3 with dilation[0] = 1073741824 spans 2147483649 elements, expected at most 2147483647",
            ),
        ];
        assert_eq!(good.validate(), Ok(()));
        for (spoil, message) in cases {
            let mut config = good.clone();
            spoil(&mut config);
            assert_eq!(config.validate().unwrap_err().message(), message);
        }
    }

    #[test]
    fn a_weight_beyond_64_bits_is_refused() {
        let config = Conv2dConfig::new(1 << 30, 1 << 30, [1 << 10, 1 << 10]);
        assert!(config.validate().unwrap_err().message().contains("overflows"));
    }
}
