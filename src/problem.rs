//! A convolution with all its sizes: pure integers, from which every shape, cost and argument error follows.

use crate::config::{Conv2dConfig, Precision};
use crate::error::{Error, Result};

/// Which of the three computations is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// `y` from `x`, weight and bias.
    Forward,
    /// `dx` from `dy` and weight.
    BackwardInput,
    /// The weight's gradient (and the bias's) from `x` and `dy`.
    BackwardWeight,
}

/// What a pass produces beyond its main result, and how it writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PassOptions {
    /// Forward: add a bias. BackwardWeight: compute the bias's gradient.
    pub bias: bool,
    /// BackwardWeight: leave the weight's gradient out and compute only the bias's.
    pub skip_weight: bool,
    /// Add to the gradients instead of overwriting them.
    pub accumulate: bool,
}

/// A config × an input shape × a pass. Index letters are the field's: input N C H W, output N K P Q, kernel R S.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Batch.
    pub n: u64,
    /// Input channels.
    pub c: u64,
    /// Input height.
    pub h: u64,
    /// Input width.
    pub w: u64,
    /// Output channels.
    pub k: u64,
    /// Output height.
    pub p: u64,
    /// Output width.
    pub q: u64,
    /// Kernel height.
    pub r: u64,
    /// Kernel width.
    pub s: u64,
    /// Stride (height, width).
    pub stride: [u64; 2],
    /// Zeros before each axis; those after it only show in `p` and `q`.
    pub padding: [u64; 2],
    /// Dilation (height, width).
    pub dilation: [u64; 2],
    /// Groups.
    pub groups: u64,
    /// Accuracy contract.
    pub precision: Precision,
    /// The computation.
    pub pass: Pass,
    /// Its options.
    pub options: PassOptions,
}

/// The longest axis, padding included, that the kernels' 32-bit signed coordinates can hold.
const MAX_PADDED: u64 = 1 << 30;

impl Problem {
    /// Validates the config against an input of shape `[N, C, H, W]`.
    ///
    /// # Errors
    /// `InvalidArgument` for any config or shape that no convolution could have.
    pub fn new(config: &Conv2dConfig, input: [u64; 4], pass: Pass, options: PassOptions) -> Result<Problem> {
        config.validate()?;
        let output = output_shape(config, input)?;
        Ok(Problem {
            n: input[0],
            c: input[1],
            h: input[2],
            w: input[3],
            k: output[1],
            p: output[2],
            q: output[3],
            r: config.kernel[0],
            s: config.kernel[1],
            stride: config.stride,
            padding: [config.padding[0][0], config.padding[1][0]],
            dilation: config.dilation,
            groups: config.groups,
            precision: config.precision,
            pass,
            options,
        })
    }

    /// Shape of the input and of its gradient.
    pub fn input_shape(&self) -> [u64; 4] {
        [self.n, self.c, self.h, self.w]
    }

    /// Shape of the output and of its gradient.
    pub fn output_shape(&self) -> [u64; 4] {
        [self.n, self.k, self.p, self.q]
    }

    /// Shape of the weight and of its gradient.
    pub fn weight_shape(&self) -> [u64; 4] {
        [self.k, self.channels_per_group(), self.r, self.s]
    }

    /// Input channels of one group.
    pub fn channels_per_group(&self) -> u64 {
        self.c / self.groups
    }

    /// Output channels of one group.
    pub fn outputs_per_group(&self) -> u64 {
        self.k / self.groups
    }

    /// Kernel elements, R·S.
    pub fn taps(&self) -> u64 {
        self.r * self.s
    }

    /// Elements of the input.
    pub fn input_elements(&self) -> u64 {
        self.input_shape().iter().product()
    }

    /// Elements of the output.
    pub fn output_elements(&self) -> u64 {
        self.output_shape().iter().product()
    }

    /// Elements of the weight.
    pub fn weight_elements(&self) -> u64 {
        self.weight_shape().iter().product()
    }

    /// How many products are summed into one result (the K of the accuracy contract).
    pub fn reduction(&self) -> u64 {
        match self.pass {
            Pass::Forward => self.channels_per_group() * self.taps(),
            Pass::BackwardInput => self.outputs_per_group() * self.taps(),
            Pass::BackwardWeight => self.n * self.p * self.q,
        }
    }

    /// Floating-point operations, a multiply and an add counted as two; padding is counted as if it were data.
    pub fn flops(&self) -> f64 {
        2.0 * self.output_elements() as f64 * self.channels_per_group() as f64 * self.taps() as f64
    }

