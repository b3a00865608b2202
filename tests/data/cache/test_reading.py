import numpy as np

from mmunify.data.cache.content import content_digest
from mmunify.data.cache.reading import find_stored
from mmunify.data.cache.shards import ShardFolder
from tests.data.cache.test_shards import item

PICTURE = np.zeros((4, 4, 3), np.uint8)


def test_all_nodes_of_a_medium_or_none(tmp_path):
    caches = {name: ShardFolder(tmp_path / name) for name in ("image", "eye")}
    key = content_digest(PICTURE)
    assert find_stored(PICTURE, ["image", "eye"], caches) == (key, None)
    caches["image"].put(key, item(1))
    assert find_stored(PICTURE, ["image", "eye"], caches) == (key, None)
    caches["eye"].put(key, item(2))
    found = find_stored(PICTURE, ["image", "eye"], caches)[1]
    assert {name: int(each.tensors["tokens"][0, 0]) for name, each in found.items()} == {"image": 1, "eye": 2}


def test_a_node_without_a_cache_needs_the_medium(tmp_path):
    caches = {"image": ShardFolder(tmp_path)}
    key = content_digest(PICTURE)
    caches["image"].put(key, item(1))
    assert find_stored(PICTURE, ["image", "detokenizers.image"], caches) == (key, None)


def test_nothing_to_find(tmp_path):
    assert find_stored(PICTURE, ["image"], {}) == ("", None)
    assert find_stored(object(), ["image"], {"image": ShardFolder(tmp_path)}) == ("", None)
