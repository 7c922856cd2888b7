"""One class a format on disk; `open_set` finds the one that a configuration asks for."""

from deepgen.data.config import AnySet, FolderSet, ListSet, ParquetSet, TarSet
from deepgen.data.index import Index
from deepgen.data.sources.base import Record, Source
from deepgen.data.sources.lists import open_folder, open_list
from deepgen.data.sources.parquet import ParquetSource
from deepgen.data.sources.shards import TarSource
from deepgen.data.sources.world import WorldSource

__all__ = ["Record", "Source", "open_set"]


def open_set(config: AnySet, index: Index | None = None) -> Source:
    """The samples of a set; `index` keeps what took long to find out.

    Raises:
        DataError: there are none, or their list cannot be read.
        ConfigError: the configuration asks for what the set lacks.
    """
    if isinstance(config, ListSet):
        return open_list(config)
    if isinstance(config, FolderSet):
        return open_folder(config)
    if isinstance(config, TarSet):
        return TarSource(config, index or Index(None))
    if isinstance(config, ParquetSet):
        return ParquetSource(config)
    return WorldSource(config)
