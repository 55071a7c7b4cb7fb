//! diffusion (filled in by its first code).
