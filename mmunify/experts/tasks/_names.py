"""Names of artifacts: they say what was made of what, in characters that every file system takes."""

import re
import unicodedata
from collections.abc import Iterable

MAX_LENGTH = 60


def artifact_name(*words: str) -> str:
    """ "mask", "red 7" -> "mask-red-7": lower case, at most 60 characters, never empty."""
    plain = unicodedata.normalize("NFKD", " ".join(words)).encode("ascii", "ignore").decode().lower()
    slug = "-".join(re.findall(r"[a-z0-9]+", plain))
    if len(slug) > MAX_LENGTH:
        slug = slug[:MAX_LENGTH].rpartition("-")[0] or slug[:MAX_LENGTH]
    return slug or "artifact"


def all_labels(labels: Iterable[str], otherwise: str) -> str:
    """The labels of regions without repetitions, or `otherwise` where none has one."""
    return " ".join(dict.fromkeys(filter(None, labels))) or otherwise
