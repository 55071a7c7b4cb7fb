//! run (filled in by its first code).
