"""What determines a cache of synthetic images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

FORMAT = 3
"""Raised whenever the same settings give other images or another layout of the files."""


@dataclass(frozen=True)
class CacheKey:
    """A key that is the same when, and only when, the synthetic images would be the same.

    Attributes:
        parts: Name of what counts (such as ``labels``) to its content or its digest, as JSON
            knows it.
    """

    parts: Mapping[str, object]

    @property
    def digest(self) -> str:
        """sha256 of all parts, 64 hexadecimal digits."""
        content = json.dumps([FORMAT, dict(self.parts)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name of the cache's folder: the first 16 digits."""
        return self.digest[:16]

    def differences(self, others: Mapping[str, object]) -> list[str]:
        """Names the parts that another cache's key has otherwise, or lacks."""
        names = [*self.parts, *(name for name in others if name not in self.parts)]
        return [name for name in names if self.parts.get(name) != others.get(name)]
