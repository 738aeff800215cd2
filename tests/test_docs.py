"""Every path and link that the documentation names leads somewhere."""

from __future__ import annotations

import glob
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    REPOSITORY / 'README.md',
    REPOSITORY / 'CONTRIBUTING.md',
    *sorted((REPOSITORY / 'docs').glob('*.md')),
]
LINK = re.compile(r'\]\(([^)\s]+)\)')
REPOSITORY_PATH = re.compile(
    r'(?<![\w/.])(?:configs|docs|mmdsym|requirements|tests|tools)/[\w./*{},<>-]+'
)
BASE_PATH = re.compile(r'(?<![\w/])_base_/[\w./<>-]+\.py')
HEADING = re.compile(r'^#+ (.+)$', re.MULTILINE)
CODE_BLOCK = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)


def links_of(text: str) -> list[str]:
    return [link for link in LINK.findall(text) if not re.match(r'[a-z]+:', link)]


def paths_of(text: str) -> list[str]:
    """Paths of the repository; not examples such as ``<name>``, nor what a command will write."""
    text = re.sub(r'--out \S+', '', text)
    found = REPOSITORY_PATH.findall(text)
    found += [f'configs/{path}' for path in BASE_PATH.findall(text)]
    return [path.rstrip('.,') for path in found if '<' not in path]


def variants_of(path: str) -> list[str]:
    """``a{1,2}`` -> ``a1``, ``a2``."""
    choice = re.search(r'\{([^}]*)\}', path)
    if choice is None:
        return [path]
    begin, end = path[: choice.start()], path[choice.end() :]
    return [found for part in choice[1].split(',') for found in variants_of(begin + part + end)]


def anchors_of(text: str) -> set[str]:
    """The names by which a page's headings are linked to."""
    headings = HEADING.findall(CODE_BLOCK.sub('', text))
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def missing_links(page: Path) -> list[str]:
    missing = []
    for link in links_of(page.read_text()):
        name, _, anchor = link.partition('#')
        target = page.parent / name if name else page
        is_there = target.exists()
        if is_there and anchor and target.suffix == '.md':
            is_there = anchor in anchors_of(target.read_text())
        if not is_there:
            missing.append(link)
    return missing


def missing_paths(text: str) -> list[str]:
    return [
        variant
        for path in paths_of(text)
        for variant in variants_of(path)
        if not glob.glob(str(REPOSITORY / variant))
    ]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    assert missing_links(page) == []


# Paths that a page tells the reader to make.
MADE_BY_THE_READER = {'configs/my_parts.py'}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_path_of_the_repository_is_there(page):
    assert sorted(set(missing_paths(page.read_text())) - MADE_BY_THE_READER) == []


def test_a_wrong_link_and_a_wrong_path_are_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        '# Title here\n[a](#title-here) [b](#other) [c](absent.md) [d](https://example.org)\n'
        '`tools/train.py` `tools/absent.py` `configs/dsym_neu_{10,11}pct.py` `_base_/absent.py`\n'
        '`configs/_base_/detectors/<name>.py` `--out docs/absent`\n'
    )
    assert missing_links(page) == ['#other', 'absent.md']
    assert missing_paths(page.read_text()) == [
        'tools/absent.py',
        'configs/dsym_neu_11pct.py',
        'configs/_base_/absent.py',
    ]


@pytest.mark.parametrize('page', ['guide', 'method', 'results', 'troubleshooting'])
def test_readers_find_the_page_from_the_readme(page):
    assert f'(docs/{page}.md)' in (REPOSITORY / 'README.md').read_text()
