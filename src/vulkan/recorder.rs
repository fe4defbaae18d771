//! Recording commands: the only door to the GPU.

use super::device::Device;
use super::failure;
use super::memory::Block;
use super::pipeline::Pipeline;
use super::queues::{Lane, Order, Point, Serials};
use crate::error::{Error, Result, Status};
use crate::plan::Dispatch;
use ash::vk;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the pieces of a copy beside uploads: shorter and longer ones were slower (docs/performance.md).
const BESIDE_UPLOADS: u64 = 512 << 10;

/// A range of a block that a kernel is given.
#[derive(Clone, Copy)]
pub struct Bound<'a> {
    /// The memory.
    pub block: &'a Block,
    /// First byte; a multiple of 4.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

impl<'a> Bound<'a> {
    /// So many of its bytes, from that one on.
    pub fn range(self, offset: u64, bytes: u64) -> Bound<'a> {
        Bound { offset: self.offset + offset, bytes, ..self }
    }

    fn place(&self) -> (vk::Buffer, Range<u64>) {
        (self.block.buffer(), self.offset..self.offset + self.bytes)
    }
}

/// Vulkan's objects for one recording, reused by the next one.
pub struct Recording {
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    /// Null where timelines say how far submissions are.
    fence: vk::Fence,
    timestamps: vk::QueryPool,
    /// Sets for devices without push descriptors; grown as recordings need it.
    descriptor_pools: Vec<vk::DescriptorPool>,
}

/// Records commands and submits them. Dropped, its objects return to the device.
pub struct Recorder {
    device: Arc<Device>,
    lane: Lane,
    order: Order,
    recording: Option<Recording>,
    dispatches: u64,
    sets_used: u32,
    /// What may be under way on the queue, as nothing orders it yet.
    unordered: RefCell<Unordered>,
    /// Whether the host may read what is written.
    host_reads: Cell<bool>,
    state: State,
}

/// Work since the last barrier.
enum Unordered {
    /// Of earlier recordings, too.
    Anything,
    /// Work of this recording, which touches these bytes of buffers.
    Touching(Vec<(vk::Buffer, Range<u64>)>),
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Recording,
    Submitted(Point),
    Done,
}

/// A wait stays awake for so long before it sleeps: falling asleep and waking up takes longer than most work does.
const POLL: Duration = Duration::from_micros(100);
const SETS_PER_POOL: u32 = 64;
const MAX_BINDINGS: u32 = 4;

impl Recording {
    fn new(device: &Device, lane: Lane) -> Result<Recording> {
        let mut recording = Recording {
            pool: vk::CommandPool::null(),
            commands: vk::CommandBuffer::null(),
            fence: vk::Fence::null(),
            timestamps: vk::QueryPool::null(),
            descriptor_pools: Vec::new(),
        };
        let made = recording.fill(device, lane);
        if let Err(result) = made {
            // SAFETY: nothing was submitted.
            unsafe { recording.destroy(device.raw()) };
            return Err(device.note(failure("preparing a command buffer", result)));
        }
        Ok(recording)
    }

    fn fill(&mut self, device: &Device, lane: Lane) -> std::result::Result<(), vk::Result> {
        // SAFETY: the device is alive, and the structures live until their calls return.
        unsafe {
            let raw = device.raw();
            let create = vk::CommandPoolCreateInfo::default()
                .queue_family_index(device.queue_family(lane))
                .flags(vk::CommandPoolCreateFlags::TRANSIENT);
            self.pool = raw.create_command_pool(&create, None)?;
            let allocate = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
            self.commands = raw.allocate_command_buffers(&allocate)?.first().copied().unwrap_or_default();
            if !device.overlaps() {
                self.fence = raw.create_fence(&vk::FenceCreateInfo::default(), None)?;
            }
            if lane == Lane::Compute && device.timestamps().is_some() {
                let create = vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(2);
                self.timestamps = raw.create_query_pool(&create, None)?;
            }
            Ok(())
        }
    }

    /// # Safety
    /// The GPU is done with everything recorded.
    pub unsafe fn destroy(self, device: &ash::Device) {
        // SAFETY: promised by the caller; Vulkan ignores null handles.
        unsafe {
            for pool in self.descriptor_pools {
                device.destroy_descriptor_pool(pool, None);
            }
            device.destroy_query_pool(self.timestamps, None);
            device.destroy_fence(self.fence, None);
            device.destroy_command_pool(self.pool, None);
        }
    }
}

