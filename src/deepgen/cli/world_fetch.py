"""`deepgen world fetch`: gets the sprite packages with npm and packs what the world needs of them."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from deepgen.errors import DataError, InputError
from deepgen.world.sprites import default_path, drawings, ink, pack


@dataclass(frozen=True)
class Package:
    """One npm package of drawings: files named by code points in `folder`, or Iconify's JSON if that is None."""

    name: str
    version: str
    sha256: str
    folder: str | None = "package/assets"


# A further style is one more entry here and one more name in sprites.STYLES.
PACKAGES: dict[str, Package] = {
    "3d": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
    "flat": Package(
        "@lobehub/fluent-emoji-flat",
        "1.1.0",
        "8f9113c027c7c20eced0070354715a4093a459b8bef6332b91d45f38c9bdb147",
    ),
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        folder=None,
    ),
}
INKED = {"cartoon": "flat"}
"""Styles made of another's drawings by inking their contours."""


def fetch(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; the user's cache if not given.")
    ] = None,
) -> None:
    """Get the sprites that the picture world is drawn with."""
    path = fetch_sprites(output)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def fetch_sprites(destination: Path | None = None) -> Path:
    """Downloads the packages, checks them and writes the packed sprites; returns where.

    destination: a file, or an existing folder to put `sprites.zip` in; the user's cache if None. Raises
    InputError without npm, DataError if a download fails or is not the expected file.
    """
    target = destination or default_path()
    if target.is_dir():
        target = target / "sprites.zip"
    if shutil.which("npm") is None:
        raise InputError("`deepgen world fetch` needs npm: install Node.js, which brings it")
    with tempfile.TemporaryDirectory(prefix="deepgen-fetch-") as name:
        folder = Path(name)
        for style, package in PACKAGES.items():
            unpack(_download(package, folder), package, folder / "art" / style)
        for style, plain in INKED.items():
            (folder / "art" / style).mkdir()
            for code, path in drawings(folder / "art" / plain).items():
                inked = ink(path.read_text(encoding="utf-8"))
                (folder / "art" / style / f"{code}.svg").write_text(inked, encoding="utf-8")
        return pack(folder / "art", target)


def unpack(archive: Path, package: Package, destination: Path) -> None:
    """Writes the package's drawings to `destination`, named by code points, after the archive's sha256 is checked.

    Raises DataError if the sum differs.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise DataError(
            f"{package.name}@{package.version} has sha256 {found}, expected {package.sha256}: fetch it again"
        )
    destination.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        if package.folder is None:
            _write_icons(_json(tar, "chars"), _json(tar, "icons"), destination)
            return
        for member in tar:
            path = PurePosixPath(member.name)
            # Only the last part of the name is used: nothing can be written outside the destination.
            if member.isfile() and str(path.parent) == package.folder:
                content = tar.extractfile(member)
                if content is not None:
                    (destination / path.name).write_bytes(content.read())


def _json(tar: tarfile.TarFile, name: str) -> Any:
    content = tar.extractfile(f"package/{name}.json")
    assert content is not None  # the archive's sum is known
    return json.load(content)


def _write_icons(names: dict[str, str], icons: dict[str, Any], destination: Path) -> None:
    """Iconify's form: chars.json has a name for each code, icons.json each name's SVG without its root element."""
    width, height = icons["width"], icons["height"]
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    root = f'<svg {space} viewBox="0 0 {width} {height}">'
    for code, name in names.items():
        if name in icons["icons"]:  # the others are second names of drawings
            body = icons["icons"][name]["body"]
            (destination / f"{code}.svg").write_text(f"{root}{body}</svg>", encoding="utf-8")


def _download(package: Package, folder: Path) -> Path:
    """Runs `npm pack`, which writes one .tgz into a folder of its own."""
    inbox = folder / package.name.replace("/", "-")
    inbox.mkdir()
    command = ["npm", "pack", f"{package.name}@{package.version}", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=inbox, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"npm pack {package.name} took over 10 minutes: is the network up?") from error
    archives = list(inbox.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise DataError(f"npm pack {package.name}@{package.version} failed: {reason}")
    return archives[0]
