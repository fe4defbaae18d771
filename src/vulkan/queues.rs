//! The queues of a device: one computes, and where the device has more, two move bytes at the same time, and another one
//! computes beside the first.
//!
//! Work goes to a [`Lane`]. Submissions of one lane take their turn; those of different lanes run at once unless one is
//! told to wait for another. Several lanes may share a queue: then a submission may only wait for earlier ones, which
//! holds here because nobody can name a submission that was not made yet.

use super::failure;
use crate::error::Result;
use ash::vk;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a submission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Kernels, and copies that they need at once.
    Compute = 0,
    /// Copies from the host.
    Upload = 1,
    /// Copies to the host.
    Download = 2,
    /// Kernels beside those of `Compute`.
    Beside = 3,
}

pub(super) const LANES: usize = 4;

impl Lane {
    /// Whether it runs kernels.
    pub fn computes(self) -> bool {
        matches!(self, Lane::Compute | Lane::Beside)
    }
}

/// A submission: the lane's n-th, from 1 on. 0 is before all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub lane: Lane,
    pub serial: u64,
}

/// For each lane a serial.
pub type Serials = [u64; LANES];

/// A queue of a device: its family, and which one of that.
type Place = (u32, u32);

/// Which queue each lane has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    places: [Place; LANES],
}

impl Layout {
    /// Every lane on the first queue of a family.
    pub fn single(family: u32) -> Layout {
        Layout { places: [(family, 0); LANES] }
    }

    /// The best that a device's families allow. Copy engines show as families that do nothing else; two queues of one
    /// move bytes both ways at once. Next best are further queues of the computing family, of which what is left then
    /// computes.
    pub fn choose(families: &[vk::QueueFamilyProperties], compute: u32) -> Layout {
        let queues = |family: u32| families.get(family as usize).map_or(0, |family| family.queue_count);
        let copies = |family: &vk::QueueFamilyProperties| {
            let other = vk::QueueFlags::GRAPHICS
                | vk::QueueFlags::COMPUTE
                | vk::QueueFlags::VIDEO_DECODE_KHR
                | vk::QueueFlags::VIDEO_ENCODE_KHR
                | vk::QueueFlags::OPTICAL_FLOW_NV;
            family.queue_flags.contains(vk::QueueFlags::TRANSFER) && !family.queue_flags.intersects(other)
        };
        let engines = (0..families.len() as u32).filter(|&at| copies(&families[at as usize]));
        let engines = engines.flat_map(|family| (0..queues(family)).map(move |index| (family, index)));
        let further = (1..queues(compute)).map(|index| (compute, index));
        let mut found = engines.chain(further);
        let upload = found.next().unwrap_or((compute, 0));
        let download = found.next().unwrap_or(upload);
        let beside = found.find(|(family, _)| *family == compute).unwrap_or((compute, 0));
        Layout { places: [(compute, 0), upload, download, beside] }
    }

    /// The families in use, each once, and how many queues of it.
    pub fn families(&self) -> Vec<(u32, usize)> {
        let mut families: Vec<(u32, usize)> = Vec::new();
        for (family, index) in self.places {
            match families.iter_mut().find(|(known, _)| *known == family) {
                Some((_, count)) => *count = (*count).max(index as usize + 1),
                None => families.push((family, index as usize + 1)),
            }
        }
        families
    }

    /// The family of a lane's queue.
    pub fn family(&self, lane: Lane) -> u32 {
        self.places[lane as usize].0
    }

    /// The first lane on the same queue.
    fn owner(&self, lane: Lane) -> usize {
        let place = self.places[lane as usize];
        self.places.iter().position(|other| *other == place).unwrap_or(0)
    }
}

/// What a submission follows.
#[derive(Clone, Copy, Default)]
pub struct Order {
    /// Of each lane, up to where submissions must be done before it begins.
    pub after: Serials,
    /// Whether it begins with a barrier behind everything before it on its lane.
    pub barrier: bool,
}

