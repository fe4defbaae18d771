//! Copies of host tensors to the device and back. They have queues of their own where the device has them, and pass through
//! a ring of staging memory, which several threads fill and empty, unless the array itself lies in memory that the device
//! reaches.

use super::places::{Host, Place};
use crate::error::Result;
use crate::vulkan::{Block, Bound, Device, Home, HostArray, Lane, Point, Recorder};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a piece of the ring: the device copies one while threads fill the next. For less, they spend as long on meeting
/// as on copying.
pub(super) const SLOT: u64 = 4 << 20;
/// So many bytes in a slot, or a whole slot, are submitted as soon as they are there.
const LEAST_SUBMITTED: u64 = 1 << 20;
/// Slots that copies in one direction have, at most.
const SLOTS: usize = 6;
/// Waits stay awake for so long: the next piece is never far.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);

/// Copies a host array to memory of the device, and waits for it.
pub fn write(device: &Arc<Device>, array: HostArray<'_>, to: Bound<'_>) -> Result<()> {
    let place = Place::moving(device, array, to, true);
    let mut upload = Upload::new(device, SLOT);
    upload.bring(&place, 0, to.bytes, || Ok(()))?;
    upload.submit()?;
    upload.finish()?;
    Ok(())
}

/// Copies memory of the device to a host array, and waits for it.
pub fn read(device: &Arc<Device>, from: Bound<'_>, array: HostArray<'_>) -> Result<()> {
    let place = Place::moving(device, array, from, false);
    let mut download = Download::new(device, SLOT);
    download.take(&place, 0, from.bytes, &[])?;
    download.finish()?;
    Ok(())
}

/// Staging memory in pieces that are used again and again.
struct Ring {
    device: Arc<Device>,
    /// Bytes of a piece.
    slot: u64,
    free: Vec<Block>,
    made: usize,
}

impl Ring {
    fn new(device: &Arc<Device>, slot: u64) -> Ring {
        Ring { device: device.clone(), slot, free: Vec::new(), made: 0 }
    }

    /// A slot that nothing uses; `None` while all are in use. How many there are does not depend on who is faster, so that
    /// a call takes what the one before it left in the pool.
    fn take(&mut self) -> Result<Option<Block>> {
        if self.free.is_empty() && self.made < SLOTS {
            self.made += 1;
            return Block::new(&self.device, Home::Staging, self.slot).map(Some);
        }
        Ok(self.free.pop())
    }
}

/// Copies to the device.
pub struct Upload {
    ring: Ring,
    current: Option<(Recorder, Vec<Block>)>,
    /// Submitted, oldest first, with the slots that they read.
    submitted: VecDeque<(Recorder, Vec<Block>)>,
    latest: Option<Point>,
    /// Copied so far, or being copied.
    bytes: u64,
}

impl Upload {
    pub fn new(device: &Arc<Device>, slot: u64) -> Upload {
        Upload { ring: Ring::new(device, slot), current: None, submitted: VecDeque::new(), latest: None, bytes: 0 }
    }

    /// Brings bytes of a tensor to the device, if they are needed there. Before it helps to fill a slot of the ring, the
    /// caller does something else.
    pub fn bring(
        &mut self,
        place: &Place<'_>,
        offset: u64,
        bytes: u64,
        mut meanwhile: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let Some(host) = place.host().filter(|host| host.arrives && bytes > 0) else { return Ok(()) };
        self.bytes += bytes;
        if let Some((block, first)) = &host.pinned {
            let from = Bound { block, offset: first + offset, bytes };
            self.current()?.0.copy(from, place.range(offset, bytes));
            return Ok(());
        }
        for begin in (offset..offset + bytes).step_by(self.ring.slot as usize) {
            let length = self.ring.slot.min(offset + bytes - begin);
            let slot = self.free_slot()?;
            let elements = elements(begin, length);
            // SAFETY: `mapped_floats` checked that there is room; nothing uses a free slot. Meanwhile, results may be
            // written to the same array, if they are added to what it has: those of images that were fetched before.
            unsafe {
                let to = slot.mapped_floats(elements.len())?;
                host.array.gather_for_device(elements, to, &mut meanwhile)
            }?;
            let (recorder, slots) = self.current()?;
            recorder.copy(Bound { block: &slot, offset: 0, bytes: length }, place.range(begin, length));
            slots.push(slot);
            // The device copies this while threads fill the next.
            if length >= LEAST_SUBMITTED.min(self.ring.slot) {
                self.submit()?;
            }
        }
        Ok(())
    }

    fn current(&mut self) -> Result<&mut (Recorder, Vec<Block>)> {
        let current = match self.current.take() {
            Some(current) => current,
            None => (Recorder::on(&self.ring.device, Lane::Upload, &[])?, Vec::new()),
        };
        Ok(self.current.insert(current))
    }

    fn free_slot(&mut self) -> Result<Block> {
        loop {
            if let Some(slot) = self.ring.take()? {
                return Ok(slot);
            }
            if self.submitted.is_empty() {
                self.submit()?;
            }
            self.reclaim()?;
        }
    }

