"""Register flat images to a template: one more affine, so that landmarks keep their world coordinates (reddy).

A template is two tensors, made to be buffers of a model: its grey values (1, W, H), and its window, the edges (left,
top, right, bottom) of what it shows as fractions of the width and height of the film that it was cut from. The window
says where on a film the search begins, at any resolution.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import MapTransform, Resize, SpatialResample, Transform
from scipy.linalg import polar

from ..data.atomic_writing import write_atomically
from ..errors import InputError
from .affine_registration import SEARCH, affine_registration, mutual_information
from .coordinates import is_present, world_to_voxel

logger = logging.getLogger(__name__)

OTHER_STARTS = [(0, 0.75), (0, 1.33), (-15, 1), (15, 1)]  # degrees and scale, about the middle of the template


class Template(NamedTuple):
    """Grey values (1, W, H), float32, and window (4,), float64; see the module."""

    image: torch.Tensor
    window: torch.Tensor


class Registration(NamedTuple):
    """What a registration found.

    Attributes:
        matrix: (3, 3), from voxels of the template to voxels of the image; where it failed, the place where it began.
        failure: why it is not to be trusted, empty if it is.
        mirrored: whether the image lies mirrored.
    """

    matrix: np.ndarray
    failure: str
    mirrored: bool = False


def make_template(
    image: MetaTensor, label: torch.Tensor, size: Sequence[int] = (512, 512), margin: float = 0.15
) -> Template:
    """Cut a template out of one film, so that it shows all landmarks and a margin, as far as the film has one.

    Args:
        image: (1, W, H) with affine.
        label: its landmarks in world coordinates, (1, N, 2).
        size: of the template in pixels; they are square in the image's voxels.
        margin: on each side, as a share of the larger extent of the landmarks; less where the film ends before.

    Raises:
        InputError: if there are not two landmarks with a position.
    """
    points = world_to_voxel(label[0], image.affine)
    points = points[is_present(points)].numpy()
    if len(points) < 2:
        raise InputError(f"{_name(image)}: has no two landmarks with a position; take another film as the template.")
    low, high = points.min(0) + 0.5, points.max(0) + 0.5  # distances from the image's corner
    margin = margin * (high - low).max()
    pixel = ((high - low + 2 * margin) / size).max()
    extent, film = pixel * np.array(size), np.array(image.shape[1:])
    start = (low + high - extent) / 2
    # The crop lies on the film, where it is no larger; near the film's end landmarks have less of a margin.
    start = np.clip(start, np.minimum(0, film - extent), np.maximum(0, film - extent))
    matrix = np.array([[pixel, 0, start[0] + pixel / 2 - 0.5], [0, pixel, start[1] + pixel / 2 - 0.5], [0, 0, 1]])
    window = np.concatenate([start / film, (start + extent) / film])
    return Template(normalised(resample(image, matrix, size)), torch.from_numpy(window))


def average_template(images: Iterable[MetaTensor], template: Template) -> Template:
    """The average of films registered to a template, on its grid; films that cannot be registered are left out.

    Args:
        images: (1, W, H) with affine.
        template: to which they are registered, such as one of `make_template`.

    Raises:
        InputError: if none can be registered.
    """
    register = RegisterToTemplate(*template)
    registered = [normalised(image) for image in map(register, images) if image.meta["registered"]]
    if not registered:
        raise InputError(
            "None of the films can be registered to the template: let another film stand first in the training list."
        )
    return Template(torch.stack(registered).mean(0), template.window)


def normalised(image: torch.Tensor) -> torch.Tensor:
    """Grey values from 0 to 1, the outermost percents cut off: plain float32 tensor of the same shape, on the CPU."""
    plain = torch.as_tensor(image).as_subclass(torch.Tensor).detach().cpu().float()
    low, high = np.percentile(plain.numpy(), [1, 99])
    return ((plain - low) / max(high - low, 1e-6)).clamp(0, 1)


def resample(image: MetaTensor, matrix: np.ndarray, size: Sequence[int], padding_mode: str = "border") -> MetaTensor:
    """Show an image on another grid: averaged to about the grid's resolution, then one linear interpolation.

    Args:
        image: (C, W, H) with affine.
        matrix: (3, 3), from voxels of the grid to voxels of the image.
        size: of the grid.
        padding_mode: "border" or "zeros", for what lies off the image.

    Returns:
        (C, *size), whose affine leads to the same world as that of the image.
    """
    affine = torch.as_tensor(image.affine, dtype=torch.float64).cpu() @ to_affine_nd(3, torch.from_numpy(matrix))
    factor = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    out = SpatialResample(padding_mode=padding_mode, dtype=torch.float32)(shrunk(image, factor), affine, list(size))
    out.affine = affine
    return out


def shrunk(image: MetaTensor, factor: float) -> MetaTensor:
    """The image averaged to 1 / factor of its size; as it is where the factor is not over 1."""
    if factor <= 1:
        return image
    return Resize([max(1, round(n / factor)) for n in image.shape[1:]], mode="area")(image)


def starting_matrix(template: Template, size: Sequence[int]) -> np.ndarray:
    """(3, 3), voxels of the template to voxels of a film of a size: the films' centres and areas agree."""
    edges = template.window.double().cpu().numpy().reshape(2, 2)
    film = np.array(template.image.shape[1:]) / (edges[1] - edges[0])  # in pixels of the template
    scale = np.sqrt(np.prod(np.asarray(size, dtype=np.float64) / film))
    centre = (0.5 - edges[0]) * film
    shift = np.asarray(size) / 2 - 0.5 - scale * (centre - 0.5)
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])


