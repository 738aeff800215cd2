"""CLIP as second opinion on pseudo-labels: scorer, prompts, prototypes, adaptation, filter."""

from .scorer import BoxScores, CLIPScorer

__all__ = ['BoxScores', 'CLIPScorer']
