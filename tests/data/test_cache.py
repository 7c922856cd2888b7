import resource

import pytest
import torch

from deepgen.data.cache import FeatureCache
from deepgen.errors import DataError


def test_an_entry_that_does_not_fit_on_the_disk_is_an_error_and_leaves_nothing(tmp_path):
    cache = FeatureCache(tmp_path, {"weights": "a"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DataError, match=r"k1\.safetensors: cannot be written \(File too large\)"):
            cache.put("k1", {"values": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cache.get("k1") is None
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"producer.json"}


def test_a_damaged_entry_is_named(tmp_path):
    cache = FeatureCache(tmp_path, {"weights": "a"})
    cache.put("k1", {"values": torch.arange(3)})
    assert torch.equal(cache.get("k1")["values"], torch.arange(3))
    (tmp_path / "k1" / "k1.safetensors").write_bytes(b"\x05")
    with pytest.raises(DataError, match=r"k1\.safetensors: damaged"):
        cache.get("k1")
