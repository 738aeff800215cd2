"""CLIP as second opinion on pseudo-labels: scorer, prompts, prototypes, adaptation, filter."""
