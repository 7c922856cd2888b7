"""`deepgen doctor`: what is installed, what is missing and how to add it, whether the weights are intact."""

import importlib.util
import platform
import shlex
from importlib import metadata

import typer
from packaging.requirements import Requirement

from deepgen import __version__


def doctor() -> None:
    """Check the installation and the shipped weights; exit 1 when something is broken."""
    system = f"{platform.system()} {platform.machine()}"
    print(f"deepgen {__version__}, Python {platform.python_version()}, {system}")
    broken = check_required()
    if not broken:
        broken = check_imports()
        print(f"accelerator  {accelerator()}")
    check_extras()
    broken += check_weights()
    for line in broken:
        print(f"broken       {line}")
    if broken:
        raise typer.Exit(1)
    print("all is well")


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in metadata.requires("deepgen") or []]


def _extra_of(requirement: Requirement, extras: list[str]) -> str | None:
    marker = requirement.marker
    return next((e for e in extras if marker and marker.evaluate({"extra": e})), None)


def problem_with(requirement: Requirement) -> str | None:
    """Why the installed version does not do; None when it does."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} {version} is installed, {requirement.specifier} is needed"
    return None


def install_command(requirements: list[Requirement]) -> str:
    """The command that adds them; it works for a clone and for an installed package alike."""
    wanted = (shlex.quote(f"{r.name}{r.specifier}") for r in requirements)
    return "pip install " + " ".join(wanted)


def check_required() -> list[str]:
    """Print the versions of the default dependencies; return those that do not do."""
    broken = []
    for requirement in (r for r in _requirements() if r.marker is None):
        problem = problem_with(requirement)
        if problem:
            broken.append(f"{problem}; {install_command([requirement])}")
        else:
            print(f"installed    {requirement.name} {metadata.version(requirement.name)}")
    return broken


def check_imports() -> list[str]:
    """Import what a picture needs. A torchvision that does not fit torch breaks both libraries on import."""
    broken = []
    if importlib.util.find_spec("torchvision"):
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError, OSError) as error:
            broken.append(f"torchvision does not fit this torch ({error}); pip uninstall torchvision")
    try:
        importlib.import_module("deepgen.pipeline.pipeline")
    except (ImportError, RuntimeError) as error:
        broken.append(f"the pipeline cannot be imported: {error}")
    return broken


def accelerator() -> str:
    """The device that pictures are drawn on."""
    import torch

    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return f"none, {torch.get_num_threads()} CPU threads"
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    return f"{torch.accelerator.device_count()} x {device.type} {name}".rstrip()


def check_extras() -> None:
    """Print which optional parts are complete, and the command that adds each missing one."""
    extras = metadata.metadata("deepgen").get_all("Provides-Extra") or []
    for extra in extras:
        own = [r for r in _requirements() if _extra_of(r, [extra]) and r.name != "deepgen"]
        missing = [r for r in own if problem_with(r)]
        state = f"missing, add with: {install_command(missing)}" if missing else "complete"
        print(f"optional     {extra}: {state}")


def check_weights() -> list[str]:
    """Print and return what is wrong with the shipped weights."""
    from deepgen.pipeline.shipped import check_sums

    problems = check_sums()
    print(f"weights      {'damaged or absent' if problems else 'intact'}")
    return [f"weights: {problem}; take the file from a fresh clone or wheel" for problem in problems]
