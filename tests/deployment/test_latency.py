"""Times of runtimes: measured in turn on proved files, and told with their circumstances."""

import json

import pytest
import tiny_detectors
import torch
from test_export import data_root, write_run  # noqa: F401

from mmdsym.benchmark.timing import StepTime
from mmdsym.deployment.latency import as_markdown, measure_latency, rows, write_report
from mmdsym.errors import UserError
from mmdsym.trained_run import load_run

torch.set_num_threads(1)


def test_medians_and_ratios_are_of_the_same_rounds():
    times = {
        'PyTorch': [StepTime(seconds, 0) for seconds in (0.4, 0.8, 4.0)],
        'ONNX Runtime': [StepTime(seconds, 0) for seconds in (0.2, 0.2, 1.0)],
    }
    reference, other = rows(times, images=4)
    assert reference == dict(
        runtime='PyTorch', milliseconds=200.0, fastest=100.0, slowest=1000.0, ratio=1.0
    )
    # Ratios 1/2, 1/4, 1/4: what disturbs a round disturbs both.
    assert other['milliseconds'] == 50.0 and other['ratio'] == 0.25


def test_all_runtimes_are_measured_and_reported(data_root, tmp_path):  # noqa: F811
    run = load_run(write_run(tmp_path / 'tiny', tiny_detectors.retinanet(), data_root))
    report = measure_latency(run, 'teacher', threads=1, rounds=1, image_count=1)
    names = [row['runtime'] for row in report['runtimes']]
    assert names[:3] == ['PyTorch', 'ONNX Runtime', 'OpenVINO'] and len(names) == 5
    assert all(row['milliseconds'] > 0 for row in report['runtimes'])
    assert (report['threads'], report['input'], report['real_images']) == (1, '96x77', True)
    table = write_report(report, tmp_path / 'latency.json')
    assert json.loads((tmp_path / 'latency.json').read_text()) == report
    assert table.read_text().count('\n| ') == 6 and '96x77 pixels' in table.read_text()


def test_a_busy_machine_is_named_as_such():
    report = dict.fromkeys(('detector', 'run', 'input', 'hardware'), 'x')
    report |= dict(threads=2, rounds=3, images=4, load_before=2.0, runtimes=[], quiet=False)
    assert 'busy' in as_markdown(report)
    assert 'busy' not in as_markdown(report | dict(quiet=True))


def test_nothing_to_measure_is_refused():
    with pytest.raises(UserError, match='--rounds 0'):
        measure_latency(None, 'teacher', threads=1, rounds=0, image_count=1)
