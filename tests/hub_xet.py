"""Xet storage for the local Hub: hf_xet itself, over a folder instead of a server.

hf_xet takes `local://FOLDER` for the address of its storage, and then cuts, packs and looks up chunks as ever. A
client process locks the folder while it has it open: one process at a time can upload.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

ENTRY = 48  # bytes of a record in a shard
VERIFIED, DESCRIBED = 1 << 31, 1 << 30  # flags of a file: a second row of entries; its sha256 at the end
END = b"\xff" * 32
INDEX = ".redb"


class Xet:
    """The storage under `root`/cas; `hashes` has the Xet hash of each file that came by Xet, by its sha256."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.hashes = root, root / "cas", dict[str, str]()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.url, self.packed = f"local://{self.folder}", self.folder / "xet" / "xorbs"

    def token(self) -> dict[str, str]:
        until = str(int(time.time()) + 3600)
        return {"X-Xet-Cas-Url": self.url, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": until}

    def fetch(self, wanted: Iterable[str], into: Path) -> list[str]:
        """Write the wanted files (by sha256) that were uploaded by Xet into a folder; which they were."""
        stored = {sha: (hash_, size) for sha, hash_, size in self.stored()}
        found = [sha for sha in wanted if sha in stored]
        jobs = [(*stored[sha], str(into / sha)) for sha in found if not (into / sha).exists()]
        if jobs:
            # the client still holds the lock of the index: read from a copy, whose format survives a crash
            with tempfile.TemporaryDirectory(dir=self.root) as copy:
                shutil.copytree(self.packed, f"{copy}/xet/xorbs", copy_function=link_or_copy)
                subprocess.run([sys.executable, __file__, f"local://{copy}", json.dumps(jobs)], check=True)
        self.hashes |= {sha: stored[sha][0] for sha in found}
        return found

    def stored(self) -> Iterator[tuple[str, str, int]]:
        """sha256, Xet hash and size in bytes of every file."""
        for shard in sorted((self.packed / "shards").glob("*.mdb")):
            yield from files_of(shard.read_bytes())


def files_of(shard: bytes) -> Iterator[tuple[str, str, int]]:
    at = ENTRY  # behind the header
    while (hash_ := shard[at : at + 32]) != END:
        flags, count = struct.unpack_from("<II", shard, at + 32)
        size = sum(struct.unpack_from("<I", shard, at + ENTRY * n + 36)[0] for n in range(1, count + 1))
        at += ENTRY * (1 + count * (2 if flags & VERIFIED else 1))
        if flags & DESCRIBED:
            yield in_hex(shard[at : at + 32]), in_hex(hash_), size
            at += ENTRY


def in_hex(hash_: bytes) -> str:
    """Xet writes a hash as four little-endian numbers."""
    return b"".join(hash_[at : at + 8][::-1] for at in range(0, 32, 8)).hex()


def link_or_copy(source: str, target: str) -> None:
    if source.endswith(INDEX):
        shutil.copy(source, target)
    else:
        os.link(source, target)


def download(storage: str, jobs: list[tuple[str, int, str]]) -> None:
    import hf_xet

    expiry = int(time.time()) + 3600
    with hf_xet.XetSession().new_file_download_group(
        endpoint=storage, token="t", token_expiry_unix_secs=expiry
    ) as group:
        for hash_, size, path in jobs:
            group.start_download_file(hf_xet.XetFileInfo(hash_, size), path)


if __name__ == "__main__":
    download(sys.argv[1], json.loads(sys.argv[2]))