    /// Whether anything submitted is still under way.
    pub fn is_busy(&mut self) -> Result<bool> {
        let newest = self.submitted.back_mut();
        newest.map_or(Ok(false), |(recorder, _)| recorder.wait_for(Duration::ZERO).map(|done| !done))
    }

    /// Waits for the oldest submission and takes its slots back.
    fn reclaim(&mut self) -> Result<()> {
        if let Some((mut recorder, slots)) = self.submitted.pop_front() {
            recorder.wait_awake(PATIENCE)?;
            self.ring.free.extend(slots);
        }
        Ok(())
    }

    /// Submits what was recorded; says which submission is the latest.
    pub fn submit(&mut self) -> Result<Option<Point>> {
        if let Some((mut recorder, slots)) = self.current.take() {
            self.latest = Some(recorder.submit()?);
            self.submitted.push_back((recorder, slots));
        }
        Ok(self.latest)
    }

    /// Waits for everything. Returns how many bytes were copied.
    pub fn finish(mut self) -> Result<u64> {
        while !self.submitted.is_empty() {
            self.reclaim()?;
        }
        Ok(self.bytes)
    }
}

/// A slot that holds a result, and where that goes.
struct Filled<'a> {
    slot: Block,
    host: &'a Host<'a>,
    offset: u64,
    bytes: u64,
}

/// Copies from the device.
pub struct Download<'a> {
    ring: Ring,
    /// Submitted, oldest first, with the slots that they fill, unless the device reaches the array itself.
    submitted: VecDeque<(Recorder, Option<Filled<'a>>)>,
    /// Whether to leave room for uploads that are under way.
    pub beside_uploads: bool,
    /// Copied so far, or being copied.
    bytes: u64,
}

impl<'a> Download<'a> {
    pub fn new(device: &Arc<Device>, slot: u64) -> Download<'a> {
        Download { ring: Ring::new(device, slot), submitted: VecDeque::new(), beside_uploads: false, bytes: 0 }
    }

    /// Brings bytes of a result to the host, if they are wanted there, once the submissions `after` are done.
    pub fn take(&mut self, place: &'a Place<'a>, offset: u64, bytes: u64, after: &[Point]) -> Result<()> {
        let Some(host) = place.host().filter(|host| host.departs && bytes > 0) else { return Ok(()) };
        self.bytes += bytes;
        if let Some((block, first)) = &host.pinned {
            let to = Bound { block, offset: first + offset, bytes };
            let recorder = self.copy(place.range(offset, bytes), to, after)?;
            self.submitted.push_back((recorder, None));
            return Ok(());
        }
        for begin in (offset..offset + bytes).step_by(self.ring.slot as usize) {
            let length = self.ring.slot.min(offset + bytes - begin);
            let slot = self.free_slot()?;
            let to = Bound { block: &slot, offset: 0, bytes: length };
            let recorder = self.copy(place.range(begin, length), to, after)?;
            self.submitted.push_back((recorder, Some(Filled { slot, host, offset: begin, bytes: length })));
        }
        Ok(())
    }

    fn copy(&self, from: Bound<'_>, to: Bound<'_>, after: &[Point]) -> Result<Recorder> {
        let mut recorder = Recorder::on(&self.ring.device, Lane::Download, after)?;
        if self.beside_uploads {
            recorder.copy_beside_uploads(from, to)
        } else {
            recorder.copy(from, to)
        }
        recorder.submit()?;
        Ok(recorder)
    }

    fn free_slot(&mut self) -> Result<Block> {
        loop {
            if let Some(slot) = self.ring.take()? {
                return Ok(slot);
            }
            self.empty_oldest()?;
        }
    }

    /// Waits for the oldest submission and copies what it brought to its place.
    pub fn empty_oldest(&mut self) -> Result<()> {
        let Some((mut recorder, filled)) = self.submitted.pop_front() else { return Ok(()) };
        recorder.wait_awake(PATIENCE)?;
        if let Some(Filled { slot, host, offset, bytes }) = filled {
            let elements = elements(offset, bytes);
            // SAFETY: `mapped_floats` checked that the slot has so many elements, and the device is done with it.
            unsafe { host.array.scatter(elements.clone(), slot.mapped_floats(elements.len())?) };
            self.ring.free.push(slot);
        }
        Ok(())
    }

    /// Whether there is something to copy to its place that the oldest submission brought.
    pub fn has_filled(&mut self) -> Result<bool> {
        match self.submitted.front_mut() {
            Some((recorder, Some(_))) => recorder.wait_for(Duration::ZERO),
            _ => Ok(false),
        }
    }

    /// Waits for everything. Returns how many bytes were copied.
    pub fn finish(&mut self) -> Result<u64> {
        while !self.submitted.is_empty() {
            self.empty_oldest()?;
        }
        Ok(self.bytes)
    }
}

fn elements(offset: u64, bytes: u64) -> std::ops::Range<usize> {
    (offset / 4) as usize..((offset + bytes) / 4) as usize
}