    /// The fewest bytes that must move: each operand read once, each result written once.
    pub fn bytes(&self) -> u64 {
        4 * (self.input_elements()
            + self.output_elements()
            + self.weight_elements()
            + self.k * u64::from(self.options.bias))
    }
}

/// Shape `[N, K, P, Q]` of the output for an input of shape `[N, C, H, W]`.
///
/// # Errors
/// `InvalidArgument`: wrong channels, an empty axis, a kernel larger than the padded input, sizes beyond 64 bits.
pub fn output_shape(config: &Conv2dConfig, input: [u64; 4]) -> Result<[u64; 4]> {
    let [n, c, h, w] = input;
    if c != config.in_channels {
        return Err(Error::invalid(format!(
            "input of shape {input:?} has {c} channels, expected in_channels = {}",
            config.in_channels
        )));
    }
    let mut output = [n, config.out_channels, 0, 0];
    for (axis, size) in [h, w].into_iter().enumerate() {
        let padded = size.saturating_add(config.padding[axis][0]).saturating_add(config.padding[axis][1]);
        let window = config.window(axis);
        if size == 0 {
            return Err(Error::invalid(format!("input of shape {input:?} is empty; only the batch may be 0")));
        }
        if padded > MAX_PADDED {
            return Err(Error::invalid(format!(
                "input of shape {input:?} has {padded} elements along axis {} with padding, expected at most {MAX_PADDED}",
                axis + 2
            )));
        }
        if window > padded {
            return Err(Error::invalid(format!(
                "kernel spans {window} elements along axis {}, more than the padded input's {padded}",
                axis + 2
            )));
        }
        output[2 + axis] = (padded - window) / config.stride[axis] + 1;
    }
    for (name, shape) in [("input", input), ("output", output)] {
        shape
            .iter()
            .try_fold(4u64, |bytes, &size| bytes.checked_mul(size.max(1)))
            .filter(|&bytes| bytes <= i64::MAX as u64)
            .ok_or_else(|| Error::invalid(format!("{name} of shape {shape:?} overflows 64-bit byte sizes")))?;
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape_of(config: &Conv2dConfig, input: [u64; 4]) -> Result<[u64; 4]> {
        config.validate()?;
        output_shape(config, input)
    }

    #[test]
    fn output_shapes_follow_the_formula() {
        let mut config = Conv2dConfig::new(3, 8, [3, 5]);
        assert_eq!(shape_of(&config, [2, 3, 9, 9]), Ok([2, 8, 7, 5]));
        config.padding = [[1, 1], [2, 2]];
        assert_eq!(shape_of(&config, [2, 3, 9, 9]), Ok([2, 8, 9, 9]));
        config.stride = [2, 3];
        assert_eq!(shape_of(&config, [0, 3, 9, 9]), Ok([0, 8, 5, 3]));
        config.dilation = [3, 1];
        config.padding = [[0, 1], [2, 0]];
        assert_eq!(shape_of(&config, [1, 3, 9, 9]), Ok([1, 8, 2, 3]));
    }

    #[test]
    fn impossible_inputs_are_named() {
        let config = Conv2dConfig::new(3, 8, [3, 3]);
        let cases = [
            ([1, 4, 9, 9], "input of shape [1, 4, 9, 9] has 4 channels, expected in_channels = 3"),
            ([1, 3, 0, 9], "input of shape [1, 3, 0, 9] is empty; only the batch may be 0"),
            ([1, 3, 9, 2], "kernel spans 3 elements along axis 3, more than the padded input's 2"),
            ([1 << 62, 3, 9, 9], "input of shape [4611686018427387904, 3, 9, 9] overflows 64-bit byte sizes"),
            (
                [1, 3, 9, 1 << 31],
                "input of shape [1, 3, 9, 2147483648] has 2147483648 elements along axis 3 with padding, expected at most 1073741824",
            ),
        ];
        for (input, message) in cases {
            assert_eq!(shape_of(&config, input).unwrap_err().message(), message);
        }
    }

    #[test]
    fn costs_of_a_known_layer() {
        // ResNet-50's 3×3 layer of its first stage, batch 32: 7.40 GFLOP.
        let mut config = Conv2dConfig::new(64, 64, [3, 3]);
        config.padding = [[1, 1], [1, 1]];
        let problem = Problem::new(&config, [32, 64, 56, 56], Pass::Forward, PassOptions::default()).unwrap();
        assert_eq!(problem.flops(), 7_398_752_256.0);
        assert_eq!(problem.reduction(), 576);
        assert_eq!(problem.bytes(), 4 * (2 * 32 * 64 * 56 * 56 + 64 * 64 * 9));
    }
}
