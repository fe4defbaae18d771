//! What the integration tests share: the case table, data, a float64 reference, the accuracy contract, and calls.

// Every test binary compiles this module and uses its own part of it.
#![allow(dead_code)]

pub mod call;
pub mod cases;
pub mod contract;
pub mod data;
pub mod guard;
pub mod reference;
pub mod rigs;
