"""Aligns text-to-image diffusion models with human taste. The program is `tastemaker`; `python -m tastemaker` starts it, too."""
