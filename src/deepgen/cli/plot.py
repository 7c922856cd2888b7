"""`deepgen plot RUN`: the curves of a run, as numbers in the terminal and as a picture."""

from pathlib import Path
from typing import Annotated

import typer

from deepgen.errors import InputError


def plot(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="PNG to write; RUN/curves.png if not given.")
    ] = None,
) -> None:
    """Draw the curves of a run's metrics.jsonl."""
    from rich.console import Console
    from rich.table import Table

    from deepgen.train.curves import draw_curves, series_of
    from deepgen.train.metrics import FILE_NAME, read_metrics

    series = series_of(read_metrics(run / FILE_NAME))
    if not series:
        raise InputError(f"{run / FILE_NAME} has no records yet, or {run} is no run's folder")
    table = Table("measure", "first", "last", "least", "most", box=None, pad_edge=False)
    for name, points in series.items():
        values = [value for _, value in points]
        table.add_row(name, *(f"{x:.5g}" for x in (values[0], values[-1], min(values), max(values))))
    Console(soft_wrap=True).print(table)
    path = output or run / "curves.png"
    draw_curves(series).save(path)
    print(path)
