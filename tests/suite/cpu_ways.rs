//! Every way of the CPU device to compute a pass, forced once over the whole table of cases: exact on small integers,
//! and with the same bits on one, two and five threads.

use crate::common::call::{Placement, Request, bits, check, compute};
use crate::common::cases::{Case, table};
use crate::common::contract::Contract;
use crate::common::data::{Data, Kind};
use crate::common::reference::{Expected, Reference};
use crate::common::rigs::{Rig, sweep};
use grilly::{Context, ContextDesc, DeviceChoice, Precision};
use std::collections::HashMap;
use std::sync::Mutex;

const WAYS: [&str; 4] = ["dense", "pointwise", "direct", "interleaved"];

fn on_threads(way: &'static str, threads: u32) -> ContextDesc {
    ContextDesc {
        device: DeviceChoice::Cpu,
        kernel: Some(way),
        threads,
        share_all_work: true,
        ..ContextDesc::default()
    }
}

#[test]
fn every_way_is_exact_and_the_same_for_any_number_of_threads() {
    let rigs = WAYS.map(|way| Rig::open(format!("the CPU, {way}"), &on_threads(way, 1)).expect("the CPU device"));
    let open = |way, threads| Context::new(&on_threads(way, threads)).expect("the CPU device");
    // Helpers take one job at a time, so a context's calls take turns.
    let shared: HashMap<String, Mutex<[Context; 2]>> =
        rigs.iter().zip(WAYS).map(|(rig, way)| (rig.name.clone(), Mutex::new([open(way, 2), open(way, 5)]))).collect();
    let prepare = |case: &Case| -> (Data, Data, [Expected; 4]) {
        let integers = Data::new(case, Kind::Integers);
        let expected = Reference::new(case, &integers, false).all();
        (Data::new(case, Kind::Normal), integers, expected)
    };
    let request = Request::new(Precision::Fp32, Placement::Host);
    sweep(
        "small integers exactly equal, and the same bits on 1, 2 and 5 threads",
        &rigs,
        &table().cases,
        prepare,
        |rig, case, (normal, integers, expected)| {
            let exact = compute(&rig.context, case, integers, &request)?;
            let checked = check(Contract::Exact, expected, &exact)?;
            let alone = bits(compute(&rig.context, case, normal, &request)?);
            let contexts = shared[&rig.name].lock().map_err(|_| "another case panicked")?;
            for (context, threads) in contexts.iter().zip([2, 5]) {
                if bits(compute(context, case, normal, &request)?) != alone {
                    return Err(format!("{threads} threads find other bits than one"));
                }
            }
            Ok(checked)
        },
    );
}
