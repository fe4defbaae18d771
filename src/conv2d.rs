//! The convolution: validated once, then run on tensors that the caller owns.

use crate::config::{Conv2dConfig, PaddingMode};
use crate::context::{Backend, Context};
use crate::cpu;
use crate::error::{Error, Result};
use crate::problem::{Pass, PassOptions, Problem, output_shape};
use crate::run;
use crate::tensor::{Input, Output, Shape, check_overlap};
use crate::ticket::Ticket;
use crate::weights::Weights;

/// A convolution on a context. Stateless: weights and gradients are tensors of each call.
///
/// Cheap to clone. Any thread may use it, concurrently.
///
/// ```
/// use grilly::{Context, ContextDesc, Conv2d, Conv2dConfig, DeviceChoice, Forward, Input, Output, Weight};
/// use ndarray::{ArrayD, IxDyn};
///
/// # fn main() -> grilly::Result<()> {
/// let context = Context::new(&ContextDesc { device: DeviceChoice::Cpu, ..ContextDesc::default() })?;
/// let mut config = Conv2dConfig::new(3, 16, [3, 3]);
/// config.padding = [[1, 1], [1, 1]];
/// let conv = Conv2d::new(&context, config)?;
///
/// let x = ArrayD::<f32>::ones(IxDyn(&[8, 3, 64, 64]));
/// let weight = ArrayD::<f32>::ones(IxDyn(&[16, 3, 3, 3]));
/// let mut y = ArrayD::<f32>::zeros(IxDyn(&[8, 16, 64, 64]));
/// conv.forward(Forward {
///     x: Input::Host(x.view()),
///     weight: Weight::Raw(Input::Host(weight.view())),
///     bias: None,
///     y: Output::Host(y.view_mut()),
/// })?;
/// assert_eq!(y[[0, 0, 32, 32]], 27.0);
/// assert_eq!(y[[0, 0, 0, 0]], 12.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Conv2d {
    context: Context,
    config: Conv2dConfig,
}

/// A weight, as a call takes it.
pub enum Weight<'a> {
    /// `[K, C / groups, R, S]`; of a transposed convolution, `[C, K / groups, R, S]`.
    Raw(Input<'a>),
    /// Packed earlier.
    Packed(&'a Weights),
}

/// The tensors of a forward call.
pub struct Forward<'a> {
    /// `[N, C, H, W]`.
    pub x: Input<'a>,
    /// Of the config's weight shape.
    pub weight: Weight<'a>,
    /// `[K]`.
    pub bias: Option<Input<'a>>,
    /// `[N, K, P, Q]`; overwritten.
    pub y: Output<'a>,
}

/// The tensors of a backward call. Gradients that are `None` are not computed.
pub struct Backward<'a> {
    /// `[N, C, H, W]`; needed for `dweight`.
    pub x: Option<Input<'a>>,
    /// Of the config's weight shape; needed for `dx`.
    pub weight: Option<Weight<'a>>,
    /// Gradient with respect to the output, `[N, K, P, Q]`.
    pub dy: Input<'a>,
    /// Gradient with respect to the input.
    pub dx: Option<Output<'a>>,
    /// Gradient with respect to the weight.
    pub dweight: Option<Output<'a>>,
    /// Gradient with respect to the bias.
    pub dbias: Option<Output<'a>>,
    /// Which gradients are added to instead of overwritten.
    pub accumulate: Accumulate,
}

/// Gradients that a call adds to what their tensors hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accumulate {
    /// `dx`: where an input feeds several layers.
    pub input: bool,
    /// `dweight` and `dbias`: where gradients of several batches are summed.
    pub parameters: bool,
}

impl Accumulate {
    /// Every gradient.
    pub const ALL: Accumulate = Accumulate { input: true, parameters: true };
}

/// Sizes in bytes, as float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySizes {
    /// The elements of the config's weight shape · 4.
    pub weight: u64,
    /// `out_channels · 4`.
    pub bias: u64,
    /// `N · C · H · W · 4`.
    pub input: u64,
    /// `N · K · P · Q · 4`.
    pub output: u64,
    /// Scratch memory of a forward pass on this device.
    pub forward_workspace: u64,
    /// Scratch memory of an input gradient.
    pub backward_input_workspace: u64,
    /// Scratch memory of a weight and bias gradient.
    pub backward_weight_workspace: u64,
}

