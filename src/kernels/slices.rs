//! Cutting the batch so that a dispatch's tensors stay within what a binding, or a 32-bit index, reaches.

use crate::error::{Error, Result};
use crate::plan::{Limits, Operand, Role, Sizes};
use crate::problem::Problem;

/// Pieces of a batch beyond which a plan would exhaust the host's memory.
const MOST_SLICES: u64 = 100_000;

/// A run of images, and how their tensors are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images {
    /// First image.
    pub begin: u64,
    /// How many.
    pub count: u64,
}

/// How a problem's tensors are reached: by bindings or addresses, and so many images at a time.
pub struct Reach {
    /// Tensors are addressed instead of bound.
    pub addresses: bool,
    images: u64,
}

/// Elements that a binding reaches, wherever in its alignment it begins.
pub(super) fn bound_elements(limits: &Limits) -> u64 {
    (limits.storage_buffer_range - limits.storage_buffer_alignment) / 4
}

/// Elements that 32-bit signed index arithmetic reaches.
pub(super) const MAX_ELEMENTS: u64 = i32::MAX as u64;

impl Reach {
    /// `whole` names the tensors that every dispatch sees entirely, in elements; input and output are cut by image.
    pub fn new(problem: &Problem, limits: &Limits, whole: &[(&str, u64)]) -> Result<Reach> {
        let bound_elements = bound_elements(limits);
        let image = |elements: u64| elements.checked_div(problem.n).unwrap_or(0);
        let sizes = [
            ("one image of the input", image(problem.input_elements())),
            ("one image of the output", image(problem.output_elements())),
        ];
        let largest = sizes.iter().chain(whole).max_by_key(|(_, elements)| *elements).copied().unwrap_or(("", 0));
        let addresses = largest.1 > bound_elements;
        if addresses && !limits.buffer_addresses {
            return Err(Error::unsupported(format!(
                "{} has {} bytes, but this device binds at most {} and has no buffer addresses",
                largest.0,
                4 * largest.1,
                limits.storage_buffer_range
            )));
        }
        if largest.1 > MAX_ELEMENTS {
            return Err(Error::unsupported(format!(
                "{} has {} elements, expected at most {MAX_ELEMENTS}",
                largest.0, largest.1
            )));
        }
        let reach = if addresses { MAX_ELEMENTS } else { bound_elements };
        let images = sizes.iter().map(|(_, elements)| reach / elements.max(&1)).min().unwrap_or(1);
        if problem.n / images.max(1) > MOST_SLICES {
            return Err(Error::unsupported(format!(
                "a batch of {} images would take more than {MOST_SLICES} dispatches",
                problem.n
            )));
        }
        Ok(Reach { addresses, images })
    }

    /// Whether a kernel that also sees a tensor of so many elements uses addresses; `None` if nothing reaches that far.
    pub fn addresses_for(&self, elements: u64, limits: &Limits) -> Option<bool> {
        let addresses = self.addresses || elements > bound_elements(limits);
        ((limits.buffer_addresses || !addresses) && elements <= MAX_ELEMENTS).then_some(addresses)
    }

    /// The batch, cut.
    pub fn slices(&self, problem: &Problem) -> impl Iterator<Item = Images> + use<> {
        let (n, images) = (problem.n, self.images.max(1));
        (0..n)
            .step_by(images.min(usize::MAX as u64) as usize)
            .map(move |begin| Images { begin, count: images.min(n - begin) })
    }
}

impl Images {
    /// These images' part of `x` or `dx`.
    pub fn input(&self, problem: &Problem) -> Operand {
        self.part(Role::Input, problem.c * problem.h * problem.w)
    }

    /// These images' part of `y` or `dy`.
    pub fn output(&self, problem: &Problem) -> Operand {
        self.part(Role::Output, problem.k * problem.p * problem.q)
    }

    fn part(&self, role: Role, image_elements: u64) -> Operand {
        Operand { role, offset: 4 * self.begin * image_elements, bytes: 4 * self.count * image_elements }
    }

    /// Push constants of the problem, cut to these images.
    pub fn sizes(&self, problem: &Problem) -> Sizes {
        let p = problem;
        let narrow = |value: u64| value as u32; // every size was checked to fit 31 bits
        Sizes {
            problem: [
                narrow(self.count),
                narrow(p.c),
                narrow(p.h),
                narrow(p.w),
                narrow(p.k),
                narrow(p.p),
                narrow(p.q),
                narrow(p.r),
                narrow(p.s),
                narrow(p.stride[0]),
                narrow(p.stride[1]),
                narrow(p.padding[0]),
                narrow(p.padding[1]),
                narrow(p.dilation[0]),
                narrow(p.dilation[1]),
                narrow(p.groups),
                u32::from(p.options.bias),
            ],
            ..Sizes::default()
        }
    }
}

/// A tensor that a dispatch sees entirely.
pub fn whole(role: Role, elements: u64) -> Operand {
    Operand { role, offset: 0, bytes: 4 * elements }
}
