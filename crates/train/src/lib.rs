//! train (filled in by its first code).
