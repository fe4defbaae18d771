//! The tiles that the engine of `shaders/lib/tile.glsl` can be specialized to, and the choice among them.

use super::Kernel;
use super::reduce::MOST_PARTIAL_BYTES;
use super::table::TILE_SIZES;
use crate::error::{Error, Result};
use crate::plan::Limits;

/// One size of the tile engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tile {
    /// Position in `shaders/permutations.txt`.
    pub index: usize,
    /// Threads of a workgroup.
    pub threads: u32,
    /// Results of one thread along m.
    pub thread_m: u32,
    /// Results of one thread along n.
    pub thread_n: u32,
    /// Threads side by side along n.
    pub lanes_n: u32,
    /// Reduction steps held at once.
    pub block: u32,
    /// The subgroup size that it needs, with shuffles and 64-bit integers; 0: any.
    pub subgroup: u32,
    efficiency: Efficiency,
}

/// Share of a device's peak that a full tile reaches; measured, see docs/performance.md.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Efficiency {
    gpu: f64,
    /// Where both operands are contiguous along the reduction, as weight gradients' are: a tile's loads store down columns.
    gpu_transposing: f64,
    software: f64,
}

/// In the order of `shaders/permutations.txt`.
const EFFICIENCIES: [Efficiency; TILE_SIZES.len()] = [
    Efficiency { gpu: 0.68, gpu_transposing: 0.30, software: 0.05 },
    Efficiency { gpu: 0.66, gpu_transposing: 0.17, software: 0.05 },
    Efficiency { gpu: 0.66, gpu_transposing: 0.25, software: 0.05 },
    Efficiency { gpu: 0.64, gpu_transposing: 0.14, software: 0.05 },
    Efficiency { gpu: 0.55, gpu_transposing: 0.16, software: 0.05 },
    Efficiency { gpu: 0.52, gpu_transposing: 0.11, software: 0.05 },
    Efficiency { gpu: 0.15, gpu_transposing: 0.10, software: 0.02 },
    Efficiency { gpu: 0.10, gpu_transposing: 0.10, software: 0.20 },
];

/// Threads on a unit with which it reaches half of its speed, and beyond how many there is no more to gain.
const HALF_SPEED_THREADS: f64 = 64.0;
const FULL_SPEED_THREADS: f64 = 512.0;
/// Threads of 64 results each that a unit has registers for. It takes as long with fewer.
const THREADS_OF_64_RESULTS: u64 = 256;
/// Blocks in whose time a workgroup begins and ends.
const OVERHEAD_BLOCKS: u64 = 4;
/// Products that `shaders/lib/chain.glsl` chains at least before they are added to a second total.
const CHAIN: u64 = 64;
/// How much longer a block takes whose steps are looked up in a list.
const LISTED_COST: f64 = 1.25;
/// Parts of a sum at most.
const MOST_SPLITS: u64 = 32;
/// Multiply-adds of the whole device in whose time a further dispatch begins, and in whose time it moves an element.
const FURTHER_DISPATCH: f64 = 1.5e8;
const ELEMENT: f64 = 50.0;
/// Bytes of shared memory for a listed step.
const LISTED_BYTES: u64 = 16;

fn tiles() -> impl Iterator<Item = Tile> {
    TILE_SIZES.iter().zip(EFFICIENCIES).enumerate().map(|(index, (&sizes, efficiency))| {
        let [threads, thread_m, thread_n, lanes_n, block, subgroup] = sizes;
        Tile { index, threads, thread_m, thread_n, lanes_n, block, subgroup, efficiency }
    })
}

impl Tile {
    /// Results along m.
    pub fn m(&self) -> u64 {
        u64::from(self.threads / self.lanes_n * self.thread_m)
    }

    /// Results along n.
    pub fn n(&self) -> u64 {
        u64::from(self.lanes_n * self.thread_n)
    }

    fn fits(&self, kernel: &Kernel, size: &Size, limits: &Limits) -> bool {
        let has_subgroup =
            self.subgroup == 0 || self.subgroup == limits.subgroup && limits.subgroup_shuffle && limits.int64;
        let module = kernel.tiled(self.index, false);
        // A software driver takes seconds to compile a pipeline, so slower tiles serve it only where they must.
        let must = !limits.software || limits.tile == Some(self.index) || size.takers != Takers::All;
        has_subgroup
            && (must || self.own_columns())
            && self.threads <= limits.workgroup_threads
            && size.takers.include(self)
            && u64::from(module.shared_memory) + self.listed(size) * LISTED_BYTES <= limits.shared_memory.into()
    }

    /// Entries of the list of steps, in whole blocks; a power of two, so that many layers share a pipeline.
    pub fn listed(&self, size: &Size) -> u64 {
        if size.listed == 0 { 0 } else { size.listed.next_power_of_two().max(self.block.into()) }
    }

