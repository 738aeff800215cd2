"""Any prepared data on a CPU: say where by ``--data-root``."""

_base_ = 'neu_cpu.py'

data_root = None
prepare = 'python tools/prepare_dataset.py my_parts/ --name my_parts'
options = dict(image_size=(320, 320))
