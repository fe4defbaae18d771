//! Correlation of layers with many result channels: forward pass and input gradient.
//!
//! A tile of sums is a few pixels high and a panel of result channels wide, and its vectors run along the channels. So
//! weights are packed, once for a call, and pixels are read one at a time from wherever they lie: a patch of source rows
//! with its padding written out serves every tap, step and dilation, and planes of any width fill whole tiles.
//!
//! An item is a region of pixels with a number of panels. The reduction runs in passes over a few channels, whose patch
//! stays in the cache while panel after panel goes over it; in a pass it runs tap after tap, so that tiles at a border
//! can leave out the taps for which they would read padding.

use super::Machine;
use super::bounds::Bounds;
use super::chains::Chains;
use super::gather::{Block, Gather};
use super::panel::{Kernel, Panel, TURNED, transpose};
use super::parallel::{Shared, for_each};
use super::region::{Layout, Line, Region};
use super::weights::Weights;
use super::workspace::{Workspace, list, no_room};
use crate::error::Result;
use std::ops::Range;

/// Packed weights at most, in elements: 8 MiB. More result channels take turns.
const MAX_PACKED: usize = 1 << 21;
/// Sums of an item at most: 1 MiB.
const MAX_SUMS: usize = 1 << 18;
/// Pixels of an item, if there are so many.
const PIXELS: usize = 512;
/// Fewer pixels than these would not pay for the weights that pass by.
const MIN_PIXELS: usize = 128;
/// Elements of a patch at most, if one channel is not more: 128 KiB.
const MAX_PATCH: usize = 32 << 10;
/// Terms of a pass at most: with a panel's width of weights, half of a first-level cache.
const MAX_PASS: usize = 288;
/// Items wanted at least, if that leaves enough to do in each: threads may be held up.
const ITEMS: usize = 64;
/// Items wanted at least for each thread.
const ITEMS_A_THREAD: usize = 4;
/// Fewest floating-point operations worth an item of its own.
const MIN_ITEM: f64 = 2e6;

/// What a result holds before its products are added.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    Zero,
    /// One value for each result channel.
    Bias(&'a [f32]),
    /// What is there already.
    Old,
}

/// How a call is cut.
struct Cut {
    panel: Panel,
    chains: Chains,
    layout: Layout,
    /// Panels of all result channels of a group, of a turn, and of an item.
    panels: usize,
    turn: usize,
    together: usize,
    /// A pass takes a block of so many channels, or of one at so many taps.
    channels: usize,
    taps: usize,
}

impl Cut {
    fn new(machine: &Machine, gather: &Gather, start: Start<'_>) -> Cut {
        let panel = Panel::new(machine.isa);
        let terms = gather.depth();
        let panels = gather.outputs.div_ceil(panel.width);
        let worthwhile = (gather.flops() / MIN_ITEM) as usize;

        // Whole passes first, then pixels: what a result is rounded to depends on no number of threads.
        let taps = gather.window();
        let channels = even(gather.channels, MAX_PASS / taps.max(1));
        let regions = worthwhile.clamp(1, ITEMS).div_ceil(panels);
        let mut pixels = gather.pixels().div_ceil(regions).clamp(MIN_PIXELS, PIXELS);
        let mut layout = Layout::new(gather, pixels);
        while channels.saturating_mul(layout.most_channel) > MAX_PATCH && pixels > MIN_PIXELS {
            pixels = (pixels / 2).max(MIN_PIXELS);
            layout = Layout::new(gather, pixels);
        }
        let channels = channels.min(MAX_PATCH / layout.most_channel.max(1));
        let (channels, taps) =
            if channels == 0 { (1, even(taps, MAX_PASS)) } else { (even(gather.channels, channels), taps) };
        let passes = gather.channels.div_ceil(channels) * gather.window().div_ceil(taps);

        // If there are few regions, panels are apart too.
        let threads = machine.threads.worthwhile(gather.flops());
        let apart = worthwhile.clamp(1, ITEMS_A_THREAD * threads).div_ceil(layout.regions);
        let apart = if threads == 1 { 1 } else { apart };
        let turn = even(panels, (MAX_PACKED / (terms * panel.width).max(1)).clamp(1, panels));
        let fitting = MAX_SUMS / (layout.most_pixels.next_multiple_of(panel.pixels) * panel.width);
        let together = turn.div_ceil(apart).min(fitting).max(1);
        let more = matches!(start, Start::Old) || !machine.isa.fuses();
        let chains = Chains::new(terms, passes, channels * taps, more);
        Cut { panel, chains, layout, panels, turn, together, channels, taps }
    }

    fn blocks(&self, gather: &Gather) -> impl Iterator<Item = Block> {
        let pieces = |all: usize, size: usize| (0..all).step_by(size).map(move |at| at..all.min(at + size));
        let (window, taps) = (gather.window(), self.taps);
        pieces(gather.channels, self.channels)
            .flat_map(move |channels| pieces(window, taps).map(move |taps| Block { channels: channels.clone(), taps }))
    }
}

