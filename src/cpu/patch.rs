//! A band of source rows with its padding written out, so that the direct kernels meet neither borders nor strides.
//!
//! A row is stored once for each residue of its columns modulo the step that some tap needs ("phase"). Along a phase
//! neighbouring grid pixels read neighbouring elements, whatever the step.

use super::gather::Gather;
use super::workspace::room;
use crate::error::Result;

/// Elements of a patch at most: 512 KiB, an L2 cache.
const MAX_PATCH: usize = 1 << 17;

/// Phases at most: those of a kernel of 8 columns, or of stride 8.
const MAX_PHASES: usize = 8;

/// Elements after the last row that a vector may read, and drop.
const SLACK: usize = 128;

/// How the source rows of a band lie in memory.
#[derive(Debug)]
pub(super) struct Patch {
    /// Grid rows of a band.
    pub(super) band: usize,
    /// Source rows for the whole band.
    rows: usize,
    /// First source row for grid row 0.
    first: isize,
    /// Elements of a stored row: those of all its phases.
    row: usize,
    /// Elements of a phase, and the source column of its first for each phase.
    pub(super) pitch: usize,
    columns: [isize; MAX_PHASES],
    phases: usize,
}

impl Patch {
    /// A layout for the bands of `gather`, or nothing where not even one grid row fits: huge kernels, many channels or
    /// phases.
    /// `offsets` gets for each term of the reduction where it reads for grid pixel (0, 0) of the band.
    pub(super) fn plan(gather: &Gather, offsets: &mut Vec<usize>) -> Result<Option<Patch>> {
        let step = gather.step.map(|step| step as isize);
        let columns = gather.taps[1];
        let lead = columns.iter().map(|tap| tap.shift.div_euclid(step[1])).min().unwrap_or(0);
        let reach = columns.iter().map(|tap| tap.shift.div_euclid(step[1])).max().unwrap_or(0);
        // The residues of their shifts, in order.
        let (mut residues, mut phases) = ([0; MAX_PHASES], 0);
        for residue in columns.iter().map(|tap| tap.shift.rem_euclid(step[1])) {
            let at = residues[..phases].partition_point(|&other| other < residue);
            if residues[..phases].get(at) != Some(&residue) {
                if phases == MAX_PHASES {
                    return Ok(None);
                }
                residues.copy_within(at..phases, at + 1);
                residues[at] = residue;
                phases += 1;
            }
        }
        let residues = &residues[..phases];
        let [first, last] = gather.shifts(0).unwrap_or([0, 0]);

        let pitch = gather.grid[1] + (reach - lead) as usize;
        let row = pitch.saturating_mul(phases);
        let fitting = MAX_PATCH / row.saturating_mul(gather.channels).max(1);
        let halo = (last - first) as usize + 1;
        if fitting < halo || gather.depth() > MAX_PATCH {
            return Ok(None);
        }
        let band = (1 + (fitting - halo) / gather.step[0]).min(gather.grid[0]);
        let band = gather.grid[0].div_ceil(gather.grid[0].div_ceil(band));
        let rows = (band - 1) * gather.step[0] + halo;

        let mut offset = room(offsets, gather.depth())?.iter_mut();
        for channel in 0..gather.channels {
            for tap_row in gather.taps[0].iter() {
                for (tap, at) in columns.iter().zip(offset.by_ref()) {
                    let phase = residues.partition_point(|&residue| residue < tap.shift.rem_euclid(step[1]));
                    let column = phase * pitch + (tap.shift.div_euclid(step[1]) - lead) as usize;
                    *at = (channel * rows + (tap_row.shift - first) as usize) * row + column;
                }
            }
        }
        let mut columns = [0; MAX_PHASES];
        columns.iter_mut().zip(residues).for_each(|(column, residue)| *column = lead * step[1] + residue);
        Ok(Some(Patch { band, rows, first, row, pitch, columns, phases }))
    }

    /// Elements to allocate.
    pub(super) fn len(&self, gather: &Gather) -> usize {
        gather.channels * self.rows * self.row + SLACK
    }

    /// Elements between the stored rows of neighbouring grid rows.
    pub(super) fn grid_row(&self, gather: &Gather) -> usize {
        gather.step[0] * self.row
    }

    /// Whether grid rows follow each other along one line, `pitch` apart.
    pub(super) fn is_flat(&self, gather: &Gather) -> bool {
        gather.step[0] == 1 && self.phases == 1
    }

    /// Writes the source rows that grid rows `from..to` read.
    pub(super) fn fill(
        &self,
        gather: &Gather,
        (image, group): (usize, usize),
        (from, to): (usize, usize),
        src: &[f32],
        patch: &mut [f32],
    ) {
        let needed = self.rows - (self.band - (to - from)) * gather.step[0];
        let (step, width) = (gather.step[1], gather.src[1]);
        for channel in 0..gather.channels {
            let plane = &src[gather.src_plane(image, group, channel)..][..gather.src[0] * width];
            let rows = &mut patch[channel * self.rows * self.row..][..needed * self.row];
            for (i, row) in rows.chunks_exact_mut(self.row).enumerate() {
                let h = self.first + (from * gather.step[0] + i) as isize;
                if h < 0 || h as usize >= gather.src[0] {
                    row.fill(0.0);
                    continue;
                }
                let line = &plane[h as usize * width..][..width];
                for (phase, &column) in row.chunks_exact_mut(self.pitch).zip(&self.columns) {
                    let zeros = if column < 0 { column.unsigned_abs().div_ceil(step).min(self.pitch) } else { 0 };
                    let first = (column + (zeros * step) as isize) as usize;
                    let count = width.saturating_sub(first).div_ceil(step).min(self.pitch - zeros);
                    let (before, phase) = phase.split_at_mut(zeros);
                    let (phase, after) = phase.split_at_mut(count);
                    before.fill(0.0);
                    after.fill(0.0);
                    if step == 1 {
                        phase.copy_from_slice(&line[first.min(width)..][..count]);
                    } else {
                        let line = line[first.min(width)..].iter().step_by(step);
                        phase.iter_mut().zip(line).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        }
    }
}
