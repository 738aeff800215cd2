"""Conditional diffusion that paints defects: model, sampler, layouts, cache and data set."""
