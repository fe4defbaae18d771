//! The tile engine under every dense pass: panels of A × panels of B into tiles of sums.
//!
//! A holds panels of `mr` rows, packed with the reduction outermost (`[depth][mr]`). B's panels are `nr` columns wide,
//! and a list says where each of their rows begins, so they need not be packed: neighbouring pixels of an image are a
//! row as they lie. C is a grid of `mr`×`nr` tiles, `[column panel][row panel][mr][nr]`.
//!
//! # Why the accuracy contract holds
//! With u = 2⁻²⁴ the contract grants 8·√K roundings to every term of a sum of K. A term passes through at most `depth`
//! of them in its block, because [`Engine::multiply`] runs one chain of fused multiply-adds from zero over the depth of
//! the call and nothing else, then through one for each later block that joins the same total, then one for bias or
//! old gradient. [`block_depth`] keeps `depth + blocks + 1 ≤ 8·√K`. Above [`BLOCKS_A_TOTAL`] blocks, [`Sums`] opens a
//! third level. Without fused multiply-adds a product is rounded once and added to what came before: the first term
//! meets the same number of roundings, since its first addition, to zero, is exact.

use super::isa::{Isa, Plain, Vector, add_outer_product};
use super::workspace::Floats;
use crate::error::Result;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

/// Longest chain of one block: a panel of B that deep stays in a 32 KiB L1 cache. At most 1024 for the contract's
/// Frobenius bound.
const MAX_DEPTH: usize = 256;

/// Blocks summed into one total before it is added to a higher one; √512 u is what keeps the Frobenius error low.
const BLOCKS_A_TOTAL: usize = 512;

/// Bytes of packed A that stay in a core's L2 cache while B's panels pass by.
const A_IN_L2: usize = 192 << 10;

/// How many terms to sum in one chain, of a reduction of `terms`.
pub(super) fn block_depth(terms: usize) -> usize {
    let budget = 8.0 * (terms as f64).sqrt();
    let mut blocks = terms.div_ceil(MAX_DEPTH).max(1);
    while blocks < terms && blocks <= BLOCKS_A_TOTAL && (terms.div_ceil(blocks) + blocks + 1) as f64 > budget {
        blocks += 1;
    }
    terms.div_ceil(blocks).max(1)
}

/// Adds a product for each of B's `rows` to each element of one tile: `c += a·b`, as one chain from zero and one final
/// addition.
type Tile = unsafe fn(rows: &[usize], a: *const f32, b: *const f32, c: *mut f32);

/// The panels of B: row d of panel p is the `nr` elements of `values` from `begins[p] + rows[d]` on.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) values: &'a [f32],
    pub(super) begins: &'a [usize],
    pub(super) rows: &'a [usize],
}

/// The tile kernel of this processor.
#[derive(Clone, Copy)]
pub(super) struct Engine {
    /// Rows of a tile.
    pub(super) mr: usize,
    /// Columns of a tile.
    pub(super) nr: usize,
    tile: Tile,
}

impl Engine {
    pub(super) fn new(isa: Isa) -> Engine {
        match isa {
            Isa::Portable => Engine { mr: 4, nr: 16, tile: portable },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Engine { mr: 6, nr: 16, tile: avx2 },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Engine { mr: 8, nr: 32, tile: avx512 },
        }
    }

    /// `c += a·b` over whole panels.
    pub(super) fn multiply(&self, a: &[f32], b: Panels<'_>, c: &mut [f32]) {
        let (a_panel, tile) = (self.mr * b.rows.len(), self.mr * self.nr);
        let rows = a.len() / a_panel;
        let reach = b.rows.iter().max().map_or(0, |last| last.saturating_add(self.nr));
        let begin = b.begins.iter().max().copied().unwrap_or(0);
        assert!(c.len() == rows * b.begins.len() * tile, "the sums do not fit their panels");
        let end = begin.checked_add(reach);
        assert!(end.is_some_and(|end| end <= b.values.len()), "the panels reach beyond their values");
        let chunk = (A_IN_L2 / (4 * a_panel)).max(1);
        for first in (0..rows).step_by(chunk) {
            let last = rows.min(first + chunk);
            for (&begin, c) in b.begins.iter().zip(c.chunks_exact_mut(rows * tile)) {
                let values = &b.values[begin..];
                let a = a[first * a_panel..last * a_panel].chunks_exact(a_panel);
                for (a, c) in a.zip(c[first * tile..last * tile].chunks_exact_mut(tile)) {
                    // SAFETY: `a` and `c` are exactly the mr elements for each row of B and the mr·nr sums that a tile
                    // kernel touches, every row of every panel lies within the values by the assertion above, and
                    // `Isa` only names instruction sets that this processor was seen to have.
                    unsafe { (self.tile)(b.rows, a.as_ptr(), values.as_ptr(), c.as_mut_ptr()) }
                }
            }
        }
    }
}

/// The tiles of C, as a sum in as many levels as its number of blocks needs.
pub(super) struct Sums<'a> {
    tile: &'a mut [f32],
    total: &'a mut [f32],
    blocks: usize,
}

impl<'a> Sums<'a> {
    /// `len` zeros, in memory for two levels, to add `blocks` blocks to.
    ///
    /// # Errors
    /// `OutOfHostMemory`.
    pub(super) fn start(len: usize, blocks: usize, tile: &'a mut Floats, total: &'a mut Floats) -> Result<Self> {
        let tile = tile.room(len)?;
        let total = total.room(if blocks > BLOCKS_A_TOTAL { len } else { 0 })?;
        tile.fill(0.0);
        total.fill(0.0);
        Ok(Sums { tile, total, blocks: 0 })
    }

