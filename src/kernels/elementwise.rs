//! Element-wise operations: `shaders/elementwise.glsl`.

use super::slices::{MAX_ELEMENTS, bound_elements};
use super::table::{ELEMENTWISE, ELEMENTWISE_RUN as RUN, ELEMENTWISE_THREADS as THREADS};
use crate::broadcast::{Broadcast, Source};
use crate::error::{Error, Result};
use crate::plan::{Dispatch, Limits, Operand, Plan, Role, Sizes};

/// Plans an operation: `a` is [`Role::Input`], `b` is [`Role::Weight`], the result [`Role::Output`].
///
/// The result is cut into runs of elements that bindings reach; an array that is broadcast is seen whole by each.
///
/// # Errors
/// `Unsupported` for an array beyond this device's reach.
pub fn plan(problem: &Broadcast, limits: &Limits) -> Result<Plan> {
    let total = problem.elements();
    let sources = [("a", problem.a), ("b", problem.b)];
    let mut addresses = false;
    for (name, source) in sources {
        let Source::Broadcast(_) = source else { continue };
        let elements = source.elements(problem.shape);
        addresses |= elements > bound_elements(limits);
        // Indices of a result that arrays broadcast to are counted from its beginning.
        if elements > MAX_ELEMENTS || total > MAX_ELEMENTS || addresses && !limits.buffer_addresses {
            return Err(Error::unsupported(format!(
                "{name} of {elements} elements broadcasts to {total}, but this device reaches at most {} by a binding, \
                 {}and {MAX_ELEMENTS} in all",
                bound_elements(limits),
                if limits.buffer_addresses { "" } else { "has no buffer addresses, " },
            )));
        }
    }
    let longest = if addresses { MAX_ELEMENTS } else { bound_elements(limits) };
    let mut plan = Plan::new(limits);
    let mut begin = 0;
    while begin < total {
        let count = longest.min(total - begin);
        let part = |role| Operand { role, offset: 4 * begin, bytes: 4 * count };
        let operand = |role, source: Source| match source {
            Source::Scalar | Source::Result => None,
            Source::Element => Some(part(role)),
            Source::Broadcast(_) => Some(Operand { role, offset: 0, bytes: 4 * source.elements(problem.shape) }),
        };
        let dispatch = Dispatch {
            module: ELEMENTWISE.module(addresses),
            specialization: vec![problem.op as u32, source_id(problem.a), source_id(problem.b)],
            operands: [
                operand(Role::Input, problem.a),
                operand(Role::Weight, problem.b),
                None,
                Some(part(Role::Output)),
            ],
            sizes: Sizes { extra: [count as u32, problem.alpha.to_bits()], ..sizes(problem, begin) },
            tiles: 0..0,
        };
        plan.push(dispatch, count.div_ceil(u64::from(THREADS * RUN)), 4.0 * count as f64 / limits.flops)?;
        begin += count;
    }
    Ok(plan)
}

/// As `shaders/elementwise.glsl` numbers them.
fn source_id(source: Source) -> u32 {
    match source {
        Source::Scalar => 0,
        Source::Element => 1,
        Source::Broadcast(_) => 2,
        Source::Result => 3,
    }
}

/// The result's shape, the strides of `a` and `b`, and the first element.
fn sizes(problem: &Broadcast, begin: u64) -> Sizes {
    let strides = |source| match source {
        Source::Broadcast(strides) => strides,
        _ => [0; 4],
    };
    let words = [problem.shape, strides(problem.a), strides(problem.b), [begin, 0, 0, 0]];
    let mut sizes = Sizes::default();
    for (to, from) in sizes.problem.iter_mut().zip(words.as_flattened()) {
        *to = *from as u32; // what broadcasts was checked to fit 31 bits; nothing else reads these
    }
    sizes
}
