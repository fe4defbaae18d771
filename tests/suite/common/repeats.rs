//! The same call gives the same bits: again and again, after others have left what they like in scratch memory, every 25th
//! time in a new context. `GRILLY_TEST_REPEATS` says how often; 3 times without.

use super::call::{Placement, Request, bits, compute};
use super::cases::Case;
use super::data::{Data, Kind};
use super::rigs::{Rig, sweep};
use grilly::Precision;

/// From one new context to the next.
const A_CONTEXT: usize = 25;

fn repeats() -> usize {
    let asked = std::env::var("GRILLY_TEST_REPEATS");
    let repeats = asked.map_or(3, |value| value.parse().expect("GRILLY_TEST_REPEATS is a number"));
    assert!(repeats > 1, "GRILLY_TEST_REPEATS={repeats} compares nothing");
    repeats
}

/// Computes every case on every device so often.
///
/// # Panics
/// Where bits differ.
pub fn the_same_bits(rigs: &[Rig], cases: &[Case]) {
    let prepare = |case: &Case| (Data::new(case, Kind::Normal), Data::new(case, Kind::NonFinite));
    sweep(&format!("the same bits {} times", repeats()), rigs, cases, prepare, |rig, case, (data, dirt)| {
        let request = Request::new(Precision::Fp32, Placement::Device);
        let once = bits(compute(&rig.context, case, data, &request)?);
        for time in 1..repeats() {
            let fresh = if time % A_CONTEXT == 0 { Some(rig.again()) } else { None };
            let context = fresh.as_ref().map_or(&rig.context, |fresh| &fresh.context);
            compute(context, case, dirt, &request)?;
            let again = bits(compute(context, case, data, &request)?);
            if let Some(result) = (0..once.len()).find(|&i| once[i] != again[i]) {
                return Err(format!("result {result} differs when computed again, time {time}"));
            }
        }
        Ok(once.len())
    });
}
