"""What a prediction leaves behind: one .mrk.json per image, one CSV, overlay pictures."""

from collections.abc import Sequence
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from ..data.atomic_writing import replaced_atomically, require_writable
from ..data.landmark_tables import LandmarkTable
from ..data.markups_files import write_markups
from ..transforms.landmark_loading import to_file_space
from ..visualize import overlay_picture


def unique_stem(filename: str, taken: set[str]) -> str:
    """A name for the results of a file that no other file of a run has; it is added to those taken."""
    name = Path(filename).name
    short = name[: -len(".nii.gz")] if name.endswith(".nii.gz") else Path(name).stem
    stem = next(s for s in (short, name, *(f"{name}_{i}" for i in range(2, 10**6))) if s not in taken)
    taken.add(stem)
    return stem


class SaveLandmarks:
    """Write the predicted landmarks of every image while an evaluator runs.

    Reads from every item `pred` (1, N, D) in world coordinates, `confidence` (N,), of networks whose patches vote the
    `spread` (N,) of these votes in world units, and the image's meta. Writes to the
    output folder `<stem>.mrk.json`, which 3D Slicer shows on the image, `landmarks.csv` with file pixels and world
    coordinates (LPS) of all images, and `overlays/<stem>.png`. Images of one stem from different files get their suffix
    into the name.

    Args:
        output_dir: folder to write to.
        landmarks: N names.
        overlays: whether to draw pictures.
    """

    def __init__(self, output_dir: str | Path, landmarks: Sequence[str], overlays: bool = True) -> None:
        self.output_dir = Path(output_dir)
        self.landmarks = list(landmarks)
        self.overlays = overlays
        self.table = LandmarkTable()
        self.stems: set[str] = set()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.write_table)

    def start(self, engine: Engine) -> None:
        require_writable(self.output_dir)
        self.table = LandmarkTable()
        self.stems = set()

    def save(self, engine: Engine) -> None:
        """Write the files of one iteration."""
        for output in engine.state.output:
            image, pred = output["image"], torch.as_tensor(output["pred"])[0].cpu().double()
            confidence = torch.as_tensor(output["confidence"]).tolist()
            filename = str(image.meta["filename_or_obj"])
            stem = unique_stem(filename, self.stems)
            pixels, world = to_file_space(pred, image.meta)
            write_markups(self.output_dir / f"{stem}.mrk.json", world, self.landmarks, confidence)
            spread = torch.as_tensor(output["spread"]).tolist() if "spread" in output else None
            self.table.add(filename, self.landmarks, pixels, world, confidence, spread)
            if self.overlays:
                path = self.output_dir / "overlays" / f"{stem}.png"
                title = f"{Path(filename).name}  lowest confidence {min(confidence):.2f}"
                picture = overlay_picture(image, pred, None, self.landmarks, title)
                with replaced_atomically(path) as temporary:
                    picture.save(temporary, format="PNG")

    def write_table(self, engine: Engine) -> None:
        if self.table.rows:
            self.table.write(self.output_dir / "landmarks.csv")
            print(f"{len(self.stems)} images: landmarks in {self.output_dir}")
