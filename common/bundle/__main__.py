"""Command line for bundles: python -m common.bundle VERB ..."""

import sys

import fire

from ..data import input_error_in
from ..metrics import compare_errors
from .learning_curve import learning_curve
from .new_bundle import new_bundle
from .package import package


def main() -> None:
    """Run a verb; bad input ends it with one sentence and status 1."""
    verbs = {"compare": compare_errors, "learning_curve": learning_curve, "new": new_bundle, "package": package}
    try:
        fire.Fire(verbs, name="python -m common.bundle", serialize=lambda value: None)
    except Exception as error:
        reason = input_error_in(error)
        if reason is None:
            raise
        sys.exit(f"error: {reason}")


if __name__ == "__main__":
    main()
