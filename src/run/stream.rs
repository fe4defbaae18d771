//! Passes over large host tensors: while one run of images is on its way to the device, the run before it is computed
//! on, and results of those before go back: by [`super::copies`]. What runs when is decided in [`crate::schedule`]; here it
//! is done.

use super::copies::{Download, PATIENCE, SLOT, Upload};
use super::places::{Host, Place, Places};
use super::vulkan::{Moved, Pass, operands, record};
use crate::error::Result;
use crate::schedule::{Progress, Streamed, arrivals};
use crate::vulkan::{Bound, Device, Point, Recorder};
use std::sync::Arc;

/// Below this there is nothing to gain: the first and the last piece overlap with nothing.
const LEAST_BYTES: u64 = 2 << 20;
/// Pieces of a batch. More would overlap better, but each takes a few submissions.
const PIECES: u64 = 6;
const LEAST_PIECE: u64 = 1 << 20;
const MOST_PIECE: u64 = 16 << 20;

/// How a batch is cut.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    piece: u64,
    slot: u64,
    /// Pieces at most, whatever their bytes.
    most: u64,
}

/// How host tensors of so many bytes travel, if not at once.
pub fn pieces(device: &Device, passes: &[Pass], host_bytes: u64) -> Option<Pieces> {
    match device.options().piece_bytes {
        0 if device.is_unified() || host_bytes < LEAST_BYTES => None,
        0 => {
            let piece = (host_bytes / 2).div_ceil(PIECES).clamp(LEAST_PIECE, MOST_PIECE);
            Some(Pieces { piece, slot: SLOT, most: full_pieces(device, passes) })
        }
        piece if host_bytes <= piece => None,
        piece => Some(Pieces { piece, slot: piece.next_multiple_of(4), most: u64::MAX }),
    }
}

/// Into how many pieces a batch can be cut so that those that are computed at once fill the device in every pass: a kernel
/// takes as long for a few tiles as for all that run at once, so what does not fill it stays whole. The first and the last
/// piece are one together.
fn full_pieces(device: &Device, passes: &[Pass]) -> u64 {
    let wave = u64::from(device.limits().concurrent_workgroups.max(1));
    let waves = passes.iter().flat_map(|pass| pass.ready.plan.walks().map(|walk| walk.tiles_of(pass.images) / wave));
    waves.min().unwrap_or(0) * device.computing_lanes().len() as u64 + 1
}

/// Runs whole passes, and waits for them.
pub fn run(
    device: &Arc<Device>,
    passes: &[Pass],
    places: &Places<'_>,
    workspaces: &[Option<Bound<'_>>; 2],
    pieces: Pieces,
) -> Result<Moved> {
    let largest = places.batched().filter(|place| place.host().is_some()).map(|place| place.whole().bytes).max();
    let count = largest.unwrap_or(0).div_ceil(pieces.piece).min(pieces.most);
    let mut upload = Upload::new(device, pieces.slot);
    let mut downstream = Downstream::new(device, passes, places, workspaces, pieces.slot);
    let images = downstream.images;
    for place in places.parameters() {
        upload.bring(place, 0, place.whole().bytes, || Ok(()))?;
    }
    let fetches = places.batched().filter_map(Place::host).any(|host| host.arrives && host.pinned.is_none());
    // While the first images are fetched, the device makes the parameters ready.
    let (mut arrived, mut there) = (0, if fetches { upload.submit()? } else { None });
    for next in arrivals(images, count) {
        for place in places.batched() {
            let image = place.whole().bytes.checked_div(images).unwrap_or(0);
            // While threads fetch these images, those before them are seen to.
            let meanwhile = || downstream.follow(arrived, there);
            upload.bring(place, arrived * image, (next - arrived) * image, meanwhile)?;
        }
        (arrived, there) = (next, upload.submit()?);
        if !fetches || arrived == images {
            downstream.follow(arrived, there)?;
        }
        // The next images go first, or the way to the device stands still.
        while upload.is_busy()? && downstream.download.has_filled()? {
            downstream.follow(arrived, there)?;
            downstream.download.empty_oldest()?;
        }
    }
    let downloaded = downstream.finish()?;
    Ok(Moved { uploaded: upload.finish()?, downloaded })
}

/// What is done with images that are on the device, or on their way to it.
struct Downstream<'a> {
    passes: &'a [Pass],
    places: &'a Places<'a>,
    workspaces: &'a [Option<Bound<'a>>; 2],
    /// Images of the batch.
    images: u64,
    /// How far each pass has come.
    progress: Vec<Progress<'a>>,
    /// Of how many images the results of each pass went back.
    sent: Vec<u64>,
    compute: Compute,
    download: Download<'a>,
    /// Whether results leave room for the uploads that they go beside.
    both_ways: bool,
}

