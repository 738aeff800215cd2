"""Restricts mmcv's source to the operators that are needed, so that it compiles in minutes.

All of mmcv's operators take 6 to 22 minutes on 2 cores and more for a GPU; a detector needs
three or four of them. The others stay importable, as mmcv wants it, and raise an error that says
how to get them when they are called.

    python tools/restrict_mmcv_ops.py MMCV_SOURCE --ops nms,roi_align,focal_loss
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

BINDING = re.compile(r'm\.def\(\s*"(?P<name>\w+)",\s*&(?P<function>\w+)[^;]*;')
REGISTRATION = re.compile(
    r'REGISTER_DEVICE_IMPL\(\s*(?P<implementation>\w+),\s*CUDA,\s*(?P<function>\w+)\s*\)'
)
FUNCTION_DEFINITION = re.compile(r'[^({]*?(?P<name>\w+)\s*\([^{]*\)\s*\{[\s\S]*\}\s*$')
# Names that users know, where the source file has another one.
ALIASES = {
    'sigmoid_focal_loss': 'focal_loss',
    'softmax_focal_loss': 'focal_loss',
    'multi_scale_deform_attn': 'ms_deform_attn',
    'batched_nms': 'nms',
    'soft_nms': 'nms',
}
STUB = """m.def("{name}", [](py::args, py::kwargs) {{
    throw std::runtime_error(
        "mmcv was compiled without {name}: install it again with --ops all");
  }});"""


class UnknownOperatorError(ValueError):
    """An operator that this mmcv does not have; the message lists those it has."""


def restrict(source: Path, ops: list[str]) -> list[str]:
    """Removes from an unpacked mmcv source what the given operators do not need.

    Args:
        source: Folder of mmcv's source archive, changed in place.
        ops: Names of operators, e.g. ``['nms', 'roi_align', 'sigmoid_focal_loss']``.

    Returns:
        Names of the functions that stay, as ``mmcv._ext`` has them, sorted.

    Raises:
        UnknownOperatorError: An operator is not there; nothing has been changed then.
    """
    folder = source / 'mmcv' / 'ops' / 'csrc' / 'pytorch'
    available = {path.stem for path in folder.glob('*.cpp')} - {'pybind', 'info'}
    kept = {ALIASES.get(name, name) for name in ops}
    if unknown := sorted(kept - available):
        raise UnknownOperatorError(
            f'mmcv has no operator {", ".join(unknown)}: choose from {", ".join(sorted(available))}'
        )
    remove_sources(folder, kept | {'info', 'pybind', 'cudabind'})
    code = '\n'.join(path.read_text() for path in sorted(folder.glob('*.cpp')) if path.stem in kept)
    restrict_cuda_bindings(folder / 'cuda' / 'cudabind.cpp', defined_functions(code))
    code += (folder / 'info.cpp').read_text()
    return restrict_python_bindings(folder / 'pybind.cpp', defined_functions(code))


def remove_sources(folder: Path, kept: set[str]) -> None:
    """Deletes the sources of all operators but ``kept``, of the CPU and of CUDA."""
    for pattern in ('*.cpp', 'cpu/*.cpp', 'cuda/*.cu', 'cuda/*.cpp'):
        for path in folder.glob(pattern):
            if re.sub(r'_(cuda|cpu|kernel)$', '', path.stem) not in kept:
                path.unlink()


def defined_functions(code: str) -> set[str]:
    """Names the functions that are defined, not only declared, at the top level of C++ code."""
    return {
        match['name']
        for statement in top_level_statements(code)
        if (match := FUNCTION_DEFINITION.match(strip_preprocessor(statement)))
    }


def strip_preprocessor(code: str) -> str:
    """Removes comments and preprocessor lines."""
    return re.sub(r'/\*[\s\S]*?\*/|^\s*#.*$|//.*$', '', code, flags=re.MULTILINE)


def top_level_statements(code: str) -> list[str]:
    """Splits C++ code into declarations, definitions and macro calls at the top level."""
    statements, start, depth = [], 0, 0
    for match in re.finditer(r'//[^\n]*|/\*[\s\S]*?\*/|"(?:\\.|[^"\\])*"|[{}()]|;', code):
        token = match[0]
        depth += {'{': 1, '(': 1, '}': -1, ')': -1}.get(token, 0)
        if depth == 0 and token in (';', '}'):
            statements.append(code[start : match.end()])
            start = match.end()
    return [*statements, code[start:]]


def restrict_python_bindings(path: Path, defined: set[str]) -> list[str]:
    """Binds stubs in place of the functions that are not defined any more.

    Returns:
        Names of the functions that are still bound for real, sorted.
    """
    real = []

    def bind(match: re.Match) -> str:
        if match['function'] in defined:
            real.append(match['name'])
            return match[0]
        return STUB.format(name=match['name'])

    path.write_text(BINDING.sub(bind, path.read_text()))
    return sorted(real)


def restrict_cuda_bindings(path: Path, defined: set[str]) -> None:
    """Drops the registrations of CUDA functions whose operators are gone, and their wrappers."""
    statements = top_level_statements(path.read_text())
    registered = {
        match['function']
        for statement in statements
        if (match := REGISTRATION.search(statement)) and match['implementation'] in defined
    }
    path.write_text(
        ''.join(statement for statement in statements if is_kept(statement, defined, registered))
    )


def is_kept(statement: str, defined: set[str], registered: set[str]) -> bool:
    """Tells whether a statement of the CUDA bindings is still needed."""
    if match := REGISTRATION.search(statement):
        return match['implementation'] in defined
    if functions := defined_functions(statement):
        return bool(functions & registered)
    # Declarations without a use do no harm, includes and types are needed.
    return True


def main() -> None:
    """Restricts the source named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', type=Path, help="folder of mmcv's unpacked source archive")
    parser.add_argument('--ops', required=True, help='names, separated by commas')
    arguments = parser.parse_args()
    try:
        functions = restrict(arguments.source, arguments.ops.split(','))
    except UnknownOperatorError as error:
        raise SystemExit(f'error: {error}') from None
    print('mmcv will be compiled with ' + ', '.join(functions))


if __name__ == '__main__':
    main()
