"""Parts of the HTML pages: one file each, with style, script and thumbnails inside, and nothing from elsewhere."""

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from deepgen.evaluation.report import Rows, number
from deepgen.evaluation.stats import Interval

THUMB = 224
STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:.2rem} h2{margin-top:2.2rem} code{font-size:.9em}
table{border-collapse:collapse;margin:.6rem 0;display:block;overflow-x:auto}
th,td{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #8884} td.n{font-variant-numeric:tabular-nums}
.bar{position:relative;height:1rem;width:22rem;background:#8882;border-radius:3px}
.bar i{position:absolute;top:0;bottom:0;left:0;background:#3b7dd8;border-radius:3px}
.bar b{position:absolute;top:.4rem;height:.2rem;background:#111;opacity:.75}
@media (prefers-color-scheme:dark){.bar b{background:#eee}}
.card{border:1px solid #8884;border-radius:8px;padding:.7rem .9rem;margin:.8rem 0}
.card.low{border-left:5px solid #c33}.card.mid{border-left:5px solid #d90}.card.high{border-left:5px solid #393}
.pictures{display:flex;flex-wrap:wrap;gap:.7rem;margin:.5rem 0} figure{margin:0} figcaption{font-size:.8rem;opacity:.75}
img{max-width:14rem;max-height:14rem;border-radius:4px;display:block} pre{white-space:pre-wrap;font-size:.85rem}
.note{opacity:.75;font-size:.9rem}
"""
SCRIPT = """
const choose=document.getElementById('group');
if(choose)choose.onchange=()=>document.querySelectorAll('.card').forEach(
  card=>card.hidden=choose.value!==''&&card.dataset.group!==choose.value);
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The whole document."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}<script>{SCRIPT}</script></body></html>\n"
    )


def table(rows: Rows) -> str:
    """The first row is the header; "" for no rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"


def bars(groups: Mapping[str, Mapping[str, Interval]], scales: Mapping[str, tuple[float, float]]) -> str:
    """A row for each group and metric: a bar on the metric's scale with its interval."""
    rows = []
    for group, of in groups.items():
        for metric, interval in of.items():
            low, high = scales.get(metric, (0.0, 1.0))
            at = [_percent(value, low, high) for value in (interval.value, interval.low, interval.high)]
            bar = f'<div class="bar"><i style="width:{at[0]:.1f}%"></i>'
            bar += f'<b style="left:{at[1]:.1f}%;width:{max(at[2] - at[1], 0.3):.1f}%"></b></div>'
            told = f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"
            rows.append(
                f'<tr><td>{escape(group)}</td><td>{escape(metric)}</td><td>{bar}</td><td class="n">{told}</td></tr>'
            )
    return f"<table>{''.join(rows)}</table>"


def _percent(value: float, low: float, high: float) -> float:
    """Where a value lies on a scale, from 0 to 100; a value that is not known lies at 0."""
    return 100 * min(1.0, max(0.0, (value - low) / (high - low))) if value == value else 0.0


def thumbnail(path: Path) -> str:
    """A data address of the picture, small. A file that is no picture is a grey square."""
    try:
        with Image.open(path) as opened:
            small = opened.convert("RGB")
    except OSError:
        small = Image.new("RGB", (THUMB, THUMB), "grey")
    small.thumbnail((THUMB, THUMB))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def pictures(files: Mapping[str, Path], folder: Path) -> str:
    """Thumbnails with captions, each linked to the file, as seen from the page's folder."""
    figures = []
    for caption, path in files.items():
        link = quote(os.path.relpath(path, folder))
        image = f'<a href="{link}"><img alt="{escape(caption)}" src="{thumbnail(path)}"></a>'
        figures.append(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")
    return f'<div class="pictures">{"".join(figures)}</div>'


def card(group: str, level: float | None, title: str, body: str) -> str:
    """One case of a gallery; level: 0 bad to 1 good."""
    kind = "low" if level is None or level < 0.34 else "mid" if level < 0.67 else "high"
    head = f'<div class="card {kind}" data-group="{escape(group, quote=True)}">'
    return f"{head}<strong>{escape(title)}</strong>{body}</div>"


def words(label: str, text: str) -> str:
    """A text that opens on a click; "" for none."""
    return f"<details><summary>{escape(label)}</summary><pre>{escape(text)}</pre></details>" if text else ""


def chooser(groups: Sequence[str]) -> str:
    """Which group's cards are shown."""
    options = "".join(f"<option>{escape(group)}</option>" for group in groups)
    return f'<p><label>group <select id="group"><option value="">all</option>{options}</select></label></p>'
