"""A picture drawn again from its record."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deepgen import __version__
from deepgen.errors import InputError
from deepgen.pipeline.output import read_metadata, save_png
from deepgen.pipeline.records import weights_hash
from deepgen.pipeline.repeat import FIELDS, read_repeat

SETTINGS = {"seed": 7, "num_inference_steps": 3, "guidance_scale": 2.5, "negative_prompt": "spoilt"}


@pytest.fixture
def source(tmp_path):
    levels = np.random.default_rng(0).integers(0, 255, (61, 130, 3), np.uint8)
    Image.fromarray(levels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def drawn(pipe, path, prompt="a cat 🐱", source=None, **settings):
    result = pipe(prompt, None if source is None else [str(source), str(source)], **(SETTINGS | settings))
    save_png(result.images[0], path, result.metadata[0] | {"references": [str(source)] * 2 if source else []})
    return path


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("padding", ["none", "pair"])
def test_every_setting_is_repeated(pipe, tmp_path, source, monkeypatch, guidance, padding):
    monkeypatch.setattr(pipe, "defaults", replace(pipe.defaults, padding=padding))
    settings = {"resize": "area", "keep_size": True, "guidance_scale": guidance}
    path = drawn(pipe, tmp_path / "a.png", source=source, **settings)
    again = pipe(**read_repeat(path).arguments())
    assert np.array_equal(again.images[0], Image.open(path)) and again.images[0].size == (130, 61)
    record = read_metadata(path)
    assert record.pop("references") and again.metadata[0] == record


def test_a_source_that_changed_or_is_gone_is_said(pipe, tmp_path, source):
    path = drawn(pipe, tmp_path / "a.png", source=source)
    Image.new("RGB", (130, 61)).save(source)
    with pytest.raises(InputError, match=r"in\.png, which has changed since"):
        read_repeat(path).arguments()
    source.unlink()
    with pytest.raises(InputError, match=r"a\.png: was drawn from .*in\.png: no such file"):
        read_repeat(path).arguments()
    save_png(Image.new("RGB", (8, 8)), path, read_metadata(path) | {"references": []})
    with pytest.raises(InputError, match="2 pictures whose files are not recorded"):
        read_repeat(path).arguments()


def test_another_model_other_weights_and_other_defaults_are_told_apart(pipe, tmp_path, monkeypatch):
    repeat = read_repeat(drawn(pipe, tmp_path / "a.png"))
    repeat.check_model(pipe)
    monkeypatch.setattr(pipe, "defaults", replace(pipe.defaults, shift=1.5))
    with pytest.raises(InputError, match=r"with shift 3.0; its checkpoint says 1.5 now"):
        repeat.check_model(pipe)
    parameter = pipe.transformer.proj_out.weight
    value = parameter.data[0, 0].clone()
    parameter.data[0, 0] += 1e-3
    with pytest.raises(InputError, match=r"a\.png: was drawn by 'tiny' with other weights"):
        repeat.check_model(pipe)
    parameter.data[0, 0] = value
    monkeypatch.setattr(pipe, "name", "other")
    with pytest.raises(InputError, match="was drawn by 'tiny', and this is 'other'"):
        repeat.check_model(pipe)


def test_what_may_differ_by_a_rounding_is_said(pipe, tmp_path):
    assert read_repeat(drawn(pipe, tmp_path / "a.png")).differences(pipe, __version__) == []
    path = drawn(pipe, tmp_path / "b.png", num_images_per_prompt=3)
    notes = read_repeat(path).differences(pipe, "9.9")
    assert "together with 2 others" in notes[0] and f"deepgen {__version__}" in notes[1]


@pytest.mark.parametrize("name", FIELDS)
def test_a_record_that_lacks_something_or_holds_another_type_is_refused(pipe, tmp_path, name):
    record = read_metadata(drawn(pipe, tmp_path / "a.png"))
    lacking = {key: value for key, value in record.items() if key != name}
    for broken in (record | {name: {}}, lacking):
        save_png(Image.new("RGB", (8, 8)), tmp_path / "b.png", broken)
        with pytest.raises(
            InputError, match=rf"b\.png: (its record has no usable '{name}'|was drawn without)"
        ):
            read_repeat(tmp_path / "b.png")


def test_a_picture_drawn_without_a_seed_cannot_be_repeated(pipe, tmp_path):
    record = read_metadata(drawn(pipe, tmp_path / "a.png")) | {"seed": None}
    save_png(Image.new("RGB", (8, 8)), tmp_path / "b.png", record)
    with pytest.raises(InputError, match="without a seed and cannot be repeated"):
        read_repeat(tmp_path / "b.png")


def test_the_hash_of_weights_sees_names_shapes_and_values(pipe):
    weights = weights_hash(pipe.model)
    assert len(weights) == 16 and weights == weights_hash(pipe.model)
    assert weights != weights_hash(pipe.model.dit)
