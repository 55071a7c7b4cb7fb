//! data (filled in by its first code).
