"""Parameters of the same settings share a group, and learn what they learnt without it."""

import copy
import logging

import pytest
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import nn

torch.set_num_threads(1)


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = dict(
        backbone=nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)),
        head=nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1)),
    )
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    model.backbone[0].requires_grad_(False)
    return model


def settings(**changes) -> dict:
    cfg = Config.fromfile(REPOSITORY / 'configs/_base_/schedules/adamw.py').optim_wrapper
    return {**cfg, **changes}


def test_the_same_is_learnt_with_few_groups():
    one, other = network(), network()
    grouped = build_optim_wrapper(one, settings())
    plain = build_optim_wrapper(other, settings(constructor='DefaultOptimWrapperConstructor'))
    assert len(grouped.optimizer.param_groups) < len(plain.optimizer.param_groups)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        images = torch.randn(2, 3, 12, 12, generator=generator)
        for model, wrapper in ((one, grouped), (other, plain)):
            wrapper.update_params(model(images).square().mean())
    before = network().state_dict()
    for (name, mine), theirs in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)
        if name in ('backbone.2.weight', 'head.2.bias'):
            assert not torch.equal(mine, before[name])


def test_a_group_holds_what_has_the_same_settings():
    wrapper = build_optim_wrapper(network(), settings())
    found = {
        (round(group['lr'], 6), group['weight_decay']): len(group['params'])
        for group in wrapper.optimizer.param_groups
    }
    # MMEngine lets a custom key such as 'backbone' stand above the rules for biases and norms, and
    # leaves out what is frozen.
    assert found == {(3e-4, 0.05): 4, (1e-3, 0.05): 2, (1e-3, 0.0): 4}


@pytest.mark.parametrize('steps', [1, 3])
def test_its_state_can_be_loaded_again(steps):
    model = network()
    wrapper = build_optim_wrapper(model, settings())
    for _ in range(steps):
        wrapper.update_params(model(torch.randn(2, 3, 12, 12)).square().mean())
    state = copy.deepcopy(wrapper.state_dict())
    again = build_optim_wrapper(network(), settings())
    again.load_state_dict(state)
    for mine, theirs in zip(
        again.optimizer.param_groups, wrapper.optimizer.param_groups, strict=True
    ):
        assert len(mine['params']) == len(theirs['params'])
    moments = [value['exp_avg'] for value in again.optimizer.state.values()]
    assert moments and any(moment.abs().sum() > 0 for moment in moments)


def test_the_log_tells_of_groups_not_of_parameters(caplog):
    logger = MMLogger.get_instance('groups_in_a_log')
    logger.addHandler(caplog.handler)
    build_optim_wrapper(network(), settings())
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert told == [
        'Learns 4 tensors at a learning rate of 0.0003 (weight decay 0.05), '
        '2 tensors at a learning rate of 0.001 (weight decay 0.05), '
        '4 tensors at a learning rate of 0.001 (weight decay 0); 2 tensors are frozen.'
    ]
    # What else it says is heard, also afterwards.
    logger.warning('paramwise_options -- of somebody else')
    assert caplog.records[-1].getMessage().endswith('somebody else')
