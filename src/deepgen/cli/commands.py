"""The command lines of what is done elsewhere: training, and the picture world."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deepgen.cli.world_draw import DrawOptions

Count = Annotated[int, typer.Option("--n", min=1, help="How many samples.")]
Seed = Annotated[int, typer.Option(help="Of the samples' random draws.")]
Split = Annotated[str, typer.Option(help="train or test.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Only this kind; may be repeated.")]
Edits = Annotated[bool, typer.Option("--edits", help="Edits instead of pictures.")]
SpriteFile = Annotated[Path | None, typer.Option(help="The packed sprites, if not where `fetch` puts them.")]


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or a packaged configuration's name.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value ...")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and stop.")] = False,
) -> None:
    """Train from a configuration, with key.sub=value overrides."""
    from deepgen.cli.train import train as run

    run(config, overrides or [], dry_run)


def world_fetch(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write.")] = None,
) -> None:
    """Get the sprites that the picture world is drawn with; needs npm."""
    from deepgen.cli.world_fetch import fetch_sprites

    print(fetch_sprites(output))


def world_draw(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the pictures.")] = Path(
        "outputs/world"
    ),
    n: Count = 16,
    seed: Seed = 0,
    split: Split = "train",
    kind: Kinds = None,
    edits: Edits = False,
    sprites: SpriteFile = None,
) -> None:
    """Draw samples of the picture world as numbered files."""
    from deepgen.cli.world_draw import draw_world

    paths = draw_world(output, _draw_options(n, seed, split, kind, edits, sprites))
    print(f"{len(paths)} pictures and prompts.jsonl in {output}")


def world_sheet(
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write.")] = Path("sheet.png"),
    n: Count = 24,
    seed: Seed = 0,
    split: Split = "train",
    kind: Kinds = None,
    edits: Edits = False,
    sprites: SpriteFile = None,
) -> None:
    """Draw samples of the picture world on one sheet, each above its prompt."""
    from deepgen.cli.world_draw import draw_sheet

    print(draw_sheet(output, _draw_options(n, seed, split, kind, edits, sprites)))


def _draw_options(
    n: int, seed: int, split: str, kinds: list[str] | None, edits: bool, sprites: Path | None
) -> "DrawOptions":
    from deepgen.cli.world_draw import DrawOptions

    return DrawOptions(n, seed, split, tuple(kinds or ()), edits, sprites)
