"""`deepgen convert` and `deepgen inspect`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deepgen.cli.verify import BaseDit, BaseVlm, Lora


class Precision(StrEnum):
    """What `convert --dtype` takes."""

    BF16 = "bf16"
    FP32 = "fp32"


def convert(
    source: Annotated[str, typer.Argument(help="A checkpoint of any layout: a path or org/name.")],
    target: Annotated[Path, typer.Argument(help="The new folder.")],
    base_vlm: BaseVlm = None,
    base_dit: BaseDit = None,
    lora: Lora = None,
    dtype: Annotated[
        Precision | None, typer.Option(help="Of the weights; as they are stored if not given.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge adapters instead of keeping them beside the weights.")
    ] = False,
) -> None:
    """Rewrite a checkpoint of any layout as one folder that needs no other."""
    import torch

    from deepgen.checkpoints.convert import convert as rewrite
    from deepgen.checkpoints.load import open_checkpoint
    from deepgen.pipeline.shipped import resolve_model

    types = {Precision.BF16: torch.bfloat16, Precision.FP32: torch.float32}
    checkpoint = open_checkpoint(resolve_model(source)[1], base_vlm, base_dit, lora)
    rewrite(checkpoint, target, None if dtype is None else types[dtype], merge)
    print(target)


def inspect(
    path: Annotated[str, typer.Argument(help="A checkpoint of any layout: a path or org/name.")],
    base_vlm: BaseVlm = None,
    base_dit: BaseDit = None,
    lora: Lora = None,
    shapes: Annotated[bool, typer.Option("--shapes", help="Also every tensor's shape.")] = False,
) -> None:
    """Show what a checkpoint holds and what it lacks, with sizes, types and licences; exit 1 if incomplete."""
    from deepgen.checkpoints.describe import describe
    from deepgen.checkpoints.load import open_checkpoint
    from deepgen.pipeline.shipped import resolve_model

    lines, complete = describe(open_checkpoint(resolve_model(path)[1], base_vlm, base_dit, lora), shapes)
    for line in lines:
        print(line)
    if not complete:
        raise typer.Exit(1)
