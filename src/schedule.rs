//! In which order a pass over a batch can be done while its images arrive one run after another: pure data.
//!
//! The plan stays the one plan of the whole problem. What follows from how many images have arrived is only which of
//! its tiles run already, so the results have the same bits whether their images came one by one or all at once.

use crate::plan::{Operand, Plan, Role};
use std::ops::Range;

/// A planned pass, as scheduling sees it.
pub struct Streamed<'a> {
    /// What to run.
    pub plan: &'a Plan,
    /// Images of the batch.
    pub images: u64,
    /// Bytes of one image of the input, or its gradient.
    pub input_image: u64,
    /// Bytes of one image of the output, or its gradient.
    pub output_image: u64,
}

/// Some tiles of one of a plan's dispatches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which of the plan's dispatches.
    pub dispatch: usize,
    /// Its tiles that run now.
    pub tiles: Range<u32>,
    /// Whether it must wait for what runs before it. The first of a later run of images need not if it goes on with a
    /// dispatch, whose own first part did.
    pub waits: bool,
}

/// How far a pass has come.
pub struct Progress<'a> {
    pass: Streamed<'a>,
    /// Of each dispatch, the tile to go on with, and the images that it is about, if it is about some.
    next: Vec<(u32, Option<Range<u64>>)>,
}

impl<'a> Progress<'a> {
    /// Nothing is done yet.
    pub fn new(pass: Streamed<'a>) -> Progress<'a> {
        let next = pass.plan.dispatches.iter().map(|dispatch| {
            let span = dispatch.operands.iter().flatten().filter_map(|operand| pass.span(operand));
            (dispatch.tiles.start, span.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)))
        });
        Progress { next: next.collect(), pass }
    }

    /// What can run now that the first `arrived` images are there, and did not run yet; in the plan's order.
    pub fn advance(&mut self, arrived: u64) -> Vec<Part> {
        let mut parts = Vec::new();
        for index in 0..self.next.len() {
            let tiles = self.pass.plan.dispatches[index].tiles.clone();
            let begin = self.next[index].0;
            let end = self.ready(index, arrived);
            if end > begin {
                let waits = begin == tiles.start || !parts.is_empty();
                parts.push(Part { dispatch: index, tiles: begin..end, waits });
                self.next[index].0 = end;
            }
        }
        parts
    }

    /// Images whose results will not change any more.
    pub fn finished(&self) -> u64 {
        let left = (0..self.next.len()).filter(|&index| !self.is_done(index)).map(|index| self.images_done(index));
        left.min().unwrap_or(self.pass.images)
    }

    /// Up to which tile a dispatch can run.
    fn ready(&self, index: usize, arrived: u64) -> u32 {
        let (next, span) = &self.next[index];
        let end = self.pass.plan.dispatches[index].tiles.end;
        let walk = self.pass.plan.walk(index);
        // The next may read what those before it write, and write where they read.
        let mut arrived = arrived;
        for before in (0..index).filter(|&before| !self.is_done(before)) {
            let follows = walk.is_some() && self.pass.plan.walk(before).is_some() && self.next[before].1 == *span;
            if !follows {
                return *next;
            }
            arrived = arrived.min(self.images_done(before));
        }
        match (span, walk) {
            (None, _) => end,
            (Some(span), _) if arrived >= span.end => end,
            (Some(_), None) => *next,
            (Some(span), Some(walk)) => {
                let tiles = walk.tiles_within(arrived.saturating_sub(span.start));
                u32::try_from(tiles).unwrap_or(u32::MAX).clamp(*next, end)
            }
        }
    }

    fn is_done(&self, index: usize) -> bool {
        self.next[index].0 >= self.pass.plan.dispatches[index].tiles.end
    }

    /// Images that a dispatch which is not done has nothing left to do for.
    fn images_done(&self, index: usize) -> u64 {
        match (&self.next[index], self.pass.plan.walk(index)) {
            ((next, Some(span)), Some(walk)) => (span.start + walk.images_after(*next)).min(span.end),
            ((_, Some(span)), None) => span.start,
            ((_, None), _) => 0,
        }
    }
}

