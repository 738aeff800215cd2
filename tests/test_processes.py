"""How processes are started, with and without a GPU."""

import pytest
import torch

from mmdsym.engine import processes


@pytest.mark.parametrize(
    ('launcher', 'gpu', 'expected'),
    [
        ('none', False, []),
        ('none', True, []),
        ('pytorch', False, [('group', 'gloo')]),
        ('pytorch', True, [('pytorch', {'backend': 'nccl'})]),
        ('slurm', False, [('slurm', {'backend': 'nccl'})]),
    ],
)
def test_processes_without_a_gpu_speak_gloo(launcher, gpu, expected, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(
        torch.distributed, 'init_process_group', lambda backend: calls.append(('group', backend))
    )
    monkeypatch.setattr(
        processes, 'init_dist', lambda launcher, **settings: calls.append((launcher, settings))
    )
    processes.start_processes(launcher, {'backend': 'nccl'})
    assert calls == expected
    calls.clear()
    monkeypatch.setattr(processes, 'is_distributed', lambda: True)
    processes.start_processes(launcher, {'backend': 'nccl'})
    assert not calls
