//! The library as its users call it: one program, so that what its tests share is compiled once, and what drivers compile
//! for one test serves the others.

mod calls;
mod case_table;
mod common;
mod conformance;
mod cpu_ways;
mod elementwise;
mod errors;
mod large;
mod long_sums;
mod memory;
mod pipeline_cache;
mod plans;
mod streams;
mod tickets;
