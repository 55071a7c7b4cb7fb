//! eval (filled in by its first code).
