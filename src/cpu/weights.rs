//! Weights of dense layers, packed as the tiles of `panel` read them.

use super::gather::{Block, Gather, Term};
use super::panel::{Panel, TURNED, transpose};

/// The weights of a call, as they come.
pub(super) struct Weights<'a> {
    pub(super) gather: &'a Gather,
    pub(super) weight: &'a [f32],
    pub(super) terms: &'a [Term],
    /// Where in its block each term's weights go.
    pub(super) rows: &'a [usize],
    pub(super) panel: Panel,
}

impl Weights<'_> {
    /// Packs the terms of a block, and of a panel of result channels, side by side; channels beyond the last are zero.
    pub(super) fn pack(&self, group: usize, panel: usize, block: &Block, to: &mut [f32]) {
        let (gather, width) = (self.gather, self.panel.width);
        let first = panel * width;
        let weight = &self.weight[group * gather.weight_group + first * gather.weight_output..];
        let channels = width.min(gather.outputs - first);
        let (terms, rows) = (&self.terms[block.terms(gather)], &self.rows[block.terms(gather)]);
        match (width, channels) {
            (8, 8) => self.whole::<8>(weight, terms, rows, to),
            (16, 16) => self.whole::<16>(weight, terms, rows, to),
            (32, 32) => self.whole::<32>(weight, terms, rows, to),
            _ => {
                for (term, row) in terms.iter().zip(rows) {
                    let to = &mut to[row * width..][..width];
                    to.fill(0.0);
                    let column = weight[term.weight..].iter().step_by(gather.weight_output);
                    to[..channels].iter_mut().zip(column).for_each(|(to, weight)| *to = *weight);
                }
            }
        }
    }

    /// A full panel, in squares where the weights of terms follow each other.
    fn whole<const WIDTH: usize>(&self, weight: &[f32], terms: &[Term], rows: &[usize], to: &mut [f32]) {
        let distance = self.gather.weight_output;
        let to = to.as_chunks_mut::<WIDTH>().0;
        let mut at = 0;
        for run in terms.chunk_by(|a, b| b.weight == a.weight + 1) {
            let rows = &rows[at..at + run.len()];
            at += run.len();
            if run.len() < TURNED {
                for (term, &row) in run.iter().zip(rows) {
                    let column = &weight[term.weight..][..(WIDTH - 1) * distance + 1];
                    to[row] = std::array::from_fn(|channel| column[channel * distance]);
                }
                continue;
            }
            for channel in (0..WIDTH).step_by(TURNED) {
                for first in (0..run.len()).step_by(TURNED) {
                    // The last square may overlap the one before.
                    let first = first.min(run.len() - TURNED);
                    let square = &weight[run[first].weight + channel * distance..];
                    let mut turned = [[0.0; TURNED]; TURNED];
                    // SAFETY: it is a square.
                    unsafe {
                        transpose(self.panel.isa, square, distance, 1, turned.as_flattened_mut().as_mut_ptr(), TURNED)
                    };
                    for (turned, &row) in turned.iter().zip(&rows[first..]) {
                        to[row][channel..channel + TURNED].copy_from_slice(turned);
                    }
                }
            }
        }
    }
}
