//! One forward and one backward call on a device, between guard bands.

use super::cases::Case;
use super::contract::{self, Contract};
use super::data::Data;
use super::guard::{Arena, LAYOUTS, Layout, Place, Slot};
use super::reference::Expected;
use grilly::{
    Accumulate, Backward, Context, Conv2d, Forward, Input, Output, Pass, PassOptions, PassPlan, Precision, Weight,
    Weights,
};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD};

/// The forward pass of host arrays, without a bias.
pub fn forward(conv: &Conv2d, x: ArrayViewD<'_, f32>, weight: &ArrayD<f32>, y: ArrayViewMutD<'_, f32>) {
    let weight = Weight::Raw(Input::Host(weight.view()));
    let call = Forward { x: Input::Host(x), weight, bias: None, y: Output::Host(y) };
    conv.forward(call).expect("a forward pass");
}

/// Which gradients a backward call is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub dx: bool,
    pub dweight: bool,
    pub dbias: bool,
}

impl Wanted {
    pub const ALL: Wanted = Wanted { dx: true, dweight: true, dbias: true };
}

/// Where the tensors of a call live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    Host,
    Device,
    /// Each tensor in another layout, the first of them in this one of `LAYOUTS`.
    Strided(usize),
    /// Tensor i is on the device if bit i is set.
    Mixed(u32),
}

impl Placement {
    fn of(self, tensor: usize) -> Place {
        match self {
            Placement::Host => Place::Host(Layout::Contiguous),
            Placement::Device => Place::Device,
            Placement::Strided(first) => Place::Host(LAYOUTS[(first + tensor) % LAYOUTS.len()]),
            Placement::Mixed(mask) if mask >> tensor & 1 == 1 => Place::Device,
            Placement::Mixed(_) => Place::Host(Layout::Contiguous),
        }
    }
}

/// How a case is to be computed.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub precision: Precision,
    pub placement: Placement,
    pub wanted: Wanted,
    pub accumulate: Accumulate,
    pub packed: bool,
    /// By a plan for each pass instead of one call for each direction.
    pub planned: bool,
}

impl Request {
    pub fn new(precision: Precision, placement: Placement) -> Request {
        Request {
            precision,
            placement,
            wanted: Wanted::ALL,
            accumulate: Accumulate::default(),
            packed: false,
            planned: false,
        }
    }
}

/// `y`, `dx`, `dweight`, `dbias`; what was not wanted is absent.
pub type Results = [Option<Vec<f32>>; 4];

/// For comparisons in which a NaN equals itself.
pub fn bits(results: Results) -> [Option<Vec<u32>>; 4] {
    results.map(|result| result.map(|values| values.into_iter().map(f32::to_bits).collect()))
}

/// Runs both passes. Outputs are poisoned before, unless they accumulate, and all surroundings are checked after.
pub fn compute(context: &Context, case: &Case, data: &Data, request: &Request) -> Result<Results, String> {
    let Request { precision, placement, wanted, accumulate, packed, planned } = *request;
    let mut arena = Arena::default();
    let mut tensors = 0;
    let mut slot = |shape: &[u64], values: Option<&[f32]>| {
        tensors += 1;
        Slot::new(&mut arena, placement.of(tensors - 1), shape, values)
    };
    let x = slot(&case.input(), Some(&data.x));
    let weight = slot(&case.weight(), Some(&data.weight));
    let bias = data.bias.as_ref().map(|bias| slot(&[case.k], Some(bias)));
    let dy = slot(&case.output(), Some(&data.dy));
    let mut y = slot(&case.output(), None);
    let Accumulate { input: to_dx, parameters: to_parameters } = accumulate;
    let mut gradient =
        |wanted: bool, shape: &[u64], prior: &[f32], add: bool| wanted.then(|| slot(shape, add.then_some(prior)));
    let mut dx = gradient(wanted.dx, &case.input(), &data.prior_dx, to_dx);
    let mut dweight = gradient(wanted.dweight, &case.weight(), &data.prior_dweight, to_parameters);
    let mut dbias = gradient(wanted.dbias, &[case.k], &data.prior_dbias, to_parameters);

    let mut run = |arena: &mut Arena| -> grilly::Result<()> {
        arena.upload(context)?;
        let arena = &*arena;
        let conv = Conv2d::new(context, case.config(precision))?;
        let weights = if packed { Some(Weights::new(&conv, weight.input(arena)?)?) } else { None };
        let weight = || -> grilly::Result<Weight<'_>> {
            Ok(match &weights {
                Some(weights) => Weight::Packed(weights),
                None => Weight::Raw(weight.input(arena)?),
            })
        };
        let forward = Forward {
            x: x.input(arena)?,
            weight: weight()?,
            bias: bias.as_ref().map(|bias| bias.input(arena)).transpose()?,
            y: y.output(arena)?,
        };
        let mut gradients = Backward {
            // Only what the wanted gradients read.
            x: if wanted.dweight { Some(x.input(arena)?) } else { None },
            weight: if wanted.dx { Some(weight()?) } else { None },
            dy: dy.input(arena)?,
            dx: dx.as_mut().map(|dx| dx.output(arena)).transpose()?,
            dweight: dweight.as_mut().map(|dweight| dweight.output(arena)).transpose()?,
            dbias: dbias.as_mut().map(|dbias| dbias.output(arena)).transpose()?,
            accumulate,
        };
        if !planned {
            conv.forward(forward)?;
            return conv.backward(gradients);
        }
        let plan = |pass, bias| {
            let accumulate = if pass == Pass::BackwardInput { to_dx } else { to_parameters };
            let options = PassOptions { bias, skip_weight: !wanted.dweight, accumulate };
            PassPlan::new(&conv, pass, case.input(), options, packed)
        };
        let (y_plan, dx_plan) = (plan(Pass::Forward, case.bias)?, plan(Pass::BackwardInput, false)?);
        y_plan.run_forward(forward, 0, y_plan.slices())?;
        let (dx, weight) = (gradients.dx.take(), gradients.weight.take());
        let dx = Backward { x: None, weight, dy: dy.input(arena)?, dx, dweight: None, dbias: None, accumulate };
        dx_plan.run_backward(dx, 0, dx_plan.slices())?;
        let parameters = plan(Pass::BackwardWeight, wanted.dbias)?;
        parameters.run_backward(gradients, 0, parameters.slices())
    };
    run(&mut arena).map_err(|error| format!("{:?}: {error}", error.status()))?;

    let outputs = [Some(y), dx, dweight, dbias];
    let downloaded = arena.download(&outputs.iter().flatten().collect::<Vec<_>>())?;
    let mut results = Results::default();
    for ((result, slot), name) in results.iter_mut().zip(outputs).zip(["y", "dx", "dweight", "dbias"]) {
        *result = slot.map(|slot| slot.take(&downloaded)).transpose().map_err(|text| format!("{name}: {text}"))?;
    }
    Ok(results)
}

/// Holds every result that is there to the contract; returns how many there were.
pub fn check(contract: Contract, expected: &[Expected; 4], results: &Results) -> Result<usize, String> {
    let mut checked = 0;
    for (expected, got) in expected.iter().zip(results) {
        if let Some(got) = got {
            contract::check(contract, expected, got)?;
            checked += 1;
        }
    }
    Ok(checked)
}