impl Conv2d {
    /// # Errors
    /// `InvalidArgument` for a config that no input could have.
    pub fn new(context: &Context, config: Conv2dConfig) -> Result<Conv2d> {
        config.validate()?;
        Ok(Conv2d { context: context.clone(), config })
    }

    /// The context that it computes on.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What it was made with.
    pub fn config(&self) -> &Conv2dConfig {
        &self.config
    }

    /// Shape `[N, K, P, Q]` of the output for an input of shape `[N, C, H, W]`.
    ///
    /// # Errors
    /// `InvalidArgument` for an input that does not fit the config.
    pub fn output_shape(&self, input: [u64; 4]) -> Result<[u64; 4]> {
        output_shape(&self.config, input)
    }

    /// Bytes of the tensors for an input of shape `[N, C, H, W]`, and of the scratch memory of each pass.
    ///
    /// # Errors
    /// `InvalidArgument` for an input that does not fit; `Unsupported` beyond the device's reach.
    pub fn memory(&self, input: [u64; 4]) -> Result<MemorySizes> {
        let output = self.output_shape(input)?;
        let workspace = |pass| -> Result<u64> {
            let problem = self.problem(input, pass, PassOptions { bias: true, ..PassOptions::default() })?;
            match self.context.backend() {
                Backend::Vulkan(device) => Ok(self.context.plan(device, &problem, false)?.plan.workspace),
                Backend::Cpu(_) => Ok(cpu::workspace_bytes(&problem)),
            }
        };
        Ok(MemorySizes {
            weight: self.config.weight_bytes(),
            bias: 4 * self.config.out_channels,
            input: 4 * input.iter().product::<u64>(),
            output: 4 * output.iter().product::<u64>(),
            forward_workspace: workspace(Pass::Forward)?,
            backward_input_workspace: workspace(Pass::BackwardInput)?,
            backward_weight_workspace: workspace(Pass::BackwardWeight)?,
        })
    }

    /// `y = x ⋆ weight + bias` (transposed: the adjoint of `⋆`), and waits for it.
    ///
    /// # Errors
    /// `InvalidArgument` for a tensor of the wrong shape, of another context, or that overlaps `y`.
    pub fn forward(&self, call: Forward<'_>) -> Result<()> {
        let problem = self.forward_problem(&call)?;
        run::forward(&self.context, &problem, call)
    }

    /// The gradients that are not `None`, from `dy`, and waits for them.
    ///
    /// # Errors
    /// As [`Conv2d::forward`], and for a gradient whose `x` or `weight` is missing.
    pub fn backward(&self, call: Backward<'_>) -> Result<()> {
        let problems = self.backward_problems(&call)?;
        run::backward(&self.context, &problems, call)
    }

    /// As [`Conv2d::forward`], but does not wait.
    ///
    /// Calls of a context whose tensors all lie in buffers run in the order of their submission, so the result of one
    /// may be an operand of the next without a wait between them; any number may be under way. Until a call is done, its
    /// buffers may be given to further such calls and may be dropped, but must not be read, written, or given to a call
    /// with host tensors.
    ///
    /// With any tensor in host memory, and on the CPU device, the call is done when this returns, and so is the ticket.
    ///
    /// # Errors
    /// As [`Conv2d::forward`].
    pub fn submit_forward(&self, call: Forward<'_>) -> Result<Ticket> {
        let problem = self.forward_problem(&call)?;
        run::submit_forward(&self.context, &problem, call)
    }

    /// As [`Conv2d::backward`], but does not wait: see [`Conv2d::submit_forward`].
    ///
    /// # Errors
    /// As [`Conv2d::backward`].
    pub fn submit_backward(&self, call: Backward<'_>) -> Result<Ticket> {
        let problems = self.backward_problems(&call)?;
        run::submit_backward(&self.context, &problems, call)
    }

    pub(crate) fn problem(&self, input: [u64; 4], pass: Pass, options: PassOptions) -> Result<Problem> {
        Problem::new(&self.config, input, pass, options)
    }

    /// Checks a forward call's tensors, and says what it computes.
    pub(crate) fn forward_problem(&self, call: &Forward<'_>) -> Result<Problem> {
        let options = PassOptions { bias: call.bias.is_some(), ..PassOptions::default() };
        let problem = self.problem(four_sizes("x", call.x.shape())?, Pass::Forward, options)?;
        call.x.check("x", &problem.x_shape(), &self.context)?;
        call.y.check("y", &problem.y_shape(), &self.context)?;
        self.check_weight(&call.weight)?;
        if let Some(bias) = &call.bias {
            bias.check("bias", &[problem.bias_elements()], &self.context)?;
        }
        check_overlap(
            &[("y", Some(&call.y))],
            &[("x", Some(&call.x)), ("weight", call.weight.raw()), ("bias", call.bias.as_ref())],
        )?;
        Ok(problem)
    }