    /// Whether it reads tensors packed by channels of four.
    pub fn packs_channels(&self) -> bool {
        self.subgroup > 0
    }

    /// Whether each thread has columns of B for itself; see the engine.
    pub fn own_columns(&self) -> bool {
        self.lanes_n == self.threads
    }

    /// So many blocks take so many rounds of loops: one each and one a chain, or one each and one a step where steps are
    /// not unrolled.
    fn pace(&self) -> (u64, u64) {
        let chain = CHAIN / u64::from(self.block);
        if self.own_columns() { (chain, chain + 1) } else { (1, u64::from(self.block + 1)) }
    }

    /// Rounds of loops in which a thread stores its results: one each, and one for each of the runs of rows that it goes
    /// through where they are staged.
    fn storing(&self) -> u64 {
        let results = u64::from(self.thread_m * self.thread_n);
        match (self.own_columns(), self.subgroup) {
            (false, _) => results + self.m() / u64::from(4 * self.thread_m),
            (true, 0) => 0,
            (true, _) => results,
        }
    }

    /// Rounds of loops that a thread runs for a result.
    fn iterations(&self, size: &Size) -> u64 {
        let listing = self.listed(size).div_ceil(self.threads.into());
        let (blocks, rounds) = self.pace();
        let summing = (size.runs * size.run.div_ceil(u64::from(self.block)) * rounds).div_ceil(blocks);
        size.rounds + listing + summing + self.storing()
    }

    /// Terms that one thread can sum within the device's rounds of loops.
    pub fn most_terms(&self, limits: &Limits) -> u64 {
        let (blocks, rounds) = self.pace();
        ((limits.loop_iterations - self.storing()) / rounds * blocks).saturating_mul(u64::from(self.block))
    }

    /// Into how many parts a product may be split.
    pub fn most_splits(&self, size: &Size) -> u64 {
        let affordable = (MOST_PARTIAL_BYTES / 4).checked_div(size.splittable).unwrap_or(1);
        let apart = size.run.div_ceil(u64::from(self.block)).min(affordable).min(MOST_SPLITS);
        if self.own_columns() { 1 } else { apart.max(1) }
    }

    /// Time of an (m × n × reduction) product repeated `times`, in units of the device's peak.
    fn cost(&self, size: &Size, splits: u64, limits: &Limits) -> f64 {
        let tiles = size.m.div_ceil(self.m()) * size.n.div_ceil(self.n()) * size.times * splits;
        let blocks = size.runs * size.run.div_ceil(u64::from(self.block)).div_ceil(splits);
        if limits.software {
            let steps = blocks * u64::from(self.block);
            return (tiles * self.m() * self.n()) as f64 * steps as f64 / self.efficiency.software;
        }
        let Efficiency { gpu, gpu_transposing, .. } = self.efficiency;
        let efficiency = if size.transposing { gpu_transposing } else { gpu };
        let listed_cost = if size.listed > 0 { LISTED_COST } else { 1.0 };
        let steps = (blocks + OVERHEAD_BLOCKS) * u64::from(self.block);
        let each = (self.m() * self.n()) as f64 * steps as f64 * listed_cost / efficiency;
        let adding =
            if splits == 1 { 0.0 } else { FURTHER_DISPATCH + ELEMENT * ((2 * splits + 1) * size.splittable) as f64 };
        let threads = u64::from(self.threads);
        let computing = if self.has_64_results() {
            let at_once = THREADS_OF_64_RESULTS / threads;
            each * (tiles.div_ceil(units(limits)).next_multiple_of(at_once) * units(limits)) as f64
        } else {
            busiest_unit(each, tiles, threads, limits)
        };
        computing + adding
    }

    fn has_64_results(&self) -> bool {
        self.thread_m * self.thread_n == 64
    }

    /// Whether a kernel is faster through addresses than through bindings, by 2 to 4 %.
    pub fn prefers_addresses(&self, limits: &Limits) -> bool {
        self.has_64_results() && limits.prefers_addresses()
    }
}

/// What computes beside each other.
fn units(limits: &Limits) -> u64 {
    u64::from(limits.concurrent_workgroups / 2).max(1)
}

/// How long the unit takes that gets the most workgroups, times the device's units, for workgroups that take `each`
/// where there are enough threads: few cannot hide how long memory takes. Cores of a software driver share evenly.
pub fn busiest_unit(each: f64, workgroups: u64, threads: u64, limits: &Limits) -> f64 {
    if limits.software {
        return each * workgroups as f64;
    }
    let most = workgroups.div_ceil(units(limits));
    let threads = ((most * threads) as f64).min(FULL_SPEED_THREADS);
    each * (most * units(limits)) as f64 * (threads + HALF_SPEED_THREADS) / threads
}