impl Order {
    /// Of a lane's submission with this serial, what it must wait for, where `preceded` are done before it anyhow; and what
    /// precedes the lane's later ones: a barrier, and a wait for a semaphore, hold back all that follows in the order of
    /// submission.
    fn enter(&self, lane: Lane, serial: u64, preceded: Serials) -> (Serials, Serials) {
        let mut before = preceded;
        if self.barrier {
            before[lane as usize] = serial - 1;
        }
        let waits = |at: usize| if self.after[at] > before[at] { self.after[at] } else { 0 };
        (std::array::from_fn(waits), std::array::from_fn(|at| before[at].max(self.after[at])))
    }
}

/// A queue, and for each lane that it serves, up to where submissions of all lanes precede whatever that lane submits from
/// now on. To wait for those again would cost a read of the host's memory, behind all that uploads read
/// (docs/performance.md).
struct Queue {
    raw: vk::Queue,
    preceded: [Serials; LANES],
}

/// The queues in use, and how far each lane has come.
pub struct Queues {
    layout: Layout,
    queues: [Mutex<Queue>; LANES],
    /// A timeline for each lane, whose value is the serial of its latest finished submission; without the feature there
    /// are none, and every lane is on the one queue, where submissions keep their order.
    timelines: Option<[vk::Semaphore; LANES]>,
    submitted: [AtomicU64; LANES],
    completed: [AtomicU64; LANES],
}

impl Queues {
    /// Fetches the queues of a new device. With `timelines` the feature is enabled.
    pub fn new(device: &ash::Device, layout: Layout, timelines: bool) -> Result<Queues> {
        let queue = |(family, index)| {
            // SAFETY: the device was created with these queues.
            let raw = unsafe { device.get_device_queue(family, index) };
            Mutex::new(Queue { raw, preceded: Default::default() })
        };
        let mut queues = Queues {
            layout,
            queues: layout.places.map(queue),
            timelines: None,
            submitted: Default::default(),
            completed: Default::default(),
        };
        if timelines {
            let mut made = [vk::Semaphore::null(); LANES];
            for semaphore in &mut made {
                let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
                let create = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
                // SAFETY: the feature is enabled, and the structures live until the call returns.
                match unsafe { device.create_semaphore(&create, None) } {
                    Ok(new) => *semaphore = new,
                    Err(result) => {
                        // SAFETY: nobody has seen those made so far; null handles are ignored.
                        made.iter().for_each(|semaphore| unsafe { device.destroy_semaphore(*semaphore, None) });
                        return Err(failure("creating a semaphore", result));
                    }
                }
            }
            queues.timelines = Some(made);
        }
        Ok(queues)
    }