    /// Checks a backward call's tensors, and says what it computes: the input's gradient and the parameters', each if
    /// wanted.
    pub(crate) fn backward_problems(&self, call: &Backward<'_>) -> Result<[Option<Problem>; 2]> {
        let mut config = self.config.clone();
        let shape = match (&call.x, &call.dx) {
            (Some(x), _) => four_sizes("x", x.shape())?,
            (None, Some(dx)) => four_sizes("dx", dx.shape())?,
            (None, None) if call.dweight.is_some() => {
                return Err(Error::invalid("dweight is wanted, but x is missing"));
            }
            // The bias's gradient alone depends on no input: any that leads to dy's shape serves, in any surroundings.
            (None, None) => {
                config.padding_mode = PaddingMode::Zeros;
                self.some_input(call.dy.shape())?
            }
        };
        let options = PassOptions {
            bias: call.dbias.is_some(),
            skip_weight: call.dweight.is_none(),
            accumulate: call.accumulate.parameters,
        };
        let parameters = Problem::new(&config, shape, Pass::BackwardWeight, options)?;
        let options = PassOptions { accumulate: call.accumulate.input, ..options };
        let input_gradient = Problem::new(&config, shape, Pass::BackwardInput, options)?;

        let context = &self.context;
        call.dy.check("dy", &parameters.y_shape(), context)?;
        if let Some(x) = &call.x {
            x.check("x", &parameters.x_shape(), context)?;
        }
        if let Some(dx) = &call.dx {
            dx.check("dx", &parameters.x_shape(), context)?;
            let weight =
                call.weight.as_ref().ok_or_else(|| Error::invalid("dx is wanted, but the weight is missing"))?;
            self.check_weight(weight)?;
        }
        if let Some(dweight) = &call.dweight {
            dweight.check("dweight", &parameters.weight_shape(), context)?;
            if call.x.is_none() {
                return Err(Error::invalid("dweight is wanted, but x is missing"));
            }
        }
        if let Some(dbias) = &call.dbias {
            dbias.check("dbias", &[parameters.bias_elements()], context)?;
        }
        check_overlap(
            &[("dx", call.dx.as_ref()), ("dweight", call.dweight.as_ref()), ("dbias", call.dbias.as_ref())],
            &[("x", call.x.as_ref()), ("weight", call.weight.as_ref().and_then(Weight::raw)), ("dy", Some(&call.dy))],
        )?;
        let wants_parameters = call.dweight.is_some() || call.dbias.is_some();
        Ok([call.dx.is_some().then_some(input_gradient), wants_parameters.then_some(parameters)])
    }

    fn check_weight(&self, weight: &Weight<'_>) -> Result<()> {
        match weight {
            Weight::Raw(raw) => raw.check("weight", &self.config.weight_shape(), &self.context),
            Weight::Packed(packed) => packed.check(self),
        }
    }

    /// An input shape whose output has the shape of `dy`.
    fn some_input(&self, dy: Shape<'_>) -> Result<[u64; 4]> {
        let [n, _, p, q] = four_sizes("dy", dy)?;
        let size = |axis: usize, outputs: u64| {
            let Conv2dConfig { stride, padding, output_padding, .. } = &self.config;
            let (padding, window) = (padding[axis].iter().sum::<u64>(), self.config.window(axis));
            if self.config.transposed {
                let steps = outputs.saturating_add(padding).saturating_sub(window + output_padding[axis]);
                return steps / stride[axis] + 1;
            }
            let reach = outputs.saturating_sub(1).saturating_mul(stride[axis]);
            reach.saturating_add(window).saturating_sub(padding).max(1)
        };
        Ok([n, self.config.in_channels, size(0, p), size(1, q)])
    }
}

impl<'a> Weight<'a> {
    fn raw(&self) -> Option<&Input<'a>> {
        match self {
            Weight::Raw(raw) => Some(raw),
            Weight::Packed(_) => None,
        }
    }
}

fn four_sizes(name: &str, shape: Shape<'_>) -> Result<[u64; 4]> {
    let error = || Error::invalid(format!("{name} has shape {shape:?}, expected 4 axes [N, C, H, W]"));
    shape.sizes().ok_or_else(error)
}
