//! The CPU device against a float64 reference, within the accuracy contract.

use super::isa::Isa;
use super::*;
use crate::config::Conv2dConfig;
use crate::problem::{Pass, PassOptions};

/// A result in float64, with the sum of its terms' magnitudes.
type Exact = Vec<(f64, f64)>;

/// The three passes, by definition: `visit(x index, weight index, y index)` for every product; `None` reads padding.
fn products(p: &Problem, mut visit: impl FnMut(Option<usize>, usize, usize)) {
    let (cg, kg) = (p.channels_per_group(), p.outputs_per_group());
    let mut y = 0;
    for (n, k) in (0..p.n).flat_map(|n| (0..p.k).map(move |k| (n, k))) {
        for (i, j) in (0..p.p).flat_map(|i| (0..p.q).map(move |j| (i, j))) {
            for c in 0..cg {
                for (r, s) in (0..p.r).flat_map(|r| (0..p.s).map(move |s| (r, s))) {
                    let h = (i * p.stride[0] + r * p.dilation[0]).wrapping_sub(p.padding[0]);
                    let w = (j * p.stride[1] + s * p.dilation[1]).wrapping_sub(p.padding[1]);
                    let x = || (((n * p.c + k / kg * cg + c) * p.h + h) * p.w + w) as usize;
                    let weight = ((k * cg + c) * p.r + r) * p.s + s;
                    visit((h < p.h && w < p.w).then(x), weight as usize, y);
                }
            }
            y += 1;
        }
    }
}

fn add((sum, size): &mut (f64, f64), a: f32, b: f32) {
    let product = f64::from(a) * f64::from(b);
    (*sum, *size) = (*sum + product, *size + product.abs());
}

struct Case {
    problem: Problem,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
}

/// None: the one that a context takes.
const WAYS: [Option<Way>; 4] = [None, Some(Way::Dense), Some(Way::Pointwise), Some(Way::Direct)];

/// Everything that the three passes produce, flat: y, dx, dweight, dbias.
type Results = [Vec<f32>; 4];

impl Case {
    /// `input` N C H W; `filter` K R S; stride; `padding` top bottom left right; dilation; groups.
    fn new(
        input: [u64; 4],
        filter: [u64; 3],
        stride: [u64; 2],
        padding: [u64; 4],
        dilation: [u64; 2],
        groups: u64,
        mut value: impl FnMut() -> f32,
    ) -> Case {
        let mut config = Conv2dConfig::new(input[1], filter[0], [filter[1], filter[2]]);
        config.stride = stride;
        config.padding = [[padding[0], padding[1]], [padding[2], padding[3]]];
        config.dilation = dilation;
        config.groups = groups;
        let problem = Problem::new(&config, input, Pass::Forward, PassOptions::default()).unwrap();
        let mut fill = |len: u64| (0..len).map(|_| value()).collect::<Vec<_>>();
        Case {
            x: fill(problem.input_elements()),
            weight: fill(problem.weight_elements()),
            bias: fill(problem.k),
            dy: fill(problem.output_elements()),
            problem,
        }
    }

    fn run(&self, isa: Isa, threads: usize, before: f32, accumulate: bool) -> Results {
        self.go(None, isa, threads, before, accumulate)
    }

    fn go(&self, forced: Option<Way>, isa: Isa, threads: usize, before: f32, accumulate: bool) -> Results {
        let machine = Machine { isa, ..Machine::new(Threads::new(threads), Pool::new(0), forced) };
        let mut p = self.problem.clone();
        p.options.accumulate = accumulate;
        let like = |v: &[f32]| vec![before; v.len()];
        let mut results = [like(&self.dy), like(&self.x), like(&self.weight), like(&self.bias)];
        let [y, dx, dweight, dbias] = &mut results;
        forward(&machine, &p, &self.x, &self.weight, Some(&self.bias), y).unwrap();
        backward_input(&machine, &p, &self.dy, &self.weight, None, dx).unwrap();
        backward_weight(&machine, &p, &self.x, &self.dy, Some(dweight), Some(dbias)).unwrap();
        results
    }

