"""deepgen: an implementation of DeepGen 1.0, a unified model that generates and edits pictures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepgen.pipeline.pipeline import DeepGenPipeline

__version__ = "0.1.0"
__all__ = ["DeepGenPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import deepgen` and `deepgen --help` must not wait for torch.
    if name == "DeepGenPipeline":
        from deepgen.pipeline.pipeline import DeepGenPipeline

        return DeepGenPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
