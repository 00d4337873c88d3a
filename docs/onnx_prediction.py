"""Landmarks of a film by onnxruntime, numpy and Pillow alone, printed as CSV: name, zero-based file pixel, confidence.

    python docs/onnx_prediction.py model.onnx bundles/scn_hand/configs/inference.json film.png

For scn_hand, farnet_* and dacn_spine; overlays (cpu.json) follow inference.json. One view, no smoothing, no chain.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def grey_values(path: str) -> np.ndarray:
    """(W, H), x first; colours become grey by their luminance."""
    picture = Image.open(path)
    if len(picture.getbands()) == 1 and picture.mode != "P":
        return np.asarray(picture, np.float32).T
    return (np.asarray(picture.convert("RGB"), np.float32) @ np.float32([0.299, 0.587, 0.114])).T


def resizing(size: int, new: int) -> np.ndarray:
    """Matrix (new, size): the mean of the pixels under each new one, or linear interpolation where pixels grow."""
    ends, old = np.arange(new + 1)[:, None] * size / new, np.arange(size)
    mean = (np.minimum(ends[1:], old + 1) - np.maximum(ends[:-1], old)) * new / size
    linear = 1 - np.abs(((ends[1:] + ends[:-1] - 1) / 2).clip(0, size - 1) - old)
    return (mean if new <= size else linear).clip(0)


def vertex(heat: np.ndarray, peak: int) -> float:
    """Highest place of a parabola through the logarithms, or the values, at a peak; half a pixel from it at most."""
    middle = min(max(peak, 1), len(heat) - 2)
    values = heat[middle - 1 : middle + 2].astype(np.float64)
    before, at, after = np.log(values) if (values > 0).all() else values
    bend = 2 * at - before - after
    return float(np.clip(middle + (after - before) / (2 * bend), peak - 0.5, peak + 0.5)) if bend > 0 else float(peak)


network, *configs, film = sys.argv[1:] if len(sys.argv) > 3 else sys.exit(__doc__)
config = {key: value for path in configs for key, value in json.loads(Path(path).read_text("utf-8")).items()}
transforms = {each["_target_"].split(".")[-1]: each for each in config["preprocessing"]["transforms"]}
grey, limits = grey_values(film), np.array(config["image_size"])
room, stretch = limits - 2 * config.get("margin", 0), not transforms["ResizeToFitd"].get("keep_aspect", True)
size = room if stretch else np.multiply(grey.shape, (room / grey.shape).min()).round().astype(int)
small = resizing(grey.shape[0], size[0]) @ grey @ resizing(grey.shape[1], size[1]).T
low, high = (transforms["ScaleIntensityd"][key] for key in ("minv", "maxv"))
small = np.interp(small, (small.min(), small.max()), (low, high))
start = (limits - size) // 2
image = np.full(limits, low, np.float32)
image[start[0] : start[0] + size[0], start[1] : start[1] + size[1]] = small
(heatmaps,) = onnxruntime.InferenceSession(network).run(None, {"image": image[None, None]})[0]
print("name,pixel_x,pixel_y,confidence")
for name, heat in zip(config["landmarks"], heatmaps):
    x, y = np.unravel_index(heat.argmax(), heat.shape)
    found = np.array([vertex(heat[:, y], x), vertex(heat[x], y)])
    pixel = (found - start + 0.5) * grey.shape / size - 0.5
    print(f"{name},{pixel[0]:.3f},{pixel[1]:.3f},{heat[x, y].clip(0, 1):.3f}")