impl Streamed<'_> {
    /// The images that an operand is about, if it is about some.
    fn span(&self, operand: &Operand) -> Option<Range<u64>> {
        let image = match operand.role {
            Role::Input => self.input_image,
            Role::Output => self.output_image,
            Role::Weight | Role::Bias | Role::Packed | Role::Workspace => return None,
        };
        let begin = operand.offset.checked_div(image)?;
        Some(begin..(operand.offset + operand.bytes).div_ceil(image))
    }
}

/// Where the runs of images end that a batch is brought to the device in: `pieces` of them, or one for each image. With
/// the first and the last nothing overlaps, so they are half as long as the others.
pub fn arrivals(images: u64, pieces: u64) -> impl Iterator<Item = u64> {
    let pieces = pieces.clamp(1, images.max(1));
    let halves = move |piece| if piece == pieces { 2 * pieces - 2 } else { 2 * piece - 1 };
    (1..=pieces).map(move |piece| {
        let share = u128::from(images) * u128::from(halves(piece).max(1)) / u128::from(halves(pieces).max(1));
        (share as u64).max(piece.min(images))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::PROBE_FMA;
    use crate::plan::{Dispatch, Limits, Sizes, Walk};

    const IMAGES: u64 = 10;
    const INPUT: u64 = 400;
    const OUTPUT: u64 = 80;
    /// Steps of two tiles and 30 units; an image has 100.
    const WALK: Walk = Walk { tiles: 2, units: 30, image_units: 100 };

    fn images(role: Role, range: Range<u64>) -> Option<Operand> {
        let image = if role == Role::Input { INPUT } else { OUTPUT };
        Some(Operand { role, offset: range.start * image, bytes: (range.end - range.start) * image })
    }

    fn whole(role: Role) -> Option<Operand> {
        Some(Operand { role, offset: 0, bytes: 4000 })
    }

    type Kernel = ([Option<Operand>; 4], u64, Option<Walk>);
    type Stage = (Vec<(usize, Range<u32>)>, u64);

    fn plan(dispatches: &[Kernel]) -> Plan {
        let limits = Limits {
            storage_buffer_range: 1 << 27,
            storage_buffer_alignment: 16,
            workgroup_count: [65_535; 2],
            workgroup_threads: 128,
            shared_memory: 16 << 10,
            subgroup: 8,
            subgroup_shuffle: false,
            int64: false,
            buffer_addresses: false,
            push_descriptors: false,
            software: true,
            loop_iterations: u64::MAX,
            concurrent_workgroups: 4,
            tile: None,
            kernel: None,
            flops: 1e9,
        };
        let mut plan = Plan::new(&limits);
        for (operands, tiles, walk) in dispatches {
            let module = PROBE_FMA.modules().next().expect("a kernel has a module");
            let dispatch =
                Dispatch { module, specialization: vec![], operands: *operands, sizes: Sizes::default(), tiles: 0..0 };
            let pushed = match walk {
                Some(walk) => plan.push_walking(dispatch, IMAGES, 0.0, *walk),
                None => plan.push(dispatch, *tiles, 0.0),
            };
            pushed.expect("a small plan");
            assert_eq!(plan.dispatches.last().map(|last| u64::from(last.tiles.end)), Some(*tiles));
        }
        plan
    }

    /// After each run of images: which tiles of which dispatch run, and how many images are finished.
    fn run(plan: &Plan, pieces: u64) -> Vec<Stage> {
        let streamed = Streamed { plan, images: IMAGES, input_image: INPUT, output_image: OUTPUT };
        let mut progress = Progress::new(streamed);
        arrivals(IMAGES, pieces)
            .map(|arrived| {
                let parts = progress.advance(arrived);
                (parts.into_iter().map(|part| (part.dispatch, part.tiles)).collect(), progress.finished())
            })
            .collect()
    }

    #[test]
    fn a_walk_runs_the_steps_whose_images_have_arrived() {
        // 1000 units make 34 steps, the last of ten units.
        let plan = plan(&[([images(Role::Input, 0..10), None, None, images(Role::Output, 0..10)], 68, Some(WALK))]);
        let expected = [
            (vec![(0, 0..6)], 0), // an image is 100 units: 3 steps, whose 90 units do not finish it
            (vec![(0, 6..20)], 3),
            (vec![(0, 20..40)], 6),
            (vec![(0, 40..52)], 7),
            (vec![(0, 52..68)], 10),
        ];
        assert_eq!(run(&plan, 5), expected);
    }

    #[test]
    fn all_tiles_run_once_however_images_arrive() {
        let operands = [images(Role::Input, 0..10), None, None, images(Role::Output, 0..10)];
        let plan = plan(&[(operands, 68, Some(WALK)), (operands, 5, None), (operands, 68, Some(WALK))]);
        for pieces in 1..=12 {
            let stages = run(&plan, pieces);
            for (dispatch, tiles) in [(0, 68), (1, 5), (2, 68)] {
                let ran = stages.iter().flat_map(|(parts, _)| parts).filter(|(index, _)| *index == dispatch);
                let next = ran.fold(0, |next, (_, part)| {
                    assert_eq!(part.start, next, "in order, without gaps");
                    part.end
                });
                assert_eq!(next, tiles, "dispatch {dispatch} in {pieces} pieces");
            }
            assert_eq!(stages.last().map(|(_, finished)| *finished), Some(IMAGES));
        }
    }

    #[test]
    fn what_packs_a_weight_runs_first_and_what_sums_all_images_last() {
        let reads = [images(Role::Input, 0..10), whole(Role::Workspace), None, images(Role::Output, 0..10)];
        let plan = plan(&[
            ([whole(Role::Weight), None, None, whole(Role::Workspace)], 3, None),
            (reads, 68, Some(WALK)),
            ([whole(Role::Workspace), None, None, whole(Role::Weight)], 7, None),
        ]);
        let stages = run(&plan, 2);
        assert_eq!(stages[0], (vec![(0, 0..3), (1, 0..32)], 0));
        assert_eq!(stages[1], (vec![(1, 32..68), (2, 0..7)], 10));
    }

    #[test]
    fn a_kernel_follows_the_one_whose_results_it_reads() {
        let pads = [images(Role::Input, 0..10), None, None, whole(Role::Workspace)];
        let reads = [whole(Role::Workspace), None, None, images(Role::Output, 0..10)];
        let fine = Walk { tiles: 1, units: 40, image_units: 400 };
        let plan = plan(&[(pads, 100, Some(fine)), (reads, 68, Some(WALK))]);
        let streamed = Streamed { plan: &plan, images: IMAGES, input_image: INPUT, output_image: OUTPUT };
        let mut progress = Progress::new(streamed);
        let waits = |parts: Vec<Part>| parts.into_iter().map(|part| part.waits).collect::<Vec<_>>();
        assert_eq!(waits(progress.advance(5)), [true, true]);
        assert_eq!(waits(progress.advance(10)), [false, true], "the second reads what the first wrote just now");
        let stages = run(&plan, 2);
        assert_eq!(stages[0], (vec![(0, 0..50), (1, 0..32)], 4));
        assert_eq!(stages[1], (vec![(0, 50..100), (1, 32..68)], 10));
    }

    #[test]
    fn kernels_over_runs_of_the_batch_wait_for_their_own_run_alone_and_take_turns() {
        // Both runs use the same scratch memory, so the second must not begin before the first is done.
        let run_of = |range: Range<u64>| [images(Role::Input, range.clone()), None, None, images(Role::Output, range)];
        let plan = plan(&[(run_of(0..5), 9, None), (run_of(5..10), 9, None)]);
        let stages = run(&plan, 5);
        let done: Vec<_> = stages.iter().map(|(parts, finished)| (parts.len(), *finished)).collect();
        assert_eq!(done, [(0, 0), (0, 0), (1, 5), (0, 5), (1, 10)]);
    }

    #[test]
    fn arrivals_begin_and_end_with_half_of_the_others_and_bring_the_whole_batch() {
        assert_eq!(arrivals(32, 5).collect::<Vec<_>>(), [4, 12, 20, 28, 32]);
        assert_eq!(arrivals(10, 2).collect::<Vec<_>>(), [5, 10]);
        assert_eq!(arrivals(7, 1).collect::<Vec<_>>(), [7]);
        for (images, pieces) in [(2, 9), (5, 5), (9, 8), (100, 6)] {
            let ends: Vec<_> = [0].into_iter().chain(arrivals(images, pieces)).collect();
            assert!(ends.is_sorted_by(|a, b| a < b) && ends.last() == Some(&images), "{ends:?}");
        }
        assert_eq!(arrivals(0, 3).collect::<Vec<_>>(), [0]);
    }
}
