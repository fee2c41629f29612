"""A release into its repository: one commit, or none if it is there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete

from boost_qa.errors import BoostQAError, HubError, PublishError
from boost_qa.publish.failures import AGAIN, explained
from boost_qa.publish.patience import is_passing, status
from boost_qa.publish.release import CARD, FILES, GENERATED, Change, Local, Release, Remote, compare
from boost_qa.publish.repository import Repository
from boost_qa.publish.upload import Say, upload

_OVERTAKEN = (409, 412)  # somebody else was quicker
_ROUNDS = 30  # of being overtaken


@dataclass(frozen=True)
class Published:
    """What became of a release.

    Args:
        url: of the repository, or of the pull request.
        revision: what it can be loaded by: the commit, or `refs/pr/N`; None after a dry run that found changes.
        change: what was changed; empty if the release was there already.
        kept: passages of the card where people's text stands against a change of ours.
    """

    url: str
    revision: str | None
    change: Change
    kept: Sequence[str] = ()


def send(
    release: Release,
    repository: Repository,
    *,
    dry_run: bool = False,
    look: Callable[[str], None] = lambda revision: None,
    say: Say = lambda text: None,
) -> Published:
    """Make the repository have the release, by one commit on top of the head that it was compared with.

    Args:
        release: what to publish.
        repository: where; made if it is missing.
        dry_run: compare, and change nothing.
        look: is given the revision once it has the release, before it gets its tag; may raise.
        say: is told what is going on.

    Raises:
        PublishError: if the tag is another release's, the Hub refuses, or files of others are in the way.
        HubError: if the Hub fails on and on, or others always publish first.
    """
    if commit := repository.tagged():
        found = _released(release, repository, commit)
        look(commit)
        return found
    head = repository.head()
    if dry_run:
        return _compared(release, repository, head)[0]
    if head is None:
        repository.create()
    published = _committed(release, repository, say)
    look(str(published.revision))
    repository.tag(str(published.revision))
    return published


def _committed(release: Release, repository: Repository, say: Say) -> Published:
    additions: dict[str, CommitOperationAdd] = {}
    stored: set[Local] = set()
    compared_with, failed, overtaken = None, 0, 0
    while True:
        head = repository.head()
        if head is None:
            raise HubError(f"{repository.url} has no branch {repository.target.revision} any more", AGAIN)
        plan, files = _compared(release, repository, head)
        if not plan.change:
            return plan
        if repository.target.pull_request and (known := _proposed(files, release, repository)):
            return known
        if head != compared_with:
            compared_with, additions = head, _additions(plan.change)
        upload([file for file in plan.change.sent if file not in stored], additions, repository, say)
        stored.update(plan.change.sent)
        try:
            info = _commit(release, plan.change, additions, repository, head)
        except BoostQAError as error:
            # An answer that was lost may stand for a commit that was made: the comparison will tell.
            cause = error.__cause__ or error
            if status(cause) in _OVERTAKEN and overtaken < _ROUNDS:
                overtaken += 1
                say("somebody else published first; comparing again")
                repository.patience.pause(1, cause)
            elif is_passing(cause) and failed + 1 < repository.patience.attempts:
                failed += 1
                repository.patience.pause(failed, cause)
            else:
                raise
        else:
            return _verified(plan, info, files, repository)


def _compared(release: Release, repository: Repository, head: str | None) -> tuple[Published, list[Local]]:
    """What the release would change on top of `head`, and its files there."""
    there = repository.listing(head) if head else {}
    card, generated, ours = (
        repository.read(path, head) if head and path in there else None for path in (CARD, GENERATED, FILES)
    )
    files, kept = release.beside(card, generated)
    earlier = _in_the_way(release, files, there, repository) if generated is None else (ours or "").splitlines()
    change = compare(files, there, [*earlier, *filter(release.stale.fullmatch, there)])
    return Published(repository.url, None if change else head, change, kept), files


def _in_the_way(
    release: Release, files: Sequence[Local], there: Mapping[str, Remote], repository: Repository
) -> list[str]:
    """What else than a release of ours wrote at its places, if it may be replaced."""
    wanted = {file.path: file for file in files}
    foreign = sorted(path for path in there if release.places.fullmatch(path))
    foreign = [path for path in foreign if path not in wanted or not wanted[path].is_there(there[path])]
    if foreign and not repository.target.replace:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise PublishError(
            f"{repository.url} has {foreign[0]}{more}, which no release of boost_qa wrote",
            "Give another name. With --replace such files are replaced or removed; --dry-run --replace names them.",
        )
    return foreign


def _released(release: Release, repository: Repository, commit: str) -> Published:
    """What there is under the target's tag, if that is this release."""
    found, _ = _compared(release, repository, commit)
    if found.change:
        raise PublishError(
            f"{repository.url} has a tag {repository.target.tag} already, for something else",
            "A tag is for one release: give another one.",
        )
    return found


def _proposed(files: Sequence[Local], release: Release, repository: Repository) -> Published | None:
    """The open pull request that has these files already, if there is one."""
    for url, revision in repository.proposals().items():
        change = compare(files, repository.listing(revision))
        if not change:
            return Published(url, revision, change)
    return None


def _additions(change: Change) -> dict[str, CommitOperationAdd]:
    """What is to be added, not known to the client yet: it would leave out of a commit what it saw to be there already,
    and that was another head. The digests are ours, so that it reads no file for them.
    """
    additions = {}
    for file in change.sent:
        content = file.content if isinstance(file.content, bytes) else str(file.content)
        additions[file.path] = addition = CommitOperationAdd(file.path, content)
        addition.upload_info.sha256 = bytes.fromhex(file.sha256)
    return additions


def _commit(
    release: Release, change: Change, additions: Mapping[str, CommitOperationAdd], repository: Repository, head: str
) -> CommitInfo:
    removals = [CommitOperationDelete(path) for path in change.removed]
    with explained(repository.api.endpoint, repository.url, repository.token):
        return repository.commit([*additions.values(), *removals], release.title, release.description, head)


def _verified(plan: Published, info: CommitInfo, files: Sequence[Local], repository: Repository) -> Published:
    if missing := compare(files, repository.listing(info.oid), plan.change.removed):
        names = ", ".join([*(file.path for file in missing.sent), *missing.removed][:3])
        raise HubError(f"{repository.url}: commit {info.oid} is not as it was sent: {names}", AGAIN)
    return replace(plan, url=info.pr_url or plan.url, revision=info.pr_revision or info.oid)
