"""The pipeline between engines and the store, under one name: see writing, reading and chunking."""

from drd.repository.chunking import DEFAULT_PART_BYTES, MAX_PART_BYTES, part_size_at
from drd.repository.cutting import PartWriter
from drd.repository.reading import PartReader, PartStream
from drd.repository.writing import DEFAULT_MEMORY_LIMIT_BYTES, PartSink

__all__ = [
    "DEFAULT_MEMORY_LIMIT_BYTES",
    "DEFAULT_PART_BYTES",
    "MAX_PART_BYTES",
    "PartReader",
    "PartSink",
    "PartStream",
    "PartWriter",
    "part_size_at",
]
