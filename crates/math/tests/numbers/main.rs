//! Numbers that differentiate themselves, random ones, orders and intervals.

mod dual;
mod intervals;
mod keyed;
mod permutation;
