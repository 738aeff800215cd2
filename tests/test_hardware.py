"""What results say of the machine that made them."""

from __future__ import annotations

import pytest

from mmdsym.benchmark import hardware
from mmdsym.benchmark.hardware import model_name, processor


@pytest.mark.parametrize(
    ('text', 'name'),
    [
        (
            'vendor_id\t: X\nmodel\t\t: 207\nmodel name\t: Fast: 9000\nmodel name\t: other',
            'Fast: 9000',
        ),
        ('processor\t: 0\n', ''),
    ],
)
def test_a_processor_is_called_what_it_calls_itself(text, name, tmp_path):
    (tmp_path / 'cpuinfo').write_text(text)
    assert model_name(tmp_path / 'cpuinfo') == name


def test_a_system_that_does_not_tell_leaves_the_kind_of_processor(tmp_path, monkeypatch):
    assert model_name(tmp_path / 'missing') == ''
    monkeypatch.setattr(hardware, 'model_name', lambda: '')
    monkeypatch.setattr(hardware.platform, 'machine', lambda: 'x86_64')
    monkeypatch.setattr(hardware, 'bfloat16_is_faster', lambda: True)
    assert processor().endswith(' CPU cores (x86_64, bfloat16)')
