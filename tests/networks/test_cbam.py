"""CBAM is what Woo et al. (2018) write."""

import numpy as np
import pytest
import torch

from common.networks import CBAM, ChannelAttention, SpatialAttention


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_channel_attention_shares_a_perceptron_between_mean_and_maximum(spatial_dims):
    torch.manual_seed(0)
    attention = ChannelAttention(spatial_dims, 32, reduction=16)
    x = torch.randn(2, 32, *[5, 4, 3][:spatial_dims])
    first, _, second = attention.perceptron
    weights = [p.detach().numpy() for p in (first.weight, first.bias, second.weight, second.bias)]
    assert weights[0].shape == (2, 32) and weights[2].shape == (32, 2)

    def perceptron(v):
        return weights[2] @ np.maximum(weights[0] @ v + weights[1], 0) + weights[3]

    for image, weighted in zip(x.numpy(), attention(x).detach().numpy()):
        flat = image.reshape(32, -1)
        gate = sigmoid(perceptron(flat.mean(1)) + perceptron(flat.max(1)))
        np.testing.assert_allclose(weighted.reshape(32, -1), gate[:, None] * flat, rtol=1e-5, atol=1e-6)


def test_spatial_attention_convolves_mean_and_maximum_of_the_channels():
    torch.manual_seed(0)
    attention = SpatialAttention(2, kernel_size=7, norm=None)
    x = torch.randn(1, 6, 9, 8)
    kernel = attention.convolution.conv.weight.detach().numpy()[0]
    bias = attention.convolution.conv.bias.item()
    pooled = np.stack([x[0].numpy().mean(0), x[0].numpy().max(0)])
    padded = np.pad(pooled, ((0, 0), (3, 3), (3, 3)))
    for i, j in ((0, 0), (4, 4), (8, 7)):
        gate = sigmoid((kernel * padded[:, i : i + 7, j : j + 7]).sum() + bias)
        np.testing.assert_allclose(attention(x)[0, :, i, j].detach().numpy(), gate * x[0, :, i, j].numpy(), rtol=1e-4)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_spatial_attention_comes_after_channel_attention(spatial_dims):
    torch.manual_seed(0)
    cbam = CBAM(spatial_dims, 8, reduction=4).eval()
    x = torch.randn(2, 8, *[6] * spatial_dims)
    torch.testing.assert_close(cbam(x), cbam.spatial_attention(cbam.channel_attention(x)))
    torch.testing.assert_close(torch.jit.script(cbam)(x), cbam(x))


def test_64_channels_cost_two_small_layers_one_kernel_and_its_norm():
    parameters = sum(p.numel() for p in CBAM(2, 64).parameters())
    assert parameters == (64 * 4 + 4) + (4 * 64 + 64) + 2 * 7 * 7 + 2 == 680
