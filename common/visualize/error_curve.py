"""The cumulative error curve of an evaluation."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..data.atomic_writing import replaced_atomically


def save_error_curve(
    errors: dict[str, np.ndarray], path: str | Path, unit: str = "mm", limit: float | None = None
) -> None:
    """Draw the percentage of landmarks within every distance, one curve per entry (Fig. 2 of payer2019).

    Args:
        errors: radial errors of any shape by the name of their curve; NaN is left out.
        path: PNG file to write.
        unit: unit of the errors.
        limit: end of the axis; the 99th percentile of all errors where not given.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    finite = {name: np.sort(e[np.isfinite(e)]) for name, e in ((n, np.ravel(e)) for n, e in errors.items())}
    everything = np.concatenate(list(finite.values())) if finite else np.zeros(0)
    limit = limit or (float(np.percentile(everything, 99)) if everything.size else 1.0)
    for name, sorted_errors in finite.items():
        if sorted_errors.size:
            share = 100 * np.arange(1, len(sorted_errors) + 1) / len(sorted_errors)
            axes.step(sorted_errors, share, where="post", label=f"{name} (mean {sorted_errors.mean():.2f} {unit})")
    axes.set(xlim=(0, limit), ylim=(0, 100), xlabel=f"radial error [{unit}]", ylabel="landmarks within [%]")
    axes.grid(alpha=0.3)
    if any(e.size for e in finite.values()):
        axes.legend(loc="lower right")
    with replaced_atomically(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
