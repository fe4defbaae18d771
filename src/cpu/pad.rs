//! Padding an input with copies of its own elements, and the gradient of that.

use super::Machine;
use super::memory::Memory;
use super::parallel::{Shared, for_each};
use super::workspace::{Workspace, room};
use crate::config::PaddingMode;
use crate::error::Result;
use crate::problem::Problem;
use std::ops::Deref;

/// A padded input.
pub(super) struct Padded {
    memory: Memory,
    elements: usize,
}

impl Deref for Padded {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: it is this value's alone, and borrowed with it.
        unsafe { self.memory.floats(0..self.elements) }
    }
}

/// The input of `padded`, from that of `problem`.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn pad(machine: &Machine, problem: &Problem, padded: &Problem, x: &[f32]) -> Result<Padded> {
    let mut call = machine.threads.lease();
    let call = &mut *call;
    let [rows, columns] = originals(problem, padded, [&mut call.begins, &mut call.rows])?;
    let (width, planes) = (problem.w as usize, (problem.n * problem.c) as usize);
    let elements = padded.input_elements() as usize;
    let mut result = Padded { memory: Memory::new(&machine.memory, 4 * elements as u64)?, elements };
    let shared = Shared::new(&mut result.memory.own()[..elements]);
    let plane = rows.len() * columns.len();
    let work = |_: &mut Workspace, item: usize| {
        // SAFETY: an item alone owns its plane.
        let to = unsafe { shared.slice(item * plane, plane) };
        for (to, row) in to.chunks_exact_mut(columns.len()).zip(rows) {
            let from = &x[(item * problem.h as usize + row) * width..][..width];
            to.iter_mut().zip(columns).for_each(|(to, &column)| *to = from[column]);
        }
        Ok(())
    };
    for_each(&machine.threads, elements as f64, planes, work)?;
    Ok(result)
}

/// The gradient of each input element from those of its copies, `gradient`: their sum, in float64.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn fold(
    machine: &Machine,
    problem: &Problem,
    padded: &Problem,
    gradient: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    let mut call = machine.threads.lease();
    let call = &mut *call;
    let [rows, columns] = originals(problem, padded, [&mut call.begins, &mut call.rows])?;
    let (width, planes) = (problem.w as usize, (problem.n * problem.c) as usize);
    let (plane, padded_plane) = (problem.h as usize * width, rows.len() * columns.len());
    let accumulate = problem.options.accumulate;
    let shared = Shared::new(dx);
    let work = |own: &mut Workspace, item: usize| {
        let sums = room(&mut own.doubles, plane)?;
        sums.fill(0.0);
        let copies = &gradient[item * padded_plane..][..padded_plane];
        for (copies, row) in copies.chunks_exact(columns.len()).zip(rows) {
            let sums = &mut sums[row * width..][..width];
            copies.iter().zip(columns).for_each(|(&copy, &column)| sums[column] += f64::from(copy));
        }
        // SAFETY: an item alone owns its plane.
        let dx = unsafe { shared.slice(item * plane, plane) };
        for (dx, sum) in dx.iter_mut().zip(&*sums) {
            *dx = (f64::from(if accumulate { *dx } else { 0.0 }) + *sum) as f32;
        }
        Ok(())
    };
    for_each(&machine.threads, gradient.len() as f64, planes, work)
}

/// For each position of the padded axes (height, width), the element of the axis that it is a copy of.
fn originals<'a>(problem: &Problem, padded: &Problem, lists: [&'a mut Vec<usize>; 2]) -> Result<[&'a [usize]; 2]> {
    let [rows, columns] = lists;
    let fill = |axis: usize, size: u64, padded: u64, list: &'a mut Vec<usize>| -> Result<&'a [usize]> {
        let list = room(list, padded as usize)?;
        for (at, original) in list.iter_mut().enumerate() {
            let at = at as isize - problem.padding[axis] as isize;
            *original = original_of(problem.padding_mode, at, size as isize) as usize;
        }
        Ok(list)
    };
    Ok([fill(0, problem.h, padded.h, rows)?, fill(1, problem.w, padded.w, columns)?])
}

fn original_of(mode: PaddingMode, at: isize, size: isize) -> isize {
    match mode {
        PaddingMode::Reflect if at.abs() < size => at.abs(),
        PaddingMode::Reflect => 2 * (size - 1) - at,
        PaddingMode::Circular => at.rem_euclid(size),
        PaddingMode::Replicate | PaddingMode::Zeros => at.clamp(0, size - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_continues_an_axis_in_its_way() {
        let continued = |mode| (-2..6).map(|at| original_of(mode, at, 4)).collect::<Vec<_>>();
        assert_eq!(continued(PaddingMode::Reflect), [2, 1, 0, 1, 2, 3, 2, 1]);
        assert_eq!(continued(PaddingMode::Replicate), [0, 0, 0, 1, 2, 3, 3, 3]);
        assert_eq!(continued(PaddingMode::Circular), [2, 3, 0, 1, 2, 3, 0, 1]);
    }
}
