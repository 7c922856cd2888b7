"""The `deepgen` command.

Each command is a plain function with typer annotations in a module of its own, listed in COMMANDS. Only the
module of the command that was asked for is imported: the help and a mistyped command must not wait for torch.
"""

import importlib
import io
import os
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from deepgen import __version__
from deepgen.errors import ConfigError, DeepGenError, InputError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Command:
    """Where a command's function lives, and its line in the help."""

    module: str
    function: str
    help: str
    hidden: bool = False


COMMANDS = {
    "generate": Command("generate", "generate", "Draw pictures from a prompt."),
    "edit": Command("generate", "edit", "Change a picture as an instruction says."),
    "train": Command("commands", "train", "Train from a configuration, with key.sub=value overrides."),
    "plot": Command("plot", "plot", "Draw the curves of a run."),
    "world fetch": Command("commands", "world_fetch", "Get the sprites that the world is drawn with."),
    "world draw": Command("commands", "world_draw", "Draw samples of the picture world as files."),
    "world sheet": Command("commands", "world_sheet", "Draw samples of the picture world on one sheet."),
    "data check": Command("data", "check", "Read every training sample once; find what is wrong."),
    "data stats": Command("data", "stats", "Show what a training run will see."),
    "data convert": Command("data", "convert", "Rewrite a table of samples as a list for training."),
    "bench list": Command("bench", "list_benchmarks", "Name the benchmarks."),
    "bench prepare": Command("bench", "prepare", "Check a benchmark's data, or say where to get it."),
    "bench generate": Command("bench", "generate", "Draw a benchmark's pictures."),
    "bench judge": Command("bench_score", "judge", "Put a run's pictures to a judge."),
    "bench score": Command("bench_score", "score", "Make numbers of a judge's replies."),
    "bench report": Command("bench_score", "report", "Write a scored run's tables and pages again."),
    "bench compare": Command("bench_score", "compare", "Test two scored runs against each other."),
    "bench verify": Command("bench_check", "verify", "Recompute samples of the official scorers."),
    "bench run": Command("bench", "run", "Generate, judge, score and report a benchmark."),
    "bench export": Command("bench", "export", "Write a run's pictures in the official layout."),
    "bench contamination": Command("bench_check", "contamination", "Find benchmark prompts in a file."),
    "bench detector": Command("bench_check", "detector", "Measure the detector that judges the world."),
    "reward serve": Command("reward", "serve", "Run a reward, or the world's judge, as a service."),
    "reward check": Command("reward", "check", "Score golden pictures by a configuration's rewards."),
    "speed training": Command("speed", "training", "Measure training updates on random weights."),
    "speed rollout": Command("speed", "rollout", "Measure rollouts of reinforcement on random weights."),
    "speed scaling": Command("speed", "scaling", "Measure one host's GPUs together."),
    "verify": Command("verify", "verify", "Run golden cases against a checkpoint."),
    "convert": Command("checkpoints", "convert", "Rewrite a checkpoint of any layout as ours."),
    "inspect": Command("checkpoints", "inspect", "Show what a checkpoint holds and what it lacks."),
    "doctor": Command("doctor", "doctor", "Check the installation and the shipped weights."),
    "demo": Command("demo", "demo", "Draw the demonstration pictures.", hidden=True),
}
GROUPS = {
    "world": "The picture world that nano lives in.",
    "bench": "Quality, measured.",
    "speed": "Speed and memory, measured.",
    "reward": "Rewards of reinforcement, checked and served.",
    "data": "Training data, looked at before it is trained on.",
}


def _placeholder() -> None:
    """Stands for a command that was not asked for; only its name and help line are shown."""


def _function(command: Command) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"deepgen.cli.{command.module}"), command.function)


def _show_version(value: bool) -> None:
    if value:
        print(f"deepgen {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show an error's trace; works anywhere.")] = False,
) -> None:
    """DeepGen 1.0: generate and edit pictures, train, measure."""


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The typer app in which the command that `arguments` ask for is real and the others are only listed."""
    words = [a for a in arguments if not a.startswith("-")][:2]
    wanted = {" ".join(words[:1]), " ".join(words)}
    settings: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "rich_markup_mode": None}
    app = typer.Typer(pretty_exceptions_enable=False, **settings)
    app.callback()(_root)
    groups = {name: typer.Typer(help=text, **settings) for name, text in GROUPS.items()}
    for name, group in groups.items():
        group.callback()(lambda: None)
        app.add_typer(group, name=name, help=GROUPS[name])
    for path, command in COMMANDS.items():
        function = _function(command) if path in wanted else _placeholder
        group_name, _, leaf = path.rpartition(" ")
        parent = groups[group_name] if group_name else app
        parent.command(leaf, help=command.help, short_help=command.help, hidden=command.hidden)(function)
    return app


def printable(text: str) -> str:
    """One line of `text` that a terminal shows and does not obey: control characters are spelt out."""
    unsafe = ("Cc", "Cs", "Zl", "Zp")
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in unsafe
        else character
        for character in text
    )


def _warning_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"deepgen: warning: {printable(str(message))}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a check or the run failed, 2 wrong usage, 130 interrupted."""
    # Before torch is imported. OpenMP's threads spin while they wait; on a CPU that other programs use too, they
    # then take the cores from each other, and the many small operations of a step are 30 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Names of files need not be text that the terminal's encoding has.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _warning_line
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        build_app(words)(words, prog_name="deepgen")
    except KeyboardInterrupt:
        print("deepgen: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except (DeepGenError, OSError) as error:
        if debug:
            traceback.print_exc()
        else:
            print(f"deepgen: {printable(str(error))}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, InputError | ConfigError) else EXIT_FAILED)
