"""The learning curve: how the error falls with the number of training images, by network (payer2019, Fig. 2b)."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from monai.bundle import ConfigParser, ConfigWorkflow

from ..data import load_datalist
from ..data.atomic_writing import replaced_atomically, write_atomically
from ..errors import InputError
from .error_messages import require_keys
from .location import PACKAGE_NAME


def run_workflow(configs: Path, names: Sequence[str], **overrides: Any) -> None:
    """Run config files of one bundle as one workflow, in this process."""
    workflow = ConfigWorkflow(
        config_file=[str(configs / f"{name}.json") for name in names],
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf"),
        workflow_type="train",
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def learning_curve(
    bundle: str,
    dataset_dir: str,
    output_dir: str,
    sizes: Sequence[int | str] = (10, 50, "all"),
    networks: Sequence[str] = ("", "localization_unet"),
    overlays: Sequence[str] = (),
    evaluation_list: str = "test",
    **overrides: Any,
) -> list[dict[str, Any]]:
    """Train and evaluate every network on the first images of the training list, and draw the curve.

    Every run has the same number of iterations, its own folder `OUTPUT/NETWORK_SIZE` with all that training and
    evaluation write, and goes on where it was when the command is given again. Writes `learning_curve.csv` and
    `learning_curve.png`, anew after each run.

    Args:
        bundle: folder of a bundle, such as `bundles/scn_hand`.
        dataset_dir: data set with a training, a validation and a test list.
        output_dir: folder for all runs.
        sizes: numbers of training images; "all" for the whole list.
        networks: names of overlays that change the network; "" for the bundle's own.
        overlays: overlays for all runs, such as `cpu`.
        evaluation_list: list that is evaluated.
        overrides: config keys for all runs, such as `--iterations 2000`.

    Returns:
        rows of the CSV.

    Raises:
        InputError: if a config is missing, a size is none of the training list's, or an override is no setting.
    """
    sizes, networks, overlays = (
        list(given) if isinstance(given, (list, tuple)) else [given] for given in (sizes, networks, overlays)
    )
    configs = Path(bundle) / "configs"
    for name in (*overlays, *(n for n in networks if n)):
        if not (configs / f"{name}.json").is_file():
            raise InputError(f"{configs / name}.json: there is no such overlay; name one of {configs}.")
    used = ["train", *overlays, *(n for n in networks if n), "evaluate"]
    require_keys(overrides, [str(configs / f"{name}.json") for name in used])
    training_list = overrides.get("training_list") or training_list_of(configs, ["train", *overlays])
    available = len(load_datalist(dataset_dir, training_list))
    for size in sizes:
        if size != "all" and not (type(size) is int and 0 < size <= available):
            raise InputError(
                f"--sizes {size}: is no number of images that can be taken of the {available} in the training list of "
                f'{dataset_dir}; give whole numbers from 1 to {available}, or "all".'
            )
    rows: list[dict[str, Any]] = []
    for count in dict.fromkeys(available if size == "all" else size for size in sizes):
        for network in networks:
            folder = Path(output_dir) / f"{network or Path(bundle).resolve().name}_{count}"
            settings = {
                "dataset_dir": str(dataset_dir),
                "output_dir": str(folder),
                "train::dataset::data": (
                    f"${PACKAGE_NAME}.data.load_datalist(@dataset_dir, @training_list, @landmarks)[:{count}]"
                ),
                **overrides,
            }
            names = ["train", *overlays, *([network] if network else [])]
            run_workflow(configs, names, **settings)
            run_workflow(configs, [*names, "evaluate"], **settings, evaluation_list=evaluation_list)
            report = json.loads((folder / f"evaluation_{evaluation_list}" / "metrics.json").read_text())
            overall, unit = report["overall"], report["protocol"]["unit"]
            row = {"network": network or Path(bundle).resolve().name, "training_images": count, "unit": unit}
            row |= {key: overall[key] for key in ("count", "mean", "sd", "median")}
            rows.append(row | {f"sdr_{t}": rate for t, rate in overall["sdr"].items()})
            save_curve(rows, Path(output_dir))
    print(f"learning curve: {Path(output_dir) / 'learning_curve.csv'} and .png")
    return rows


def training_list_of(configs: Path, names: Sequence[str]) -> str:
    """The list that config files train on."""
    return ConfigParser.load_config_files([str(configs / f"{name}.json") for name in names])["training_list"]


def save_curve(rows: Sequence[dict[str, Any]], output_dir: Path) -> None:
    """Write the rows as `learning_curve.csv` and `learning_curve.png`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(output_dir / "learning_curve.csv", text.getvalue())
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for network in dict.fromkeys(row["network"] for row in rows):
        points = sorted((row["training_images"], row["mean"]) for row in rows if row["network"] == network)
        axes.plot(*zip(*points), marker="o", label=network)
    axes.set(xlabel="training images", ylabel=f"mean radial error [{rows[0]['unit']}]", xscale="log", yscale="log")
    axes.set_xticks(ticks := sorted({row["training_images"] for row in rows}), [str(t) for t in ticks])
    axes.grid(alpha=0.3)
    axes.legend()
    with replaced_atomically(output_dir / "learning_curve.png") as temporary:
        figure.savefig(temporary, dpi=120, format="png")
