"""Vector fields of an evaluation: a picture for each landmark, and nothing else changes."""

import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image

from common.handlers import VectorFields
from common.inferers import VotingInferer
from common.networks import PatchRegressionNet
from common.transforms import VotesToLandmarksd


def images(count):
    rng = torch.Generator().manual_seed(0)
    for i in range(count):
        meta = {"filename_or_obj": f"/scans/film_{i}.png"}
        yield MetaTensor(torch.rand(1, 40, 32, generator=rng), affine=torch.eye(4, dtype=torch.float64), meta=meta)


def evaluate(network, handlers):
    """Predictions of three images."""
    torch.manual_seed(0)
    found = []
    items = [{"image": image, "label": torch.full((1, 2, 2), 12.0)} for image in images(3)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items, batch_size=1),
        network=network,
        inferer=VotingInferer(),
        postprocessing=VotesToLandmarksd("pred"),
        val_handlers=handlers,
    )
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e: found.append(e.state.output[0]["pred"]))
    evaluator.run()
    return torch.cat(found)


def tiny_network():
    torch.manual_seed(1)
    return PatchRegressionNet(2, 1, 2, filters=(4, 4, 4, 4, 4), blocks=(1, 1, 1, 1), head_filters=4)


def test_a_picture_for_each_landmark_of_the_first_images(tmp_path):
    network = tiny_network()
    evaluate(network, [VectorFields(tmp_path, network, ["tip", "base"], max_images=2)])
    files = sorted(path.name for path in (tmp_path / "vector_fields").iterdir())
    assert files == [f"film_{i}_{name}.png" for i in (0, 1) for name in ("base", "tip")]
    with Image.open(tmp_path / "vector_fields" / "film_0_tip.png") as picture:
        assert picture.width >= 640


def test_only_the_landmarks_that_are_asked_for(tmp_path):
    network = tiny_network()
    evaluate(network, [VectorFields(tmp_path, network, ["tip", "base"], shown=["base"], max_images=1)])
    assert [path.name for path in (tmp_path / "vector_fields").iterdir()] == ["film_0_base.png"]


def test_predictions_and_weights_are_those_of_an_evaluation_without_pictures(tmp_path):
    network = tiny_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    without = evaluate(network, [])
    drawn = evaluate(network, [VectorFields(tmp_path, network, ["tip", "base"])])
    assert torch.equal(without, drawn)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
