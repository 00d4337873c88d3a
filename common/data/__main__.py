"""Command line for data sets: python -m common.data VERB ..."""

from ..command_line import run_verbs
from .aasce2019 import import_aasce2019
from .changed_copies import changed_copies
from .check import check
from .hand_atlas import import_hand_atlas
from .isbi2015 import import_isbi2015
from .phantoms import phantom_dataset
from .table_import import import_table
from .volume_import import import_volumes


def main() -> None:
    """Run a verb; bad input ends it with one sentence and status 1."""
    verbs = {
        "changed_copies": changed_copies,
        "check": check,
        "import_aasce2019": import_aasce2019,
        "import_hand_atlas": import_hand_atlas,
        "import_isbi2015": import_isbi2015,
        "import_table": import_table,
        "import_volumes": import_volumes,
        "phantom": phantom_dataset,
    }
    run_verbs("python -m common.data", verbs)


if __name__ == "__main__":
    main()
