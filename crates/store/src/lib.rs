//! store (filled in by its first code).
