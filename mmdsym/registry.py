"""Child registries of MMEngine's, scope ``mmdsym``.

Any MMDetection config reaches the components as ``type='mmdsym.Name'`` after
``custom_imports = dict(imports=['mmdsym'])``.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry, build_runner_from_cfg

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmdsym',
    locations=['mmdsym.models', 'mmdsym.diffusion', 'mmdsym.clip'],
)
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope='mmdsym',
    locations=['mmdsym.datasets', 'mmdsym.diffusion', 'mmdsym.clip'],
)
DATA_SAMPLERS = Registry(
    'data sampler',
    parent=MMENGINE_DATA_SAMPLERS,
    scope='mmdsym',
    locations=['mmdsym.datasets'],
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope='mmdsym',
    locations=['mmdsym.datasets', 'mmdsym.diffusion', 'mmdsym.clip'],
)
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmdsym',
    locations=['mmdsym.engine', 'mmdsym.diffusion', 'mmdsym.clip'],
)
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope='mmdsym', locations=['mmdsym.engine'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope='mmdsym',
    locations=['mmdsym.engine'],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_CONSTRUCTORS,
    scope='mmdsym',
    locations=['mmdsym.engine'],
)
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='mmdsym',
    locations=['mmdsym.evaluation', 'mmdsym.diffusion', 'mmdsym.clip'],
)
RUNNERS = Registry(
    'runner',
    parent=MMENGINE_RUNNERS,
    build_func=build_runner_from_cfg,
    scope='mmdsym',
    locations=['mmdsym.engine'],
)

# Parts that no registry of MMEngine's is for; see mmdsym.diffusion.synthesiser and .accept.
SYNTHESISERS = Registry('synthesiser', scope='mmdsym', locations=['mmdsym.diffusion'])
ACCEPTANCE_TESTS = Registry(
    'acceptance test', scope='mmdsym', locations=['mmdsym.diffusion', 'mmdsym.clip']
)
