"""The page: headline and sections, in one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mmdsym.errors import UserError

from .material import Material
from .parts import Section, absent
from .sections import SECTIONS, Headline

_TEMPLATE = 'page.html.jinja'


def make_sections(material: Material) -> dict[str, Section]:
    """Returns title to section; one that lacks what it needs says so in a sentence instead."""
    sections = {}
    for title, make in SECTIONS.items():
        try:
            sections[title] = make(material)
        except UserError as error:
            sections[title] = absent(f'Left out: {error}')
    return sections


def render_page(headline: Headline, sections: Mapping[str, Section]) -> str:
    """Returns the page; whatever the run says of itself is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(_TEMPLATE).render(headline=headline, sections=sections)
