"""`deepgen data check, stats, convert`: what training data holds, before it is trained on."""

import json
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from deepgen.data.check import SetReport
    from deepgen.data.config import DataConfig

ConfigName = Annotated[
    str, typer.Argument(help="A training configuration, or a YAML file of its data section alone.")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value ...")]

SHOWN = 10


def check(
    config: ConfigName,
    overrides: Overrides = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many samples of each set, evenly spread; all by default.")
    ] = None,
    contamination: Annotated[
        bool, typer.Option(help="Look for the prompts of the benchmarks whose data is there.")
    ] = True,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the benchmarks' data; outputs/bench-data if not given.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="JSON file for everything found.")
    ] = None,
) -> None:
    """Read every sample once, validation's too: schema, missing and damaged files, sizes, duplicates, test prompts.

    Fails if more of a set is broken than the budget allows, or if a text-to-image set holds benchmark prompts.
    """
    from deepgen.data.check import Checker
    from deepgen.data.index import Index
    from deepgen.data.measure import picture_sizes
    from deepgen.data.sources import open_set

    checker, found, failed = Checker(limit), [], False
    for section, settings in read_config(config, overrides or []).items():
        index = Index(settings.index_dir)
        for one in settings.sets:
            source = open_set(one, index)
            report = checker.check(settings, one, source, partial(_progress, one.name))
            if settings.index_dir is not None and one.format != "world":
                picture_sizes(source, index)
            # What is only measured on may be a benchmark's.
            overlaps = _overlaps(report, data) if contamination and section == "data" else []
            _show(section, report)
            known = [overlap for overlap in overlaps if not overlap.clean]
            for overlap in known:
                print(_overlap_line(overlap, one.task))
            # An instruction alone ("make the background red") is no test item: its picture belongs to it.
            failed |= report.broken_share > settings.broken_budget or (one.task == "t2i" and bool(known))
            found.append({"section": section, **_as_json(report, overlaps)})
    if output is not None:
        output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if failed:
        raise typer.Exit(1)


