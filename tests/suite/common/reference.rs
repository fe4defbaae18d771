//! Every result in float64, straight from the definition: a dozen lines a pass, one output element at a time.

use super::cases::{Case, Mode};
use super::data::{Data, Kind};

/// One output: its value, and S, the sum of the magnitudes of everything added into it.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    pub value: f64,
    pub magnitude: f64,
    /// An infinite or NaN `dy` met padding (transposed: an `x` did): 0·∞ is NaN where padding counts as data, as in
    /// PyTorch, and nothing where it is skipped. The contract leaves that open.
    pub undecided: bool,
    /// Into how many elements of a padded input the gradient's element was copied, and from so many it sums.
    pub copies: u64,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum::from(0.0)
    }
}

impl Sum {
    /// Begins with a bias, or with what a gradient held before.
    fn from(value: f32) -> Sum {
        Sum { value: f64::from(value), magnitude: f64::from(value.abs()), undecided: false, copies: 1 }
    }

    fn add(&mut self, a: f32, b: f32) {
        let product = f64::from(a) * f64::from(b); // exact: 24 + 24 bits fit in 53
        self.value += product;
        self.magnitude += product.abs();
    }
}

/// A result in float64, with what the contract needs to know about it.
#[derive(Clone)]
pub struct Expected {
    pub name: &'static str,
    pub shape: Vec<u64>,
    /// One for each of `at`, or for all elements.
    pub sums: Vec<Sum>,
    /// The elements that were computed, if not all.
    pub at: Option<Vec<usize>>,
    /// K of the contract: products in one sum, where its element was not copied.
    pub reduction: u64,
    /// The largest finite magnitude among the operands.
    pub largest: f64,
}

/// Which (output, input, kernel) coordinates meet along one axis, listed from each point of view.
struct Axis {
    of_output: Vec<Vec<(usize, usize)>>, // (kernel, input)
    of_input: Vec<Vec<(usize, usize)>>,  // (kernel, output)
    of_kernel: Vec<Vec<(usize, usize)>>, // (output, input)
    /// How often an input coordinate occurs in the padded input.
    copies: Vec<u64>,
}

impl Axis {
    fn new(case: &Case, axis: usize) -> Axis {
        let [output, input] = [case.output(), case.input()].map(|shape| shape[2 + axis] as usize);
        let kernel = case.kernel[axis] as usize;
        let [begin, end] = case.padding[axis];
        let mut meetings = Axis {
            of_output: vec![vec![]; output],
            of_input: vec![vec![]; input],
            of_kernel: vec![vec![]; kernel],
            copies: vec![0; input],
        };
        let mut meet = |o: usize, k: usize, i: usize| {
            meetings.of_output[o].push((k, i));
            meetings.of_input[i].push((k, o));
            meetings.of_kernel[k].push((o, i));
        };
        // A transposed convolution steps through its output, another one through its padded input.
        for near in 0..if case.transposed { input } else { output } {
            for k in 0..kernel {
                let padded = near as u64 * case.stride[axis] + k as u64 * case.dilation[axis];
                let far = padded as i64 - begin as i64;
                if case.transposed {
                    if (0..output as i64).contains(&far) {
                        meet(far as usize, k, near);
                    }
                } else if let Some(i) = origin(case.padding_mode, far, input as i64) {
                    meet(near, k, i);
                }
            }
        }
        for at in -(begin as i64)..(input as u64 + end) as i64 {
            if let Some(i) = origin(case.padding_mode, at, input as i64) {
                meetings.copies[i] += 1;
            }
        }
        meetings
    }
}

/// Which of `size` elements stands at `at`, counted from the first; `None` for a zero.
fn origin(mode: Mode, at: i64, size: i64) -> Option<usize> {
    let inside = (0..size).contains(&at);
    let i = match mode {
        Mode::Zeros => return inside.then_some(at as usize),
        Mode::Replicate => at.clamp(0, size - 1),
        Mode::Circular => at.rem_euclid(size),
        Mode::Reflect if inside => at,
        Mode::Reflect if at < 0 => -at,
        Mode::Reflect => (size - 1) - (at - (size - 1)),
    };
    Some(i as usize)
}

/// The four results of one case, for some or all of their elements.
pub struct Reference<'a> {
    data: &'a Data,
    accumulate: bool,
    input: [usize; 4],
    weight: [usize; 4],
    output: [usize; 4],
    transposed: bool,
    /// Channels of a group.
    inputs: usize,
    outputs: usize,
    rows: Axis,
    columns: Axis,
    /// Where that tensor is infinite or NaN which the kernel meets whole: `dy`, or a transposed convolution's `x`.
    nonfinite: Vec<[usize; 4]>,
}

