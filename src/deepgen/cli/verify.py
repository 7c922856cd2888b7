"""`deepgen verify`: does this installation compute what the published model computes?"""

from pathlib import Path
from typing import Annotated

import typer

BaseVlm = Annotated[
    str | None,
    typer.Option("--base-vlm", help="Qwen2.5-VL, for checkpoints without a VLM: a folder or org/name."),
]
BaseDit = Annotated[
    str | None,
    typer.Option("--base-dit", help="UniPic2, for checkpoints without a VAE: a folder or org/name."),
]
Lora = Annotated[
    str | None, typer.Option("--lora", help="Adapters to merge: a checkpoint with some, or a peft folder.")
]


def verify(
    cases: Annotated[Path, typer.Argument(help="Folder with cases.json and the cases' tensors.")],
    model: Annotated[
        str, typer.Option("--model", help="The checkpoint that the cases belong to, of any layout.")
    ],
    base_vlm: BaseVlm = None,
    base_dit: BaseDit = None,
    lora: Lora = None,
) -> None:
    """Run golden cases in fp32 on the CPU and print the largest difference of each tensor.

    Exits with 1 when one is beyond its tolerance: 1e-4, or 1e-5 of the tensor's largest value where that is more;
    for gradients 1e-3 of the largest value.
    """
    import torch

    from deepgen.checkpoints.golden import LossInputs, read_cases, run_case
    from deepgen.checkpoints.load import open_checkpoint
    from deepgen.model.deepgen import Conditioning, DeepGenModel
    from deepgen.pipeline.shipped import resolve_model
    from deepgen.train.objective import noisy_batch, training_loss, uniform_sigmas

    def loss(network: DeepGenModel, conditioning: Conditioning, inputs: LossInputs) -> torch.Tensor:
        batch = noisy_batch(inputs.clean, inputs.noise, uniform_sigmas(inputs.uniform, inputs.shift))
        return training_loss(network, conditioning, batch, inputs.references).mean()

    found = read_cases(cases)
    checkpoint = open_checkpoint(resolve_model(model)[1], base_vlm, base_dit, lora)
    network, defaults = checkpoint.load(torch.float32, merge=False)
    failed = total = 0
    for case in found:
        for difference in run_case(case, network, defaults.shift, loss):
            total += 1
            failed += not difference.holds
            verdict = "ok" if difference.holds else "TOO FAR"
            print(
                f"{difference.case:24} {difference.tensor:52} "
                f"{difference.largest:.2e} (at most {difference.tolerance:.1e}) {verdict}"
            )
    print(f"{total - failed} of {total} tensors in {len(found)} cases hold")
    if failed:
        raise typer.Exit(1)
