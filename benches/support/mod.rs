//! What benchmarks share: servers that are processes of their own, medians and quartiles.
#![allow(dead_code, reason = "no benchmark uses all of it")]

pub(crate) mod machine;
pub(crate) mod served;
mod spread;

pub(crate) use spread::Spread;
