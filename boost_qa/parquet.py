"""Parquet shards, the same to the byte for the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from boost_qa.rows import FEATURES

SHARD_BYTES = 490_000_000
GROUP_ROWS = 1_000

# Every option that could change the bytes is said here. Content-defined chunks let stores that
# deduplicate (the Hub's) send only what changed between two exports.
_OPTIONS: dict[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": True,
    "write_statistics": True,
    "write_page_index": True,
    "use_content_defined_chunking": {"min_chunk_size": 262_144, "max_chunk_size": 1_048_576, "norm_level": 0},
}


class ShardWriter:
    """Writes the rows of one split as `<split>-00000-of-0000N.parquet` into `folder`.

    At most `group_rows` rows are held in memory. A shard ends with the row group that takes it over
    `shard_bytes`.
    """

    def __init__(
        self, folder: Path, split: str, *, shard_bytes: int = SHARD_BYTES, group_rows: int = GROUP_ROWS
    ) -> None:
        self.folder, self.split, self.shard_bytes, self.group_rows = folder, split, shard_bytes, group_rows
        self.num_examples = self.num_bytes = self.download_size = 0
        self._schema = FEATURES.arrow_schema
        self._rows: list[dict[str, Any]] = []
        self._shards: list[Path] = []
        self._file: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: dict[str, Any]) -> None:
        """Take one row with the columns of `rows.FEATURES`."""
        self._rows.append(row)
        if len(self._rows) >= self.group_rows:
            self._write_group()

    def close(self) -> None:
        """Write what is left and give the shards their names; the figures are final after this."""
        if self._rows:
            self._write_group()
        self.abort()
        for number, shard in enumerate(self._shards):
            self.download_size += shard.stat().st_size
            shard.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self._shards):05d}.parquet")

    def abort(self) -> None:
        """Close the file that is open, whatever it holds."""
        if self._writer and self._file:
            self._writer.close()
            self._file.close()
        self._writer = self._file = None

    def _write_group(self) -> None:
        if self._writer is None:
            self._shards.append(self.folder / f"{self.split}-{len(self._shards):05d}.part")
            self._file = pa.OSFile(str(self._shards[-1]), "wb")
            self._writer = pq.ParquetWriter(self._file, self._schema, **_OPTIONS)
        group = pa.Table.from_pylist(self._rows, schema=self._schema)
        self._writer.write_table(group, row_group_size=len(group))
        self.num_examples += len(group)
        self.num_bytes += group.nbytes
        self._rows = []
        if self._file is not None and self._file.tell() >= self.shard_bytes:
            self.abort()
