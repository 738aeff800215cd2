"""Trains and compares methods: method by label fraction by seed, each run resumable.

PRESET is one of cpu-smoke (generated images, minutes), neu-cpu, neu-gpu, neu-gpu-short and custom
(with --data-root), or a file like those in configs/benchmark/. Start the same command again after
an interruption: finished runs stay, the interrupted one goes on.

Examples:
    python tools/benchmark.py cpu-smoke
    python tools/benchmark.py neu-cpu --dry-run
    python tools/benchmark.py neu-gpu --devices 0 1
    python tools/benchmark.py neu-gpu-short --devices 0 --parallel 7
    python tools/benchmark.py custom --data-root data/my_parts/ --fractions 0.4 1.0
    python tools/benchmark.py neu-cpu --split paper --source path/to/NEU-DET
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mmdsym.benchmark.earlier_runs import earlier_runs
from mmdsym.benchmark.execution import TOOLS, execute
from mmdsym.benchmark.grid import PlannedRun, Preset, labels_seen, same_method
from mmdsym.benchmark.report import write_results
from mmdsym.benchmark.run_folder import RunFolder
from mmdsym.benchmark.schedule import places, run_all, time_left
from mmdsym.config_options import ConfigOptions
from mmdsym.diffusion.file_lock import locked
from mmdsym.errors import UserError, exit_on_user_error

PRESETS = TOOLS.parent / 'configs' / 'benchmark'


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        'preset',
        metavar='PRESET',
        help='cpu-smoke, neu-cpu, neu-gpu, neu-gpu-short, custom, or a file',
    )
    add('--out', type=Path, help='folder of runs and results (work_dirs/benchmark_PRESET)')
    add('--dry-run', action='store_true', help='list the runs with their state, and end')
    add('--data-root', help='prepared data, in place of those of the preset')
    add('--methods', nargs='+', help='some of the methods of the preset')
    add('--fractions', type=float, nargs='+', help='label fractions, such as 0.4 1.0')
    add('--seeds', type=int, nargs='+', help='such as 0 1 2')
    add('--split', choices=['default', 'paper'], default='default', help='which images train')
    add('--source', type=Path, help='NEU-DET with its splits/, to prepare the split of the paper')
    add('--devices', nargs='+', metavar='GPU', help='GPUs, such as 0 1; the CPU by default')
    add('--parallel', type=int, default=1, help='runs side by side on each GPU, or the CPU (1)')
    add('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE', help='for every run')
    arguments = parser.parse_args(argv)
    if arguments.parallel < 1:
        raise UserError(f'--parallel {arguments.parallel} runs nothing: give 1 or more.')
    return arguments


def find_preset(name: str) -> Preset:
    """Returns the preset of that name, or of that file."""
    path = Path(name)
    return Preset(path if path.suffix == '.py' else PRESETS / f'{name.replace("-", "_")}.py')


def find_data(arguments: argparse.Namespace, preset: Preset, out: Path) -> str:
    """Returns the folder of prepared data; makes it where the preset or --source says how.

    Raises:
        UserError: There are none, or they were prepared with another split.
    """
    root = arguments.data_root
    if root is None and preset.demo:
        root = str(out / 'data' / 'demo')
        command = ['--demo', '--name', 'demo', '--out', str(out / 'data')]
        command += ['--demo-images', str(preset.demo.images), '--demo-size', str(preset.demo.size)]
        _prepare(Path(root), command, arguments.dry_run)
    elif root is None and arguments.split == 'paper':
        root = 'data/neu_det_paper'
        if arguments.source:
            command = [str(arguments.source), '--name', 'neu_det_paper', '--split', 'paper']
            _prepare(Path(root), command, arguments.dry_run)
    root = root or preset.data_root
    if root is None:
        raise UserError(f'{preset.path.name} names no data: say where they are by --data-root.')
    if not Path(root).is_dir() and not (arguments.dry_run and preset.demo):
        hint = f'{preset.prepare.replace("neu_det", Path(root).name)}'
        if arguments.split == 'paper':
            hint += ' --split paper, or give --source'
        raise UserError(f'there are no prepared data in {root}: run {hint}.')
    return f'{root.rstrip("/")}/'


def _prepare(root: Path, arguments: list[str], dry_run: bool) -> None:
    if root.is_dir() or dry_run:
        return
    command = [sys.executable, str(TOOLS / 'prepare_dataset.py'), *arguments]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise UserError(f'{root} could not be prepared, see above.')


def require_labels(runs: Sequence[PlannedRun], data_root: str) -> None:
    """Says which label files are missing, before hours have passed.

    Raises:
        UserError: A split was not prepared.
    """
    for split in dict.fromkeys(run.split for run in runs):
        folder = Path(data_root) / 'annotations' / split
        if not folder.is_dir():
            raise UserError(
                f'{folder} does not exist: prepare the data with this label fraction and seed '
                '(tools/prepare_dataset.py --fractions ... --seeds ...), or leave the run out.'
            )


def list_runs(folders: Sequence[RunFolder], side_by_side: int) -> str:
    """Returns a table of all runs with their state."""
    lines = ['| run | state | iterations | labelled images | config |', '|---|---|---|---|---|']
    for folder in folders:
        run = folder.run
        config = '/'.join(run.config.parts[-2:])
        facts = [run.name, folder.state, run.iterations, run.labelled_images, config]
        lines.append('| ' + ' | '.join(map(str, facts)) + ' |')
    done = sum(folder.state == 'finished' for folder in folders)
    lines.append(
        f'\n{done} of {len(folders)} runs are finished; {time_left(folders, side_by_side)}.'
    )
    runs = [folder.run for folder in folders]
    return '\n'.join([*lines, *same_method(runs), *labels_seen(runs)])


def train_all(
    folders: Sequence[RunFolder],
    arguments: argparse.Namespace,
    out: Path,
    report: Callable[[], str | None],
) -> None:
    """Does what is missing, and writes the results after each run.

    Args:
        folders: Of the runs.
        arguments: Of the command line.
        out: Where the results are written to.
        report: Writes them; returns them as a table, or ``None`` while there are none.

    Raises:
        SystemExit: Some runs failed; the others were done.
    """

    def execute_and_report(folder: RunFolder, environment: dict) -> None:
        execute(folder, environment)
        report()

    # As Ctrl-C does, so that no training is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    environments = places(arguments.devices, arguments.parallel)
    failures = run_all(folders, environments, execute_and_report, lambda s: print(s, flush=True))
    table = report()
    if table:
        print(f'{table}\nWritten into {out}.')
    if failures:
        raise SystemExit(f'{len(failures)} of {len(folders)} runs failed.')


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    arguments = parse_arguments(argv)
    preset = find_preset(arguments.preset)
    ending = '_paper' if arguments.split == 'paper' else ''
    out = arguments.out or Path('work_dirs') / f'benchmark_{preset.path.stem}{ending}'
    data_root = find_data(arguments, preset, out)
    plan = partial(
        preset.runs,
        data_root,
        options=arguments.cfg_options,
        paper_labels=arguments.split == 'paper',
    )
    runs = plan(arguments.fractions, arguments.seeds, arguments.methods)
    if not (arguments.dry_run and preset.demo):
        require_labels(runs, data_root)
    if arguments.dry_run:
        folders = [RunFolder(run, out / 'runs') for run in runs]
        print(list_runs(folders, len(places(arguments.devices, arguments.parallel))))
        return
    with locked(out / '.lock'):
        folders = [RunFolder(run, out / 'runs') for run in runs]
        earlier, left_out = earlier_runs(
            out / 'runs', folders, lambda name, share, seed: plan([share], [seed], [name])[0]
        )
        shown = sorted([*folders, *earlier], key=lambda folder: preset.place(folder.run))
        train_all(folders, arguments, out, partial(write_results, shown, out, left_out))


if __name__ == '__main__':
    main()
