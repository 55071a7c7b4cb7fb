//! The `tastemaker` program.

fn main() {}
