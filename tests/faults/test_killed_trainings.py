"""kill -9 in each stage and while a checkpoint is written: the run ends as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_training import losses
from tools_in_processes import run_tool, write_training

ITERATION = 'mmdsym.engine.train_loop:StagedTrainLoop._run_iteration'
# Once for the note of the start, then before each checkpoint gets its name.
SYNC = 'mmdsym.atomic_file:sync'
FIRST_CHECKPOINT = 2


def checkpoints(run: Path) -> set[str]:
    return {path.name for path in run.glob('iter_*.pth')}


@pytest.fixture(scope='module')
def runs(tiny_data, tmp_path_factory) -> tuple[Path, Path]:
    """A run that nothing interrupted, and one that was killed four times, both at their end."""
    folder = tmp_path_factory.mktemp('killed')
    config = write_training(folder, tiny_data)
    whole, killed = folder / 'whole', folder / 'killed_run'
    done = run_tool('train.py', config, '--work-dir', whole)
    assert done.returncode == 0, done.stderr

    def start(*kill_at) -> None:
        resume = ['--resume'] if killed.exists() else []
        done = run_tool('train.py', config, '--work-dir', killed, *resume, kill_at=kill_at or None)
        assert kill_at or done.returncode == 0, done.stderr

    # In burn_in, behind the checkpoint of iteration 2.
    start(ITERATION, 3)
    assert checkpoints(killed) == {'iter_2.pth'}
    # In the joint stage, while a checkpoint is written but has no name yet.
    start(SYNC, FIRST_CHECKPOINT)
    assert checkpoints(killed) == {'iter_2.pth'}
    (draft,) = killed.glob('.*.pth.unfinished')
    assert (
        draft.stat().st_size and not (killed / draft.name[1:].removesuffix('.unfinished')).exists()
    )
    # As it is left where the machine stops between emptying and filling the pointer.
    (killed / 'last_checkpoint').write_text('')
    # Where refine begins, so that the next start comes to a stage border with a teacher of its own.
    start(ITERATION, 5)
    assert checkpoints(killed) == {'iter_4.pth', 'iter_6.pth'}
    # In refine, behind the checkpoint of iteration 8.
    start(ITERATION, 3)
    assert checkpoints(killed) == {'iter_6.pth', 'iter_8.pth'}
    start()
    return whole, killed


def test_nothing_is_lost_beyond_the_last_checkpoint(runs):
    whole, killed = runs
    logs = [path.read_text() for path in sorted(killed.glob('*/*.log'))]
    went_on = [
        next(line for line in log.splitlines() if 'resumed epoch' in line) for log in logs[1:]
    ]
    assert [int(line.rsplit('iter: ', 1)[1]) for line in went_on] == [2, 2, 6, 8]


def test_it_ends_with_the_weights_of_a_run_that_nothing_interrupted(runs):
    whole, killed = runs
    assert losses(whole).keys() == losses(killed).keys() == set(range(1, 10))
    one, other = (torch.load(run / 'iter_9.pth', weights_only=True) for run in runs)
    assert one['meta']['iter'] == other['meta']['iter'] == 9
    for name, tensor in one['state_dict'].items():
        torch.testing.assert_close(
            other['state_dict'][name], tensor, rtol=1e-4, atol=1e-6, msg=name
        )
    assert whole != killed


def test_no_draft_is_left(runs):
    assert not list(runs[1].rglob('*.unfinished'))
