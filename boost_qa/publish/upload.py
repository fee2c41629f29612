"""The contents of files into the Hub's storage, before the commit that names them.

What is there already is not sent again, so an upload that was broken off goes on; nobody sees it until the commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from huggingface_hub import CommitOperationAdd

from boost_qa.errors import PublishError
from boost_qa.publish.release import Local
from boost_qa.publish.repository import Repository

Say = Callable[[str], None]
BATCH_FILES, BATCH_BYTES = 200, 512 * 10**6


def upload(
    files: Sequence[Local], additions: Mapping[str, CommitOperationAdd], repository: Repository, say: Say
) -> None:
    """Send the files in batches, and say after each how many bytes there were and how long the rest will take.

    Args:
        files: what to send; what was sent before is passed over.
        additions: the client's word for each of them, by path.
        repository: where to.
        say: is told how far it is.

    Raises:
        PublishError: if the repository ignores one of them.
        HubError: see `Repository`.
    """
    total, sent, count, begun = sum(file.size for file in files), 0, 0, time.monotonic()
    for batch in batches(files):
        repository.upload([additions[file.path] for file in batch])
        count, sent = count + len(batch), sent + sum(file.size for file in batch)
        seconds = time.monotonic() - begun
        rate = sent / max(seconds, 1e-3)
        left = f", {(total - sent) / rate:,.0f} s left" if 0 < sent < total else f" in {seconds:,.0f} s"
        say(f"{count} of {len(files)} files, {megabytes(sent)} of {megabytes(total)} at {megabytes(rate)}/s{left}")
    ignored = [path for path, each in additions.items() if getattr(each, "_should_ignore", False)]
    if ignored:
        raise PublishError(f"the .gitignore of {repository.url} leaves out {ignored[0]}", "Take that line out of it.")


def batches(files: Sequence[Local]) -> Iterator[list[Local]]:
    """The files in groups of at most `BATCH_FILES`, and of `BATCH_BYTES` or one larger file."""
    batch: list[Local] = []
    for file in files:
        if batch and (len(batch) == BATCH_FILES or sum(each.size for each in batch) + file.size > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def megabytes(size: float) -> str:
    """`size` bytes for people."""
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
