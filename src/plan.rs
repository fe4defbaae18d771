//! What a device will be told to do: data, decided before any device is touched.

use crate::error::{Error, Result};
use std::ops::Range;

/// A compiled shader and its interface, reflected by `build.rs`.
#[derive(Debug)]
pub struct Module {
    /// Its file's name without extension.
    pub name: &'static str,
    /// SPIR-V words as bytes.
    pub spirv: &'static [u8],
    /// Storage-buffer bindings of set 0.
    pub bindings: &'static [u32],
    /// Byte offset of every push constant.
    pub push_constant_offsets: &'static [u32],
    /// Bytes of all push constants.
    pub push_constant_bytes: u32,
    /// Specialization constant ids.
    pub specialization_ids: &'static [u32],
    /// Threads of a workgroup, x y z.
    pub local_size: [u32; 3],
    /// Bytes of shared memory.
    pub shared_memory: u32,
}

/// What planning must know of a device. Plain numbers, so that plans for devices that nobody has here can be tested.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `maxStorageBufferRange`: bytes that one binding reaches.
    pub storage_buffer_range: u64,
    /// `minStorageBufferOffsetAlignment`: bytes; a power of two.
    pub storage_buffer_alignment: u64,
    /// `maxComputeWorkGroupCount`, x and y.
    pub workgroup_count: [u32; 2],
    /// Threads of one workgroup: the lesser of `maxComputeWorkGroupInvocations` and `maxComputeWorkGroupSize[0]`.
    pub workgroup_threads: u32,
    /// `maxComputeSharedMemorySize`: bytes.
    pub shared_memory: u32,
    /// `subgroupSize`.
    pub subgroup: u32,
    /// Compute shaders can shuffle within a subgroup.
    pub subgroup_shuffle: bool,
    /// `shaderInt64`.
    pub int64: bool,
    /// 64-bit buffer addresses are enabled.
    pub buffer_addresses: bool,
    /// Bindings can be pushed into a command buffer.
    pub push_descriptors: bool,
    /// A software driver: threads of a workgroup take turns on one core.
    pub software: bool,
    /// Rounds after which a thread's loops end by themselves, all its loops together; `u64::MAX` where none do.
    /// Software drivers have such a limit against programs that hang (llvmpipe: 65,535).
    pub loop_iterations: u64,
    /// Workgroups that the device runs at once; an estimate, since Vulkan does not tell.
    pub concurrent_workgroups: u32,
    /// For tests and measurements: which tile of `shaders/permutations.txt` to use wherever it can run.
    pub tile: Option<usize>,
    /// For tests and measurements: which of [`crate::kernels::CHOICES`] to use wherever it can run.
    pub kernel: Option<&'static str>,
    /// Sustained fp32 operations a second, estimated low: it only decides when a long dispatch is cut.
    pub flops: f64,
}

impl Limits {
    /// Whether kernels that read and write much are faster through addresses than through bindings: a GPU adds constant
    /// distances to an address for nothing, and compares each access through a binding with its range.
    pub fn prefers_addresses(&self) -> bool {
        !self.software && self.buffer_addresses
    }

    /// The same device, offering no more than what every device must.
    pub fn minimum(&self) -> Limits {
        Limits {
            storage_buffer_range: self.storage_buffer_range.min(1 << 27),
            storage_buffer_alignment: self.storage_buffer_alignment.max(256),
            workgroup_count: self.workgroup_count.map(|count| count.min(65_535)),
            workgroup_threads: self.workgroup_threads.min(128),
            shared_memory: self.shared_memory.min(16 << 10),
            buffer_addresses: false,
            push_descriptors: false,
            subgroup_shuffle: false,
            int64: false,
            ..self.clone()
        }
    }
}

/// Which memory an operand lies in. Gradients take the place of what they are gradients of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `x` or `dx`.
    Input,
    /// The raw weight or `dweight`.
    Weight,
    /// The bias or `dbias`.
    Bias,
    /// `y` or `dy`.
    Output,
    /// A weight packed earlier.
    Packed,
    /// Scratch memory of [`Plan::workspace`] bytes.
    Workspace,
}

/// A range of one of the call's memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Which memory.
    pub role: Role,
    /// First byte; a multiple of 4.
    pub offset: u64,
    /// Bytes that the kernel may touch: dispatches whose operands do not meet may run at once.
    pub bytes: u64,
}

