//! Contributor commands.

fn main() {}
