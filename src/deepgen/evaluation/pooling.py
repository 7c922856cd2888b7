"""Numbers of benchmarks that count units, whatever group they are of."""

from collections.abc import Sequence

from deepgen.evaluation.benchmark import Record, Summary


def pooled(records: Sequence[Record], order: Sequence[str]) -> Summary:
    """The mean of each metric over all units: overall, of each group, and of each unit's key; as in `order`."""
    totals: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for unit in record.units:
            for scope in {"", record.group, unit.key}:
                entry = totals.setdefault(scope, {}).setdefault(unit.metric, [0.0, 0])
                entry[0] += unit.value
                entry[1] += 1
    means = {scope: {m: total / n for m, (total, n) in of.items()} for scope, of in totals.items()}
    return Summary(means.get("", {}), {scope: means[scope] for scope in order if scope in means})
