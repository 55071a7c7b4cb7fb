//! Numbers that differentiate themselves, random ones, orders, intervals and agreement.

mod agreement;
mod dual;
mod intervals;
mod keyed;
mod permutation;
