"""What `deepgen speed scaling` found, as lines for people."""

from collections.abc import Sequence
from typing import Any


def table(report: dict[str, Any]) -> str:
    """Lines for people: speed by number of processes, then checkpoints and what must be equal."""
    parts = report["parts"]
    rates: dict[str, dict[int, tuple[dict[str, float], list[str]]]] = {}
    for part in parts:
        for name, rate in part["rates"].items():
            rates.setdefault(name, {})[part["processes"]] = (rate, part["beside"])
    header = f"{'work':16}{'processes':>10}{'images/s':>10}{'efficiency':>11}{'seconds':>9}{'MFU':>7}"
    header += f"{'peak GiB':>9}{'collectives s':>15}  beside"
    lines, notes = [f"{report['device']}, {report['sizes']}", header], []
    for name, by_count in rates.items():
        least = min(by_count)
        base = by_count[least][0]["images_per_second"] / least
        mark = " " if least == 1 else "*"
        if least > 1:
            notes.append(
                f"* {name}: efficiency relative to {least} processes, as there is no measurement with 1"
            )
        for count, (rate, beside) in sorted(by_count.items()):
            each = rate["images_per_second"] / count
            line = f"{name:16}{count:10}{rate['images_per_second']:10.2f}"
            line += (f"{each / base:10.1%}" if base else f"{'–':>10}") + mark
            line += _cell(rate, "seconds", "9.3f") + _cell(rate, "mfu", "7.1%")
            line += _cell(rate, "peak_gib", "9.1f") + _cell(rate, "collective_seconds", "15.3f")
            lines.append(f"{line}  {', '.join(beside) or 'alone'}")
    return "\n".join([*lines, *notes, *_checkpoints(parts), *_sameness(parts), *_failures(parts)])


def _cell(rate: dict[str, float], key: str, form: str) -> str:
    width = int(form.split(".")[0])
    return f"{rate[key]:{form}}" if key in rate else f"{'–':>{width}}"


def _checkpoints(parts: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    saved = {part["processes"]: part["facts"]["saved"] for part in parts if "saved" in part["facts"]}
    for part in parts:
        facts, count = part["facts"], part["processes"]
        if "loaded" in facts:
            source = facts["loaded_from"]
            other = [name for name, digest in saved[source].items() if facts["loaded"][name] != digest]
            verdict = (
                f"OTHER {' AND '.join(other).upper()}"
                if other
                else "every bit of weights and optimizer the same"
            )
            lines.append(
                f"saved by {source}, loaded by {count} processes in {facts['load_seconds']:.1f} s: {verdict}"
            )
        if "save_seconds" in facts:
            lines.append(
                f"checkpoint of {facts.get('checkpoint_gb', 0):.1f} GB by {count} processes: training waits "
                f"{facts['save_waits_seconds']:.1f} s, on disk after {facts['save_seconds']:.1f} s"
            )
    return lines


def _sameness(parts: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for what in dict.fromkeys(name for part in parts for name in part["same"]):
        digests = {part["processes"]: part["same"][what] for part in parts if what in part["same"]}
        counts = ", ".join(map(str, sorted(digests)))
        verdict = "the same" if len(set(digests.values())) == 1 else f"DIFFERENT ({digests})"
        lines.append(
            f"{what} with {counts} processes: {verdict if len(digests) > 1 else 'nothing to compare'}"
        )
    return lines


def _failures(parts: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{x['part']}-{x['processes']}: {x['ended']}" for x in parts if x["ended"] not in ("done", "")]
