"""Command line for bundles: python -m common.bundle VERB ..."""

from ..command_line import run_verbs
from ..metrics import compare_errors, show_agreement
from ..visualize.worst_landmarks import draw_worst
from .check import check
from .learning_curve import learning_curve
from .listing import list_bundles
from .location import PACKAGE_NAME
from .mean_shape import measure_mean_shape, show_plausibility
from .new_bundle import new_bundle
from .package import package
from .ship import ship
from .unpack import unpack


def main() -> None:
    """Run a verb; bad input ends it with one sentence and status 1."""
    verbs = {
        "agreement": show_agreement,
        "check": check,
        "compare": compare_errors,
        "learning_curve": learning_curve,
        "list": list_bundles,
        "mean_shape": measure_mean_shape,
        "new": new_bundle,
        "package": package,
        "plausibility": show_plausibility,
        "ship": ship,
        "unpack": unpack,
        "worst": draw_worst,
    }
    run_verbs(f"python -m {PACKAGE_NAME}.bundle", verbs)


if __name__ == "__main__":
    main()