/// Adds up the products of `gather` into `dst`.
///
/// # Errors
/// `OutOfHostMemory`.
pub(super) fn correlate(
    machine: &Machine,
    gather: &Gather,
    src: &[f32],
    weight: &[f32],
    start: Start<'_>,
    dst: &mut [f32],
) -> Result<()> {
    if gather.pixels() == 0 {
        return Ok(());
    }
    let cut = Cut::new(machine, gather, start);
    let terms = gather.depth();
    let mut call = machine.threads.lease();
    let call = &mut *call;
    if cut.layout.most_channel == usize::MAX {
        return Err(no_room::<f32>(usize::MAX));
    }
    gather.terms(0, terms, &mut call.terms)?;
    let rows = cut.blocks(gather).flat_map(|block| {
        let (channels, taps) = (block.channels.len(), block.taps.len());
        (0..channels).flat_map(move |channel| (0..taps).map(move |tap| tap * channels + channel))
    });
    list(&mut call.rows, terms, rows)?;
    let weights = Weights { gather, weight, terms: &call.terms, rows: &call.rows, panel: cut.panel };
    // A panel alone may be more than is packed at once; then each item packs what it reads.
    let shared = terms * cut.panel.width <= MAX_PACKED;
    let dst = Shared::new(dst);
    let job = Job { cut: &cut, gather, src, start, dst: &dst };
    for group in 0..gather.groups {
        for first in (0..cut.panels).step_by(cut.turn) {
            let panels = cut.turn.min(cut.panels - first);
            let each = terms * cut.panel.width;
            let packed = call.a.room(if shared { panels * each } else { 0 })?;
            if shared {
                let all = Shared::new(packed);
                // Moving an element takes as long as a few operations.
                for_each(&machine.threads, 8.0 * (panels * each) as f64, panels, |_, panel| {
                    // SAFETY: an item alone owns its panel.
                    let to = unsafe { all.slice(panel * each, each) };
                    for block in cut.blocks(gather) {
                        let first_term = block.terms(gather).start;
                        let to = &mut to[first_term * cut.panel.width..][..block.len() * cut.panel.width];
                        weights.pack(group, first + panel, &block, to);
                    }
                    Ok(())
                })?;
            }
            let packed = &call.a[..if shared { panels * each } else { 0 }];
            let apart = panels.div_ceil(cut.together);
            let flops = gather.flops() / gather.groups as f64 * panels as f64 / cut.panels as f64;
            for_each(&machine.threads, flops, cut.layout.regions * apart, |own, item| {
                let from = item % apart * cut.together;
                let to = panels.min(from + cut.together);
                let packed = if shared { Packed::All(&packed[from * each..]) } else { Packed::Not(&weights) };
                job.item(own, group, item / apart, first + from..first + to, packed)
            })?;
        }
    }
    Ok(())
}

/// Where the weights of an item's panels are.
#[derive(Clone, Copy)]
enum Packed<'a> {
    All(&'a [f32]),
    Not(&'a Weights<'a>),
}

/// What the items of a call share.
struct Job<'a> {
    cut: &'a Cut,
    gather: &'a Gather,
    src: &'a [f32],
    start: Start<'a>,
    dst: &'a Shared<'a, f32>,
}

