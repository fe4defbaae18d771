//! A plan that the caller holds: one pass over one shape, with its pipelines compiled and its memory known.

use crate::context::{Backend, Context, Ready};
use crate::conv2d::{Backward, Conv2d, Forward};
use crate::cpu;
use crate::error::{Error, Result};
use crate::problem::{Pass, PassOptions, Problem};
use crate::run;
use crate::run::places::Tensors;
use crate::vulkan::{Block, Home};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// One pass of a convolution over one input shape, ready to run, whole or slice by slice.
///
/// Cheap to clone. Any thread may use it; runs of one plan take turns, because they share its scratch memory.
#[derive(Clone)]
pub struct PassPlan {
    conv: Conv2d,
    pass: Pass,
    problem: Problem,
    prepacked: bool,
    planned: Arc<Planned>,
}

enum Planned {
    Vulkan {
        ready: Arc<Ready>,
        workspace: Mutex<Option<Block>>,
    },
    /// The CPU device runs a pass in one slice.
    Cpu,
}

impl PassPlan {
    /// Plans a pass over an input of shape `[N, C, H, W]` and compiles its pipelines.
    ///
    /// # Errors
    /// `InvalidArgument` for an input that does not fit; `Unsupported` beyond the device's reach.
    pub fn new(conv: &Conv2d, pass: Pass, input: [u64; 4], options: PassOptions, prepacked: bool) -> Result<PassPlan> {
        let problem = conv.problem(input, pass, options)?;
        let prepacked = prepacked && pass != Pass::BackwardWeight;
        let planned = match conv.context().backend() {
            Backend::Vulkan(device) => {
                let ready = conv.context().plan(device, &problem, prepacked)?;
                ready.compile(device)?;
                let bytes = ready.plan.workspace;
                let workspace = if bytes > 0 { Some(Block::new(device, Home::Device, bytes)?) } else { None };
                Planned::Vulkan { ready, workspace: Mutex::new(workspace) }
            }
            Backend::Cpu(_) => Planned::Cpu,
        };
        Ok(PassPlan { conv: conv.clone(), pass, problem, prepacked, planned: Arc::new(planned) })
    }

    /// The context that it computes on.
    pub fn context(&self) -> &Context {
        self.conv.context()
    }

    /// Which pass it is.
    pub fn pass(&self) -> Pass {
        self.pass
    }

    /// Bytes of scratch memory.
    pub fn workspace_bytes(&self) -> u64 {
        match &*self.planned {
            Planned::Vulkan { ready, .. } => ready.plan.workspace,
            Planned::Cpu => cpu::workspace_bytes(&self.problem),
        }
    }

    /// Kernels that it runs.
    pub fn dispatches(&self) -> u32 {
        match &*self.planned {
            Planned::Vulkan { ready, .. } => ready.plan.dispatches.len() as u32,
            Planned::Cpu => 1,
        }
    }

    /// Pieces that can be run one at a time.
    pub fn slices(&self) -> u32 {
        match &*self.planned {
            Planned::Vulkan { ready, .. } => ready.plan.slices.len() as u32,
            Planned::Cpu => 1,
        }
    }

    /// Estimated time, in seconds; 0 on the CPU device, which does not estimate.
    pub fn seconds(&self) -> f64 {
        match &*self.planned {
            Planned::Vulkan { ready, .. } => ready.plan.seconds,
            Planned::Cpu => 0.0,
        }
    }

    /// Runs `count` slices from slice `first` on. See [`PassPlan::run_backward`].
    ///
    /// # Errors
    /// `InvalidArgument` for tensors of another problem, slices that do not exist, or host tensors with a part of the
    /// slices.
    pub fn run_forward(&self, call: Forward<'_>, first: u32, count: u32) -> Result<()> {
        let problem = self.conv.forward_problem(&call)?;
        self.check_problem(&problem, call.weight.is_packed())?;
        let slices = self.slice_range(first, count)?;
        match &*self.planned {
            Planned::Vulkan { .. } => self.run_vulkan(Tensors::forward(call, problem.transposed), slices),
            Planned::Cpu if count == 0 => Ok(()),
            Planned::Cpu => run::forward(self.context(), &problem, call),
        }
    }

    /// Runs `count` slices from slice `first` on, and waits for them. All slices, in order, give the result.
    ///
    /// # Errors
    /// As [`PassPlan::run_forward`].
    pub fn run_backward(&self, call: Backward<'_>, first: u32, count: u32) -> Result<()> {
        let packed =
            self.pass() == Pass::BackwardInput && call.weight.as_ref().is_some_and(|weight| weight.is_packed());
        let problems = self.conv.backward_problems(&call)?;
        let problem = match (&problems, self.pass()) {
            ([Some(problem), None], Pass::BackwardInput) | ([None, Some(problem)], Pass::BackwardWeight) => problem,
            _ => {
                return Err(Error::invalid(format!(
                    "the plan is for {:?}; pass only the gradients of that pass",
                    self.pass()
                )));
            }
        };
        self.check_problem(problem, packed)?;
        let slices = self.slice_range(first, count)?;
        match &*self.planned {
            Planned::Vulkan { .. } => self.run_vulkan(Tensors::backward(call, problem.transposed), slices),
            Planned::Cpu if count == 0 => Ok(()),
            Planned::Cpu => run::backward(self.context(), &problems, call),
        }
    }

    fn run_vulkan(&self, tensors: Tensors<'_>, slices: Range<usize>) -> Result<()> {
        let (Planned::Vulkan { ready, workspace }, Backend::Vulkan(device)) =
            (&*self.planned, self.context().backend())
        else {
            return Ok(());
        };
        if slices.len() < ready.plan.slices.len() && tensors.any_on_host() {
            return Err(Error::invalid(format!(
                "slices {slices:?} of {} need device tensors: host tensors are brought to the device for a whole run \
                 only",
                ready.plan.slices.len()
            )));
        }
        let workspace = workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let pass = run::vulkan::Pass::of_slices(&self.problem, ready.clone(), slices);
        run::vulkan::run_with(self.context(), device, &[pass], tensors, workspace.as_ref())
    }

    fn check_problem(&self, problem: &Problem, packed: bool) -> Result<()> {
        if *problem != self.problem {
            return Err(Error::invalid(format!(
                "the plan is for an input of shape {:?} and {:?}, not for {:?} and {:?}",
                self.problem.x_shape(),
                self.problem.options,
                problem.x_shape(),
                problem.options
            )));
        }
        if packed != self.prepacked {
            let expected = if self.prepacked { "a packed" } else { "a raw" };
            return Err(Error::invalid(format!("the plan is for {expected} weight, and got the other kind")));
        }
        Ok(())
    }

    fn slice_range(&self, first: u32, count: u32) -> Result<Range<usize>> {
        let end = first.checked_add(count).filter(|&end| end <= self.slices());
        let end = end.ok_or_else(|| {
            Error::invalid(format!("slices {first} to {first} + {count} do not exist; the plan has {}", self.slices()))
        })?;
        Ok(first as usize..end as usize)
    }
}
