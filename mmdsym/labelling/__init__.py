"""What to label next, and pre-labels for annotation programs."""

from .suggesting import Suggestion, Suggestions, suggest
from .writing import write_suggestions

__all__ = ['Suggestion', 'Suggestions', 'suggest', 'write_suggestions']
