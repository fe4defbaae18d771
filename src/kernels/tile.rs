//! The tiles that the engine of `shaders/lib/tile.glsl` can be specialized to, and the choice among them.

use super::CHAIN;
use crate::plan::Limits;

/// One specialization of the tile engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tile {
    /// Threads of a workgroup.
    pub threads: u32,
    /// Results of one thread along m.
    pub thread_m: u32,
    /// Results of one thread along n.
    pub thread_n: u32,
    /// Threads side by side along n.
    pub lanes_n: u32,
    /// Reduction steps held in shared memory at once.
    pub block: u32,
    /// Share of a GPU's peak that a full tile reaches; measured, see docs/performance.md.
    gpu_efficiency: f64,
    /// The same on a software driver.
    software_efficiency: f64,
}

const fn tile(threads: u32, thread: [u32; 2], lanes_n: u32, block: u32, gpu: f64, software: f64) -> Tile {
    let [thread_m, thread_n] = thread;
    Tile { threads, thread_m, thread_n, lanes_n, block, gpu_efficiency: gpu, software_efficiency: software }
}

const TILES: &[Tile] = &[
    tile(128, [8, 8], 16, 16, 0.60, 0.05),
    tile(128, [8, 8], 16, 8, 0.55, 0.05),
    tile(128, [8, 8], 32, 8, 0.50, 0.05),
    tile(128, [4, 8], 32, 8, 0.35, 0.05),
    tile(64, [8, 8], 8, 8, 0.45, 0.05),
    tile(64, [4, 4], 8, 8, 0.25, 0.05),
    tile(64, [4, 4], 8, 4, 0.20, 0.05),
    tile(128, [4, 4], 128, 4, 0.15, 0.05),
    tile(64, [8, 4], 64, 16, 0.10, 0.20),
    tile(64, [8, 4], 64, 4, 0.10, 0.15),
    tile(64, [4, 4], 64, 4, 0.10, 0.10),
];

impl Tile {
    /// Results along m.
    pub fn m(&self) -> u64 {
        u64::from(self.threads / self.lanes_n * self.thread_m)
    }

    /// Results along n.
    pub fn n(&self) -> u64 {
        u64::from(self.lanes_n * self.thread_n)
    }

    /// Values for the engine's specialization constants 0 to 5.
    pub fn specialization(&self) -> Vec<u32> {
        vec![self.threads, self.thread_m, self.thread_n, self.lanes_n, self.block, CHAIN / self.block]
    }

    /// Bytes of the two double-buffered blocks, rows padded by a vec4, and of weight gradients' column table.
    pub fn shared_memory(&self) -> u64 {
        let rows = 2 * u64::from(self.block) * (self.m() / 4 + 1 + self.n() / 4 + 1) * 16;
        rows + 12 * self.n()
    }

    fn fits(&self, limits: &Limits) -> bool {
        self.threads <= limits.workgroup_threads && self.shared_memory() <= u64::from(limits.shared_memory)
    }

    /// Time of an (m × n × reduction) product repeated `times`, in units of the device's peak.
    fn cost(&self, size: &Size, limits: &Limits) -> f64 {
        let tiles = (size.m.div_ceil(self.m()) * size.n.div_ceil(self.n()) * size.times) as f64;
        let depth = size.runs as f64 * (size.run.div_ceil(u64::from(self.block)) * u64::from(self.block)) as f64;
        let waves = if limits.software {
            tiles
        } else {
            // The last wave is rarely full; a workgroup alone on a unit runs no faster for it.
            let slots = f64::from(limits.concurrent_workgroups);
            (tiles / slots).ceil() * slots
        };
        let efficiency = if limits.software { self.software_efficiency } else { self.gpu_efficiency };
        waves * (self.m() * self.n()) as f64 * depth / efficiency
    }
}

/// What is multiplied: m × n results, `times` of them, each reduced over `runs` runs of `run` terms that no block spans.
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
}

/// The cheapest tile for a product on a device, and the seconds it takes.
pub fn choose(size: &Size, limits: &Limits) -> (Tile, f64) {
    let fitting = TILES.iter().filter(|tile| tile.fits(limits));
    let best = fitting.min_by(|a, b| a.cost(size, limits).total_cmp(&b.cost(size, limits)));
    let tile = *best.unwrap_or(&TILES[TILES.len() - 1]);
    (tile, 2.0 * tile.cost(size, limits) / limits.flops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_is_one_the_engine_can_run() {
        for tile in TILES {
            assert!(tile.threads.is_power_of_two() && tile.lanes_n.is_power_of_two() && tile.block.is_power_of_two());
            assert!(tile.thread_m.is_multiple_of(4) && tile.thread_n.is_multiple_of(4), "{tile:?}");
            assert!(tile.threads >= 64 && tile.threads.is_multiple_of(tile.lanes_n), "{tile:?}");
            assert!((u64::from(tile.block) * tile.n()).is_multiple_of(u64::from(tile.threads)), "{tile:?}");
            assert!(tile.threads.is_multiple_of(tile.block) && CHAIN.is_multiple_of(tile.block), "{tile:?}");
            assert!(
                tile.m() <= u64::from(tile.threads) || tile.m().is_multiple_of(u64::from(tile.threads)),
                "{tile:?}"
            );
        }
    }
}
