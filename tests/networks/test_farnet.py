"""FARNet is what the paper and its code say."""

import pytest
import torch
from torch import nn

from common.errors import InputError
from common.losses import HeatmapRegressionLoss
from common.networks import FARNet, TappedEncoder

SMALL = {"num_filters": 16}


def set_positive_kernels(network):
    """Positive weights without average: everything that an output sees moves it, and no ReLU hides it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 0.5 / module.weight[0].numel(), 1.5 / module.weight[0].numel())


def extent_seen(network, size):
    """Extent along the first axis of the part of a (size, 32) image that moves the middle of the output."""
    image = torch.rand(1, 3, size, 32, requires_grad=True)
    output = network(image)
    output[
        0, -1, output.shape[2] // 2, output.shape[3] // 2
    ].backward()  # the last channel: the newest in a dense block
    moved = image.grad[0].abs().sum((0, 2)).nonzero().flatten()
    return int(moved.max() - moved.min() + 1)


def test_heatmaps_have_the_size_of_the_image_and_a_coarse_one_half_of_it_in_training():
    network = FARNet(2, 1, 19, **SMALL)
    image = torch.rand(1, 1, 96, 64)
    fine, coarse = network.train()(image)
    assert fine.shape == (1, 19, 96, 64) and coarse.shape == (1, 19, 48, 32)
    with torch.no_grad():
        assert network.eval()(image).shape == (1, 19, 96, 64)


def test_instance_norm_trains_on_one_image_as_batch_norm_and_infers_as_it_trained():
    torch.manual_seed(0)
    batch, instance = FARNet(2, 1, 3, **SMALL), FARNet(2, 1, 3, norm="instance", **SMALL)
    assert not any("running" in key for key in instance.state_dict())
    instance.load_state_dict({k: v for k, v in batch.state_dict().items() if k in instance.state_dict()})
    images = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        one = instance.train()(images[:1])[0]
        torch.testing.assert_close(one, batch.train()(images[:1])[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(instance.eval()(images)[:1], one, atol=1e-5, rtol=1e-4)
        assert (batch.eval()(images[:1]) - one).abs().max() > 0.01
    with pytest.raises(InputError, match="no norm 'layer'"):
        FARNet(2, 1, 3, norm="layer")


def test_the_encoder_is_tapped_at_strides_2_to_32():
    encoder = TappedEncoder(2, 3, "densenet121").eval()
    with torch.no_grad():
        features = encoder(torch.rand(1, 3, 64, 96))
    assert encoder.channels == (64, 256, 512, 1024, 1024)
    assert [f.shape[1:] for f in features] == [(64, 32, 48), (256, 16, 24), (512, 8, 12), (1024, 4, 6), (1024, 2, 3)]


def test_the_taps_are_raw_outputs_of_convolution_blocks_and_final_norm():
    encoder = TappedEncoder(2, 3, "densenet121")
    last = [list(stage.named_children())[-1][0] for stage in encoder.stages]
    assert last == ["conv0", "denseblock1", "denseblock2", "denseblock3", "norm5"]
    with torch.no_grad():
        features = encoder.train()(torch.rand(2, 3, 64, 64))
    assert features[0].min() < 0  # no norm and ReLU, which the next stage might apply in place
    torch.testing.assert_close(features[4].mean((0, 2, 3)), torch.zeros(1024), atol=1e-4, rtol=0)


def test_the_receptive_fields_of_the_first_three_taps():
    encoder = TappedEncoder(2, 3, "densenet121").eval()
    set_positive_kernels(encoder)
    encoder.stages[1].pool0 = nn.AvgPool2d(3, 2, 1)  # the same window, but every voxel moves the output
    block1 = 7 + 2 * 2 + 6 * 2 * 4  # 7x7 convolution, 3x3 pooling at stride 2, six 3x3 convolutions at stride 4
    block2 = block1 + 4 + 12 * 2 * 8  # 2x2 pooling at stride 4, twelve 3x3 convolutions at stride 8
    for tap, expected in enumerate((7, block1, block2)):
        stages = nn.Sequential(*encoder.stages[: tap + 1])
        assert extent_seen(stages, 320) == expected


def test_a_heatmap_sees_the_whole_of_a_cephalogram():
    network = FARNet(2, 3, 1, **SMALL).eval()
    set_positive_kernels(network)
    assert extent_seen(network, 800) == 800


def test_the_paper_setting_has_about_61_million_parameters():
    torchvision_features = 7_978_856 - (1024 * 1000 + 1000)  # DenseNet-121 without its classifier
    up = 9 * 1024 * 512 + 512 * 256 + (256 + 1024) * 256 + (256 + 512) * 256 + (256 + 256) * 256
    down = 9 * (256 * 512 + 512 * 1024 + 1024 * 2048)
    reductions = (512 + 256) * 512 + (1024 + 256) * 1024 + 9 * (2048 + 256) * 1024
    second_up = 1024 * 256 + (256 + 1024) * 256 + (256 + 512) * 256 + (256 + 256) * 128 + (128 + 64) * 64
    norms = 2 * (512 + 4 * 256 + 512 + 1024 + 2048 + 512 + 1024 + 1024 + 3 * 256 + 128 + 64 + 32)
    width = 64 + 32 + 19
    heads = 9 * 64 * 64 + 64 + 64 * 19 + 19 + 9 * width * width + width + width * 19 + 19
    expected = torchvision_features + up + down + reductions + second_up + 3 * 32 + norms + heads
    with torch.device("meta"):
        network = FARNet(2, 1, 19)
        paper = FARNet(2, 1, 19, stem_kernel_size=3, bottom_kernel_size=1)
    assert sum(p.numel() for p in network.parameters()) == expected == 61_210_291
    assert sum(p.numel() for p in paper.parameters()) == expected + 8 * 3 * 32 - 8 * (2048 + 256) * 1024


@pytest.mark.parametrize(("last_filters", "rank"), [(None, 4), ([8, 6], 6), ([32, 24], 19)])
def test_coarse_heatmaps_are_as_many_as_the_last_maps_can_tell_apart(last_filters, rank):
    network = FARNet(2, 1, 19, last_filters=last_filters, **SMALL).double().train()
    with torch.no_grad():
        coarse = network(torch.rand(1, 1, 128, 96, dtype=torch.float64))[1][0].flatten(1)
    without_bias = coarse - network.refinement.coarse_head[1].bias[:, None]
    assert torch.linalg.matrix_rank(without_bias, rtol=1e-9) == rank


@pytest.mark.parametrize(
    "settings", [{"last_filters": [32]}, {"last_filters": [32, 0]}, {"last_filters": [32, 16], "aggregation": "fpn"}]
)
def test_last_filters_that_do_not_fit_are_refused(settings):
    with pytest.raises(InputError, match="^last_filters .* does not fit"):
        FARNet(2, 1, 19, **SMALL, **settings)


@pytest.mark.parametrize(
    ("backbone", "parameters"),  # torchvision's numbers less those of the classifier
    [
        ("densenet169", 14_149_480 - 1_665_000),
        ("densenet201", 20_013_928 - 1_921_000),
        ("resnet18", 11_689_512 - 513_000),
        ("resnet34", 21_797_672 - 513_000),
        ("resnet50", 25_557_032 - 2_049_000),
        ("resnet101", 44_549_160 - 2_049_000),
        ("resnet152", 60_192_808 - 2_049_000),
        ("efficientnet-b0", 5_288_548 - 1_281_000 - 320 * 1280 - 2 * 1280),  # nor its 1x1 convolution before that
    ],
)
def test_other_backbones_have_torchvisions_size_and_the_same_strides(backbone, parameters):
    with torch.device("meta"):
        encoder = TappedEncoder(2, 3, backbone).eval()
        features = encoder(torch.empty(1, 3, 64, 96))
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert [f.shape[1:] for f in features] == [(c, 64 >> i, 96 >> i) for i, c in enumerate(encoder.channels, start=1)]


@pytest.mark.parametrize(
    ("aggregation", "refinement", "outputs"),
    [
        ("msfa", "coarse_to_fine", 2),
        ("msfa", "naive", 1),
        ("msfa", "none", 1),
        ("msfa_addition", "none", 1),
        ("fpn", "none", 1),
        ("fpn", "coarse_to_fine", 2),
    ],
)
def test_every_parameter_of_every_row_of_table_5_learns(aggregation, refinement, outputs):
    torch.manual_seed(0)
    network = FARNet(2, 1, 3, "resnet18", aggregation, refinement, **SMALL).train()
    heatmaps = network(torch.rand(2, 1, 64, 64))
    assert len(heatmaps) == outputs and heatmaps[0].shape == (2, 3, 64, 64)
    HeatmapRegressionLoss(3)(heatmaps, torch.rand(2, 3, 2) * 64).backward()
    stuck = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert not stuck


def test_every_parameter_of_the_default_network_learns_from_one_image():
    torch.manual_seed(0)
    network = FARNet(2, 1, 3, **SMALL).train()
    heatmaps = network(torch.rand(1, 1, 64, 96))
    HeatmapRegressionLoss(3)(heatmaps, torch.rand(1, 3, 2) * 64).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_same_class_works_in_3d():
    torch.manual_seed(0)
    network = FARNet(3, 1, 2, num_filters=8).train()
    fine, coarse = network(torch.rand(1, 1, 64, 32, 32))
    assert fine.shape == (1, 2, 64, 32, 32) and coarse.shape == (1, 2, 32, 16, 16)
    loss = HeatmapRegressionLoss(2, sigma=3.0)([fine, coarse], torch.tensor([[[40.0, 10.5, 20.0], [3.0, 4.0, 5.0]]]))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 1, 32, 32, 64)).shape == (1, 2, 32, 32, 64)


def test_grey_images_are_replicated_and_normalised_inside():
    network = FARNet(2, 1, 3, "resnet18", **SMALL).eval()
    image = torch.rand(1, 1, 64, 64)
    seen = []
    network.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        network(image)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        torch.testing.assert_close(seen[0][:, channel], (image[:, 0] - mean) / std)


def test_inference_divides_by_the_expected_peak():
    network = FARNet(2, 1, 3, "resnet18", **SMALL).eval()
    image = torch.rand(1, 1, 32, 64)
    with torch.no_grad():
        before = network(image)
        network.unit_peak.expected_peak.copy_(torch.tensor([1.0, 2.0, 4.0]))
        torch.testing.assert_close(network(image), before / torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1))


@pytest.mark.parametrize("settings", [{}, {"aggregation": "fpn", "refinement": "none", "backbone": "efficientnet-b0"}])
def test_scripted_network_equals_the_original_at_any_multiple_of_32(settings):
    network = FARNet(2, 1, 3, **SMALL, **settings).eval()
    scripted = torch.jit.script(network)
    with torch.no_grad(), torch.jit.optimized_execution(False):
        for size in ((64, 32), (32, 96)):
            image = torch.rand(2, 1, *size)
            torch.testing.assert_close(scripted(image), network(image))


def test_a_script_of_a_network_in_training_mode_still_gives_one_tensor():
    scripted = torch.jit.script(FARNet(2, 1, 3, "resnet18", **SMALL).train())
    with torch.jit.optimized_execution(False):
        assert scripted(torch.rand(1, 1, 64, 64)).shape == (1, 3, 64, 64)


def test_training_by_single_images_learns_one_and_stays_finite():
    torch.manual_seed(0)
    network = FARNet(2, 1, 3, num_filters=32).train()
    loss_function = HeatmapRegressionLoss(3, sigma=4.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    image, points = torch.rand(1, 1, 64, 64), torch.tensor([[[20.3, 30.0], [40.0, 12.5], [50.0, 50.0]]])
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_function(network(image), points)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


def test_evaluation_uses_running_statistics():
    torch.manual_seed(0)
    network = FARNet(2, 1, 3, "resnet18", **SMALL)
    before = network.aggregation.bottom.adn.N.running_mean.clone()
    images = torch.rand(3, 1, 64, 64) * torch.tensor([0.1, 0.5, 1.0]).reshape(3, 1, 1, 1)
    with torch.no_grad():
        network.train()(images[:1])
        assert not torch.equal(network.aggregation.bottom.adn.N.running_mean, before)
        together = network.eval()(images)
        for i in range(3):  # what else is in the batch does not matter
            torch.testing.assert_close(network(images[i : i + 1]), together[i : i + 1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "settings", [{"in_channels": 2}, {"aggregation": "bifpn"}, {"refinement": "fine"}, {"backbone": "vgg16"}]
)
def test_unknown_settings_are_refused(settings):
    with pytest.raises(InputError, match="take"):
        FARNet(**{"spatial_dims": 2, "in_channels": 1, "num_landmarks": 3, **settings})