    /// Where to add the next block.
    pub(super) fn next_block(&mut self) -> &mut [f32] {
        if self.blocks == BLOCKS_A_TOTAL {
            self.carry();
        }
        self.blocks += 1;
        self.tile
    }

    /// The sums of all blocks so far.
    pub(super) fn finish(&mut self) -> &[f32] {
        if self.total.is_empty() {
            return self.tile;
        }
        self.carry();
        self.total
    }

    fn carry(&mut self) {
        for (total, sum) in self.total.iter_mut().zip(&mut *self.tile) {
            *total += std::mem::take(sum);
        }
        self.blocks = 0;
    }
}

/// A tile of `MR` rows and `VECTORS` vectors of columns, every sum in a register.
///
/// # Safety
/// The processor has `V`; `a` holds `mr` elements for each row of B, `b` has `nr` from each of `rows` on, `c` `mr·nr`.
#[inline(always)]
unsafe fn tile<V: Vector, const MR: usize, const VECTORS: usize>(
    rows: &[usize],
    mut a: *const f32,
    b: *const f32,
    c: *mut f32,
) {
    // SAFETY: by the caller's promise every step has one row of A and one of B, and C holds the whole tile.
    unsafe {
        let mut sums = [[V::splat(0.0); VECTORS]; MR];
        // By fours, unrolled: what the loop itself takes is a sixth of a term.
        let (fours, rest) = rows.as_chunks::<4>();
        for four in fours {
            for (i, &at) in four.iter().enumerate() {
                add_outer_product(&mut sums, a.add(i * MR), b.add(at));
            }
            a = a.add(4 * MR);
        }
        for &at in rest {
            add_outer_product(&mut sums, a, b.add(at));
            a = a.add(MR);
        }
        // By reference: sums that an iterator moves go through memory.
        for (i, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let at = c.add((i * VECTORS + v) * V::LANES);
                V::load(at).add(sum).store(at);
            }
        }
    }
}

/// # Safety
/// As [`tile`].
unsafe fn portable(rows: &[usize], a: *const f32, b: *const f32, c: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { tile::<Plain, 4, 2>(rows, a, b, c) }
}

/// # Safety
/// As [`tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(rows: &[usize], a: *const f32, b: *const f32, c: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { tile::<__m256, 6, 2>(rows, a, b, c) }
}

/// # Safety
/// As [`tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(rows: &[usize], a: *const f32, b: *const f32, c: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { tile::<__m512, 8, 2>(rows, a, b, c) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_leave_no_sum_more_roundings_than_the_contract_grants() {
        for terms in (1..5000).chain((5000..200_000).step_by(997)).chain([802_816, 10_000_000]) {
            let depth = block_depth(terms);
            let blocks = terms.div_ceil(depth);
            let levels = blocks.min(BLOCKS_A_TOTAL) + blocks / BLOCKS_A_TOTAL;
            assert!(depth <= MAX_DEPTH);
            // Up to 60 terms a plain chain is within the contract; its own length is the IEEE contract's.
            let roundings = if depth == terms { terms } else { depth + levels + 1 };
            assert!(roundings as f64 <= 8.0 * (terms as f64).sqrt(), "{terms} terms in blocks of {depth}");
        }
    }

    #[test]
    fn every_tile_kernel_adds_the_exact_product_of_small_integers() {
        for isa in Isa::available() {
            let engine = Engine::new(isa);
            let (depth, rows, columns) = (7, 2, 3);
            let a: Vec<f32> = (0..rows * engine.mr * depth).map(|i| (i % 11) as f32 - 5.0).collect();
            let b: Vec<f32> = (0..columns * engine.nr * depth).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut c = vec![1f32; rows * columns * engine.mr * engine.nr];
            let begins: Vec<_> = (0..columns).map(|panel| panel * engine.nr * depth).collect();
            let rows_of_b: Vec<_> = (0..depth).map(|at| at * engine.nr).collect();
            let panels = Panels { values: &b, begins: &begins, rows: &rows_of_b };
            engine.multiply(&a, panels, &mut c);
            for (at, &c) in c.iter().enumerate() {
                let (tile, inside) = (at / (engine.mr * engine.nr), at % (engine.mr * engine.nr));
                let (i, j) = (inside / engine.nr, inside % engine.nr);
                let product =
                    |d| a[(tile % rows * depth + d) * engine.mr + i] * b[(tile / rows * depth + d) * engine.nr + j];
                assert_eq!(c, 1.0 + (0..depth).map(product).sum::<f32>(), "{isa:?} element {at}");
            }
        }
    }

    #[test]
    fn sums_of_many_blocks_keep_every_block() {
        let blocks = 3 * BLOCKS_A_TOTAL + 5;
        let (mut tile, mut total) = (Floats::default(), Floats::default());
        tile.room(4).unwrap().fill(f32::NAN);
        for _ in 0..2 {
            let mut sums = Sums::start(3, blocks, &mut tile, &mut total).unwrap();
            (0..blocks).for_each(|_| sums.next_block().iter_mut().for_each(|sum| *sum += 1.0));
            assert_eq!(sums.finish(), [blocks as f32; 3]);
        }
    }
}
