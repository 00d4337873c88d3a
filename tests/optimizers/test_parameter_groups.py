import torch
from torch import nn

from common.losses import HeatmapLoss
from common.optimizers import kernel_decay_groups


def test_kernels_decay_and_biases_norms_and_sigmas_do_not():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, affine=True), nn.Conv2d(2, 2, 3))
    loss = HeatmapLoss(2, 2, 1.0, learnable_sigma=True)
    optimizer = torch.optim.SGD(kernel_decay_groups(network, loss, weight_decay=0.5), lr=1.0)
    before = {name: p.detach().clone() for name, p in [*network.named_parameters(), *loss.named_parameters()]}
    for parameter in (*network.parameters(), *loss.parameters()):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in [*network.named_parameters(), *loss.named_parameters()]:
        factor = 0.5 if name in ("0.weight", "2.weight") else 1.0  # 1 - learning rate * decay
        assert torch.allclose(parameter, factor * before[name]), name


def test_every_trainable_parameter_is_there_once_and_frozen_ones_are_not():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    network[0].weight.requires_grad = False
    groups = kernel_decay_groups(network, HeatmapLoss(2, 2, 1.0), weight_decay=0.1)
    found = [p for group in groups for p in group["params"]]
    assert {id(p) for p in found} == {id(p) for p in (network[0].bias, network[1].weight, network[1].bias)}
    assert len(found) == 3
