//! Which terms tiles leave out: products with the padding around the plane.
//!
//! A tile reads inside the plane with some kernel rows and columns. As the terms of a block run over kernel rows, columns
//! and channels, in that order, what is left of them are a few spans, of as many terms as the block has channels or
//! more.

use super::gather::{Block, Gather};
use super::panel::{Span, Stretch};
use std::ops::Range;

/// Tiles, and the kernel rows and columns with which any of their pixels reads inside the plane.
pub(super) struct Bounds {
    tiles: usize,
    taps: [Range<usize>; 2],
}

impl Bounds {
    /// Lists some more pixels, which read inside the plane with `taps`, for tiles of `tile`.
    pub(super) fn add(bounds: &mut Vec<Bounds>, tile: usize, pixels: Range<usize>, taps: [&Range<usize>; 2]) {
        let begun = pixels.start.div_ceil(tile);
        // They complete a tile that others began.
        if let Some(last) = bounds.last_mut().filter(|_| !pixels.start.is_multiple_of(tile)) {
            let both = [0, 1].map(|axis| union(&last.taps[axis], taps[axis]));
            last.tiles -= 1;
            if last.tiles == 0 {
                bounds.pop();
            }
            Bounds::push(bounds, 1, both);
        }
        Bounds::push(bounds, pixels.end.div_ceil(tile) - begun, taps.map(Range::clone));
    }

    fn push(bounds: &mut Vec<Bounds>, tiles: usize, taps: [Range<usize>; 2]) {
        match bounds.last_mut() {
            _ if tiles == 0 => {}
            Some(last) if last.taps == taps => last.tiles += tiles,
            _ => bounds.push(Bounds { tiles, taps }),
        }
    }

    /// Lists which terms of a block the tiles sum, in chains that end at multiples of `chain`.
    pub(super) fn spans(
        bounds: &[Bounds],
        gather: &Gather,
        block: &Block,
        chain: usize,
        stretches: &mut Vec<Stretch>,
        spans: &mut Vec<Span>,
    ) {
        stretches.clear();
        spans.clear();
        for Bounds { tiles, taps: [rows, columns] } in bounds {
            let begin = spans.len();
            for row in rows.clone() {
                let term = |column: usize| {
                    let tap = row * gather.taps[1].count + column;
                    (tap.clamp(block.taps.start, block.taps.end) - block.taps.start) * block.channels.len()
                };
                let (mut at, end) = (term(columns.start), term(columns.end));
                while at < end {
                    let next = end.min((at / chain + 1) * chain);
                    let terms = at..next;
                    at = next;
                    if let Some(last) = spans[begin..].last_mut() {
                        last.ends = last.terms.start / chain != terms.start / chain;
                        if !last.ends && last.terms.end == terms.start {
                            last.terms.end = terms.end;
                            last.ends = true;
                            continue;
                        }
                    }
                    spans.push(Span { terms, ends: true });
                }
            }
            if spans.len() == begin {
                spans.push(Span { terms: 0..0, ends: true });
            }
            stretches.push(Stretch { tiles: *tiles, spans: begin..spans.len() });
        }
    }
}

fn union(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Conv2dConfig;
    use crate::problem::{Pass, PassOptions, Problem};

    /// A block of four channels of a 3×3 kernel.
    fn listed(taps: [&Range<usize>; 2], block_taps: Range<usize>, chain: usize) -> Vec<Span> {
        let config = Conv2dConfig::new(4, 16, [3, 3]);
        let problem = Problem::new(&config, [1, 4, 5, 5], Pass::Forward, PassOptions::default());
        let gather = Gather::forward(&problem.unwrap());
        let mut bounds = Vec::new();
        Bounds::add(&mut bounds, 6, 0..6, taps);
        let (mut stretches, mut spans) = (Vec::new(), Vec::new());
        let block = Block { channels: 0..4, taps: block_taps };
        Bounds::spans(&bounds, &gather, &block, chain, &mut stretches, &mut spans);
        assert_eq!((stretches.len(), stretches[0].tiles, &stretches[0].spans), (1, 1, &(0..spans.len())));
        spans
    }

    fn span(terms: Range<usize>, ends: bool) -> Span {
        Span { terms, ends }
    }

    #[test]
    fn rows_and_columns_outside_are_left_out_and_chains_end_where_they_would() {
        assert_eq!(listed([&(0..3), &(0..3)], 0..9, 36), [span(0..36, true)]);
        assert_eq!(listed([&(0..3), &(0..3)], 0..9, 18), [span(0..18, true), span(18..36, true)]);
        assert_eq!(listed([&(1..3), &(0..3)], 0..9, 36), [span(12..36, true)]);
        assert_eq!(listed([&(1..3), &(0..3)], 0..9, 18), [span(12..18, true), span(18..36, true)]);
        assert_eq!(listed([&(0..2), &(1..3)], 0..9, 36), [span(4..12, false), span(16..24, true)]);
        assert_eq!(listed([&(0..2), &(1..3)], 0..9, 14), [span(4..12, true), span(16..24, true)]);
        // The second of two blocks of a channel, from the kernel's middle on.
        assert_eq!(listed([&(0..3), &(0..2)], 4..9, 36), [span(0..4, false), span(8..16, true)]);
        assert_eq!(listed([&(0..0), &(0..3)], 0..9, 36), [span(0..0, true)]);
    }

    #[test]
    fn a_tile_reads_what_any_of_its_pixels_does() {
        let mut bounds = Vec::new();
        let (top, middle, none) = (1..3, 0..3, 0..0);
        Bounds::add(&mut bounds, 6, 0..13, [&top, &middle]);
        Bounds::add(&mut bounds, 6, 13..15, [&middle, &(1..3)]);
        Bounds::add(&mut bounds, 6, 15..18, [&none, &none]);
        Bounds::add(&mut bounds, 6, 18..20, [&none, &none]);
        Bounds::add(&mut bounds, 6, 20..30, [&middle, &middle]);
        let listed: Vec<_> = bounds.into_iter().map(|Bounds { tiles, taps }| (tiles, taps)).collect();
        assert_eq!(listed, [(2, [top, middle.clone()]), (3, [middle.clone(), middle])]);
    }
}
