//! tests/cases.json, the table that the Rust, C++ and Python tests share. tests/generate_cases.py writes it.

use grilly::{Conv2dConfig, PaddingMode, Precision};
use serde::Deserialize;

/// A case's `PaddingMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Zeros,
    Reflect,
    Replicate,
    Circular,
}

/// One convolution with the sizes of its input. The table leaves out what is at its default.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub name: String,
    pub n: u64,
    pub c: u64,
    pub h: u64,
    pub w: u64,
    pub k: u64,
    pub kernel: [u64; 2],
    pub stride: [u64; 2],
    pub padding: [[u64; 2]; 2],
    pub dilation: [u64; 2],
    pub groups: u64,
    pub bias: bool,
    #[serde(default)]
    pub padding_mode: Mode,
    #[serde(default)]
    pub transposed: bool,
    #[serde(default)]
    pub output_padding: [u64; 2],
}

/// A convolution spoilt in one way: `c` is what the input has, `in_channels` what the layer was made for.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorCase {
    #[serde(flatten)]
    pub case: Case,
    pub in_channels: u64,
    pub status: String,
    pub message: String,
}

#[derive(Deserialize)]
pub struct Table {
    pub cases: Vec<Case>,
    pub errors: Vec<ErrorCase>,
}

pub fn table() -> Table {
    serde_json::from_str(include_str!("../../cases.json")).expect("tests/cases.json follows the structs above")
}

/// Every `step`-th case, and all whose name begins with one of `prefixes`; with GRILLY_TEST_ALL=1 the whole table.
pub fn spread(step: usize, prefixes: &[&str]) -> Vec<Case> {
    let step = if std::env::var("GRILLY_TEST_ALL").is_ok_and(|value| value == "1") { 1 } else { step };
    let wanted = |case: &Case| prefixes.iter().any(|prefix| case.name.starts_with(prefix));
    table()
        .cases
        .into_iter()
        .enumerate()
        .filter(|(index, case)| index % step == 0 || wanted(case))
        .map(|(_, case)| case)
        .collect()
}

impl Case {
    /// A case outside the table: stride 1, no padding, one group.
    pub fn new(name: &str, input: [u64; 4], k: u64, kernel: [u64; 2]) -> Case {
        let [n, c, h, w] = input;
        let name = name.to_string();
        Case {
            name,
            n,
            c,
            h,
            w,
            k,
            kernel,
            stride: [1; 2],
            padding: [[0; 2]; 2],
            dilation: [1; 2],
            groups: 1,
            bias: true,
            padding_mode: Mode::Zeros,
            transposed: false,
            output_padding: [0; 2],
        }
    }

    pub fn config(&self, precision: Precision) -> Conv2dConfig {
        let mut config = Conv2dConfig::new(self.c, self.k, self.kernel);
        config.stride = self.stride;
        config.padding = self.padding;
        config.dilation = self.dilation;
        config.groups = self.groups;
        config.padding_mode = match self.padding_mode {
            Mode::Zeros => PaddingMode::Zeros,
            Mode::Reflect => PaddingMode::Reflect,
            Mode::Replicate => PaddingMode::Replicate,
            Mode::Circular => PaddingMode::Circular,
        };
        config.transposed = self.transposed;
        config.output_padding = self.output_padding;
        config.precision = precision;
        config
    }

    /// Shape of `x` and `dx`: N, C, H, W.
    pub fn input(&self) -> [u64; 4] {
        [self.n, self.c, self.h, self.w]
    }

    /// Shape of the weight and its gradient: K, C / groups, R, S; transposed: C, K / groups, R, S.
    pub fn weight(&self) -> [u64; 4] {
        let [outer, inner] = if self.transposed { [self.c, self.k] } else { [self.k, self.c] };
        [outer, inner / self.groups, self.kernel[0], self.kernel[1]]
    }

    /// Shape of `y` and `dy`: N, K, P, Q, by the textbook's formulas.
    pub fn output(&self) -> [u64; 4] {
        let size = |axis: usize, input: u64| {
            let [begin, end] = self.padding[axis];
            if self.transposed {
                let window = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
                return (input - 1) * self.stride[axis] + window + self.output_padding[axis] - begin - end;
            }
            (input + begin + end - self.dilation[axis] * (self.kernel[axis] - 1) - 1) / self.stride[axis] + 1
        };
        [self.n, self.k, size(0, self.h), size(1, self.w)]
    }

    /// A number of the case's own, so that its data stay the same when others come and go (FNV-1a of the name).
    pub fn seed(&self) -> u64 {
        self.name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }
}

pub fn elements(shape: &[u64]) -> usize {
    shape.iter().product::<u64>() as usize
}