def turned(matrix: np.ndarray, size: np.ndarray, degrees: float, scale: float) -> np.ndarray:
    """A map (3, 3) from voxels of a grid of a size, after a turn and a scale about the middle of the grid."""
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    linear, middle = np.array([[c, -s], [s, c]]), size / 2 - 0.5
    motion = np.eye(3)
    motion[:2, :2], motion[:2, 2] = linear, middle - linear @ middle
    return matrix @ motion


class RegisterToTemplate(Transform):
    """Resample a flat image onto the grid of a template to which it is registered.

    An affine registration by Mattes' mutual information (ITK), from coarse to fine, up to half the template's
    resolution, on all its pixels and in one thread, so that it gives the same on every run. The new affine leads to
    the world of the file: landmarks in world coordinates need no change. It may be sheared, so that nothing that takes
    axes for orthogonal may follow. `meta["registered"]` tells whether it worked; where it did not, the image is shown
    at the place and scale of the template's film, with a warning. `meta["registered"]` of a mirrored one is true, and
    a warning tells that it lies so.

    Args:
        template: (1, W, H), or a function without arguments that gives it, for a buffer that may be replaced.
        window: what the template shows of its film (left, top, right, bottom), likewise; see the module.
        scale_range: scales along the axes, relative to the start, that are plausible.
        max_rotation: rotation in degrees that is plausible.
        min_information: mutual information in nats, at the end, under which the image shows something else. 60
            cephalograms reach 0.40 to 1.10 against one of them, hands and spines 0.10 to 0.44.
        sure_information: mutual information under which the search begins anew, from the likeliest of `OTHER_STARTS`
            and of the same places in the image's mirror, left for right, at the coarsest resolution; the better end is
            taken. 100 cephalograms reach 0.50 to 1.2 against the average of 20 of them, all but one at least 0.67, and
            at most 0.36 in their mirrors. 0 for one search.
        padding_mode: "border" or "zeros", for what lies off the image.
        cache_dir: folder in which results are kept, by the content of image and template; None for no cache.
    """

    def __init__(
        self,
        template: torch.Tensor | Callable[[], torch.Tensor],
        window: torch.Tensor | Sequence[float] | Callable[[], torch.Tensor] = (0.0, 0.0, 1.0, 1.0),
        scale_range: tuple[float, float] = (0.7, 1.4),
        max_rotation: float = 30.0,
        min_information: float = 0.3,
        sure_information: float = 0.0,
        padding_mode: str = "border",
        cache_dir: str | Path | None = None,
    ) -> None:
        self.template = template
        self.window = window
        self.scale_range = tuple(scale_range)
        self.max_rotation = max_rotation
        self.min_information = min_information
        self.sure_information = sure_information
        self.padding_mode = padding_mode
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    def current_template(self) -> Template:
        """The template as it is now, on the CPU."""
        image, window = (value() if callable(value) else value for value in (self.template, self.window))
        image = torch.as_tensor(image).as_subclass(torch.Tensor).detach().cpu().float()
        window = torch.as_tensor(window, dtype=torch.float64).detach().cpu()
        if image.ndim != 3 or window.shape != (4,) or not bool((window[2:] > window[:2]).all()):
            raise ValueError(f"template {tuple(image.shape)}, window {window.tolist()}: give (1, W, H) and four edges")
        return Template(image, window)

    def __call__(self, image: MetaTensor) -> MetaTensor:
        """(C, W, H) with affine -> (C, *template).

        Raises:
            InputError: if the image is no flat one.
        """
        if image.ndim != 3:
            raise InputError(f"{_name(image)}: has {image.ndim - 1} dimensions; only flat images can be registered.")
        template = self.current_template()
        found = self.cached(image, template)
        if found.failure:
            logger.warning(
                "%s: could not be registered to the template (%s); it is taken as it lies, look at its result.",
                _name(image),
                found.failure,
            )
        elif found.mirrored:
            logger.warning("%s: fits the template in its mirror, and is taken so.", _name(image))
        out = resample(image, found.matrix, template.image.shape[1:], self.padding_mode)
        out.meta["registered"] = not found.failure
        return out

    def cached(self, image: MetaTensor, template: Template) -> Registration:
        """`register`, or what it found before for the same content."""
        if self.cache_dir is None:
            return self.register(image, template)
        settings = [self.scale_range, self.max_rotation, self.min_information, self.sure_information, OTHER_STARTS]
        settings += [list(image.shape), SEARCH]
        content = hashlib.sha256(json.dumps(settings).encode())
        for part in (*template, image.as_tensor()):
            content.update(np.ascontiguousarray(part.cpu().numpy()))
        path = self.cache_dir / f"{content.hexdigest()}.json"
        if path.is_file():
            known = json.loads(path.read_text())
            return Registration(np.array(known["matrix"]), known["failure"], known["mirrored"])
        found = self.register(image, template)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found._asdict() | {"matrix": found.matrix.tolist()}))
        return found

    def register(self, image: MetaTensor, template: Template) -> Registration:
        """Find where the template lies on an image (C, W, H), by its first channel."""
        start = starting_matrix(template, image.shape[1:])
        small = shrunk(image[:1], start[0, 0])
        to_image = np.linalg.solve(_plane(image), _plane(small))
        begin = np.linalg.solve(to_image, start)
        fixed, moving = (normalised(picture)[0].numpy() for picture in (template.image, small))
        matrix, failure, information = self.search(fixed, moving, begin)
        mirrored = False
        if self.sure_information and (failure or information < self.sure_information):
            first, mirror = self.likeliest(fixed, moving, begin)
            found, why, gained = self.search(fixed, moving[::-1] if mirror else moving, begin, first)
            if not why and (failure or gained > information):
                flip = np.array([[-1, 0, moving.shape[0] - 1], [0, 1, 0], [0, 0, 1]])
                matrix, failure, mirrored = flip @ found if mirror else found, "", mirror
        return Registration(start if failure else to_image @ matrix, failure, mirrored)

    def likeliest(self, fixed: np.ndarray, moving: np.ndarray, begin: np.ndarray) -> tuple[np.ndarray, bool]:
        """Where else to begin, (3, 3), and whether in the mirror: the best end of coarse searches."""
        ends = []
        for mirror in (False, True):
            picture = moving[::-1] if mirror else moving
            for first in (begin, *(turned(begin, np.array(fixed.shape), *start) for start in OTHER_STARTS)):
                try:
                    end = affine_registration(fixed, picture, first, levels=1)
                except RuntimeError:
                    continue
                if not self.implausible(np.linalg.solve(begin, end)):
                    ends.append((mutual_information(fixed, picture, end), end, mirror))
        return max(ends, key=lambda end: end[0])[1:] if ends else (begin, True)

    def search(
        self, fixed: np.ndarray, moving: np.ndarray, begin: np.ndarray, first: np.ndarray | None = None
    ) -> tuple[np.ndarray, str, float]:
        """Matrix (3, 3) from indices of `fixed` to those of `moving`, why not to trust it, and mutual information.

        The search begins at `begin`, or at `first`; what is plausible is said relative to `begin`.
        """
        try:
            matrix = affine_registration(fixed, moving, begin if first is None else first)
        except RuntimeError as error:  # ITK finds no overlap, or a constant image
            logger.debug("%s", error)
            return begin, "the two do not overlap", 0.0
        failure = self.implausible(np.linalg.solve(begin, matrix))
        if failure:
            return matrix, failure, 0.0
        before, after = (mutual_information(fixed, moving, m) for m in (begin, matrix))
        if after < self.min_information:
            failure = f"mutual information {after:.2f}: it shows something else"
        elif after < 0.98 * before:  # a film that lies as the template does cannot gain
            failure = f"mutual information {after:.2f} is worse than at the start, {before:.2f}"
        return matrix, failure, after

    def implausible(self, relative: np.ndarray) -> str:
        """What is wrong with the part (3, 3) of a registration that goes beyond its start."""
        linear = relative[:2, :2]
        if not np.isfinite(relative).all() or np.linalg.det(linear) <= 1e-6:
            return "singular, or mirrored"
        scales = np.linalg.svd(linear, compute_uv=False)
        if scales.min() < self.scale_range[0] or scales.max() > self.scale_range[1]:
            return f"scales {scales[0]:.2f} and {scales[1]:.2f}"
        rotation = polar(linear)[0]
        angle = np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))
        return f"rotation by {angle:.0f} degrees" if abs(angle) > self.max_rotation else ""


class RegisterToTemplated(MapTransform):
    """Dictionary-based `RegisterToTemplate`; landmarks in world coordinates stay as they are.

    Args:
        keys: images, each registered on its own.
        network: a network with the buffers `template` and `template_window`, also inside DistributedDataParallel, as
            they are when an image comes; or
        template: see `RegisterToTemplate`, to which the other arguments go.
        allow_missing_keys: whether an item without the image is left as it is.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        template: torch.Tensor | Callable[[], torch.Tensor] | None = None,
        network: torch.nn.Module | None = None,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if (template is None) == (network is None):
            raise ValueError("RegisterToTemplated needs a template or a network that has one")
        if network is not None:
            network = getattr(network, "module", network)
            template, kwargs["window"] = lambda: network.template, lambda: network.template_window
        self.register = RegisterToTemplate(template, **kwargs)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.register(item[key])
        return item


def _plane(image: MetaTensor) -> np.ndarray:
    """(3, 3), the affine of a flat image in its plane."""
    return to_affine_nd(2, torch.as_tensor(image.affine, dtype=torch.float64).cpu()).numpy()


def _name(image: torch.Tensor) -> str:
    meta = getattr(image, "meta", {})
    return str(meta.get("filename_or_obj", "image"))