def stats(
    config: ConfigName,
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(min=1, help="How many samples of the mixture to count.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a micro-batch.")] = 4,
) -> None:
    """Show what a run will see: shares of the sets, sizes, references, prompts."""
    from deepgen.data.mixture import Mixture, shares
    from deepgen.data.stats import count

    mixture = Mixture(read_config(config, overrides or [])["data"], batch_size)
    for name, task, size, share in shares(mixture):
        print(f"{name}: {task}, {size:,} samples, {share:.2%} of what is drawn")
    counted = count(mixture, samples)
    print(
        f"of the first {counted.samples:,} samples ({counted.micro_batches:,} micro-batches of {batch_size}):"
    )
    print(f"  tasks: {_shares(counted.by_task)}")
    print(f"  sets: {_shares(counted.by_set)}")
    print(f"  sizes: {_shares(_sized(counted.sizes))}")
    print(f"  references: {_shares(counted.references)}")
    words = sorted(counted.words) or [0]
    middle, last = words[len(words) // 2], words[len(words) * 99 // 100]
    print(f"  words of a prompt: median {middle}, 99% have at most {last}, the longest {words[-1]}")
    print(
        f"  dropped prompts: {counted.dropped / counted.samples:.2%}; "
        f"micro-batches of several sizes: {counted.mixed_sizes / counted.micro_batches:.2%}; "
        f"broken: {counted.broken}; left out by size: {counted.left_out}"
    )


def convert(
    source: Annotated[Path, typer.Argument(help="A .json, .jsonl, .csv, .tsv or .parquet table.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .jsonl list to write.")],
    fields: Annotated[
        list[str],
        typer.Option(
            "--map", help="FIELD=COLUMN for prompt, target and references (these any number of times)."
        ),
    ],
    root: Annotated[
        Path | None, typer.Option(help="Folder that the pictures' paths start from; the table's by default.")
    ] = None,
) -> None:
    """Rewrite a table of samples as a list that training reads."""
    from deepgen.data.convert import convert as run
    from deepgen.data.convert import parse_map

    count = run(source, output, parse_map(fields), root)
    print(f"{count:,} samples in {output}; check them with `deepgen data check`")


def read_config(name: str, overrides: list[str]) -> "dict[str, DataConfig]":
    """The data of a training configuration, or of a file that is such a section alone, by `data` and `validation.data`.

    The whole of a training configuration is validated, as `deepgen train` does it. Raises ConfigError.
    """
    from deepgen.config import find_run, load_config, parse_yaml
    from deepgen.data.config import DataConfig
    from deepgen.errors import ConfigError
    from deepgen.train.run_config import SupervisedConfig

    path = find_run(name)
    loaded: Any = parse_yaml(path.read_text(encoding="utf-8"), name)
    if isinstance(loaded, dict) and "sets" in loaded:
        return {"data": load_config(DataConfig, path, overrides)}
    if not isinstance(loaded, dict) or "data" not in loaded:
        raise ConfigError(f"{name}: has no data.sets, so there is no data to look at")
    settings = load_config(SupervisedConfig, path, overrides)
    held_out = settings.validation.data
    return {"data": settings.data} | ({} if held_out is None else {"validation.data": held_out})


def _progress(name: str, done: int) -> None:
    if done % 10_000 < 256 and done >= 10_000:
        print(f"{name}: {done:,} samples read", flush=True)


def _overlaps(report: "SetReport", data: Path | None) -> list[Any]:
    from deepgen.errors import DataError
    from deepgen.evaluation import registry
    from deepgen.evaluation.contamination import overlap
    from deepgen.evaluation.data import prepare
    from deepgen.evaluation.stages import DEFAULT_DATA

    found = []
    for benchmark in registry.all_benchmarks().values():
        try:
            prepared = prepare(benchmark, data or DEFAULT_DATA, allow_partial=True)
        except DataError:
            continue
        found.append(overlap(benchmark.name, {i.id: i.prompt for i in prepared.items}, report.prompts))
    return found


def _overlap_line(overlap: Any, task: str) -> str:
    ids = [*overlap.exact, *overlap.near]
    kind = "CONTAMINATED by" if task == "t2i" else "has instructions (not pictures) of"
    return (
        f"  {kind} {overlap.benchmark}: {len(overlap.exact)} exact and {len(overlap.near)} near of "
        f"{overlap.items} prompts, such as {', '.join(ids[:3])}"
    )


def _show(section: str, report: "SetReport") -> None:
    name = report.name if section == "data" else f"{report.name} of {section}"
    print(f"{name}: {report.task}, {report.samples:,} samples, {report.checked:,} checked")
    kinds = Counter(fault.kind for fault in report.faults)
    print(
        f"  {len(report.faults)} broken ({report.broken_share:.2%}): "
        f"{', '.join(f'{kinds[kind]} {kind}' for kind in ('malformed', 'missing', 'damaged'))}"
    )
    _listed([f"{fault.kind} {fault.index}: {fault.reason}" for fault in report.faults])
    if report.left_out:
        print(f"  {report.left_out} left out: their targets are not of the sizes that the set takes")
    if len(report.uncaptioned):
        print(f"  {len(report.uncaptioned)} pictures have no .txt caption beside them and are left out:")
        _listed(list(report.uncaptioned))
    print(f"  trained at {_shares(_sized(report.trained))}; references: {_shares(report.references)}")
    print(f"  duplicates: {report.same_picture} pictures, {report.same_sample} with the same prompt")


def _listed(lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"    {line}")
    if len(lines) > SHOWN:
        print(f"    and {len(lines) - SHOWN} more; -o FILE keeps all")


def _sized(sizes: Counter[tuple[int, int]]) -> Counter[str]:
    return Counter({f"{width}x{height}": number for (width, height), number in sizes.items()})


def _shares(counts: Counter[Any]) -> str:
    total = max(counts.total(), 1)
    listed = [f"{name} {number / total:.1%}" for name, number in counts.most_common(SHOWN)]
    rest = len(counts) - len(listed)
    return ", ".join(listed) + (f" and {rest} more" if rest > 0 else "") if listed else "none"


def _as_json(report: "SetReport", overlaps: Iterable[Any]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": report.name,
        "task": report.task,
        "samples": report.samples,
        "checked": report.checked,
        "faults": [asdict(fault) for fault in report.faults],
        "left_out": report.left_out,
        "stored_sizes": dict(_sized(report.sizes)),
        "trained_sizes": dict(_sized(report.trained)),
        "references": {str(number): count for number, count in report.references.items()},
        "same_picture": report.same_picture,
        "same_sample": report.same_sample,
        "uncaptioned": list(report.uncaptioned),
        "contamination": [asdict(overlap) for overlap in overlaps],
    }