/// What a sweep needs of a case: data of a kind, and every result; with `accumulate`, gradients added to the data's own.
pub fn prepared(kind: Kind, accumulate: bool) -> impl Fn(&Case) -> (Data, [Expected; 4]) {
    move |case| {
        let data = Data::new(case, kind);
        let expected = Reference::new(case, &data, accumulate).all();
        (data, expected)
    }
}

impl<'a> Reference<'a> {
    pub fn new(case: &Case, data: &'a Data, accumulate: bool) -> Reference<'a> {
        let [input, weight, output] =
            [case.input(), case.weight(), case.output()].map(|shape| shape.map(|size| size as usize));
        let (transposed, groups) = (case.transposed, case.groups as usize);
        let (inputs, outputs) = (input[1] / groups, output[1] / groups);
        let (rows, columns) = (Axis::new(case, 0), Axis::new(case, 1));
        let (near, shape) = if transposed { (&data.x, input) } else { (&data.dy, output) };
        let nonfinite = (0..near.len()).filter(|&at| !near[at].is_finite()).map(|at| unflatten(at, shape)).collect();
        Reference { data, accumulate, input, weight, output, transposed, inputs, outputs, rows, columns, nonfinite }
    }

    /// All elements of `y`, `dx`, `dweight` and `dbias`.
    pub fn all(&self) -> [Expected; 4] {
        self.some(|_| None)
    }

    /// Those elements that `choose` names for a tensor of a given length.
    pub fn some(&self, choose: impl Fn(usize) -> Option<Vec<usize>>) -> [Expected; 4] {
        let [n, k, p, q] = self.output;
        let [_, _, r, s] = self.weight;
        // One product for each element of the tensor through which the kernel steps.
        let [_, _, height, width] = if self.transposed { self.input } else { self.output };
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
            result("y", &self.output, self.inputs * r * s, x.max(weight), &|index| self.forward(index)),
            result("dx", &self.input, self.outputs * r * s, dy.max(weight), &|index| self.input_gradient(index)),
            result("dweight", &self.weight, n * height * width, x.max(dy), &|index| self.weight_gradient(index)),
            result("dbias", &[k], n * p * q, dy, &|index| self.bias_gradient(index)),
        ]
    }

    fn forward(&self, index: usize) -> Sum {
        let [n, k, p, q] = unflatten(index, self.output);
        let mut sum = self.data.bias.as_ref().map_or(Sum::default(), |bias| Sum::from(bias[k]));
        let first = k / self.outputs * self.inputs;
        for c in first..first + self.inputs {
            for &(r, h) in &self.rows.of_output[p] {
                for &(s, w) in &self.columns.of_output[q] {
                    sum.add(self.x([n, c, h, w]), self.weight(k, c, [r, s]));
                }
            }
        }
        sum
    }

    fn input_gradient(&self, index: usize) -> Sum {
        let [n, c, h, w] = unflatten(index, self.input);
        let mut sum = self.before(&self.data.prior_dx, index);
        sum.copies = self.rows.copies[h] * self.columns.copies[w];
        let first = c / self.inputs * self.outputs;
        for k in first..first + self.outputs {
            for &(r, p) in &self.rows.of_input[h] {
                for &(s, q) in &self.columns.of_input[w] {
                    sum.add(self.dy([n, k, p, q]), self.weight(k, c, [r, s]));
                }
            }
        }
        sum
    }

    fn weight_gradient(&self, index: usize) -> Sum {
        let [outer, inner, r, s] = unflatten(index, self.weight);
        let (k, c) = if self.transposed {
            (outer / self.inputs * self.outputs + inner, outer)
        } else {
            (outer, outer / self.outputs * self.inputs + inner)
        };
        let mut sum = self.before(&self.data.prior_dweight, index);
        for n in 0..self.input[0] {
            for &(p, h) in &self.rows.of_kernel[r] {
                for &(q, w) in &self.columns.of_kernel[s] {
                    sum.add(self.x([n, c, h, w]), self.dy([n, k, p, q]));
                }
            }
        }
        let meets = |pairs: &[(usize, usize)], at| {
            pairs.iter().any(|&(output, input)| at == if self.transposed { input } else { output })
        };
        sum.undecided = self.nonfinite.iter().any(|&[_, channel, row, column]| {
            channel == outer && !(meets(&self.rows.of_kernel[r], row) && meets(&self.columns.of_kernel[s], column))
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

    fn x(&self, at: [usize; 4]) -> f32 {
        self.data.x[flatten(at, self.input)]
    }

    /// The weight between an output and an input channel of the same group.
    fn weight(&self, k: usize, c: usize, [r, s]: [usize; 2]) -> f32 {
        let (outer, inner) = if self.transposed { (c, k % self.outputs) } else { (k, c % self.inputs) };
        self.data.weight[flatten([outer, inner, r, s], self.weight)]
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
