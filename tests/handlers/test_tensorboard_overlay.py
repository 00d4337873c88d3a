import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.handlers import TensorBoardOverlay


@pytest.mark.parametrize(("shape", "size"), [((30, 60), (384, 768)), ((9, 9, 9), (768, None))])
def test_films_and_volumes_are_drawn_and_no_more_than_asked_for(tmp_path, shape, size):
    point = torch.full((1, 1, len(shape)), 4.0)
    item = {"image": MetaTensor(torch.rand(1, *shape), affine=torch.eye(4)), "pred": point, "label": point + 1}
    handler = TensorBoardOverlay(str(tmp_path), ["tip"], max_images=2)
    for epoch in (1, 2):
        engine = SimpleNamespace(state=SimpleNamespace(output=[item, item, item], epoch=epoch))
        handler.start(engine)
        handler.draw(engine)
    handler.writer.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert sorted(events.Tags()["images"]) == ["validation/image_0", "validation/image_1"]
    assert [event.step for event in events.Images("validation/image_0")] == [1, 2]
    with Image.open(io.BytesIO(events.Images("validation/image_0")[0].encoded_image_string)) as picture:
        assert picture.width == pytest.approx(size[0], abs=2) and size[1] in (None, picture.height)
        red = (np.asarray(picture).astype(int) == (255, 80, 60)).all(-1).nonzero()[1]
    assert len({x * 3 // picture.width for x in red}) == (3 if len(shape) == 3 else 1)  # a ring in every plane
