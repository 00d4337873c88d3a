"""What all tests share: few threads, no network, untouched process settings, and data sets."""

import dataclasses
import functools
import logging
import os
import random
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import common
from common.data import phantoms

REPOSITORY = Path(common.__file__).resolve().parents[1]
HAND_ATLAS = REPOSITORY.parent / "shared" / "data" / "digital_hand_atlas"
CEPHALOGRAMS = REPOSITORY.parent / "shared" / "data" / "isbi2015_cephalometric"

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Connections that leave this machine fail at once."""
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test wants to connect to {address}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield


@pytest.fixture(autouse=True)
def restored_process():
    """Give back what a workflow changes in its process: excepthook, module path, log handlers, random state."""
    root = logging.getLogger()
    hook, path, level, handlers = sys.excepthook, list(sys.path), root.level, list(root.handlers)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    deterministic = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    sys.excepthook, sys.path[:], root.handlers[:] = hook, path, handlers
    root.setLevel(level)
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic


# Size of the images, number of images in each list, and millimetres per voxel of volumes, as small as each anatomy can
# be drawn.
TINY_SETS = {
    "hand": ((120, 168), {"training": 4, "validation": 2, "test": 3}),
    "skull": ((129, 160), {"training": 4, "validation": 1, "test": 2}),
    "spine": ((60, 160), {"training": 4, "validation": 1, "test": 2}),
    "aortic_root": ((28, 28, 24), {"training": 3, "validation": 1, "test": 2}, (5.0, 5.0, 5.0)),
    "olfactory_bulbs": ((40, 40, 16), {"training": 3, "validation": 1, "test": 2}, (3.0, 3.0, 2.0)),
}


@pytest.fixture(scope="session")
def tiny_phantoms_of(tmp_path_factory):
    """Function from an anatomy to the folder of a few small phantoms, drawn once.

    MONAI_DATA_DIRECTORY is a temporary folder from here on.
    """

    @functools.cache
    def draw(anatomy):
        tiny = dataclasses.replace(phantoms.ANATOMIES[anatomy], sizes={"tiny": TINY_SETS[anatomy]})
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(phantoms.ANATOMIES, anatomy, tiny)
            return Path(phantoms.phantom_dataset(anatomy, "tiny"))

    with pytest.MonkeyPatch.context() as lasting:
        lasting.setenv("MONAI_DATA_DIRECTORY", str(tmp_path_factory.mktemp("monai_data")))
        yield draw


@pytest.fixture(scope="session")
def tiny_phantoms(tiny_phantoms_of):
    """Folder of a data set of nine small hand phantoms."""
    return tiny_phantoms_of("hand")


@pytest.fixture(scope="session")
def real_hands():
    """Folder of the Digital Hand Atlas in its owners' layout, which is not part of the repository."""
    if not (HAND_ATLAS / "all.csv").is_file():
        pytest.skip(f"the Digital Hand Atlas is not in {HAND_ATLAS}")
    return HAND_ATLAS


@pytest.fixture(scope="session")
def real_heads():
    """Folder of the ISBI 2015 cephalograms in the challenge's layout, which is not part of the repository."""
    if not (CEPHALOGRAMS / "RawImage" / "Test1Data").is_dir():
        pytest.skip(f"the ISBI 2015 cephalograms are not in {CEPHALOGRAMS}")
    return CEPHALOGRAMS
