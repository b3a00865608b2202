"""What a run leaves behind: `Bundle`, `load_bundle`."""

from mmunify.checkpoint.bundle import Bundle, load_bundle

__all__ = ["Bundle", "load_bundle"]
