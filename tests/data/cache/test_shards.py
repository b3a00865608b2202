import multiprocessing
import pickle

import pytest
import torch

from mmunify.data.cache.items import StoredItem
from mmunify.data.cache.shards import ShardFolder

FACTS = {"extent": [4, 4], "grid": None, "num_frames": None, "masked": False}


def item(number, size=4):
    return StoredItem(tensors={"tokens": torch.full((size, 2), float(number)), "pooled": torch.ones(2)}, facts=FACTS)


def fill(folder, numbers, shard_bytes=200):
    shards = ShardFolder(folder, shard_bytes)
    for number in numbers:
        shards.put(f"key{number}", item(number))
    shards.flush()
    return shards


def test_items_come_back_before_and_behind_the_disk(tmp_path):
    shards = ShardFolder(tmp_path / "new")
    shards.put("a", item(1))
    assert "a" in shards and len(shards) == 0 and shards.get("a").tensors["tokens"][0, 0] == 1
    assert shards.get("b") is None and "b" not in shards
    assert shards.flush().parent == tmp_path / "new"
    assert shards.flush() is None
    found = ShardFolder(tmp_path / "new").get("a")
    assert torch.equal(found.tensors["tokens"], item(1).tensors["tokens"])
    assert found.extent == (4, 4) and set(found.tensors) == {"tokens", "pooled"}


def test_a_shard_is_written_when_enough_waits_and_an_item_once(tmp_path):
    shards = fill(tmp_path, [0, 1, 2, 3, 4, 1, 1])
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert (shards.num_written, len(shards)) == (5, 5)
    again = fill(tmp_path, range(5))
    assert again.num_written == 0


def test_readers_see_what_others_write_meanwhile(tmp_path):
    reader = ShardFolder(tmp_path)
    assert reader.get("key1") is None
    fill(tmp_path, [1])
    assert reader.get("key1") is not None
    fill(tmp_path, [2])
    assert reader.get("key2").tensors["tokens"][0, 0] == 2


def test_shards_that_go_are_read_on_or_missed(tmp_path):
    fill(tmp_path, [1])
    reader, late = ShardFolder(tmp_path), ShardFolder(tmp_path)
    assert "key1" in reader and "key1" in late
    late._open.clear()
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    assert reader.get("key1") is not None and late.get("key1") is None
    assert len(reader) == len(late) == 0


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * len(data)]
)
def test_damaged_shards_are_misses_and_what_is_beside_them_is_found(tmp_path, damage):
    fill(tmp_path, [1])
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    fill(tmp_path, [2])
    reader = ShardFolder(tmp_path)
    assert reader.get("key1") is None and reader.get("key2") is not None
    reader.put("key1", item(1))
    reader.flush()
    assert ShardFolder(tmp_path).get("key1") is not None


def test_half_written_shards_are_never_seen(tmp_path, monkeypatch):
    shards = ShardFolder(tmp_path)
    shards.put("a", item(1))
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        shards.flush()
    assert list(tmp_path.iterdir()) == []
    assert "a" not in shards


def test_it_travels_to_other_processes(tmp_path):
    shards = fill(tmp_path, [1])
    assert shards.get("key1") is not None
    assert pickle.loads(pickle.dumps(shards)).get("key1") is not None


def _work(folder, first):
    shards = ShardFolder(folder, 300)
    for number in range(first, first + 30):
        shards.put(f"key{number}", item(number))
        found = shards.get(f"key{number // 2}")
        assert found is None or int(found.tensors["tokens"][0, 0]) == number // 2
    shards.flush()


def test_many_processes_at_once(tmp_path):
    """Four write overlapping items and read each other's; every item is there and right."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(tmp_path, 15 * start)) for start in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    shards = ShardFolder(tmp_path)
    assert len(shards) == 75
    assert all(int(shards.get(f"key{number}").tensors["tokens"][0, 0]) == number for number in range(75))
    assert not list(tmp_path.glob(".*"))