/// The sizes and switches that every kernel reads, in the order of `shaders/lib/problem.glsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// N C H W K P Q R S, strides, begin paddings, dilations, groups, has_bias.
    pub problem: [u32; 17],
    /// Bits, see `FLAG_*` in the shader.
    pub flags: u32,
    /// What these are is each kernel's own business.
    pub extra: [u32; 2],
}

/// The specialization constant that says which tensors a kernel reads and writes by vectors of four: `VECTORS_*`.
pub(crate) const VECTORS_ID: u32 = 15;
/// The tensor of binding 0.
pub(crate) const VECTORS_INPUT: u32 = 1;
/// The tensor of binding 3.
pub(crate) const VECTORS_OUTPUT: u32 = 2;
/// Both.
pub(crate) const ALL_VECTORS: u32 = VECTORS_INPUT | VECTORS_OUTPUT;

/// One kernel over some of its tiles.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The shader.
    pub module: &'static Module,
    /// Values of the specialization constants, in the order of `module.specialization_ids`.
    pub specialization: Vec<u32>,
    /// Memory for bindings 0 to 3.
    pub operands: [Option<Operand>; 4],
    /// Push constants.
    pub sizes: Sizes,
    /// The workgroups of the whole kernel that this dispatch runs.
    pub tiles: Range<u32>,
}

impl Dispatch {
    /// The tensors (`VECTORS_*`) that the kernel would reach by vectors although they do not begin at a multiple of 16
    /// bytes; `offsets` are those of bindings 0 to 3.
    pub fn misaligned(&self, offsets: [u64; 4]) -> u32 {
        let Some(vectors) = self.vectors_at().map(|at| self.specialization[at]) else { return 0 };
        let misaligned = |offset: u64, flag: u32| if offset.is_multiple_of(16) { 0 } else { vectors & flag };
        misaligned(offsets[0], VECTORS_INPUT) | misaligned(offsets[3], VECTORS_OUTPUT)
    }

    /// The values of the specialization constants with which it reaches these tensors by elements. The results are the
    /// same to the bit.
    pub fn by_element(&self, tensors: u32) -> Vec<u32> {
        let mut values = self.specialization.clone();
        if let Some(at) = self.vectors_at() {
            values[at] &= !tensors;
        }
        values
    }

    fn vectors_at(&self) -> Option<usize> {
        self.module.specialization_ids.iter().position(|&id| id == VECTORS_ID)
    }
}

/// How a kernel goes through its images: step by step, so that some of its tiles need some of the images only.
///
/// Its first tiles are the first step's. A step reads and writes a run of the images' units, all of them in their
/// order: what a unit is (a pixel of the output, an element of it) is the kernel's own business, if only each image has
/// as many. A step reads all of each image that it has units of, and nothing of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Tiles of a step.
    pub tiles: u64,
    /// Units of a step.
    pub units: u64,
    /// Units of an image.
    pub image_units: u64,
}

impl Walk {
    /// Of a kernel whose workgroups have a thread for each unit.
    pub fn by_threads(threads: u32, image_units: u64) -> Walk {
        Walk { tiles: 1, units: threads.into(), image_units }
    }

    /// The tiles of so many images.
    pub fn tiles_of(&self, images: u64) -> u64 {
        images.saturating_mul(self.image_units).div_ceil(self.units.max(1)).saturating_mul(self.tiles)
    }

    /// The tiles that need nothing but the first `images`.
    pub fn tiles_within(&self, images: u64) -> u64 {
        (images.saturating_mul(self.image_units) / self.units.max(1)).saturating_mul(self.tiles)
    }

    /// The images of which nothing is left to do after the first `tiles`.
    pub fn images_after(&self, tiles: u32) -> u64 {
        u64::from(tiles) / self.tiles.max(1) * self.units / self.image_units.max(1)
    }
}

/// Dispatches in order, cut into slices that are submitted one at a time.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything to run.
    pub dispatches: Vec<Dispatch>,
    /// Ranges of `dispatches`, each short enough for one submission.
    pub slices: Vec<Range<usize>>,
    /// Bytes of scratch memory.
    pub workspace: u64,
    /// Estimated time on the device, in seconds.
    pub seconds: f64,
    /// Of each dispatch, if it says.
    walks: Vec<Option<Walk>>,
    slice_seconds: f64,
    wave: u32,
}

/// Watchdogs reset a device after about two seconds; a submission stays well below.
const SLICE_SECONDS: f64 = 0.25;
/// Beyond this a plan is no plan, but a way to exhaust the host's memory.
const MOST_DISPATCHES: f64 = 100_000.0;

