//! Element-wise operations, block by block: both operands are brought into small arrays, then combined.

use super::Machine;
use super::parallel::{Shared, for_each};
use super::workspace::Workspace;
use crate::broadcast::{Broadcast, ElementwiseOp, Source};
use crate::error::Result;

/// Elements of a block: two of them stay in the first-level cache.
const BLOCK: usize = 512;
/// Blocks that a thread takes at once.
const BLOCKS: usize = 64;

/// `out = op(a, alpha · b)`. A slice whose source is the scalar or the result is empty.
///
/// # Errors
/// None but those of threads.
pub(crate) fn elementwise(machine: &Machine, problem: &Broadcast, a: &[f32], b: &[f32], out: &mut [f32]) -> Result<()> {
    let elements = out.len();
    let items = elements.div_ceil(BLOCK * BLOCKS);
    let result = Shared::new(out);
    let work = |_: &mut Workspace, item: usize| {
        let (mut x, mut y) = ([0.0; BLOCK], [0.0; BLOCK]);
        let end = elements.min((item + 1) * BLOCK * BLOCKS);
        for first in (item * BLOCK * BLOCKS..end).step_by(BLOCK) {
            let len = BLOCK.min(end - first);
            // SAFETY: each item takes blocks of its own.
            let out = unsafe { result.slice(first, len) };
            let (x, y) = (&mut x[..len], &mut y[..len]);
            bring(problem, problem.a, a, out, first, x);
            bring(problem, problem.b, b, out, first, y);
            if let Some(factor) = problem.factor() {
                y.iter_mut().for_each(|value| *value *= factor);
            }
            combine(problem.op, x, y, out);
        }
        Ok(())
    };
    for_each(&machine.threads, elements as f64, items, work)
}

/// The operand's elements for those of the result from `first` on. `old` is what the result held there.
fn bring(problem: &Broadcast, source: Source, values: &[f32], old: &[f32], first: usize, to: &mut [f32]) {
    match source {
        Source::Scalar => to.fill(problem.alpha),
        Source::Element => to.copy_from_slice(&values[first..first + to.len()]),
        Source::Result => to.copy_from_slice(old),
        Source::Broadcast(strides) => {
            let [_, c, h, w] = problem.shape.map(|size| size as usize);
            let strides = strides.map(|stride| stride as usize);
            let mut done = 0;
            while done < to.len() {
                let (row, column) = ((first + done) / w, (first + done) % w);
                let length = (w - column).min(to.len() - done);
                let start = row / h / c * strides[0] + row / h % c * strides[1] + row % h * strides[2];
                let run = &mut to[done..done + length];
                match strides[3] {
                    0 => run.fill(values[start]),
                    _ => run.copy_from_slice(&values[start + column..][..length]),
                }
                done += length;
            }
        }
    }
}

fn combine(op: ElementwiseOp, x: &[f32], y: &[f32], out: &mut [f32]) {
    // A closure for each operation, so that each loop is compiled by itself.
    fn each(x: &[f32], y: &[f32], out: &mut [f32], of: impl Fn(f32, f32) -> f32) {
        out.iter_mut().zip(x.iter().zip(y)).for_each(|(out, (&x, &y))| *out = of(x, y));
    }
    match op {
        ElementwiseOp::Copy => out.copy_from_slice(x),
        ElementwiseOp::Add => each(x, y, out, |a, b| a + b),
        ElementwiseOp::Subtract => each(x, y, out, |a, b| a - b),
        ElementwiseOp::Multiply => each(x, y, out, |a, b| a * b),
        ElementwiseOp::Divide => each(x, y, out, |a, b| a / b),
        ElementwiseOp::Maximum => {
            each(x, y, out, |a, b| if a.is_nan() || (!b.is_nan() && a.total_cmp(&b).is_ge()) { a } else { b })
        }
        ElementwiseOp::Minimum => {
            each(x, y, out, |a, b| if a.is_nan() || (!b.is_nan() && a.total_cmp(&b).is_le()) { a } else { b })
        }
        ElementwiseOp::ReluBackward => each(x, y, out, |a, b| if b <= 0.0 { 0.0 } else { a }),
    }
}