impl Recorder {
    /// Begins a recording of kernels. What earlier ones wrote is visible to it.
    pub fn new(device: &Arc<Device>) -> Result<Recorder> {
        Recorder::begin_on(device, Lane::Compute, Order { barrier: true, ..Order::default() })
    }

    /// Begins a recording for a lane, to begin once the submissions `after` are done. Nothing else need precede it.
    pub fn on(device: &Arc<Device>, lane: Lane, after: &[Point]) -> Result<Recorder> {
        let mut serials = Serials::default();
        for point in after {
            let serial = &mut serials[point.lane as usize];
            *serial = point.serial.max(*serial);
        }
        // Where all lanes are one queue, waits for submissions are barriers. Elsewhere it stands for a wait for the lane's own
        // timeline, which takes longer.
        let barrier = !device.overlaps() || device.needs_barrier(lane, &serials);
        Recorder::begin_on(device, lane, Order { after: serials, barrier })
    }

    fn begin_on(device: &Arc<Device>, lane: Lane, order: Order) -> Result<Recorder> {
        device.check()?;
        let reused = device.recordings(lane).pop();
        let recording = match reused {
            Some(recording) => recording,
            None => Recording::new(device, lane)?,
        };
        let recorder = Recorder {
            device: device.clone(),
            lane,
            order,
            recording: Some(recording),
            dispatches: 0,
            sets_used: 0,
            unordered: RefCell::new(Unordered::Anything),
            host_reads: Cell::new(false),
            state: State::Recording,
        };
        recorder.begin().map_err(|result| device.note(failure("beginning a command buffer", result)))?;
        if order.barrier {
            recorder.barrier();
        }
        recorder.write_timestamp(0);
        Ok(recorder)
    }

    fn begin(&self) -> std::result::Result<(), vk::Result> {
        let raw = self.device.raw();
        let recording = self.recording();
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: a recording in the device's list, or a new one, is not in use by the GPU.
        unsafe {
            raw.reset_command_pool(recording.pool, vk::CommandPoolResetFlags::empty())?;
            if recording.fence != vk::Fence::null() {
                raw.reset_fences(&[recording.fence])?;
            }
            for pool in &recording.descriptor_pools {
                raw.reset_descriptor_pool(*pool, vk::DescriptorPoolResetFlags::empty())?;
            }
            raw.begin_command_buffer(recording.commands, &begin)?;
            if recording.timestamps != vk::QueryPool::null() {
                raw.cmd_reset_query_pool(recording.commands, recording.timestamps, 0, 2);
            }
        }
        Ok(())
    }

    /// When everything before it on the queue is done, other submissions included, as CUDA's events have it: of several
    /// submissions under way, each counts what it takes itself.
    fn write_timestamp(&self, index: u32) {
        let Recording { commands, timestamps, .. } = *self.recording();
        if timestamps != vk::QueryPool::null() {
            // SAFETY: the command buffer is being recorded, and has reset the queries.
            unsafe {
                self.device.raw().cmd_write_timestamp(
                    commands,
                    vk::PipelineStageFlags::ALL_COMMANDS,
                    timestamps,
                    index,
                );
            }
        }
    }

    fn recording(&self) -> &Recording {
        self.recording.as_ref().expect("a recorder has its recording until it is dropped")
    }

    fn commands(&self) -> vk::CommandBuffer {
        self.recording().commands
    }

    /// The device that it records for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The stages that do this lane's work; a queue that only copies knows no shaders.
    fn stages(&self) -> vk::PipelineStageFlags {
        if self.lane.computes() || !self.device.overlaps() {
            vk::PipelineStageFlags::COMPUTE_SHADER | vk::PipelineStageFlags::TRANSFER
        } else {
            vk::PipelineStageFlags::TRANSFER
        }
    }

    /// Orders everything recorded so far, on this lane, before everything after it.
    pub fn barrier(&self) {
        let before = self.unordered.replace(Unordered::Touching(Vec::new()));
        if matches!(before, Unordered::Touching(touched) if touched.is_empty()) {
            return;
        }
        let work = self.stages();
        let (mut written, mut used) =
            (vk::AccessFlags::TRANSFER_WRITE, vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE);
        if work.contains(vk::PipelineStageFlags::COMPUTE_SHADER) {
            written |= vk::AccessFlags::SHADER_WRITE;
            used |= vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE;
        }
        let barrier = [vk::MemoryBarrier::default().src_access_mask(written).dst_access_mask(used)];
        // SAFETY: the command buffer is being recorded.
        unsafe {
            self.device.raw().cmd_pipeline_barrier(
                self.commands(),
                work,
                work,
                vk::DependencyFlags::empty(),
                &barrier,
                &[],
                &[],
            );
        }
    }

