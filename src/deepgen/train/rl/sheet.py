"""What a rollout looked like: a row of pictures a group, and their rewards beside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from deepgen.rewards import Score
from deepgen.train.rl.rollout import Drawn

MOST_GROUPS = 8


def save_sheet(path: Path, drawn: Drawn, scores: Mapping[str, Sequence[Score]]) -> None:
    """PATH.png with the first groups of this process, one a row, and PATH.jsonl with their prompts and rewards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        [i for i, owner in enumerate(drawn.owner) if owner == group]
        for group in range(min(MOST_GROUPS, len(drawn.groups)))
    ]
    pictures = [[Image.fromarray(drawn.pictures[i]) for i in row] for row in rows]
    heights = [max(p.height for p in row) + 4 for row in pictures]
    width = max(sum(p.width + 4 for p in row) for row in pictures)
    sheet = Image.new("RGB", (width, sum(heights)), "white")
    top = 0
    for row, height in zip(pictures, heights, strict=True):
        left = 0
        for picture in row:
            sheet.paste(picture, (left + 2, top + 2))
            left += picture.width + 4
        top += height
    sheet.save(path.with_suffix(".png"))
    lines = [
        json.dumps(
            {
                "prompt": drawn.groups[drawn.owner[row[0]]].group.prompt.text,
                "rewards": {name: [found[i].value for i in row] for name, found in scores.items()},
            },
            ensure_ascii=False,
        )
        for row in rows
    ]
    path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
