"""What `deepgen doctor` finds."""

import pytest
import typer
from packaging.requirements import Requirement

from deepgen.cli import doctor


def test_a_missing_or_old_package_is_named_with_the_command_that_adds_it():
    absent, old = Requirement("no-such-package>=2"), Requirement("numpy>=999")
    assert doctor.problem_with(Requirement("numpy>=1")) is None
    assert doctor.problem_with(absent) == "no-such-package is missing"
    assert ">=999 is needed" in (doctor.problem_with(old) or "")
    assert doctor.install_command([absent, old]) == "pip install 'no-such-package>=2' 'numpy>=999'"


def test_damaged_weights_are_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr("deepgen.pipeline.shipped.check_sums", lambda: ["nano/a: changed or damaged"])
    with pytest.raises(typer.Exit) as caught:
        doctor.doctor()
    assert caught.value.exit_code == 1
    assert "broken       weights: nano/a: changed or damaged" in capsys.readouterr().out


def test_a_whole_installation_is_all_well(monkeypatch, capsys):
    monkeypatch.setattr("deepgen.pipeline.shipped.check_sums", lambda: [])
    doctor.doctor()
    printed = capsys.readouterr().out
    for words in (
        "installed    torch ",
        "accelerator  ",
        "optional     serve: ",
        "weights      intact",
        "all is well",
    ):
        assert words in printed
