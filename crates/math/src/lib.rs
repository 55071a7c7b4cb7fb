//! math (filled in by its first code).
