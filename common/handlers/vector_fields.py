"""Pictures of what the patches of an image say of its landmarks (noothout2020, Fig. 5)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.networks.utils import eval_mode

from ..data.atomic_writing import replaced_atomically
from ..data.prediction_results import unique_stem
from ..networks.patch_regression_net import PatchRegressionNet
from ..transforms.patch_grid import linear_displacement
from ..visualize import draw_vector_field


class VectorFields:
    """Draw the global network's displacement vectors and presence for the first images of an evaluator's run.

    Reads from every item `image`, `pred` and, where it is there, `label`, both (1, N, D) in world coordinates. Writes
    `vector_fields/<stem>_<landmark>.png`.

    Args:
        output_dir: folder to write to.
        network: `common.networks.PatchRegressionNet`; runs once more for every picture's image.
        landmarks: N names.
        shown: names of those to draw; None for all.
        max_images: number of images; 0 for none.
    """

    def __init__(
        self,
        output_dir: str | Path,
        network: PatchRegressionNet,
        landmarks: Sequence[str],
        shown: Sequence[str] | None = None,
        max_images: int = 3,
    ) -> None:
        self.output_dir = Path(output_dir) / "vector_fields"
        self.network = network
        self.landmarks = list(landmarks)
        self.shown = self.landmarks if shown is None else list(shown)
        self.max_images = max_images
        self.stems: dict[str, int] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self.stems.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.draw)

    def draw(self, engine: Engine) -> None:
        """Write the pictures of one iteration."""
        for output in engine.state.output:
            if len(self.stems) >= self.max_images:
                return
            image = output["image"]
            stem = unique_stem(str(image.meta["filename_or_obj"]), self.stems)
            displacement, presence = self.grid_of(image)
            for name in self.shown:
                i = self.landmarks.index(name)
                truth = output["label"][0, i] if "label" in output else None
                picture = draw_vector_field(
                    image,
                    displacement[i],
                    presence[i],
                    self.network.grid_spacing,
                    name,
                    prediction=torch.as_tensor(output["pred"])[0, i],
                    truth=truth,
                    title=Path(str(image.meta["filename_or_obj"])).name,
                )
                with replaced_atomically(self.output_dir / f"{stem}_{name}.png") as temporary:
                    picture.save(temporary, format="PNG")

    def grid_of(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Displacements (N, D, *grid) in voxels and presence probabilities (N, *grid) of an image (C, *spatial)."""
        network = self.network
        device = next(network.parameters()).device
        with eval_mode(network):  # between its steps an evaluator leaves the network in training mode
            grid = network(torch.as_tensor(image).as_subclass(torch.Tensor)[None].to(device))[0].float().cpu()
        count, dims = network.num_landmarks, network.spatial_dims
        displacement = grid[: count * dims].unflatten(0, (count, dims))
        if network.log_displacements:
            displacement = linear_displacement(displacement)
        return displacement, grid[count * dims :].sigmoid()
