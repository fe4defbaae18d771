//! What the integration tests share: the case table, data, a float64 reference, the accuracy contract, and calls.

pub mod call;
pub mod cases;
pub mod contract;
pub mod data;
pub mod guard;
pub mod reference;
pub mod repeats;
pub mod rigs;
