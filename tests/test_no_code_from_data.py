"""Nothing that is read can run: a search of every line for what turns data into code.

A config file is Python and is meant to run; everything else, checkpoints included, is data.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

NEVER = {
    **dict.fromkeys(('eval', 'exec', 'builtins.eval', 'builtins.exec'), 'runs text as code'),
    **dict.fromkeys(
        ('pickle.load', 'pickle.loads', 'pickle.Unpickler', 'pandas.read_pickle', 'joblib.load'),
        'a pickle runs what its writer wants',
    ),
    **dict.fromkeys(('dill.load', 'dill.loads', 'marshal.load', 'marshal.loads'), 'as pickle'),
    **dict.fromkeys(('cloudpickle.load', 'cloudpickle.loads', 'shelve.open'), 'as pickle'),
    **dict.fromkeys(
        ('yaml.unsafe_load', 'yaml.unsafe_load_all', 'yaml.full_load', 'yaml.full_load_all'),
        'use yaml.safe_load',
    ),
    **dict.fromkeys(
        ('os.system', 'os.popen', 'subprocess.getoutput', 'subprocess.getstatusoutput'),
        'runs text in a shell: give subprocess.run a list',
    ),
    **dict.fromkeys(('torch.jit.load', 'torch.package.PackageImporter'), 'loads code with weights'),
    '__import__': 'use an import statement',
    'compile': 'runs text as code',
    'shutil.unpack_archive': 'use mmdsym.datasets.preparation.archive',
}
"""Calls that are forbidden whatever their arguments."""

NEVER_METHODS = {
    'extractall': 'use mmdsym.datasets.preparation.archive.extract',
    'read_pickle': 'a pickle runs what its writer wants',
}
"""Methods that are forbidden whatever the object."""

READERS_OF_PICKLES = (
    'torch.load',
    'torch.hub.load_state_dict_from_url',
    'timm.models.load_state_dict',
    'open_clip.load_checkpoint',
    'open_clip.factory.load_checkpoint',
)
"""What reads tensors alone only where it is told to. torch.jit.load cannot be told: it is in NEVER.
"""

SAFE_YAML_LOADERS = ('yaml.SafeLoader', 'yaml.CSafeLoader', 'yaml.BaseLoader')
XML_PARSERS = ('parse', 'fromstring', 'iterparse', 'XML', 'XMLParser', 'XMLID', 'make_parser')
"""What reads XML in the standard library's packages; elements, errors and quoting read nothing."""

ALLOWED: dict[tuple[str, str], str] = {}
"""File and call that are justified after all, to the reason. So far there is none."""


