"""What stands in the text logs of a run alone: where it ran, and what it warned of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ENVIRONMENT = (
    'sys.platform',
    'Python',
    'PyTorch',
    'TorchVision',
    'OpenCV',
    'MMEngine',
    'CUDA available',
    'seed',
    'Distributed training',
    'GPU number',
)
_FACT = re.compile(r'^\s+(GPU [\d,]+|' + '|'.join(map(re.escape, ENVIRONMENT)) + r'): (.+)$')
_WARNING = re.compile(r'^\d{4}/\d\d/\d\d \S+ - mmengine - (?:WARNING|ERROR) - (.+)$')
# What MMEngine says of every run, and of every frozen weight; nobody need act on it.
_NOISE = re.compile(
    r'is skipped since its requires_grad|The prefix is not set|Failed to search registry'
    r'|"FileClient" will be deprecated|"HardDiskBackend" is the alias|is a duplicate\.'
)
_HEAD_LINES = 200


def environment_of(work_dir: Path) -> dict[str, str]:
    """Returns where the last start of a run ran, as MMEngine wrote it; empty without a log."""
    logs = _text_logs(work_dir)
    facts: dict[str, str] = {}
    if logs:
        for line, _ in zip(_lines(logs[-1]), range(_HEAD_LINES), strict=False):
            found = _FACT.match(line)
            if found:
                # MMEngine counts processes and calls them GPUs, even where there is none.
                name = 'processes' if found[1] == 'GPU number' else found[1]
                facts.setdefault(name, found[2].strip())
    return facts


def warnings_of(work_dir: Path) -> list[tuple[str, int]]:
    """Returns the warnings and errors of a run, each once, with how often it was told.

    Numbers in them change from time to time: warnings that differ in nothing else count as one,
    in the words of the last.
    """
    counts: Counter[str] = Counter()
    words: dict[str, str] = {}
    for path in _text_logs(work_dir):
        for line in _lines(path):
            found = _WARNING.match(line)
            if found and not _NOISE.search(line):
                kind = re.sub(r'\d+(?:\.\d+)?', '#', found[1])
                counts[kind] += 1
                words[kind] = found[1].strip()
    return [(words[kind], count) for kind, count in counts.most_common()]


def _text_logs(work_dir: Path) -> list[Path]:
    return sorted(work_dir.glob('*/*.log'))


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding='utf-8', errors='replace') as stream:
        for line in stream:
            yield line.rstrip('\n')