/// Which tiles a kernel's way is written for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Takers {
    /// All.
    All,
    /// Those through shared memory.
    Shared,
    /// Of these, those whose threads have four rows.
    SharedByFours,
}

impl Takers {
    fn include(self, tile: &Tile) -> bool {
        match self {
            Takers::All => true,
            Takers::Shared => !tile.own_columns(),
            Takers::SharedByFours => !tile.own_columns() && tile.thread_m == 4,
        }
    }
}

/// What is multiplied: m × n results, `times` of them, each reduced over `runs` runs of `run` terms that no block
/// spans.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Results along m.
    pub m: u64,
    /// Results along n.
    pub n: u64,
    /// Independent products.
    pub times: u64,
    /// Runs of the reduction.
    pub runs: u64,
    /// Terms of a run.
    pub run: u64,
    /// Rounds of loops that a thread runs before it begins.
    pub rounds: u64,
    /// Steps that a workgroup lists in shared memory before it begins; 0: it has no list.
    pub listed: u64,
    /// The tiles that can take it.
    pub takers: Takers,
    /// Both operands are contiguous along the reduction.
    pub transposing: bool,
    /// Results of which each sum may be split, and the parts added by a further dispatch; 0: none.
    pub splittable: u64,
}

/// How a product is computed.
pub struct Chosen {
    pub tile: Tile,
    /// Into how many parts its runs are split; 1: none.
    pub splits: u64,
    /// Estimated time.
    pub seconds: f64,
}

/// The cheapest tile of a kernel for a product on a device, and the cheapest number of splits.
///
/// # Errors
/// `Unsupported` if no tile can be run.
pub fn choose(kernel: &Kernel, size: &Size, limits: &Limits) -> Result<Chosen> {
    let fitting =
        tiles().filter(|tile| tile.fits(kernel, size, limits) && tile.iterations(size) <= limits.loop_iterations);
    let split = fitting.map(|tile| {
        // Cores of a software driver share evenly without.
        let most = if limits.software { 1 } else { tile.most_splits(size) };
        let costs = (1..=most).map(|splits| (splits, tile.cost(size, splits, limits)));
        let (splits, cost) = costs.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((1, f64::INFINITY));
        Chosen { tile, splits, seconds: 2.0 * cost / limits.flops }
    });
    let rank = |chosen: &Chosen| if limits.tile == Some(chosen.tile.index) { 0.0 } else { chosen.seconds };
    split.min_by(|a, b| rank(a).total_cmp(&rank(b))).ok_or_else(|| {
        Error::unsupported(format!(
            "no kernel fits this device for a sum of {} terms; its loops end after {} rounds",
            size.runs * size.run,
            limits.loop_iterations
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_is_one_the_engine_can_run() {
        for tile in tiles() {
            assert!(tile.threads.is_power_of_two() && tile.lanes_n.is_power_of_two() && tile.block.is_power_of_two());
            assert!(tile.thread_m.is_multiple_of(4), "{tile:?}");
            assert!(tile.thread_n.is_multiple_of(4) || tile.lanes_n == tile.threads, "{tile:?}");
            assert!(tile.subgroup == 0 || tile.thread_n == 4, "{tile:?}");
            assert!(!tile.has_64_results() || u64::from(tile.threads) <= THREADS_OF_64_RESULTS, "{tile:?}");
            let fewest = if tile.subgroup > 0 { tile.subgroup } else { 64 };
            assert!(tile.threads >= fewest && tile.threads.is_multiple_of(fewest), "{tile:?}");
            assert!(tile.threads.is_multiple_of(tile.lanes_n), "{tile:?}");
            let patches = tile.lanes_n.is_multiple_of(8) && (tile.threads / tile.lanes_n).is_multiple_of(4);
            assert!(patches || tile.lanes_n == tile.threads, "{tile:?}");
            assert!((u64::from(tile.block) * tile.n()).is_multiple_of(u64::from(tile.threads)), "{tile:?}");
            let vectors_of_a = u64::from(tile.block) * tile.m() / 4;
            assert!(vectors_of_a.is_multiple_of(tile.threads.into()) || tile.own_columns(), "{tile:?}");
            assert!(
                tile.thread_m <= tile.block / 2 || tile.own_columns(),
                "rows are staged in what B lies in: {tile:?}"
            );
            assert!(tile.n() <= tile.threads.into() || tile.own_columns(), "a thread stores a column: {tile:?}");
            assert!(tile.threads.is_multiple_of(tile.block) && 64u32.is_multiple_of(tile.block), "{tile:?}");
            assert!(
                tile.m() <= u64::from(tile.threads) || tile.m().is_multiple_of(u64::from(tile.threads)),
                "{tile:?}"
            );
        }
    }
}
