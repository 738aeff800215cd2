"""How processes are started, with and without a GPU."""

import socket

import pytest
import torch

from mmdsym.engine import processes

SLURM = dict(SLURM_PROCID='0', SLURM_LOCALID='0', SLURM_NTASKS='1', SLURM_NODELIST='node[1-2]')


@pytest.mark.parametrize(
    ('launcher', 'gpu', 'expected'),
    [
        ('none', False, []),
        ('none', True, []),
        ('pytorch', False, [('group', 'gloo')]),
        ('pytorch', True, [('pytorch', {'backend': 'nccl'})]),
        ('slurm', False, [('group', 'gloo')]),
        ('slurm', True, [('slurm', {'backend': 'nccl'})]),
    ],
)
def test_processes_without_a_gpu_speak_gloo(launcher, gpu, expected, monkeypatch):
    calls = []
    monkeypatch.setattr(processes, '_name_as_torchrun_does', lambda: None)
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


def test_a_process_of_slurm_joins_without_a_gpu(tmp_path, monkeypatch):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\nprintf "127.0.0.1\\nother\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        port = one.getsockname()[1]
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR'):
        # Set before, so that what the call puts there is taken back.
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    for name, value in dict(SLURM, MASTER_PORT=str(port)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    processes.start_processes('slurm')
    try:
        assert torch.distributed.get_backend() == 'gloo'
        assert torch.distributed.get_world_size() == 1
    finally:
        torch.distributed.destroy_process_group()
