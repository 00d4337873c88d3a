"""The app itself."""

import logging
from typing import Any

from monailabel.interfaces.app import MONAILabelApp

from .. import __version__
from ..errors import InputError, did_you_mean
from .client_errors import told_to_the_client
from .landmark_infer import LandmarkInferTask
from .landmark_train import LandmarkTrainTask
from .served_bundles import find_bundles

logger = logging.getLogger(__name__)


class LandmarkApp(MONAILabelApp):
    """Serves landmark bundles: a model and a trainer for each.

    Settings (`--conf KEY VALUE`) are those of `find_bundles`.

    Raises:
        InputError: if a setting is wrong.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.bundles = find_bundles(conf or {})
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Anatomical landmarks",
            description="MONAI bundles that find anatomical landmarks in X-ray, CT and MR",
            version=__version__,
        )

    def init_infers(self) -> dict[str, LandmarkInferTask]:
        tasks = {name: LandmarkInferTask(bundle) for name, bundle in self.bundles.items()}
        for name, task in tasks.items():
            logger.info("%s: weights %s", name, task.get_path() or "none yet, train it first")
        return tasks

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """MONAI Label's answer, where the model is one of those served.

        Raises:
            HTTPException: 400, with a sentence, if it is not.
        """
        name = request.get("model")
        with told_to_the_client():
            if name not in self.bundles:
                hint = did_you_mean(str(name), self.bundles) or f"choose one of {', '.join(self.bundles)}."
                raise InputError(f"{name}: is no bundle that this server serves; {hint}")
        return super().infer(request, datastore)

    def init_trainers(self) -> dict[str, LandmarkTrainTask]:
        return {name: LandmarkTrainTask(bundle, self.conf) for name, bundle in self.bundles.items()}