impl<'a> Downstream<'a> {
    fn new(
        device: &Arc<Device>,
        passes: &'a [Pass],
        places: &'a Places<'a>,
        workspaces: &'a [Option<Bound<'a>>; 2],
        slot: u64,
    ) -> Downstream<'a> {
        let images = passes.first().map_or(0, |pass| pass.images);
        let progress = passes.iter().map(|pass| {
            let [input_image, output_image] = pass.image_bytes;
            Progress::new(Streamed { plan: &pass.ready.plan, images, input_image, output_image })
        });
        let travelling = |way: fn(&Host<'_>) -> bool| -> u64 {
            places.batched().filter(|place| place.host().is_some_and(way)).map(|place| place.whole().bytes).sum()
        };
        // Where several times as much goes back as arrives, most of it goes when nothing arrives any more.
        let both_ways = 3 * travelling(|host| host.arrives) >= travelling(|host| host.departs);
        Downstream {
            passes,
            places,
            workspaces,
            images,
            progress: progress.collect(),
            sent: vec![0; passes.len()],
            compute: Compute::new(device),
            download: Download::new(device, slot),
            both_ways,
        }
    }

    /// Submits what can run once the first `arrived` images have arrived, `there` at the latest, and sends back the results
    /// that this finishes. A second time for as many images does nothing.
    fn follow(&mut self, arrived: u64, there: Option<Point>) -> Result<()> {
        self.download.beside_uploads = self.both_ways && arrived < self.images;
        self.compute.run(self.passes, &mut self.progress, arrived, self.places, self.workspaces, there)?;
        for ((pass, progress), sent) in self.passes.iter().zip(&self.progress).zip(&mut self.sent) {
            let finished = progress.finished();
            if let Some(place) = self.places.result(pass.kind) {
                let image = place.whole().bytes.checked_div(self.images).unwrap_or(0);
                self.download.take(place, *sent * image, (finished - *sent) * image, &self.compute.latest)?;
            }
            *sent = finished;
        }
        Ok(())
    }

    /// Sends back what is not of single images, and waits for everything. Returns how many bytes went back.
    fn finish(mut self) -> Result<u64> {
        for place in self.places.parameters() {
            self.download.take(place, 0, place.whole().bytes, &self.compute.latest)?;
        }
        let downloaded = self.download.finish()?;
        self.compute.submitted.iter_mut().try_for_each(|recorder| recorder.wait_awake(PATIENCE))?;
        Ok(downloaded)
    }
}

/// Submissions of kernels. Dropped, they are waited for.
///
/// What must wait for what runs before it follows everything, on one lane. What goes on with a dispatch, for further images,
/// takes turns on the lanes: nothing but those images and what the dispatch began after need precede it.
struct Compute {
    device: Arc<Device>,
    submitted: Vec<Recorder>,
    /// The latest submission of each lane.
    latest: Vec<Point>,
    /// What the dispatches under way began after.
    before: Vec<Point>,
    /// Submissions that took turns.
    turns: usize,
}

impl Compute {
    fn new(device: &Arc<Device>) -> Compute {
        let latest: Vec<_> = device.computing_lanes().iter().map(|&lane| device.latest(lane)).collect();
        Compute { device: device.clone(), submitted: Vec::new(), before: latest.clone(), latest, turns: 0 }
    }

    /// Runs what can run now that so many images are there.
    fn run(
        &mut self,
        passes: &[Pass],
        progress: &mut [Progress<'_>],
        arrived: u64,
        places: &Places<'_>,
        workspaces: &[Option<Bound<'_>>; 2],
        there: Option<Point>,
    ) -> Result<()> {
        let mut current: Option<Submission> = None;
        for ((pass, progress), workspace) in passes.iter().zip(progress).zip(workspaces) {
            let plan = &pass.ready.plan;
            let mut slice = None;
            for part in progress.advance(arrived) {
                // A submission takes no more of the plan than one of its slices, which is as long as one may be.
                let of = plan.slices.iter().position(|slice| slice.contains(&part.dispatch));
                // What the rest of a dispatch is to follow must not be in one submission with its first part.
                let all = &plan.dispatches[part.dispatch].tiles;
                let goes_on = part.tiles.start == all.start && part.tiles.end < all.end;
                let apart = slice.is_some() && slice != of
                    || goes_on
                    || current.as_ref().is_some_and(|current| current.waits != part.waits);
                if let Some(full) = current.take_if(|_| apart) {
                    self.submit(full)?;
                }
                if goes_on {
                    self.before.clone_from(&self.latest);
                }
                slice = of;
                let mut submission = match current.take() {
                    Some(submission) => submission,
                    None => self.begin(part.waits, there)?,
                };
                let operands = operands(pass, part.dispatch, places, *workspace)?;
                if part.waits {
                    submission.recorder.barrier_for(&operands);
                }
                record(&mut submission.recorder, pass, part.dispatch, part.tiles, &operands)?;
                current = Some(submission);
            }
        }
        current.map_or(Ok(()), |last| self.submit(last))
    }

    fn begin(&mut self, waits: bool, there: Option<Point>) -> Result<Submission> {
        let lanes = self.device.computing_lanes();
        self.turns += usize::from(!waits);
        let turn = if waits { 0 } else { self.turns % lanes.len() };
        let mut after = if waits { self.latest.clone() } else { self.before.clone() };
        after.extend(there);
        Ok(Submission { recorder: Recorder::on(&self.device, lanes[turn], &after)?, waits, turn })
    }

    fn submit(&mut self, submission: Submission) -> Result<()> {
        let Submission { mut recorder, turn, .. } = submission;
        self.latest[turn] = recorder.submit()?;
        self.submitted.push(recorder);
        Ok(())
    }
}

/// Work of one kind that is being recorded.
struct Submission {
    recorder: Recorder,
    /// It follows everything before it.
    waits: bool,
    /// Which of the lanes it has.
    turn: usize,
}