    /// A barrier, unless work on these cannot meet what may be under way.
    pub fn barrier_for(&self, operands: &[Option<Bound<'_>>; 4]) {
        let meets = match &*self.unordered.borrow() {
            Unordered::Anything => true,
            Unordered::Touching(touched) => operands.iter().flatten().any(|operand| {
                let (buffer, bytes) = operand.place();
                touched
                    .iter()
                    .any(|(other, range)| *other == buffer && range.start < bytes.end && bytes.start < range.end)
            }),
        };
        if meets {
            self.barrier();
        }
    }

    fn note(&self, touched: Bound<'_>) {
        if let Unordered::Touching(all) = &mut *self.unordered.borrow_mut() {
            all.push(touched.place());
        }
    }

    fn note_written(&self, written: Bound<'_>) {
        self.note(written);
        if written.block.is_mapped() {
            self.host_reads.set(true);
        }
    }

    /// Copies between blocks.
    pub fn copy(&self, from: Bound<'_>, to: Bound<'_>) {
        debug_assert!(from.bytes == to.bytes && from.offset + from.bytes <= from.block.bytes());
        if from.bytes == 0 {
            return;
        }
        self.note(from);
        self.note_written(to);
        let region = [vk::BufferCopy { src_offset: from.offset, dst_offset: to.offset, size: from.bytes }];
        // SAFETY: both blocks are alive until the submission is waited for, and the range lies within them.
        unsafe { self.device.raw().cmd_copy_buffer(self.commands(), from.block.buffer(), to.block.buffer(), &region) };
    }

    /// As [`Recorder::copy`], for a copy to the host while others go to the device: these would wait behind all that a long
    /// copy writes, and get through between the pieces of a cut one.
    pub fn copy_beside_uploads(&self, from: Bound<'_>, to: Bound<'_>) {
        debug_assert_eq!(from.bytes, to.bytes);
        for begin in (0..from.bytes).step_by(BESIDE_UPLOADS as usize) {
            let bytes = BESIDE_UPLOADS.min(from.bytes - begin);
            self.copy(from.range(begin, bytes), to.range(begin, bytes));
        }
    }

    /// Fills whole words of a block with zeros.
    pub fn zero(&self, block: &Block) {
        self.note_written(block.whole());
        // SAFETY: as in `copy`; the whole buffer is filled.
        unsafe {
            self.device.raw().cmd_fill_buffer(self.commands(), block.buffer(), 0, vk::WHOLE_SIZE, 0);
        }
    }

    /// The tensors that a dispatch reaches by elements on these operands; see [`Dispatch::misaligned`].
    pub fn misaligned(dispatch: &Dispatch, operands: &[Option<Bound<'_>>; 4]) -> u32 {
        dispatch.misaligned(operands.map(|operand| operand.map_or(0, |operand| operand.offset)))
    }

    /// Runs one dispatch of a plan; `operands` are the memories of bindings 0 to 3. Waits for what was recorded before and
    /// touches them.
    pub fn dispatch(&mut self, dispatch: &Dispatch, operands: &[Option<Bound<'_>>; 4]) -> Result<()> {
        self.barrier_for(operands);
        let specialization = dispatch.by_element(Recorder::misaligned(dispatch, operands));
        let pipeline = self.device.pipeline(dispatch.module, &specialization)?;
        self.dispatch_part(&pipeline, dispatch, dispatch.tiles.clone(), operands)
    }

    /// Runs some tiles of a dispatch with its pipeline for these operands, and waits for nothing.
    pub fn dispatch_part(
        &mut self,
        pipeline: &Pipeline,
        dispatch: &Dispatch,
        part: Range<u32>,
        operands: &[Option<Bound<'_>>; 4],
    ) -> Result<()> {
        let tiles = part.end - part.start;
        let module = dispatch.module;
        // A kernel may name a tensor that this problem does not have; it never touches it, but it must be bound.
        let stand_in = operands.iter().flatten().next().copied().ok_or_else(|| {
            Error::new(Status::Internal, format!("a dispatch of {} without any operand", module.name))
        })?;
        let bound = operands.map(|operand| operand.unwrap_or(stand_in));
        let outside = |operand: &Bound<'_>| operand.offset + operand.bytes > operand.block.bytes();
        if let Some(operand) = bound.iter().find(|operand| outside(operand)) {
            return Err(Error::new(
                Status::Internal,
                format!(
                    "{} was given bytes {}+{} of a block of {}",
                    module.name,
                    operand.offset,
                    operand.bytes,
                    operand.block.bytes()
                ),
            ));
        }
        let alignment = self.device.limits().storage_buffer_alignment;
        let addressed = module.bindings.is_empty();

        let sizes = &dispatch.sizes;
        let mut push = [0u8; 128];
        let share = [part.start, part.end, sizes.flags];
        for (at, word) in sizes.problem.iter().chain(&share).chain(&sizes.extra).enumerate() {
            push[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        const TENSORS_AT: usize = 96;
        for (at, operand) in bound.iter().enumerate() {
            self.note_written(*operand); // for all that is known here
            if addressed {
                let address = operand.block.address() + operand.offset;
                push[TENSORS_AT + 8 * at..TENSORS_AT + 8 * at + 8].copy_from_slice(&address.to_ne_bytes());
            } else {
                let base = (operand.offset % alignment / 4) as u32;
                push[TENSORS_AT + 4 * at..TENSORS_AT + 4 * at + 4].copy_from_slice(&base.to_ne_bytes());
            }
        }

        let commands = self.commands();
        let [max_x, _] = self.device.limits().workgroup_count;
        let x = tiles.min(max_x);
        // SAFETY: the command buffer is being recorded; the pipeline and all blocks outlive the submission; ranges lie
        // within their blocks; the grid is within the device's limits.
        unsafe {
            self.device.raw().cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, pipeline.raw);
            if !addressed {
                self.bind(pipeline, module.bindings, &bound, alignment)?;
            }
            self.device.raw().cmd_push_constants(
                commands,
                pipeline.layout,
                vk::ShaderStageFlags::COMPUTE,
                0,
                &push[..module.push_constant_bytes as usize],
            );
            self.device.raw().cmd_dispatch(commands, x, tiles.div_ceil(x), 1);
        }
        self.dispatches += 1;
        Ok(())
    }

    /// # Safety
    /// The blocks outlive the submission.
    unsafe fn bind(
        &mut self,
        pipeline: &Pipeline,
        bindings: &[u32],
        bound: &[Bound<'_>; 4],
        alignment: u64,
    ) -> Result<()> {
        let mut infos = [[vk::DescriptorBufferInfo::default()]; MAX_BINDINGS as usize];
        for (info, &binding) in infos.iter_mut().zip(bindings) {
            let operand = &bound[binding as usize];
            let slack = operand.offset % alignment;
            *info = [vk::DescriptorBufferInfo {
                buffer: operand.block.buffer(),
                offset: operand.offset - slack,
                range: (operand.bytes + slack).max(4),
            }];
        }
        let mut writes = [vk::WriteDescriptorSet::default(); MAX_BINDINGS as usize];
        for ((write, info), &binding) in writes.iter_mut().zip(&infos).zip(bindings) {
            *write = vk::WriteDescriptorSet::default()
                .dst_binding(binding)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .buffer_info(info);
        }
        let writes = &mut writes[..bindings.len()];
        let (point, commands) = (vk::PipelineBindPoint::COMPUTE, self.commands());
        // SAFETY: promised by the caller; a set from `allocate_set` is not in use yet.
        unsafe {
            if let Some(push) = self.device.push_descriptor() {
                push.cmd_push_descriptor_set(commands, point, pipeline.layout, 0, writes);
            } else {
                let set = self.allocate_set(pipeline.set_layout)?;
                for write in writes.iter_mut() {
                    write.dst_set = set;
                }
                self.device.raw().update_descriptor_sets(writes, &[]);
                self.device.raw().cmd_bind_descriptor_sets(commands, point, pipeline.layout, 0, &[set], &[]);
            }
        }
        Ok(())
    }

    fn allocate_set(&mut self, layout: vk::DescriptorSetLayout) -> Result<vk::DescriptorSet> {
        let device = self.device.clone();
        let index = (self.sets_used / SETS_PER_POOL) as usize;
        let recording = self.recording.as_mut().expect("a recorder has its recording until it is dropped");
        let allocated = (|| {
            // SAFETY: the pool belongs to this recording alone, and has a free set: each holds SETS_PER_POOL.
            unsafe {
                if index == recording.descriptor_pools.len() {
                    let sizes = [vk::DescriptorPoolSize {
                        ty: vk::DescriptorType::STORAGE_BUFFER,
                        descriptor_count: MAX_BINDINGS * SETS_PER_POOL,
                    }];
                    let create = vk::DescriptorPoolCreateInfo::default().max_sets(SETS_PER_POOL).pool_sizes(&sizes);
                    recording.descriptor_pools.push(device.raw().create_descriptor_pool(&create, None)?);
                }
                let layouts = [layout];
                let allocate = vk::DescriptorSetAllocateInfo::default()
                    .descriptor_pool(recording.descriptor_pools[index])
                    .set_layouts(&layouts);
                Ok(device.raw().allocate_descriptor_sets(&allocate)?.first().copied().unwrap_or_default())
            }
        })();
        self.sets_used += 1;
        allocated.map_err(|result| device.note(failure("allocating a descriptor set", result)))
    }

    /// Ends the recording and hands it to the queue.
    pub fn submit(&mut self) -> Result<Point> {
        if self.host_reads.get() {
            self.barrier_to_host();
        }
        self.write_timestamp(1);
        let Recording { commands, fence, .. } = *self.recording();
        // SAFETY: the command buffer is being recorded, and ends here.
        let ended = unsafe { self.device.raw().end_command_buffer(commands) };
        ended.map_err(|result| self.device.note(failure("ending a command buffer", result)))?;
        let point = self.device.submit(self.lane, commands, fence, &self.order)?;
        self.state = State::Submitted(point);
        // Now that the device is at work, so that the caller waits less for it.
        self.device.save_pipelines();
        Ok(point)
    }

    /// Lets the host read what was written. To the device's own later work its barrier or its wait says enough.
    fn barrier_to_host(&self) {
        let mut written = vk::AccessFlags::TRANSFER_WRITE;
        if self.lane.computes() {
            written |= vk::AccessFlags::SHADER_WRITE;
        }
        let to_host =
            [vk::MemoryBarrier::default().src_access_mask(written).dst_access_mask(vk::AccessFlags::HOST_READ)];
        // SAFETY: the command buffer is being recorded.
        unsafe {
            self.device.raw().cmd_pipeline_barrier(
                self.commands(),
                self.stages(),
                vk::PipelineStageFlags::HOST,
                vk::DependencyFlags::empty(),
                &to_host,
                &[],
                &[],
            );
        }
    }

    /// Waits until the submission is done.
    pub fn wait(&mut self) -> Result<()> {
        self.wait_awake(POLL)
    }

    /// As [`Recorder::wait`], but stays awake for so long first.
    pub fn wait_awake(&mut self, patience: Duration) -> Result<()> {
        // A driver may give up before its time.
        while !self.wait_with(Duration::MAX, patience)? {}
        Ok(())
    }

    /// Waits until the submission is done, at most so long; says whether it is.
    pub fn wait_for(&mut self, timeout: Duration) -> Result<bool> {
        self.wait_with(timeout, POLL)
    }

    fn wait_with(&mut self, timeout: Duration, patience: Duration) -> Result<bool> {
        let State::Submitted(point) = self.state else { return Ok(true) };
        if !self.device.wait(point, self.recording().fence, timeout, patience)? {
            return Ok(false);
        }
        self.state = State::Done;
        self.device.count(self.dispatches, self.elapsed());
        Ok(true)
    }

    /// Nanoseconds from when everything before the submission was done until it was.
    fn elapsed(&self) -> u64 {
        let timestamps = self.recording().timestamps;
        let Some((period, mask)) = self.device.timestamps().filter(|_| timestamps != vk::QueryPool::null()) else {
            return 0;
        };
        let mut ticks = [0u64; 2];
        let flags = vk::QueryResultFlags::TYPE_64;
        // SAFETY: the submission is done, so both timestamps are there.
        let read = unsafe { self.device.raw().get_query_pool_results(timestamps, 0, &mut ticks, flags) };
        let span = (ticks[1] & mask).wrapping_sub(ticks[0] & mask) & mask;
        read.map_or(0, |()| (span as f64 * period) as u64)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // After an error the work may still run; its memory must not be reused before it ends.
        let _ = self.wait();
        if let Some(recording) = self.recording.take() {
            match self.state {
                // It could not be waited for, so it may still be in use.
                State::Submitted(_) => self.device.abandon(recording),
                State::Recording | State::Done => self.device.recordings(self.lane).push(recording),
            }
        }
    }
}
