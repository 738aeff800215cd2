"""What the config says about where defects are painted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches

from mmdsym.errors import UserError

from .size_distribution import BUCKETS

KINDS = ('repaint', 'add', 'rescale')


def _even_sizes() -> dict[str, float]:
    return {name: 1.0 for name in BUCKETS}


def _default_kinds() -> dict[str, float]:
    return dict(repaint=0.5, add=0.3, rescale=0.2)


@dataclass(frozen=True)
class LayoutConfig:
    """How defects are laid out. Shares need not add up to 1.

    Attributes:
        kinds: Shares of ``repaint`` (a new defect in place of a labelled one), ``add`` (a new one
            on clean surface) and ``rescale`` (the same, from a labelled one of another size).
        sizes: Shares of ``small``, ``medium`` and ``large`` boxes within each class.
        size_quantiles: The quantiles of a class's labelled sizes at which small ends and large
            begins, in [0, 1].
        class_balance: 0 draws classes as often as they are labelled, 1 draws all as often.
        defects_per_image: Fewest and most new defects of an image.
        foreign_surface: Share of images on which new defects may lie although the image shows
            only other classes, in [0, 1].
        max_covered: Largest share of its area that a box may lose to a new one with its seam, or a
            new one to it, in [0, 1].
        own_reference: Share of repainted defects that start from themselves, in [0, 1]; the rest
            starts from one of similar aspect ratio.
        similar_surfaces: Share of the suitable references that are considered, in (0, 1]: those
            whose images are most like the one to paint in, by brightness and contrast; at least 8.
        strength: Smallest and largest strength, in (0, 1]; see ``PaintingTask``.
        flips: Whether references are mirrored at random.
        transposes: Whether rows and columns of references are swapped at random; a new box then
            takes the swapped aspect ratio.
    """

    kinds: Mapping[str, float] = field(default_factory=_default_kinds)
    sizes: Mapping[str, float] = field(default_factory=_even_sizes)
    size_quantiles: tuple[float, float] = (1 / 3, 2 / 3)
    class_balance: float = 0.5
    defects_per_image: tuple[int, int] = (1, 2)
    foreign_surface: float = 0.0
    max_covered: float = 0.05
    own_reference: float = 0.25
    similar_surfaces: float = 0.2
    strength: tuple[float, float] = (0.6, 1.0)
    flips: bool = True
    transposes: bool = False

    def __post_init__(self) -> None:
        _check_shares('kinds', self.kinds, KINDS)
        _check_shares('sizes', self.sizes, BUCKETS)
        shares = ('class_balance', 'foreign_surface', 'max_covered', 'own_reference')
        for name in (*shares, 'similar_surfaces'):
            _check_range(name, (getattr(self, name),) * 2, 0, 1)
        _check_range('size_quantiles', self.size_quantiles, 0, 1)
        _check_range('strength', self.strength, 0, 1)
        if self.strength[0] <= 0:
            raise UserError('layout.strength begins at 0, which paints nothing: begin above 0.')
        _check_range('defects_per_image', self.defects_per_image, 1, 1000)
        if any(count != int(count) for count in self.defects_per_image):
            raise UserError('layout.defects_per_image must be two whole numbers.')

    def to_dict(self) -> dict:
        """Returns all settings, defaults included: equal for configs that mean the same."""
        content = asdict(self)
        for name, known in (('kinds', KINDS), ('sizes', BUCKETS)):
            total = sum(content[name].values())
            content[name] = {key: content[name].get(key, 0) / total for key in known}
        return {
            key: list(value) if isinstance(value, (tuple, list)) else value
            for key, value in content.items()
        }


def parse_layout(config: Mapping | None) -> LayoutConfig:
    """Reads the ``layout`` of a config.

    Raises:
        UserError: A setting is unknown or out of range.
    """
    known = [entry.name for entry in fields(LayoutConfig)]
    config = dict(config or {})
    for name in config:
        if name not in known:
            raise UserError(f'layout has an unknown {_named(name, known)}')
    return LayoutConfig(**config)


def _named(name: str, known: list[str] | tuple[str, ...]) -> str:
    near = get_close_matches(str(name), known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ''
    return f"'{name}': {hint}Known: {', '.join(known)}."


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_shares(name: str, shares: Mapping[str, float], known: tuple[str, ...]) -> None:
    if not isinstance(shares, Mapping):
        raise UserError(f'layout.{name} is {shares}: give the shares of {", ".join(known)}.')
    for key in shares:
        if key not in known:
            raise UserError(f'layout.{name} has an unknown {_named(key, known)}')
    numbers = all(_is_number(share) and 0 <= share < float('inf') for share in shares.values())
    if not numbers or not any(shares.values()):
        raise UserError(
            f'layout.{name} is {dict(shares)}: give shares from 0, at least one above it.'
        )


def _check_range(name: str, values: tuple[float, float], low: float, high: float) -> None:
    pair = isinstance(values, (tuple, list)) and len(values) == 2 and all(map(_is_number, values))
    if not pair:
        raise UserError(f'layout.{name} is {values}: give two numbers, from {low} to {high}.')
    if not low <= values[0] <= values[1] <= high:
        shown = values[0] if values[0] == values[1] else tuple(values)
        raise UserError(f'layout.{name} is {shown}: it must lie between {low} and {high}.')
