//! A convolution with all its sizes: pure integers, from which every shape, cost and argument error follows.

use crate::config::{Conv2dConfig, PaddingMode, Precision};
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
///
/// A transposed convolution is a problem of the convolution that it is the input gradient of: the caller's `x` and `dx`
/// are that one's output, its `y` and `dy` that one's input. So its forward pass is that one's `BackwardInput`, its
/// input gradient is `Forward`, and only the bias is in an unusual place.
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
    /// Elements before each axis.
    pub padding: [u64; 2],
    /// Elements after each axis.
    pub padding_end: [u64; 2],
    /// What they are; zeros too where there are none.
    pub padding_mode: PaddingMode,
    /// Dilation (height, width).
    pub dilation: [u64; 2],
    /// Groups.
    pub groups: u64,
    /// Accuracy contract.
    pub precision: Precision,
    /// The bias belongs to the channels of the input instead of the output: the caller's convolution is transposed.
    pub transposed: bool,
    /// The computation.
    pub pass: Pass,
    /// Its options; those that mean nothing to the caller's pass are off.
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
        let ([n, c, h, w], [_, k, p, q]) = if config.transposed { (output, input) } else { (input, output) };
        let padded = config.padding.as_flattened().iter().any(|&elements| elements > 0);
        Ok(Problem {
            n,
            c,
            h,
            w,
            k,
            p,
            q,
            r: config.kernel[0],
            s: config.kernel[1],
            stride: config.stride,
            padding: config.padding.map(|[begin, _]| begin),
            padding_end: config.padding.map(|[_, end]| end),
            padding_mode: if padded { config.padding_mode } else { PaddingMode::Zeros },
            dilation: config.dilation,
            groups: config.groups,
            precision: config.precision,
            transposed: config.transposed,
            pass: match pass {
                Pass::Forward if config.transposed => Pass::BackwardInput,
                Pass::BackwardInput if config.transposed => Pass::Forward,
                _ => pass,
            },
            options: match pass {
                Pass::Forward => PassOptions { bias: options.bias, ..PassOptions::default() },
                Pass::BackwardInput => PassOptions { accumulate: options.accumulate, ..PassOptions::default() },
                Pass::BackwardWeight => options,
            },
        })
    }

    /// The same pass over an input that was padded before; `None` where zeros surround it, which need no place.
    pub fn padded(&self) -> Option<Problem> {
        (self.padding_mode != PaddingMode::Zeros).then(|| Problem {
            h: self.padding[0] + self.h + self.padding_end[0],
            w: self.padding[1] + self.w + self.padding_end[1],
            padding: [0, 0],
            padding_end: [0, 0],
            padding_mode: PaddingMode::Zeros,
            ..self.clone()
        })
    }

    /// Shape of the caller's `x` and `dx`.
    pub fn x_shape(&self) -> [u64; 4] {
        if self.transposed { self.output_shape() } else { self.input_shape() }
    }

    /// Shape of the caller's `y` and `dy`.
    pub fn y_shape(&self) -> [u64; 4] {
        if self.transposed { self.input_shape() } else { self.output_shape() }
    }

    /// Elements of the bias: the channels of the caller's `y`.
    pub fn bias_elements(&self) -> u64 {
        if self.transposed { self.c } else { self.k }
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

    /// How many products are summed into one result (the K of the accuracy contract). An element of `dx` of which a
    /// padding mode makes copies sums so many for each of them.
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
            + self.bias_elements() * u64::from(self.options.bias))
    }
}

