//! Every result in float64, straight from the definition: a dozen lines a pass, one output element at a time.

use super::cases::Case;
use super::data::Data;

/// One output: its value, and S, the sum of the magnitudes of everything added into it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub value: f64,
    pub magnitude: f64,
    /// An infinite or NaN `dy` met padding: 0·∞ is NaN where padding counts as data, as in PyTorch, and nothing
    /// where it is skipped. The contract leaves that open.
    pub undecided: bool,
}

impl Sum {
    /// Begins with a bias, or with what a gradient held before.
    fn from(value: f32) -> Sum {
        Sum { value: f64::from(value), magnitude: f64::from(value.abs()), undecided: false }
    }

    fn add(&mut self, a: f32, b: f32) {
        let product = f64::from(a) * f64::from(b); // exact: 24 + 24 bits fit in 53
        self.value += product;
        self.magnitude += product.abs();
    }
}

/// A result in float64, with what the contract needs to know about it.
pub struct Expected {
    pub name: &'static str,
    pub shape: Vec<u64>,
    /// One for each of `at`, or for all elements.
    pub sums: Vec<Sum>,
    /// The elements that were computed, if not all.
    pub at: Option<Vec<usize>>,
    /// K of the contract: products in one sum.
    pub reduction: u64,
    /// The largest finite magnitude among the operands.
    pub largest: f64,
}

/// Which (output, input, kernel) coordinates meet along one axis, listed from each point of view.
struct Axis {
    of_output: Vec<Vec<(usize, usize)>>, // (kernel, input)
    of_input: Vec<Vec<(usize, usize)>>,  // (kernel, output)
    of_kernel: Vec<Vec<(usize, usize)>>, // (output, input)
}

impl Axis {
    fn new(case: &Case, axis: usize) -> Axis {
        let [output, input] = [case.output(), case.input()].map(|shape| shape[2 + axis] as usize);
        let kernel = case.kernel[axis] as usize;
        let mut meetings =
            Axis { of_output: vec![vec![]; output], of_input: vec![vec![]; input], of_kernel: vec![vec![]; kernel] };
        for o in 0..output {
            for k in 0..kernel {
                let padded = o as u64 * case.stride[axis] + k as u64 * case.dilation[axis];
                let Some(i) = padded.checked_sub(case.padding[axis][0]).map(|i| i as usize) else { continue };
                if i < input {
                    meetings.of_output[o].push((k, i));
                    meetings.of_input[i].push((k, o));
                    meetings.of_kernel[k].push((o, i));
                }
            }
        }
        meetings
    }
}

/// The four results of one case, for some or all of their elements.
pub struct Reference<'a> {
    data: &'a Data,
    accumulate: bool,
    input: [usize; 4],
    weight: [usize; 4],
    output: [usize; 4],
    groups: usize,
    rows: Axis,
    columns: Axis,
    /// Where `dy` is infinite or NaN.
    nonfinite_dy: Vec<[usize; 4]>,
}

