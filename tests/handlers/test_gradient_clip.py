from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import nn

from common.handlers import GradientClip


class Weighed(nn.Module):
    """The sum of inputs, each by its weight, so that the gradient is the input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, image):
        return image[:, 0] * self.first + image[:, 1] * self.second


@pytest.mark.parametrize("max_norm, step", [(1.0, [0.6, 0.8]), (10.0, [3.0, 4.0])])
def test_a_step_is_as_long_as_the_largest_norm_at_most_and_keeps_its_direction(max_norm, step):
    """The gradient (3, 4) of two parameters in two groups has the length 5."""
    network = Weighed()
    groups = [{"params": [network.first]}, {"params": [network.second]}]
    items = [{"image": torch.tensor([[3.0, 4.0]]), "label": torch.zeros(1)}]
    trainer = SupervisedTrainer(
        "cpu", 1, items, network, torch.optim.SGD(groups, lr=1.0), lambda pred, label: pred.sum(),
        train_handlers=[GradientClip(max_norm)], decollate=False,
    )  # fmt: skip
    trainer.run()
    assert [-network.first.item(), -network.second.item()] == pytest.approx(step, rel=1e-4)


def test_learnable_parameters_of_the_loss_count_in_the_norm():
    weight, sigma = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    weight.grad, sigma.grad = torch.tensor([3.0]), torch.tensor([4.0])
    GradientClip(1.0)(SimpleNamespace(scaler=None, optimizer=torch.optim.SGD([weight, sigma], lr=1.0)))
    assert weight.grad.item() == pytest.approx(0.6, rel=1e-4) and sigma.grad.item() == pytest.approx(0.8, rel=1e-4)


def test_under_mixed_precision_the_true_gradient_is_clipped_not_the_scaled_one():
    network = Weighed()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(network(torch.tensor([[0.3, 0.4]])).sum()).backward()
    GradientClip(1.0)(SimpleNamespace(scaler=scaler, optimizer=optimizer))
    scaler.step(optimizer)
    assert [-network.first.item(), -network.second.item()] == pytest.approx([0.3, 0.4], rel=1e-4)
