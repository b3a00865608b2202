"""What a run leaves behind: `Bundle`, `load_bundle`; published models to bundles and back."""

from mmunify.checkpoint.bundle import Bundle, load_bundle
from mmunify.checkpoint.convert import export_model, import_model, save_import

__all__ = ["Bundle", "export_model", "import_model", "load_bundle", "save_import"]