    fn exact(&self) -> [Exact; 4] {
        let p = &self.problem;
        let plane = (p.p * p.q) as usize;
        let channel = |y: usize| y / plane % self.bias.len();
        let bias = |y| (f64::from(self.bias[channel(y)]), f64::from(self.bias[channel(y)]).abs());
        let mut y: Exact = (0..self.dy.len()).map(bias).collect();
        let zeros = |v: &[f32]| vec![(0.0, 0.0); v.len()];
        let (mut dx, mut dweight, mut dbias) = (zeros(&self.x), zeros(&self.weight), zeros(&self.bias));
        products(p, |at_x, at_w, at_y| {
            let (x, w, dy) = (at_x.map_or(0.0, |at| self.x[at]), self.weight[at_w], self.dy[at_y]);
            add(&mut y[at_y], x, w);
            add(&mut dweight[at_w], x, dy);
            if let Some(at) = at_x {
                add(&mut dx[at], dy, w);
            }
        });
        self.dy.iter().enumerate().for_each(|(at, &dy)| add(&mut dbias[channel(at)], dy, 1.0));
        [y, dx, dweight, dbias]
    }

    /// Asserts the contract for every element of every result, on every instruction set.
    fn check(&self, what: &str) {
        let exact = self.exact();
        let p = &self.problem;
        let largest = [&self.x, &self.weight, &self.dy].into_iter().flatten().fold(1f32, |m, v| m.max(v.abs()));
        let terms = [p.channels_per_group() * p.taps(), p.outputs_per_group() * p.taps(), p.n * p.p * p.q];
        for (isa, way) in Isa::available().into_iter().flat_map(|isa| WAYS.map(|way| (isa, way))) {
            let results = self.go(way, isa, 2, f32::NAN, false);
            for ((name, k), (result, exact)) in ["y", "dx", "dweight", "dbias"]
                .into_iter()
                .zip([terms[0], terms[1], terms[2], terms[2]])
                .zip(results.iter().zip(&exact))
            {
                let k = k.max(1) as f64;
                let floor = k * f64::from(f32::MIN_POSITIVE) * f64::from(largest);
                for (at, (&result, &(exact, size))) in result.iter().zip(exact).enumerate() {
                    let bound = 4.0 * k.sqrt() * f64::from(f32::EPSILON) * size + floor;
                    let error = (f64::from(result) - exact).abs();
                    assert!(
                        error <= bound,
                        "{what}, {isa:?}, {way:?}: {name}[{at}] is {result}, not {exact} ± {bound}: {p:?}"
                    );
                }
            }
        }
    }
}

