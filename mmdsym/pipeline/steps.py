"""The numbered lines in which a command says what becomes of each step."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmengine.dist import get_rank


@dataclass
class _Count:
    expected: int = 0
    begun: int = 0


@dataclass
class Steps:
    """Counts steps and speaks of the present one; runs within a run count with it.

    Attributes:
        title: Of a run within a run; begins each of its lines.
    """

    title: str = ''
    _count: _Count = field(default_factory=_Count)

    def of(self, title: str) -> Steps:
        """Returns what a run within this one counts and speaks with."""
        return Steps(f'{self.title}{title}: ', self._count)

    def expect(self, steps: int) -> None:
        """Announces further steps."""
        self._count.expected += steps

    def begin(self) -> None:
        """Goes on to the next step."""
        self._count.begun += 1

    def tell(self, line: str) -> None:
        """Prints a line without its full stop; one process speaks for all."""
        if get_rank() == 0:
            number = f'{self._count.begun}/{self._count.expected}'
            print(f'[{number}] {self.title}{line}.', flush=True)