/// Shape `[N, K, P, Q]` of the output for an input of shape `[N, C, H, W]`.
///
/// # Errors
/// `InvalidArgument`: wrong channels, an empty axis, a kernel larger than the padded input, a padding that its mode
/// cannot fill, a transposed convolution without output, sizes beyond 64 bits.
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
        if size == 0 {
            return Err(Error::invalid(format!("input of shape {input:?} is empty; only the batch may be 0")));
        }
        let along = if config.transposed { transposed_size } else { direct_size };
        output[2 + axis] = along(config, axis, input, size)?;
    }
    // Zeros take no memory; other paddings do.
    let padding = |axis: usize| match config.padding_mode {
        PaddingMode::Zeros => 0,
        _ => config.padding[axis].iter().sum::<u64>(),
    };
    let padded = [n, c, h + padding(0), w + padding(1)];
    for (name, shape) in [("input", input), ("padded input", padded), ("output", output)] {
        shape
            .iter()
            .try_fold(4u64, |bytes, &size| bytes.checked_mul(size.max(1)))
            .filter(|&bytes| bytes <= i64::MAX as u64)
            .ok_or_else(|| Error::invalid(format!("{name} of shape {shape:?} overflows 64-bit byte sizes")))?;
    }
    Ok(output)
}

fn direct_size(config: &Conv2dConfig, axis: usize, input: [u64; 4], size: u64) -> Result<u64> {
    let most = match config.padding_mode {
        PaddingMode::Zeros | PaddingMode::Replicate => u64::MAX,
        PaddingMode::Reflect => size - 1,
        PaddingMode::Circular => size,
    };
    for (padding, name) in config.padding[axis].into_iter().zip(["begin", "end"]) {
        if padding > most {
            return Err(Error::invalid(format!(
                "padding_{name}[{axis}] is {padding}, expected 0 to {most} in mode {:?} for {size} elements \
                 along axis {}",
                config.padding_mode,
                axis + 2
            )));
        }
    }
    let padded = size.saturating_add(config.padding[axis].iter().sum());
    check_padded("input", input, axis, padded)?;
    let window = config.window(axis);
    if window > padded {
        return Err(Error::invalid(format!(
            "kernel spans {window} elements along axis {}, more than the padded input's {padded}",
            axis + 2
        )));
    }
    Ok((padded - window) / config.stride[axis] + 1)
}

fn transposed_size(config: &Conv2dConfig, axis: usize, input: [u64; 4], size: u64) -> Result<u64> {
    // What the direct convolution makes of this many elements, padding included, is the input.
    let steps = (size - 1).saturating_mul(config.stride[axis]);
    let padded = steps.saturating_add(config.window(axis)).saturating_add(config.output_padding[axis]);
    check_padded("output for an input", input, axis, padded)?;
    let padding: u64 = config.padding[axis].iter().sum();
    padded.checked_sub(padding).filter(|&output| output > 0).ok_or_else(|| {
        Error::invalid(format!(
            "the calculated output has {} elements along axis {} for an input of shape {input:?}, expected at least 1",
            padded as i64 - padding as i64,
            axis + 2
        ))
    })
}

fn check_padded(name: &str, shape: [u64; 4], axis: usize, padded: u64) -> Result<()> {
    if padded > MAX_PADDED {
        return Err(Error::invalid(format!(
            "{name} of shape {shape:?} has {padded} elements along axis {} with padding, expected at most {MAX_PADDED}",
            axis + 2
        )));
    }
    Ok(())
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
    fn padding_that_takes_memory_must_be_addressable() {
        let (h, w) = (1 << 28, 1 << 27);
        let padding = [[h - 1, 0], [w - 1, 0]];
        let config = Conv2dConfig { padding, stride: [h, w], ..Conv2dConfig::new(1 << 10, 1, [1, 1]) };
        assert_eq!(shape_of(&config, [1, 1 << 10, 1, 1]), Ok([1, 1, 1, 1]), "zeros take none");
        let config = Conv2dConfig { padding_mode: PaddingMode::Replicate, ..config };
        let error = shape_of(&config, [1, 1 << 10, 1, 1]).unwrap_err();
        let message = format!("padded input of shape [1, 1024, {h}, {w}] overflows 64-bit byte sizes");
        assert_eq!(error.message(), message);
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
