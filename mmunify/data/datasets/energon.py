"""Megatron-Energon's data sets (https://github.com/NVIDIA/Megatron-Energon), read by number instead of as a stream."""

import os
import re
import tarfile
from collections.abc import Mapping
from typing import Any

from mmunify.data.members import Members
from mmunify.errors import DataError
from mmunify.extras import require
from mmunify.registry import DATASETS
from mmunify.types import Sample

ANSWERS = ("caption", "answers", "text")
"""Fields of Energon's types of samples that the model learns to say, in the order in which they are looked for."""


@DATASETS.register("energon")
class EnergonDataset:
    """Samples of a folder that `energon prepare` has indexed, on this machine or behind `msc://`.

    Energon's index says where every sample lies, so no tar is read when the data set is built. Which process reads
    which sample is decided as for all data: the order follows from the run's seed, and a run is resumed exactly.

    Where the folder's `dataset.yaml` has a `field_map`, a sample is a pair: `image`, the question in `context`, the
    answer in `caption`, `answers` or `text`. Others are read as by `webdataset`. Code in the folder (a sample loader)
    is never run.

    Args:
        path: folder with `.nv-meta`.
        split: part of the data set, as its `split.yaml` names it.
        prompt: what the user asks in a pair without a question; "" = shows the picture and says nothing.
        task: of pairs.

    Raises:
        MissingExtraError: Megatron-Energon is absent.
        DataError: no prepared data set there, or no such part of it.
    """

    def __init__(
        self, path: str, split: str = "train", prompt: str = "Describe the image briefly.", task: str = "caption"
    ) -> None:
        self.path, self.split, self.prompt, self.task = path, split, prompt, task
        self.meta, self.fields = _read_meta(path, split)
        self.excluded = frozenset(self.meta.sample_excludes)
        self._reader: tuple[int, Any] = (0, None)

    def __len__(self) -> int:
        return sum(shard.count for shard in self.meta.shards)

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`.

        Raises:
            IndexError: outside the data set.
            DataError: the sample cannot be used, or the data set excludes it.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of an Energon data set with {len(self)}")
        members = self._members(index)
        return self._pair(members) if self.fields else members.sample(self.prompt, self.task)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": (0, None)}

    def _members(self, index: int) -> Members:
        try:
            parts = self._own_reader()[index]
        except (OSError, ValueError, tarfile.TarError) as error:
            raise DataError(f"{self.path}, sample {index} of {self.split!r} cannot be read: {error}") from error
        if parts is None:
            raise DataError(f"{self.path}, sample {index} of {self.split!r} is excluded by its split.yaml")
        content = {name: value for name, value in parts.items() if not name.startswith("__")}
        key, place = parts["__key__"], f"{self.path}, {parts['__shard__']}, {parts['__key__']}"
        return Members(key=key, place=place, source=self.split, extensions=list(content), read=content.__getitem__)

    def _own_reader(self) -> Any:
        """A reader of this process: it keeps files open, and forked processes would share their positions."""
        if self._reader[0] != os.getpid():
            build = _package("flavors.webdataset.itar_reader").ShardInfosITarReader
            folder = _package("epathlib").EPath(self.path)
            reader = build(folder, self.meta.shards, sample_filter=lambda key: key not in self.excluded)
            self._reader = (os.getpid(), reader)
        return self._reader[1]

    def _pair(self, members: Members) -> Sample:
        answer = next((self.fields[name] for name in ANSWERS if name in self.fields), "")
        said = _value(members, answer) if answer else None
        said = said[0] if isinstance(said, list) and said else said
        if not isinstance(said, str) or not said.strip():
            raise DataError(
                f"{members.place}: no words in any of {', '.join(ANSWERS)}; dataset.yaml maps {self.fields}"
            )
        asked = _value(members, self.fields["context"]) if "context" in self.fields else self.prompt
        pictures = [_present(members, self.fields["image"])] if "image" in self.fields else []
        return members.pair(pictures, str(asked), said, self.task)


def _package(module: str) -> Any:
    """A module of Megatron-Energon."""
    return require(f"megatron.energon.{module}", "dataset energon")


def _read_meta(path: str, split: str) -> tuple[Any, dict[str, str]]:
    """What Energon knows of a part of a data set, and which member holds which field."""
    import yaml

    folder = _package("epathlib").EPath(path)
    try:
        meta = _package("flavors.webdataset.metadata").WebdatasetMeta.from_config(folder, split_part=split)
        text = (folder / ".nv-meta" / "dataset.yaml").read_bytes()
        about = yaml.safe_load(text)
    except (OSError, ValueError, AssertionError, KeyError, yaml.YAMLError) as error:
        raise DataError(
            f"{path} holds no Energon data set with a part {split!r} ({error}); make one with `energon prepare {path}`"
        ) from error
    fields = about.get("field_map") if isinstance(about, Mapping) else None
    return meta, {str(name): str(member) for name, member in (fields or {}).items()}


def _value(members: Members, field: str) -> Any:
    """What a field holds: words of a member, or an entry of its JSON ("json[answers]")."""
    member, *keys = re.findall(r"[^\[\]]+", _present(members, field))
    value: Any = members.json() if member == "json" else members.text(member)
    for key in keys:
        value = value[key] if isinstance(value, Mapping) and key in value else None
    return value


def _present(members: Members, field: str) -> str:
    """The first of a field's alternatives ("jpg,png") that the sample has."""
    options = field.split(",")
    found = next((option for option in options if option.partition("[")[0] in members.extensions), None)
    if found is None:
        raise DataError(f"{members.place}: no member {field}; the sample has {', '.join(members.extensions)}")
    return found
