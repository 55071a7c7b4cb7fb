//! testkit (filled in by its first code).
