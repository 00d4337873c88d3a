"""An evaluator that a bad image does not stop."""

from typing import Any

from monai.engines import SupervisedEvaluator

from ..data.prediction_results import image_path


class PredictionEvaluator(SupervisedEvaluator):
    """MONAI's `SupervisedEvaluator` over a `common.data.PredictionDataset`, which goes on when a batch fails.

    Where network or postprocessing raise, such as for an image that does not fit into memory, the data set is told to
    leave out the images of the batch, and the output of the iteration is empty.
    """

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        paths = batchdata["image"].meta["filename_or_obj"]
        try:
            return super()._iteration(engine, batchdata)
        except Exception as error:
            for path in [paths] if isinstance(paths, str) else paths:
                self.data_loader.dataset.leave_out(image_path({"image": path}), error)
            return []