/// Numbers in −1..1 that look random and are the same every time (splitmix64).
fn noise(mut state: u64) -> impl FnMut() -> f32 {
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn small_integers(seed: u64) -> impl FnMut() -> f32 {
    let mut noise = noise(seed);
    move || (noise() * 4.0).round()
}

type Shape = ([u64; 4], [u64; 3], [u64; 2], [u64; 4], [u64; 2], u64);

/// input, filter, stride, padding, dilation, groups.
const SHAPES: &[Shape] = &[
    ([1, 1, 1, 1], [1, 1, 1], [1, 1], [0; 4], [1, 1], 1),
    ([2, 3, 7, 9], [5, 3, 3], [1, 1], [1; 4], [1, 1], 1),
    ([2, 17, 6, 5], [33, 3, 3], [1, 1], [1; 4], [1, 1], 1), // off every tile size
    ([3, 19, 7, 7], [21, 1, 1], [1, 1], [0; 4], [1, 1], 1), // pointwise, panels across images
    ([3, 259, 17, 20], [13, 1, 1], [1, 1], [0; 4], [1, 1], 1), // two blocks an image, two passes
    ([2, 8, 9, 8], [12, 1, 1], [2, 2], [0; 4], [1, 1], 1),  // strided pointwise: pixels without a tap
    ([1, 9, 8, 7], [10, 1, 1], [1, 1], [1, 0, 2, 1], [1, 1], 1),
    ([2, 6, 11, 13], [8, 3, 3], [2, 2], [1; 4], [1, 1], 1),
    ([1, 6, 11, 13], [8, 5, 3], [3, 2], [2, 1, 0, 3], [1, 2], 1), // everything asymmetric
    ([1, 5, 9, 9], [7, 2, 2], [3, 3], [0; 4], [2, 2], 1),
    ([1, 4, 6, 6], [6, 3, 3], [1, 1], [4, 4, 5, 5], [2, 2], 1), // windows wholly in the padding
    ([1, 2, 3, 3], [2, 2, 2], [7, 9], [6; 4], [1, 1], 1),       // stride beyond the input
    ([2, 12, 6, 7], [18, 3, 3], [1, 1], [1; 4], [1, 1], 3),
    ([1, 16, 8, 20], [16, 3, 3], [1, 1], [1; 4], [1, 1], 4),
    ([2, 5, 9, 20], [5, 3, 3], [1, 1], [1; 4], [1, 1], 5), // depthwise
    ([2, 3, 9, 21], [9, 3, 3], [2, 2], [0, 1, 1, 0], [1, 1], 3), // with a multiplier
    ([1, 4, 12, 11], [8, 5, 5], [1, 2], [2; 4], [2, 1], 4),
    ([1, 2, 12, 13], [2, 9, 9], [1, 1], [4; 4], [1, 1], 2), // depthwise, more than 64 taps
    ([1, 3, 4, 40], [3, 1, 5], [1, 3], [0, 0, 2, 2], [1, 4], 3),
    ([2, 24, 5, 6], [3, 3, 3], [1, 1], [1; 4], [1, 1], 1), // few outputs
    ([1, 3, 10, 10], [40, 7, 7], [2, 2], [3; 4], [1, 1], 1),
    ([1, 520, 3, 4], [8, 3, 3], [1, 1], [1; 4], [1, 1], 1), // 4680 terms
    ([1, 6, 5, 5], [520, 3, 3], [1, 1], [1; 4], [1, 1], 1),
    ([1, 4, 1, 100], [6, 1, 5], [1, 1], [0, 0, 2, 2], [1, 1], 1), // one-dimensional
    ([0, 4, 5, 5], [6, 3, 3], [1, 1], [1; 4], [1, 1], 1),
    // So many channels × kernel rows that pixels stand together whose windows reach beyond the plane alike.
    ([3, 30, 4, 5], [31, 9, 2], [1, 1], [4, 4, 1, 1], [1, 1], 1),
    ([2, 29, 7, 6], [52, 9, 3], [2, 2], [4, 4, 1, 1], [1, 1], 1),
    ([2, 58, 5, 6], [58, 9, 3], [1, 1], [5, 4, 2, 2], [1, 2], 2),
    ([2, 29, 2, 3], [29, 9, 2], [1, 1], [9, 8, 3, 2], [1, 1], 1), // windows wholly in the padding
];

fn case(&(input, filter, stride, padding, dilation, groups): &Shape, value: impl FnMut() -> f32) -> Case {
    Case::new(input, filter, stride, padding, dilation, groups, value)
}

#[test]
fn every_result_is_within_the_contract_on_random_data() {
    for (seed, shape) in SHAPES.iter().enumerate() {
        case(shape, noise(seed as u64)).check("random");
    }
}

#[test]
fn small_integers_come_out_exactly() {
    for (seed, shape) in SHAPES.iter().enumerate() {
        let case = case(shape, small_integers(seed as u64));
        let exact = case.exact();
        for (isa, way) in Isa::available().into_iter().flat_map(|isa| WAYS.map(|way| (isa, way))) {
            for (result, exact) in case.go(way, isa, 1, f32::NAN, false).iter().zip(&exact) {
                let right = result.iter().zip(exact).all(|(&y, &(exact, _))| f64::from(y) == exact);
                assert!(right, "{isa:?} {way:?} {shape:?}");
            }
        }
    }
}

#[test]
fn accumulation_adds_to_every_gradient() {
    for (seed, shape) in SHAPES.iter().enumerate() {
        let case = case(shape, small_integers(seed as u64));
        for isa in Isa::available() {
            let (plain, added) = (case.run(isa, 1, f32::NAN, false), case.run(isa, 1, 64.0, true));
            for (plain, added) in plain.iter().zip(&added).skip(1) {
                assert!(plain.iter().zip(added).all(|(plain, added)| plain + 64.0 == *added), "{isa:?} {shape:?}");
            }
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let busy: &[Shape] = &[
        ([2, 32, 28, 28], [40, 3, 3], [1, 1], [1; 4], [1, 1], 1),
        ([2, 24, 24, 24], [24, 3, 3], [1, 1], [1; 4], [1, 1], 24),
        ([4, 512, 14, 14], [64, 1, 1], [1, 1], [0; 4], [1, 1], 1),
    ];
    for shape in SHAPES.iter().chain(busy) {
        let case = case(shape, noise(7));
        for way in WAYS {
            let bits = |threads| {
                let results = case.go(way, Isa::detect(), threads, 0.0, false);
                results.map(|r| r.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            let one = bits(1);
            assert!(one == bits(2) && one == bits(5), "{way:?} {shape:?}");
        }
    }
}

#[test]
fn terms_just_too_small_to_count_alone_are_not_lost() {
    // A plain chain from the 1 loses every later term: each is less than half a unit in its last place.
    let tiny = 2f32.powi(-24) * (1.0 - 2f32.powi(-10));
    for shape in [
        ([1, 512, 3, 3], [8, 3, 3], [1, 1], [1; 4], [1, 1], 1),
        ([1, 8, 3, 3], [512, 3, 3], [1, 1], [1; 4], [1, 1], 1),
        ([1, 600, 3, 3], [2, 3, 3], [1, 1], [1; 4], [1, 1], 1),
        ([1, 1, 31, 33], [1, 31, 31], [1, 1], [0; 4], [1, 1], 1),
        ([2, 2, 100, 130], [2, 3, 3], [1, 1], [1; 4], [1, 1], 2),
        ([2, 1, 100, 130], [9, 1, 2], [1, 1], [0; 4], [1, 1], 1),
    ] {
        let mut case = case(&shape, || tiny);
        case.bias.fill(0.0);
        case.weight.fill(1.0);
        for plane in case.x.chunks_mut((shape.0[1] * shape.0[2] * shape.0[3]) as usize) {
            plane[0] = 1.0;
        }
        for plane in case.dy.chunks_mut((case.problem.k * case.problem.p * case.problem.q) as usize) {
            plane[0] = 1.0;
        }
        case.check("1 and tiny");
        case.x.fill(1.0);
        case.check("dy of 1 and tiny");
    }
}

#[test]
fn one_huge_value_harms_only_what_reads_it() {
    for shape in SHAPES.iter().filter(|shape| shape.0[0] > 0) {
        let outlier = |data: &mut [f32]| data[data.len() / 2] = 1e30;
        let (mut in_x, mut in_dy) = (case(shape, noise(3)), case(shape, noise(4)));
        outlier(&mut in_x.x);
        outlier(&mut in_dy.dy);
        in_x.check("x with 1e30");
        in_dy.check("dy with 1e30");
    }
}

#[test]
fn infinities_and_nans_reach_exactly_the_results_that_read_them() {
    for shape in SHAPES.iter().filter(|shape| shape.0[0] > 0) {
        for poison in [f32::NAN, f32::INFINITY] {
            let mut case = case(shape, noise(5));
            for data in [&mut case.x, &mut case.dy] {
                let middle = data.len() / 2;
                data[middle] = poison;
            }
            let exact = case.exact();
            for isa in Isa::available() {
                for (pass, (result, exact)) in case.run(isa, 1, f32::NAN, false).iter().zip(&exact).enumerate() {
                    let same = result.iter().zip(exact).all(|(y, (exact, _))| y.is_finite() == exact.is_finite());
                    assert!(same, "{isa:?} pass {pass} {shape:?} {poison}");
                }
            }
        }
    }
}

#[test]
fn a_long_weight_gradient_stays_within_the_contract() {
    // 50,176 and 61,504 pixels in the reduction; the second shape is depthwise.
    case(&([1, 2, 224, 224], [7, 1, 2], [1, 1], [0, 0, 1, 0], [1, 1], 1), noise(1)).check("long");
    case(&([1, 2, 248, 248], [2, 3, 1], [1, 1], [1, 1, 0, 0], [1, 1], 2), noise(2)).check("long depthwise");
}

#[test]
fn each_gradient_can_be_left_out() {
    let case = case(&SHAPES[2], noise(1));
    let [_, _, want_weight, want_bias] = case.run(Isa::detect(), 1, 0.0, false);
    let (mut dweight, mut dbias) = (vec![0.0; want_weight.len()], vec![0.0; want_bias.len()]);
    let machine = Machine::new(Threads::new(1), Pool::new(0), None);
    backward_weight(&machine, &case.problem, &case.x, &case.dy, Some(&mut dweight), None).unwrap();
    backward_weight(&machine, &case.problem, &case.x, &case.dy, None, Some(&mut dbias)).unwrap();
    assert_eq!((dweight, dbias), (want_weight, want_bias));
}

#[test]
fn a_slice_of_the_wrong_length_is_named() {
    let case = case(&SHAPES[1], noise(1));
    let mut y = vec![0.0; case.dy.len()];
    let machine = Machine::new(Threads::new(1), Pool::new(0), None);
    let error = forward(&machine, &case.problem, &case.x[1..], &case.weight, None, &mut y).unwrap_err();
    assert_eq!(error.message(), "x has 377 elements, expected 378");
    let error = backward_input(&machine, &case.problem, &case.dy, &case.weight, None, &mut y).unwrap_err();
    assert!(error.message().starts_with("dx has "));
}