impl Plan {
    /// An empty plan for a device.
    pub(crate) fn new(limits: &Limits) -> Plan {
        Plan {
            dispatches: vec![],
            slices: vec![],
            workspace: 0,
            seconds: 0.0,
            walks: vec![],
            slice_seconds: 0.0,
            wave: limits.concurrent_workgroups.max(1),
        }
    }

    /// Appends a kernel of `tiles` workgroups that take `seconds` together, cut where a submission would grow too long:
    /// into whole waves, since fewer workgroups than run at once take no less time.
    pub(crate) fn push(&mut self, dispatch: Dispatch, tiles: u64, seconds: f64) -> Result<()> {
        self.push_cut(dispatch, tiles, seconds, None)
    }

    /// As [`Plan::push`], of a kernel that goes through so many images as `walk` says.
    pub(crate) fn push_walking(&mut self, dispatch: Dispatch, images: u64, seconds: f64, walk: Walk) -> Result<()> {
        self.push_cut(dispatch, walk.tiles_of(images), seconds, Some(walk))
    }

    fn push_cut(&mut self, dispatch: Dispatch, tiles: u64, seconds: f64, walk: Option<Walk>) -> Result<()> {
        let tiles = u32::try_from(tiles).map_err(|_| {
            Error::unsupported(format!("{} needs {tiles} workgroups, more than 2³²", dispatch.module.name))
        })?;
        let fitting = f64::from(tiles) * SLICE_SECONDS / seconds.max(SLICE_SECONDS);
        let waves = (fitting as u32 / self.wave).max(1);
        // What is short enough stays whole, waves or not.
        let tiles_each = if seconds <= SLICE_SECONDS { tiles.max(1) } else { waves.saturating_mul(self.wave) };
        if self.dispatches.len() as f64 + f64::from(tiles / tiles_each) > MOST_DISPATCHES {
            return Err(Error::unsupported(format!(
                "{} needs more than {MOST_DISPATCHES} dispatches",
                dispatch.module.name
            )));
        }
        self.seconds += seconds;
        for begin in (0..tiles).step_by(tiles_each as usize) {
            let end = begin.saturating_add(tiles_each).min(tiles);
            let piece_seconds = seconds * f64::from(end - begin) / f64::from(tiles);
            if self.slices.is_empty() || self.slice_seconds + piece_seconds > SLICE_SECONDS {
                self.slices.push(self.dispatches.len()..self.dispatches.len());
                self.slice_seconds = 0.0;
            }
            self.slice_seconds += piece_seconds;
            self.dispatches.push(Dispatch { tiles: begin..end, ..dispatch.clone() });
            self.walks.push(walk);
            if let Some(slice) = self.slices.last_mut() {
                slice.end = self.dispatches.len();
            }
        }
        Ok(())
    }

    /// How dispatches go through their images, those that say.
    pub fn walks(&self) -> impl Iterator<Item = Walk> {
        self.walks.iter().copied().flatten()
    }

    /// How a dispatch goes through its images, if it says.
    pub fn walk(&self, dispatch: usize) -> Option<Walk> {
        self.walks.get(dispatch).copied().flatten()
    }

    /// Reserves scratch memory and says where it begins.
    pub(crate) fn reserve(&mut self, bytes: u64) -> u64 {
        let offset = self.workspace.next_multiple_of(256);
        self.workspace = offset + bytes;
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::PROBE_FMA;

    /// Workgroups of each dispatch.
    fn pieces(tiles: u64, seconds: f64) -> Vec<usize> {
        let module = PROBE_FMA.modules().next().expect("a kernel has a module");
        let mut plan = Plan::new(&limits());
        let dispatch =
            Dispatch { module, specialization: vec![], operands: [None; 4], sizes: Sizes::default(), tiles: 0..0 };
        plan.push(dispatch, tiles, seconds).expect("few tiles can be planned");
        plan.dispatches.into_iter().map(|dispatch| dispatch.tiles.len()).collect()
    }

    fn limits() -> Limits {
        Limits {
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
        }
    }

    #[test]
    fn long_work_is_cut_into_whole_waves() {
        assert_eq!(pieces(100, 0.0), [100]);
        assert_eq!(pieces(101, SLICE_SECONDS), [101], "short work is not cut at all");
        assert_eq!(pieces(24, 4.0 * SLICE_SECONDS), [4, 4, 4, 4, 4, 4]);
        assert_eq!(pieces(24, 2.0 * SLICE_SECONDS), [12, 12]);
        assert_eq!(pieces(10, 1000.0), [4, 4, 2], "less than a wave takes no less time");
    }
}
