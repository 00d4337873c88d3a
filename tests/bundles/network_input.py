"""How a file comes to a network, computed by other means than the transforms of the configs."""

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from scipy.ndimage import map_coordinates

from common.transforms import RegisterToTemplate
from common.transforms.template_registration import Template


def network_input(bundle, path):
    """Image (*spatial) as the network of a bundle gets it, and matrix (D + 1, D + 1) from its voxels to the file's."""
    grey, matrix = FITTINGS[bundle.tiny.fitting](bundle, path)
    image = torch.as_tensor(GREYS[bundle.tiny.grey](bundle, np.asarray(grey, dtype=np.float32)))
    if bundle.tiny.fitting != "fit":
        return image, matrix
    size = bundle.tiny.size["image_size"]
    start = [(limit - n) // 2 for limit, n in zip(size, image.shape)]
    padded = torch.full(size, float(value_range(bundle)[0]))
    padded[tuple(slice(first, first + n) for first, n in zip(start, image.shape))] = image
    unpad = np.eye(3)
    unpad[:2, 2] = np.negative(start)
    return padded, matrix @ unpad


def averaged(grey, size):
    """A film brought to a size by means over areas: differences of its sums up to their edges, or by lines."""
    small = grey.astype(np.float64)
    for axis, (old, new) in enumerate(zip(grey.shape, size)):
        edges = np.linspace(0, old, new + 1)
        if new > old:
            small = np.apply_along_axis(_between, axis, small, (edges[1:] + edges[:-1]) / 2 - 0.5)
        else:
            sums = np.insert(np.cumsum(small, axis), 0, 0.0, axis)
            small = np.diff(np.apply_along_axis(_between, axis, sums, edges), axis=axis) * new / old
    x, y = (n / m for n, m in zip(grey.shape, size))
    return small, np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])


def _between(line, places):
    return np.interp(places, np.arange(len(line)), line)


def stretched(bundle, path):
    return averaged(bundle.tiny.images.grey(path), bundle.tiny.size["image_size"])


def shrunk(bundle, path):
    """Scaled to fit into a size, with its aspect."""
    grey = bundle.tiny.images.grey(path)
    factor = min(limit / n for limit, n in zip(bundle.tiny.size["image_size"], grey.shape))
    return averaged(grey, [round(n * factor) for n in grey.shape])


def registered(bundle, path):
    """Brought to the network's template; the registration is the package's own."""
    size = bundle.tiny.size["image_size"]
    template = Template(bundle.network.template, bundle.network.template_window)
    grey = bundle.tiny.images.grey(path)
    film = MetaTensor(torch.tensor(grey)[None], affine=bundle.tiny.images.affine(path))
    register = RegisterToTemplate(*template, scale_range=(0.5, 2.0), sure_information=0.7)
    matrix, failure, mirrored = register.register(film, template)
    assert failure == "" and not mirrored
    grid = np.stack([*np.meshgrid(*map(np.arange, size), indexing="ij"), np.ones(size)], -1)
    return map_coordinates(grey, (grid @ matrix.T)[..., :2].transpose(2, 0, 1), order=1, mode="nearest"), matrix


def resampled(bundle, path):
    """Turned to the axes closest to RAS and resampled, the first voxel staying where it is."""
    turned = nibabel.as_closest_canonical(nibabel.load(path))
    step = np.array(bundle.tiny.size["voxel_size"]) / voxel_sizes(turned.affine)
    size = [round((n - 1) / s) + 1 for n, s in zip(turned.shape, step)]
    places = np.stack(np.meshgrid(*(s * np.arange(n) for s, n in zip(step, size)), indexing="ij"))
    grey = map_coordinates(turned.get_fdata(), places, order=1, mode="nearest")
    to_file = np.linalg.inv(bundle.tiny.images.affine(path)) @ turned.affine
    return grey, to_file @ np.diag([*step, 1])


def value_range(bundle):
    return bundle.read("metadata")["network_data_format"]["inputs"]["image"]["value_range"]


def spread_out(bundle, grey):
    """The darkest and the brightest to the ends of the range that the metadata tell."""
    low, high = value_range(bundle)
    return low + (high - low) * (grey - grey.min()) / (grey.max() - grey.min())


def equalised(bundle, grey):
    """By the shares of 256 equal intervals that lie below."""
    counts, edges = np.histogram(grey.ravel(), 256)
    shares = counts.cumsum() / grey.size
    centres = (edges[:-1] + edges[1:]) / 2
    shares = (shares - shares[0]) / (shares[-1] - shares[0])
    return np.interp(grey, centres, shares).astype(np.float32)


def windowed(bundle, grey):
    low, high = bundle.read("inference")["intensity_window"]
    return ((grey - low) / (high - low)).clip(0, 1)


def between_percentiles(bundle, grey):
    low, high = np.percentile(grey, [0.5, 99.5])
    return ((grey - low) / (high - low)).clip(0, 1).astype(np.float32)


FITTINGS = {"fit": shrunk, "shrink": shrunk, "stretch": stretched, "register": registered, "resample": resampled}
GREYS = {"range": spread_out, "histogram": equalised, "window": windowed, "percentiles": between_percentiles}
