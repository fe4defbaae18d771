//! Deterministic tensors, from harmless to malicious.

use super::cases::{Case, elements};

/// splitmix64 (Steele, Lea, Flood 2014): tiny, and the same everywhere.
pub struct Generator(u64);

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * 2f64.powi(-53)
    }

    /// Uniform in 0..count.
    pub fn below(&mut self, count: usize) -> usize {
        (self.unit() * count as f64) as usize
    }

    /// N(0, 1), by Box and Muller.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }

    /// A full mantissa in ±[1, 2).
    pub fn mantissa(&mut self) -> f32 {
        let sign = if self.bits() & 1 == 0 { 1.0 } else { -1.0 };
        sign * (1.0 + self.unit() as f32)
    }
}

/// What the tensors of a call are filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// N(0, 1).
    Normal,
    /// Uniform in [-1, 1): cheap enough for huge tensors.
    Uniform,
    /// Integers from -4 to 4: every partial sum of fewer than 2²⁰ products is exact in fp32.
    Integers,
    /// Forward and weight gradient sum a 1 first and then products just below half its last bit: a single chain of
    /// additions loses every one of them.
    OneThenTiny,
    /// The same for the input gradient.
    OneThenTinyInput,
    /// ±[1, 2)·2^e with e uniform in -40..=40.
    WideRange,
    /// ±[1, 2), but one 1e30 in `x` and one in `dy`.
    Outlier,
    /// Ones, but one 1e30 in `x` and one in `dy`.
    OutlierAmongOnes,
    /// Neighbours in a sum all but cancel.
    Cancelling,
    /// N(0, 1) with an infinity and a NaN in `x` and in `dy`.
    NonFinite,
}

pub const ADVERSARIAL: [Kind; 7] = [
    Kind::OneThenTiny,
    Kind::OneThenTinyInput,
    Kind::WideRange,
    Kind::Outlier,
    Kind::OutlierAmongOnes,
    Kind::Cancelling,
    Kind::NonFinite,
];

/// The operands of one case, and what its gradients hold before a call that accumulates.
pub struct Data {
    pub x: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    pub dy: Vec<f32>,
    pub prior_dx: Vec<f32>,
    pub prior_dweight: Vec<f32>,
    pub prior_dbias: Vec<f32>,
}

impl Data {
    pub fn new(case: &Case, kind: Kind) -> Data {
        let mut generator = Generator::new(case.seed());
        let [x, weight, dy] = [case.input(), case.weight(), case.output()].map(|shape| elements(&shape));
        let mut draw = |len| fill(kind, &mut generator, len);
        let mut data = Data {
            x: draw(x),
            weight: draw(weight),
            bias: case.bias.then(|| draw(case.k as usize)),
            dy: draw(dy),
            prior_dx: draw(x),
            prior_dweight: draw(weight),
            prior_dbias: draw(case.k as usize),
        };
        data.spoil(case, kind, &mut generator);
        data
    }

    /// The part of a kind that depends on where an element stands.
    fn spoil(&mut self, case: &Case, kind: Kind, generator: &mut Generator) {
        let [_, k, p, q] = case.output();
        let (filter, plane) = (elements(&case.weight()[1..]), elements(&[p, q]));
        let planes_of_first_image = elements(&[k, p, q]);
        let filters_of_group = filter * (k / case.groups) as usize;
        match kind {
            Kind::OneThenTiny => {
                one_then_tiny(&mut self.weight, |i| i % filter == 0);
                one_then_tiny(&mut self.dy, |i| i < planes_of_first_image && i % plane == 0);
            }
            Kind::OneThenTinyInput => one_then_tiny(&mut self.weight, |i| i % filters_of_group < filter),
            Kind::Cancelling => {
                for tensor in [&mut self.weight, &mut self.dy] {
                    tensor.iter_mut().skip(1).step_by(2).for_each(|value| *value = -*value);
                }
            }
            Kind::Outlier | Kind::OutlierAmongOnes => {
                for tensor in [&mut self.x, &mut self.dy] {
                    put(tensor, generator, 1e30);
                }
            }
            Kind::NonFinite => {
                for tensor in [&mut self.x, &mut self.dy] {
                    put(tensor, generator, f32::INFINITY);
                    put(tensor, generator, f32::NAN);
                }
            }
            Kind::Normal | Kind::Uniform | Kind::Integers | Kind::WideRange => {}
        }
    }
}

fn fill(kind: Kind, generator: &mut Generator, len: usize) -> Vec<f32> {
    let mut draw = || match kind {
        Kind::Normal | Kind::NonFinite => generator.normal(),
        Kind::Uniform => 2.0 * generator.unit() as f32 - 1.0,
        Kind::Integers => generator.below(9) as f32 - 4.0,
        Kind::OneThenTiny | Kind::OneThenTinyInput | Kind::OutlierAmongOnes => 1.0,
        Kind::WideRange => generator.mantissa() * 2f32.powi(generator.below(81) as i32 - 40),
        Kind::Outlier => generator.mantissa(),
        Kind::Cancelling => 1.0 + generator.below(64) as f32 * f32::EPSILON,
    };
    (0..len).map(|_| draw()).collect()
}

fn one_then_tiny(tensor: &mut [f32], is_one: impl Fn(usize) -> bool) {
    let tiny = 2f32.powi(-24) * (1.0 - 2f32.powi(-10));
    for (index, value) in tensor.iter_mut().enumerate() {
        *value = if is_one(index) { 1.0 } else { tiny };
    }
}

fn put(tensor: &mut [f32], generator: &mut Generator, value: f32) {
    if !tensor.is_empty() {
        let index = generator.below(tensor.len());
        tensor[index] = value;
    }
}
