//! A call that was submitted and may not be done yet.

use crate::context::Context;
use crate::error::{Error, Result, Status};
use crate::vulkan::Recorder;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// A call under way, of [`crate::Conv2d::submit_forward`] or [`crate::Conv2d::submit_backward`].
///
/// Any thread may wait for it, several times. It keeps the device open; dropped, it waits.
///
/// ```
/// use grilly::{Context, ContextDesc, Conv2d, Conv2dConfig, DeviceTensor, Forward, Input, Output, Status, Weight};
/// use std::time::Duration;
///
/// # fn main() -> grilly::Result<()> {
/// let context = Context::new(&ContextDesc::default())?;
/// let conv = Conv2d::new(&context, Conv2dConfig::new(4, 4, [1, 1]))?;
/// let (image, weight) = ([1, 4, 8, 8], [4, 4, 1, 1]);
/// let buffer = |shape: &[u64]| context.create_buffer(4 * shape.iter().product::<u64>());
/// let (memory, values) = (buffer(&weight)?, [buffer(&image)?, buffer(&image)?, buffer(&image)?]);
/// let submit = |from: usize| {
///     conv.submit_forward(Forward {
///         x: Input::Device(DeviceTensor::new(&values[from], 0, &image)?),
///         weight: Weight::Raw(Input::Device(DeviceTensor::new(&memory, 0, &weight)?)),
///         bias: None,
///         y: Output::Device(DeviceTensor::new(&values[from + 1], 0, &image)?),
///     })
/// };
/// let (_first, last) = (submit(0)?, submit(1)?); // the second reads what the first writes
/// while let Err(error) = last.wait(Duration::from_millis(1)) {
///     assert_eq!(error.status(), Status::Timeout); // not DeviceLost: there is time for something else
/// }
/// # Ok(())
/// # }
/// ```
pub struct Ticket {
    context: Context,
    /// What was submitted, oldest first; none once all is done.
    submitted: Mutex<Vec<Recorder>>,
}

/// Two threads may wait for one ticket; the second looks so often whether the first is done.
const LOOK: Duration = Duration::from_micros(100);

impl Ticket {
    pub(crate) fn new(context: &Context, submitted: Vec<Recorder>) -> Ticket {
        Ticket { context: context.clone(), submitted: Mutex::new(submitted) }
    }

    /// The context that it computes on.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Waits until the call is done, at most so long. With a timeout of zero it only asks, and with
    /// [`Duration::MAX`] it waits as long as it takes.
    ///
    /// # Errors
    /// `Timeout` if it is still under way, and will be done later; `DeviceLost` if it never will be.
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        let began = Instant::now();
        let mut submitted = self.lock(began, timeout)?;
        while let Some(first) = submitted.first_mut() {
            if !first.wait_for(timeout.saturating_sub(began.elapsed()))? {
                return Err(still_under_way(timeout));
            }
            submitted.remove(0);
        }
        Ok(())
    }

    fn lock(&self, began: Instant, timeout: Duration) -> Result<MutexGuard<'_, Vec<Recorder>>> {
        loop {
            match self.submitted.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poison)) => return Ok(poison.into_inner()),
                Err(TryLockError::WouldBlock) if began.elapsed() >= timeout => return Err(still_under_way(timeout)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
            }
        }
    }
}

fn still_under_way(timeout: Duration) -> Error {
    Error::new(Status::Timeout, format!("the call is still under way after {timeout:?}; wait again"))
}
