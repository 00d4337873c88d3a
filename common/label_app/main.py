"""What MONAI Label loads from the app's folder: the app class, out of the package in which this file lies."""

import importlib
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
if str(PACKAGE.parent) not in sys.path:
    sys.path.insert(0, str(PACKAGE.parent))

LandmarkApp = importlib.import_module(f"{PACKAGE.name}.label_app.landmark_app").LandmarkApp
