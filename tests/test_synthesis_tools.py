"""The commands that make and show synthetic images."""

import pytest
from conftest import REPOSITORY, call_tool
from mmengine.registry import DefaultScope
from PIL import Image

CONFIG = str(REPOSITORY / 'configs/baselines/supervised_synthetic_neu_40pct.py')
SOURCE = 'train_dataloader.dataset.sources.synthetic'


def run_tool(monkeypatch, name, *arguments):
    try:
        call_tool(monkeypatch, name, *arguments)
    finally:
        DefaultScope._instance_dict.clear()


@pytest.fixture
def options(tiny_data, tmp_path):
    return [
        '--cfg-options',
        f'data_root={tiny_data}/',
        f'{SOURCE}.cache_dir={tmp_path / "caches"}',
        f'{SOURCE}.count=6',
        f'{SOURCE}.synthesiser.type=mmdsym.CopyPasteSynthesiser',
        f'{SOURCE}.synthesiser._delete_=True',
        f'{SOURCE}.accept=None',
    ]


def test_a_cache_is_made_found_and_shown(options, tmp_path, monkeypatch, capsys):
    run_tool(monkeypatch, 'synthesize.py', CONFIG, *options)
    out = capsys.readouterr().out
    (folder,) = [path for path in (tmp_path / 'caches').iterdir() if path.is_dir()]
    assert f'6 synthetic images: {folder}' in out
    assert 'Rejected attempts: 0.0%' in out and 'regions per second' in out
    run_tool(monkeypatch, 'synthesize.py', CONFIG, *options)
    assert 'nothing was painted' in capsys.readouterr().out
    sheets = []
    for index, cache in enumerate((folder, CONFIG)):
        sheets.append(tmp_path / f'{index}.png')
        more = options if cache == CONFIG else []
        run_tool(monkeypatch, 'browse_synthesis.py', cache, '--out', sheets[-1], *more)
        assert f'synthetic defects: {sheets[-1]}' in capsys.readouterr().out
    assert len({sheet.read_bytes() for sheet in sheets}) == 1
    with Image.open(sheets[0]) as image:
        # Three sizes of real beside synthetic, a row for each of two classes.
        assert image.width > 6 * 400 and image.height > 2 * 400
    regions = tmp_path / 'regions.png'
    run_tool(monkeypatch, 'browse_synthesis.py', folder, '--out', regions, '--synthetic-only')
    assert '0 real and' in capsys.readouterr().out
    with Image.open(regions) as image:
        assert image.width > 400 and image.height > 2 * 400


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['browse_synthesis.py', 'no/cache'], 'no finished cache of synthetic images in no/cache'),
        (['browse_synthesis.py', 'no/cache', '--out', 'x.jpg'], "'x.jpg' must end in .png"),
        (['synthesize.py', 'no/config.py'], 'there is no config no/config.py'),
    ],
)
def test_wrong_calls_get_one_line(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit, match='2'):
        run_tool(monkeypatch, *arguments)
    assert message in capsys.readouterr().err


def test_a_config_without_synthetic_images_is_named(tiny_data, monkeypatch, capsys):
    config = REPOSITORY / 'configs/baselines/supervised_neu_40pct.py'
    with pytest.raises(SystemExit, match='2'):
        run_tool(monkeypatch, 'synthesize.py', config, '--cfg-options', f'data_root={tiny_data}/')
    assert 'has no synthetic images: use a config' in capsys.readouterr().err