    /// # Safety
    /// The device is idle.
    pub unsafe fn destroy(&self, device: &ash::Device) {
        for semaphore in self.timelines.iter().flatten() {
            // SAFETY: promised by the caller.
            unsafe { device.destroy_semaphore(*semaphore, None) };
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether lanes can wait for one another, so that they may have queues of their own.
    pub fn overlaps(&self) -> bool {
        self.timelines.is_some()
    }

    /// Whether a lane needs a barrier to begin after one of its own submissions, since none came in between.
    pub fn needs_barrier(&self, lane: Lane, after: &Serials) -> bool {
        after[lane as usize] > self.queue(lane).preceded[lane as usize][lane as usize]
    }

    /// Submits to a lane, and says which of the lane's it is. Where there are no timelines, the fence says when it is done,
    /// and every submission begins with a barrier.
    pub fn submit(
        &self,
        device: &ash::Device,
        lane: Lane,
        commands: vk::CommandBuffer,
        fence: vk::Fence,
        order: &Order,
    ) -> std::result::Result<Point, vk::Result> {
        let mut waits = [vk::Semaphore::null(); LANES];
        let mut values = [0; LANES];
        let mut count = 0;
        let stages = [vk::PipelineStageFlags::ALL_COMMANDS; LANES];
        let mut queue = self.queue(lane);
        let counter = &self.submitted[lane as usize];
        let serial = counter.load(Ordering::Acquire) + 1;
        let (signals, signal_values, commands) = ([self.timeline(lane)], [serial], [commands]);
        let mut info = vk::SubmitInfo::default().command_buffers(&commands);
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default();
        let (missing, preceded) = order.enter(lane, serial, queue.preceded[lane as usize]);
        if let Some(timelines) = &self.timelines {
            for (timeline, serial) in timelines.iter().zip(missing).filter(|(_, serial)| *serial > 0) {
                waits[count] = *timeline;
                values[count] = serial;
                count += 1;
            }
            timeline = timeline.wait_semaphore_values(&values[..count]).signal_semaphore_values(&signal_values);
            info = info
                .wait_semaphores(&waits[..count])
                .wait_dst_stage_mask(&stages[..count])
                .signal_semaphores(&signals)
                .push_next(&mut timeline);
        }
        // SAFETY: the lock serialises access to the queue; commands and fence belong to the caller until they are done;
        // the structures live until the call returns.
        unsafe { device.queue_submit(queue.raw, &[info], fence)? };
        queue.preceded[lane as usize] = preceded;
        // Under the queue's lock, so serials follow the order of submission.
        counter.store(serial, Ordering::Release);
        Ok(Point { lane, serial })
    }

    /// Whether a submission, whose fence this is, is done.
    pub fn is_done(
        &self,
        device: &ash::Device,
        point: Point,
        fence: vk::Fence,
    ) -> std::result::Result<bool, vk::Result> {
        // SAFETY: the semaphore is this device's; the fence belongs to the caller, who submitted it.
        unsafe {
            match self.timelines {
                Some(timelines) => match device.get_semaphore_counter_value(timelines[point.lane as usize])? {
                    LOST => Err(vk::Result::ERROR_DEVICE_LOST),
                    serial => Ok(serial >= point.serial),
                },
                None => device.get_fence_status(fence),
            }
        }
    }

    /// As [`Queues::is_done`], after sleeping until it is, at most so long.
    pub fn sleep(
        &self,
        device: &ash::Device,
        point: Point,
        fence: vk::Fence,
        timeout: Duration,
    ) -> std::result::Result<bool, vk::Result> {
        let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let (semaphores, serials) = ([self.timeline(point.lane)], [point.serial]);
        let until = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&serials);
        // SAFETY: as in `is_done`; the structures live until the call returns.
        let waited = unsafe {
            match self.timelines {
                Some(_) => device.wait_semaphores(&until, nanoseconds),
                None => device.wait_for_fences(&[fence], true, nanoseconds),
            }
        };
        match waited {
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(result) => Err(result),
            Ok(()) => self.is_done(device, point, fence),
        }
    }

    /// A lane's queue, for one user at a time.
    fn queue(&self, lane: Lane) -> MutexGuard<'_, Queue> {
        self.queues[self.layout.owner(lane)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timeline(&self, lane: Lane) -> vk::Semaphore {
        self.timelines.map_or(vk::Semaphore::null(), |timelines| timelines[lane as usize])
    }

    /// Notes that a submission is done, and so are all before it on its lane.
    pub fn complete(&self, point: Point) {
        self.completed[point.lane as usize].fetch_max(point.serial, Ordering::AcqRel);
    }

    /// Asks how far each lane has come: nobody may have waited for what is done. Without timelines there is no telling.
    pub fn observe(&self, device: &ash::Device) {
        for (timeline, completed) in self.timelines.iter().flatten().zip(&self.completed) {
            // SAFETY: the semaphore is this device's.
            match unsafe { device.get_semaphore_counter_value(*timeline) } {
                Ok(serial) if serial != LOST => _ = completed.fetch_max(serial, Ordering::AcqRel),
                _ => {}
            }
        }
    }

    /// Waits for everything that was submitted so far.
    pub fn drain(&self, device: &ash::Device) -> std::result::Result<(), vk::Result> {
        if let Some(timelines) = &self.timelines {
            let submitted = self.submitted();
            let until = vk::SemaphoreWaitInfo::default().semaphores(timelines).values(&submitted);
            // SAFETY: the semaphores are this device's, and the structures live until the call returns.
            while let Err(result) = unsafe { device.wait_semaphores(&until, u64::MAX) } {
                if result != vk::Result::TIMEOUT {
                    return Err(result);
                }
            }
            self.observe(device);
            return Ok(());
        }
        // Every lane is on the one queue.
        let queue = self.queue(Lane::Compute);
        // SAFETY: the lock serialises access to the queue.
        unsafe { device.queue_wait_idle(queue.raw)? };
        for (completed, submitted) in self.completed.iter().zip(self.submitted()) {
            completed.fetch_max(submitted, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The newest submission of each lane.
    pub fn submitted(&self) -> Serials {
        std::array::from_fn(|lane| self.submitted[lane].load(Ordering::Acquire))
    }

    /// Of each lane, up to where submissions are known to be done.
    pub fn completed(&self) -> Serials {
        std::array::from_fn(|lane| self.completed[lane].load(Ordering::Acquire))
    }
}

/// What some drivers say of a timeline when the device was lost, and no submission's serial.
const LOST: u64 = u64::MAX;

/// Whether work up to `serials` is done when work up to `completed` is.
pub fn reached(serials: &Serials, completed: &Serials) -> bool {
    serials.iter().zip(completed).all(|(serial, completed)| serial <= completed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(flags: vk::QueueFlags, count: u32) -> vk::QueueFamilyProperties {
        vk::QueueFamilyProperties::default().queue_flags(flags).queue_count(count)
    }

    const ALL: vk::QueueFlags = vk::QueueFlags::from_raw(
        vk::QueueFlags::GRAPHICS.as_raw() | vk::QueueFlags::COMPUTE.as_raw() | vk::QueueFlags::TRANSFER.as_raw(),
    );
    const COMPUTES: vk::QueueFlags =
        vk::QueueFlags::from_raw(vk::QueueFlags::COMPUTE.as_raw() | vk::QueueFlags::TRANSFER.as_raw());
    const DECODES: vk::QueueFlags =
        vk::QueueFlags::from_raw(vk::QueueFlags::VIDEO_DECODE_KHR.as_raw() | vk::QueueFlags::TRANSFER.as_raw());

    #[test]
    fn copy_engines_are_taken_and_video_engines_are_not() {
        let nvidia = [family(ALL, 16), family(DECODES, 3), family(vk::QueueFlags::TRANSFER, 2), family(COMPUTES, 8)];
        let layout = Layout::choose(&nvidia, 3);
        assert_eq!(layout.places, [(3, 0), (2, 0), (2, 1), (3, 1)]);
        assert_eq!(layout.families(), [(3, 2), (2, 2)]);
    }

    #[test]
    fn without_copy_engines_lanes_take_further_queues_or_share() {
        assert_eq!(Layout::choose(&[family(COMPUTES, 4)], 0).places, [(0, 0), (0, 1), (0, 2), (0, 3)]);
        assert_eq!(Layout::choose(&[family(COMPUTES, 2)], 0).places, [(0, 0), (0, 1), (0, 1), (0, 0)]);
        assert_eq!(Layout::choose(&[family(ALL, 1)], 0), Layout::single(0));
        let one_engine = [family(ALL, 1), family(vk::QueueFlags::TRANSFER, 1)];
        assert_eq!(Layout::choose(&one_engine, 0).places, [(0, 0), (1, 0), (1, 0), (0, 0)]);
    }

    #[test]
    fn a_lane_waits_once_for_what_precedes_it() {
        let after = |after| Order { after, barrier: false };
        let (waits, preceded) = after([7, 3, 0, 2]).enter(Lane::Beside, 5, [6, 3, 1, 4]);
        assert_eq!((waits, preceded), ([7, 0, 0, 0], [7, 3, 1, 4]));
        assert_eq!(after([7, 3, 1, 4]).enter(Lane::Beside, 6, preceded), ([0; LANES], preceded));
        assert_eq!(after([8, 0, 0, 0]).enter(Lane::Beside, 7, preceded).0, [8, 0, 0, 0]);
    }

    #[test]
    fn a_barrier_stands_for_a_wait_for_the_lanes_own() {
        let barrier = Order { after: [0, 9, 0, 4], barrier: true };
        assert_eq!(barrier.enter(Lane::Beside, 5, [1; LANES]), ([0, 9, 0, 0], [1, 9, 1, 4]));
        // More than was asked for precedes it.
        let barrier = Order { after: [0; LANES], barrier: true };
        assert_eq!(barrier.enter(Lane::Compute, 5, [1; LANES]), ([0; LANES], [4, 1, 1, 1]));
    }

    #[test]
    fn a_block_is_free_once_every_lane_has_come_so_far() {
        assert!(reached(&[1, 2, 3, 4], &[1, 2, 3, 4]));
        assert!(reached(&[0, 0, 0, 0], &[1, 2, 3, 4]));
        assert!(!reached(&[1, 2, 4, 1], &[9, 9, 3, 9]));
    }
}