impl Job<'_> {
    fn item(
        &self,
        own: &mut Workspace,
        group: usize,
        region: usize,
        panels: Range<usize>,
        packed: Packed<'_>,
    ) -> Result<()> {
        let (cut, gather) = (self.cut, self.gather);
        let Panel { width, pixels: high, .. } = cut.panel;
        let terms = gather.depth();
        let region = cut.layout.region(gather, region, high, &mut own.begins, &mut own.bounds);
        let pixels = own.begins.len();
        let sums = own.sums.room(panels.len() * pixels * width + TURNED * width)?;
        let totals = own.totals.room(if cut.chains.a_total.is_some() { sums.len() } else { 0 })?;
        totals.fill(0.0);

        let mut joined = 0;
        for block in cut.blocks(gather) {
            let Range { start: first, end: last } = block.terms(gather);
            region.fill(gather, group, &block, self.src, &mut own.b)?;
            region.offsets(gather, &block, &mut own.rows);
            Bounds::spans(&own.bounds, gather, &block, cut.chains.length, &mut own.stretches, &mut own.spans);
            if cut.chains.a_total.is_some_and(|most| joined + cut.chains.a_pass > most) {
                carry(sums, totals);
                joined = 0;
            }
            joined += cut.chains.a_pass;
            for (i, panel) in panels.clone().enumerate() {
                let weights = match packed {
                    Packed::All(all) => &all[(i * terms + first) * width..(i * terms + last) * width],
                    Packed::Not(weights) => {
                        let to = own.a.room(block.len() * width)?;
                        weights.pack(group, panel, &block, to);
                        &*to
                    }
                };
                let start = self.bias(group, panel);
                let begin = if first == 0 { Some(&start[..width]) } else { None };
                let kernel = Kernel {
                    src: &own.b,
                    pixels: &own.begins,
                    stretches: &own.stretches,
                    spans: &own.spans,
                    terms: &own.rows,
                    weights,
                    start: begin,
                };
                let lanes = width.min((gather.outputs - panel * width).next_power_of_two());
                let whole = &mut sums[i * pixels * width..][..(pixels + TURNED) * width];
                cut.panel.run(&kernel, lanes, &mut whole[..pixels * width]);
                if last == terms && cut.chains.a_total.is_none() {
                    self.store(&region, group, panel, whole);
                }
            }
        }
        if cut.chains.a_total.is_some() {
            carry(sums, totals);
            for (i, panel) in panels.enumerate() {
                self.store(&region, group, panel, &totals[i * pixels * width..][..(pixels + TURNED) * width]);
            }
        }
        Ok(())
    }

    /// What the sums of a panel begin with.
    fn bias(&self, group: usize, panel: usize) -> [f32; Panel::WIDEST] {
        let mut start = [0.0; Panel::WIDEST];
        if let Start::Bias(bias) = self.start {
            let first = panel * self.cut.panel.width;
            let count = self.cut.panel.width.min(self.gather.outputs - first);
            start[..count].copy_from_slice(&bias[group * self.gather.outputs + first..][..count]);
        }
        start
    }

    /// Writes a panel's sums, `width` for each pixel, to the planes of its channels.
    fn store(&self, region: &Region, group: usize, panel: usize, sums: &[f32]) {
        let (gather, Panel { isa, width, .. }) = (self.gather, self.cut.panel);
        let first = panel * width;
        let channels = width.min(gather.outputs - first);
        let keep = matches!(self.start, Start::Old);
        let plane = gather.dst[0] * gather.dst[1];
        let mut at = 0;
        region.lines(gather, |Line { image, row, columns, .. }| {
            let (len, column) = (columns.len(), columns.start);
            let line = gather.dst_plane(image, group, first)
                + (gather.origin[0] + gather.spacing[0] * row) * gather.dst[1]
                + gather.origin[1];
            // Plane by plane: a cache line holds two squares, and many planes are a page apart, which is one set.
            for channel in (0..channels).step_by(TURNED) {
                let line = line + channel * plane + gather.spacing[1] * column;
                let sums = &sums[at * width + channel..];
                let plain = channels - channel >= TURNED && gather.spacing[1] == 1 && !keep;
                if plain && len >= TURNED {
                    // SAFETY: an item alone owns its pixels of its channels of its group.
                    unsafe {
                        let to = self.dst.rows(line, TURNED, plane, len);
                        transpose(isa, sums, width, len / TURNED, to, plane);
                        if !len.is_multiple_of(TURNED) {
                            // Another square, which overlaps the last.
                            let pixel = len - TURNED;
                            transpose(isa, &sums[pixel * width..], width, 1, to.add(pixel), plane);
                        }
                    }
                    continue;
                }
                if len == 1 {
                    for (i, &sum) in sums.iter().take(TURNED.min(channels - channel)).enumerate() {
                        // SAFETY: as above.
                        unsafe { store(self.dst, line + i * plane, 1, &[sum], 0.0, keep) };
                    }
                    continue;
                }
                for pixel in (0..len).step_by(TURNED) {
                    let count = TURNED.min(len - pixel);
                    let mut turned = [[0.0; TURNED]; TURNED];
                    // SAFETY: it is a square; behind the last pixel's sums there is room for another square's rows.
                    unsafe {
                        transpose(isa, &sums[pixel * width..], width, 1, turned.as_flattened_mut().as_mut_ptr(), TURNED)
                    };
                    let to = line + gather.spacing[1] * pixel;
                    for (i, turned) in turned.iter().take(channels - channel).enumerate() {
                        // SAFETY: as above.
                        unsafe { store(self.dst, to + i * plane, gather.spacing[1], &turned[..count], 0.0, keep) };
                    }
                }
            }
            at += len;
        });
    }
}

/// Moves sums to a higher level.
fn carry(sums: &mut [f32], totals: &mut [f32]) {
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total += std::mem::take(sum);
    }
}

/// Writes a run of results, `spacing` apart.
///
/// # Safety
/// No other thread may reach the elements `at`, `at + spacing`, … of `dst`.
#[inline(always)]
pub(super) unsafe fn store(dst: &Shared<'_, f32>, at: usize, spacing: usize, sums: &[f32], initial: f32, keep: bool) {
    if spacing == 1 {
        // SAFETY: the caller's promise.
        let dst = unsafe { dst.slice(at, sums.len()) };
        for (dst, sum) in dst.iter_mut().zip(sums) {
            *dst = if keep { *dst } else { initial } + sum;
        }
        return;
    }
    for (i, sum) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        let dst = &mut unsafe { dst.slice(at + i * spacing, 1) }[0];
        *dst = if keep { *dst } else { initial } + sum;
    }
}

/// Cuts `size` into equal pieces of at most `most`.
pub(super) fn even(size: usize, most: usize) -> usize {
    size.div_ceil(size.div_ceil(most.max(1)).max(1))
}