impl<'a> Reference<'a> {
    pub fn new(case: &Case, data: &'a Data, accumulate: bool) -> Reference<'a> {
        let [input, weight, output] =
            [case.input(), case.weight(), case.output()].map(|shape| shape.map(|size| size as usize));
        let groups = case.groups as usize;
        let (rows, columns) = (Axis::new(case, 0), Axis::new(case, 1));
        let nonfinite_dy = (0..data.dy.len()).filter(|&at| !data.dy[at].is_finite());
        let nonfinite_dy = nonfinite_dy.map(|at| unflatten(at, output)).collect();
        Reference { data, accumulate, input, weight, output, groups, rows, columns, nonfinite_dy }
    }

    /// All elements of `y`, `dx`, `dweight` and `dbias`.
    pub fn all(&self) -> [Expected; 4] {
        self.some(|_| None)
    }

    /// Those elements that `choose` names for a tensor of a given length.
    pub fn some(&self, choose: impl Fn(usize) -> Option<Vec<usize>>) -> [Expected; 4] {
        let [n, k, p, q] = self.output;
        let [_, channels, r, s] = self.weight;
        let [x, weight, dy] = [&self.data.x, &self.data.weight, &self.data.dy].map(|tensor| largest(tensor));
        let result = |name, shape: &[usize], reduction, largest, sum: &dyn Fn(usize) -> Sum| {
            let len = shape.iter().product();
            let at = choose(len);
            let sums = match &at {
                Some(at) => at.iter().map(|&index| sum(index)).collect(),
                None => (0..len).map(sum).collect(),
            };
            let shape = shape.iter().map(|&size| size as u64).collect();
            Expected { name, shape, sums, at, reduction: reduction as u64, largest }
        };
        [
            result("y", &self.output, channels * r * s, x.max(weight), &|index| self.forward(index)),
            result("dx", &self.input, k / self.groups * r * s, dy.max(weight), &|index| self.input_gradient(index)),
            result("dweight", &self.weight, n * p * q, x.max(dy), &|index| self.weight_gradient(index)),
            result("dbias", &[k], n * p * q, dy, &|index| self.bias_gradient(index)),
        ]
    }

    fn forward(&self, index: usize) -> Sum {
        let [n, k, p, q] = unflatten(index, self.output);
        let mut sum = self.data.bias.as_ref().map_or(Sum::default(), |bias| Sum::from(bias[k]));
        let first = self.first_input(k);
        for c in 0..self.weight[1] {
            for &(r, h) in &self.rows.of_output[p] {
                for &(s, w) in &self.columns.of_output[q] {
                    sum.add(self.x([n, first + c, h, w]), self.weight([k, c, r, s]));
                }
            }
        }
        sum
    }

    fn input_gradient(&self, index: usize) -> Sum {
        let [n, c, h, w] = unflatten(index, self.input);
        let mut sum = self.before(&self.data.prior_dx, index);
        let (channels, outputs) = (self.weight[1], self.output[1] / self.groups);
        let first = c / channels * outputs;
        for k in first..first + outputs {
            for &(r, p) in &self.rows.of_input[h] {
                for &(s, q) in &self.columns.of_input[w] {
                    sum.add(self.dy([n, k, p, q]), self.weight([k, c % channels, r, s]));
                }
            }
        }
        sum
    }

    fn weight_gradient(&self, index: usize) -> Sum {
        let [k, c, r, s] = unflatten(index, self.weight);
        let mut sum = self.before(&self.data.prior_dweight, index);
        let first = self.first_input(k);
        for n in 0..self.input[0] {
            for &(p, h) in &self.rows.of_kernel[r] {
                for &(q, w) in &self.columns.of_kernel[s] {
                    sum.add(self.x([n, first + c, h, w]), self.dy([n, k, p, q]));
                }
            }
        }
        let meets = |pairs: &[(usize, usize)], output| pairs.iter().any(|&(o, _)| o == output);
        sum.undecided = self.nonfinite_dy.iter().any(|&[_, channel, p, q]| {
            channel == k && !(meets(&self.rows.of_kernel[r], p) && meets(&self.columns.of_kernel[s], q))
        });
        sum
    }

    fn bias_gradient(&self, k: usize) -> Sum {
        let mut sum = self.before(&self.data.prior_dbias, k);
        let plane = self.output[2] * self.output[3];
        for n in 0..self.output[0] {
            let begin = flatten([n, k, 0, 0], self.output);
            self.data.dy[begin..begin + plane].iter().for_each(|&dy| sum.add(dy, 1.0));
        }
        sum
    }

    /// What a gradient begins with.
    fn before(&self, prior: &[f32], index: usize) -> Sum {
        if self.accumulate { Sum::from(prior[index]) } else { Sum::default() }
    }

    /// The first input channel that output channel `k` reads.
    fn first_input(&self, k: usize) -> usize {
        k / (self.output[1] / self.groups) * self.weight[1]
    }

    fn x(&self, at: [usize; 4]) -> f32 {
        self.data.x[flatten(at, self.input)]
    }

    fn weight(&self, at: [usize; 4]) -> f32 {
        self.data.weight[flatten(at, self.weight)]
    }

    fn dy(&self, at: [usize; 4]) -> f32 {
        self.data.dy[flatten(at, self.output)]
    }
}

fn flatten([a, b, c, d]: [usize; 4], shape: [usize; 4]) -> usize {
    ((a * shape[1] + b) * shape[2] + c) * shape[3] + d
}

fn unflatten(index: usize, [_, b, c, d]: [usize; 4]) -> [usize; 4] {
    [index / d / c / b, index / d / c % b, index / d % c, index % d]
}

fn largest(tensor: &[f32]) -> f64 {
    tensor.iter().filter(|value| value.is_finite()).fold(0.0, |largest: f64, value| largest.max(f64::from(value.abs())))
}