def names_of_imports(tree: ast.AST) -> dict[str, str]:
    """Local names to what they stand for: ``np`` to ``numpy``, ``load`` to ``pickle.load``."""
    names = {'np': 'numpy'}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split('.')[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f'{node.module}.{alias.name}'
    return names


def full_name(node: ast.AST, names: dict[str, str]) -> str:
    """``numpy.load`` for the expression ``np.load``; empty where it is no dotted name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (owner := full_name(node.value, names)):
        return f'{owner}.{node.attr}'
    return ''


def is_constant(call: ast.Call, keyword: str, value: object) -> bool:
    """Whether a keyword is written out with this very value."""
    return any(
        k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value
        for k in call.keywords
    )


def has(call: ast.Call, keyword: str) -> bool:
    """Whether a keyword is given at all."""
    return any(k.arg == keyword for k in call.keywords)


def fault_of_reading(call: ast.Call, name: str, names: dict[str, str]) -> str:
    """Why a call reads data unsafely because of its arguments; empty when it does not."""
    if name in READERS_OF_PICKLES:
        return '' if is_constant(call, 'weights_only', True) else 'give weights_only=True'
    if name == 'numpy.load' and has(call, 'allow_pickle'):
        return '' if is_constant(call, 'allow_pickle', False) else 'leave allow_pickle off'
    if name == 'PIL.Image.open':
        return '' if has(call, 'formats') else 'use mmdsym.image_files, which runs few decoders'
    if name in ('yaml.load', 'yaml.load_all'):
        loaders = [k.value for k in call.keywords if k.arg == 'Loader'] or call.args[1:]
        safe = loaders and full_name(loaders[0], names) in SAFE_YAML_LOADERS
        return '' if safe else 'use yaml.safe_load'
    return ''


def fault_of_libraries(call: ast.Call, name: str) -> str:
    """Why a call lets a library or a shell run foreign code; empty when it does not."""
    if name.startswith('subprocess.') and has(call, 'shell'):
        return '' if is_constant(call, 'shell', False) else 'give a list, without a shell'
    if name == 'importlib.import_module' and not isinstance(call.args[0], ast.Constant):
        return 'name the module, lest data chooses it'
    if has(call, 'trust_remote_code') and not is_constant(call, 'trust_remote_code', False):
        return 'never trust code beside weights'
    if name.endswith('.from_pretrained') and not is_constant(call, 'use_safetensors', True):
        # Schedulers hold no weights: they are a json.
        return '' if 'Scheduler' in name else 'give use_safetensors=True'
    return ''


def fault_of_call(call: ast.Call, names: dict[str, str]) -> str:
    """Why a call is forbidden; empty when it is not."""
    name = full_name(call.func, names)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ''
    package, _, last = name.rpartition('.')
    if name in NEVER or method in NEVER_METHODS:
        return NEVER.get(name) or NEVER_METHODS[method]
    if package.startswith(('xml.', 'lxml')) and last in XML_PARSERS:
        return 'use defusedxml'
    return fault_of_reading(call, name, names) or fault_of_libraries(call, name)


def faults(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, call and reason of everything in a source that is forbidden."""
    tree = ast.parse(source)
    names = names_of_imports(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (fault := fault_of_call(node, names)):
            yield node.lineno, full_name(node.func, names) or ast.unparse(node.func), fault


def sources() -> list[Path]:
    found = [path for top in ('mmdsym', 'tools') for path in (REPOSITORY / top).rglob('*.py')]
    return sorted(found)


def test_nothing_that_is_read_can_run():
    found = [
        f'{path.relative_to(REPOSITORY)}:{line}: {call}: {fault}'
        for path in sources()
        for line, call, fault in faults(path.read_text(encoding='utf-8'))
        if (path.relative_to(REPOSITORY).as_posix(), call) not in ALLOWED
    ]
    assert len(sources()) > 200
    assert not found, '\n'.join(found)


def test_the_allow_list_names_what_is_there():
    for name, call in ALLOWED:
        text = (REPOSITORY / name).read_text(encoding='utf-8')
        assert call in [entry[1] for entry in faults(text)], f'{name} needs no exception for {call}'


@pytest.mark.parametrize(
    'source',
    [
        'eval(text)',
        'import builtins\nbuiltins.exec(text)',
        'import pickle\npickle.load(stream)',
        'from pickle import loads as read\nread(data)',
        'import torch\ntorch.load(path)',
        'import torch\ntorch.load(path, weights_only=False)',
        'import torch\ntorch.load(path, weights_only=flag)',
        'from torch import load\nload(path)',
        'import torch\ntorch.hub.load_state_dict_from_url(url)',
        'import timm\ntimm.models.load_state_dict(path)',
        'from open_clip import factory\nfactory.load_checkpoint(network, path)',
        'import numpy as np\nnp.load(path, allow_pickle=True)',
        'import yaml\nyaml.load(text)',
        'import yaml\nyaml.load(text, Loader=yaml.Loader)',
        'import yaml\nyaml.unsafe_load(text)',
        'from PIL import Image\nImage.open(path)',
        'from xml.etree.ElementTree import parse\nparse(path)',
        'import xml.etree.ElementTree as ET\nET.fromstring(text)',
        'from lxml import etree\netree.parse(path)',
        'import zipfile\nzipfile.ZipFile(path).extractall(folder)',
        'import tarfile\nwith tarfile.open(path) as tar:\n    tar.extractall(folder)',
        'import shutil\nshutil.unpack_archive(path)',
        'import subprocess\nsubprocess.run(text, shell=True)',
        'import os\nos.system(text)',
        'from importlib import import_module\nimport_module(name)',
        'import torch\ntorch.jit.load(path)',
        'from transformers import AutoModel\nAutoModel.from_pretrained(name)',
        'import a\na.B.from_pretrained(x, use_safetensors=True, trust_remote_code=True)',
    ],
)
def test_the_search_finds_what_it_is_for(source):
    assert len(list(faults(source))) == 1


@pytest.mark.parametrize(
    'source',
    [
        'network.eval()',
        'import torch\ntorch.load(path, weights_only=True)',
        'import numpy as np\nnp.load(path)',
        'import yaml\nyaml.safe_load(text)',
        'import yaml\nyaml.load(text, Loader=yaml.SafeLoader)',
        'from defusedxml.ElementTree import parse\nparse(path)',
        'from xml.sax.saxutils import quoteattr\nquoteattr(text)',
        'import subprocess\nsubprocess.run([program, text], check=True)',
        'import json\njson.loads(text)',
        'from PIL import Image\nImage.open(path, formats=FORMATS)',
        'import importlib\nimportlib.import_module("mmdsym.report")',
        'import re\nre.compile(text)',
    ],
)
def test_the_search_leaves_safe_calls_alone(source):
    assert not list(faults(source))
