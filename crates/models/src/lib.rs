//! models (filled in by its first code).
