"""Times training iterations of DSYM's joint stage against MMDetection's teacher-student detectors.

The first config must be a DSYM one: its sources give the batches, which all others get as well.
A config with the CLIP filter is measured with the filter on and off. All variants take turns in one
process, each with its hooks (teacher's update, filter), without the loading of data. Memory is
measured in a process of its own for each variant.

Example:
    python tools/benchmark_speed.py configs/benchmark/atss_lite0/dsym.py \
        configs/benchmark/atss_lite0/soft_teacher_dense.py --checkpoint CHECKPOINT \
        --out docs/results/speed_atss_cpu.json
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from mmdsym.atomic_file import write_json
from mmdsym.benchmark.hardware import commit, hardware, versions
from mmdsym.benchmark.speed import SpeedTest, Variant, read_variants
from mmdsym.config_options import ConfigOptions
from mmdsym.errors import UserError, exit_on_user_error
from mmdsym.output_place import require_place

PEAK = 'peak memory (MiB): '


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('configs', nargs='+', type=Path, help='training configs, a DSYM config first')
    add('--checkpoint', type=Path, help='to start from; without one, weights are random')
    add('--rounds', type=int, default=9, help='measurements of each variant (9)')
    add('--cfg-options', nargs='+', action=ConfigOptions, default={}, metavar='KEY=VALUE')
    add('--revisit', action='store_true', help='batches that were trained on before')
    add('--no-memory', action='store_true', help='leave out the measurement of memory')
    add('--out', type=Path, help='json to write')
    add('--force', action='store_true', help='replace an existing json')
    add('--profile', metavar='VARIANT', help='print where one variant spends its time, and end')
    add('--memory-of', metavar='VARIANT', help='print the peak of one variant, and end')
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        raise UserError(f'--rounds {arguments.rounds} measures nothing: give 1 or more.')
    if arguments.checkpoint and not arguments.checkpoint.is_file():
        raise UserError(f'there is no checkpoint {arguments.checkpoint}: correct its path.')
    if arguments.out:
        require_place(arguments.out, arguments.force)
    return arguments


def pick(variants: list[Variant], name: str) -> Variant:
    """Returns the variant of that name.

    Raises:
        UserError: There is none.
    """
    for variant in variants:
        if variant.name == name:
            return variant
    names = "', '".join(variant.name for variant in variants)
    raise UserError(f"there is no variant '{name}': the configs make '{names}'.")


def memory_in_own_process(name: str) -> float:
    """Returns the peak memory of a variant in MiB, measured by this command in a new process."""
    command = [sys.executable, *sys.argv, '--memory-of', name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(PEAK)]
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ['no message'])[-1]
        raise UserError(f'the memory of {name} could not be measured ({reason}): try --no-memory.')
    return round(float(lines[-1].removeprefix(PEAK)), 1)


def as_table(variants: dict[str, dict]) -> str:
    """Returns a Markdown table: seconds, ratios, memory.

    The ratios are those of processor time, which other programs disturb least; on a GPU, whose time
    that does not hold, of the time on the clock.
    """
    by = 'wall' if torch.cuda.is_available() else 'processor'
    references = list(next(iter(variants.values()))['ratio_to'])
    columns = ['variant', 's', 'processor s', *(f'x {name}' for name in references), 'MiB', 'kept']
    rows = [columns, ['---'] * len(columns)]
    for name, found in variants.items():
        ratios = [f'{found["ratio_to"][other][by]:.2f}' for other in references]
        seconds = found['median_seconds']
        rows.append(
            [
                name,
                f'{seconds["wall"]:.3f}',
                f'{seconds["processor"]:.3f}',
                *ratios,
                str(found.get('peak_memory_mib', '')),
                str(found.get('kept_boxes_per_image', '')),
            ]
        )
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


@exit_on_user_error
def main() -> None:
    """Measures, prints a table, and writes the json."""
    arguments = parse_arguments()
    variants = read_variants(arguments.configs, arguments.cfg_options)
    one = arguments.memory_of or arguments.profile
    count = 3 if one else arguments.rounds + 1
    test = SpeedTest(variants[0], arguments.checkpoint, count, arguments.revisit)
    if arguments.memory_of:
        print(f'{PEAK}{test.peak_memory(pick(variants, one))}')
        return
    if arguments.profile:
        print(test.profile(pick(variants, one)))
        return
    found = test.measure(variants, [test.set_up(variant) for variant in variants])
    for name in [] if arguments.no_memory else found:
        found[name]['peak_memory_mib'] = memory_in_own_process(name)
    report = {
        'configs': [str(path) for path in arguments.configs],
        'checkpoint': arguments.checkpoint and arguments.checkpoint.name,
        'rounds': arguments.rounds,
        'revisited': arguments.revisit,
        'threads': torch.get_num_threads(),
        'hardware': hardware(),
        'versions': versions(),
        'commit': commit(),
        'variants': found,
    }
    print(as_table(found))
    if arguments.out:
        write_json(arguments.out, report)


if __name__ == '__main__':
    main()
