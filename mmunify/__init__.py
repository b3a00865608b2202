"""mmunify: compose unified multimodal LLMs from registered parts."""

__version__ = "0.1.0"
