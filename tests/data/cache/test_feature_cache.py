import os

import pytest

from mmunify.data.cache.feature_cache import GIB, FeatureCache
from mmunify.errors import UserError
from tests.data.cache.test_shards import item


def fill(cache, fingerprint, keys, used=None):
    shards = cache.items_of(fingerprint, {"node": "image", "part": "CLIPEncoder"})
    for key in keys:
        shards.put(key, item(1))
    path = shards.flush()
    if used is not None:
        os.utime(path, (used, used))
    return path


def test_another_fingerprint_never_hits(tmp_path):
    cache = FeatureCache(tmp_path)
    fill(cache, "a" * 64, ["k"])
    assert cache.items_of("a" * 64, {}).get("k") is not None
    assert cache.items_of("b" * 64, {}).get("k") is None


def test_what_is_stored(tmp_path):
    cache = FeatureCache(tmp_path)
    assert cache.entries() == []
    fill(cache, "a" * 64, ["k", "l"], used=1000)
    fill(cache, "b" * 64, ["k"], used=2000)
    last, first = cache.entries()
    assert (last.name, last.num_items, first.num_items) == ("b" * 32, 1, 2)
    assert (first.about["node"], first.about["fingerprint"], first.used) == ("image", "a" * 64, 1000.0)
    assert cache.num_bytes == first.num_bytes + last.num_bytes > 0
    assert cache.entries()[1].used == 1000.0, "looking is no use"


def test_the_least_recently_used_go_first(tmp_path):
    cache = FeatureCache(tmp_path)
    paths = [fill(cache, "a" * 64, [f"k{number}"], used=1000 + number) for number in range(4)]
    assert cache.evict() == 0
    cache.limit = 2.5 * paths[0].stat().st_size / GIB
    FeatureCache(tmp_path).items_of("a" * 64, {}).get("k0")  # reading is use
    assert cache.evict() == 2
    assert [path.exists() for path in paths] == [True, False, False, True]


def test_clearing_all_or_some(tmp_path):
    cache = FeatureCache(tmp_path)
    size = fill(cache, "a" * 64, ["k"]).stat().st_size
    fill(cache, "b" * 64, ["k"])
    assert cache.clear("aaa") == size
    assert [entry.name for entry in cache.entries()] == ["b" * 32]
    with pytest.raises(UserError, match="holds nothing whose name begins with 'aaa'"):
        cache.clear("aaa")
    assert cache.clear() > 0 and cache.entries() == []


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"folder .*file/cache cannot be written \(Not a directory\); choose another"):
        FeatureCache(tmp_path / "file" / "cache")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(UserError, match=r"cannot be written \(denied\)"):
        FeatureCache(tmp_path)
