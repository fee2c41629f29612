"""A repository on the Hub, as far as publishing needs it: requests are patient, failures name their remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetInfo,
    HfApi,
    ModelInfo,
    get_token,
)
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from boost_qa.errors import PublishError
from boost_qa.publish.failures import explained, log_in
from boost_qa.publish.patience import Patience
from boost_qa.publish.release import Remote

T = TypeVar("T")
Operation = CommitOperationAdd | CommitOperationDelete
MAIN = "main"


@dataclass(frozen=True)
class Target:
    """Where a release goes, and how.

    Args:
        name: user/name or organisation/name.
        kind: what the Hub calls the repository's type.
        revision: a branch, made if it is missing.
        tag: for the commit of the release.
        private: whether a repository that is made is private; one that exists must be.
        pull_request: propose the release instead of committing it.
        replace: whether files that something else wrote may be replaced and removed where they are in the way.

    Raises:
        PublishError: if they do not go together, or a name cannot be one.
    """

    name: str
    kind: Literal["dataset", "model"]
    revision: str = MAIN
    tag: str | None = None
    private: bool = False
    pull_request: bool = False
    replace: bool = False

    def __post_init__(self) -> None:
        if self.pull_request and self.tag:
            raise PublishError("a pull request cannot be tagged", "Leave --tag out, and tag it once it is merged.")
        if self.pull_request and self.revision != MAIN:
            raise PublishError("a pull request is to main", "Leave out --revision or --create-pr.")
        for what, name in (("tag", self.tag), ("branch", self.revision)):
            if name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.\-]*(/[\w.\-]+)*", name):
                raise PublishError(f"{name!r} is no name for a {what}", "Use letters, digits, dots and dashes: v1.0")


class Repository:
    """The repository of a target.

    Args:
        target: which one.
        api: the client; by default that of HF_ENDPOINT, with the token of HF_TOKEN or `hf auth login`.
        patience: with failures that pass.

    Every method raises PublishError for what only the user can mend, and HubError for a Hub that fails on and on.
    """

    def __init__(self, target: Target, api: HfApi | None = None, patience: Patience | None = None) -> None:
        self.target = target
        self.api = api or HfApi()
        self.patience = patience or Patience()
        self._place: dict[str, Any] = {"repo_id": target.name, "repo_type": target.kind}

    @property
    def url(self) -> str:
        return f"{self.api.endpoint}/{'datasets/' if self.target.kind == 'dataset' else ''}{self.target.name}"

    @property
    def token(self) -> str | None:
        return self.api.token if isinstance(self.api.token, str) else get_token()

    def other(self, model: str) -> Repository:
        """The repository of another model on the same Hub."""
        return Repository(Target(model, "model"), self.api, self.patience)

    def check(self) -> bool:
        """Make sure of all that can be known before anything is prepared: name, token, rights, visibility.

        Returns:
            Whether the repository exists.
        """
        user, spaces = self._user()
        owner, slash, name = self.target.name.partition("/")
        if not slash:
            raise PublishError(f"{owner!r} has no namespace", f"You are {user} on the Hub: give {user}/{owner}.")
        info = self.info()
        if info is None:
            if self.target.pull_request:
                raise PublishError(f"there is no {self.url} to propose a change to", "Leave --create-pr out.")
            if owner not in spaces:
                raise PublishError(
                    f"{user} sees no {self.target.kind} {self.target.name}, and has no right to make one",
                    f"Give another name, such as {user}/{name}, or log in as somebody else: `hf auth login`.",
                )
            return False
        self._check_privacy(info)
        if not self.target.pull_request:
            self._may_write()
        return True

    def info(self, revision: str | None = None) -> ModelInfo | DatasetInfo | None:
        """What the Hub says of the repository; None if there is none, none that this user may see, or no revision."""

        def ask() -> ModelInfo | DatasetInfo | None:
            try:
                info = self.api.repo_info(**self._place, revision=revision)
            except (RepositoryNotFoundError, RevisionNotFoundError):
                return None
            assert isinstance(info, ModelInfo | DatasetInfo)
            return info

        return self._do(ask)

    def create(self) -> None:
        """Make the repository and the branch where they are missing."""
        place, target = self._place, self.target
        self._do(lambda: self.api.create_repo(**place, private=target.private or None, exist_ok=True))
        if target.private and (info := self.info()):  # somebody else may have made it just now
            self._check_privacy(info)
        if target.revision != MAIN and self.head() is None:
            self._do(lambda: self.api.create_branch(**place, branch=target.revision, exist_ok=True))

    def head(self) -> str | None:
        """The commit that the target's branch is at; None if there is no such repository or branch."""
        info = self.info(self.target.revision)
        return info.sha if info else None

    def tagged(self) -> str | None:
        """The commit that the target's tag is at; None if there is no such tag or repository, or none is asked for."""

        def ask() -> str | None:
            try:
                refs = self.api.list_repo_refs(**self._place)
            except RepositoryNotFoundError:
                return None
            return next((each.target_commit for each in refs.tags if each.name == self.target.tag), None)

        return self._do(ask) if self.target.tag else None

    def listing(self, revision: str) -> dict[str, Remote]:
        """All files at a revision, by path."""

        def ask() -> dict[str, Remote]:
            entries = self.api.list_repo_tree(**self._place, revision=revision, recursive=True)
            files = (entry for entry in entries if isinstance(entry, RepoFile))
            return {f.path: Remote(f.path, f.size, f.lfs.sha256 if f.lfs else None, f.blob_id) for f in files}

        return self._do(ask)

    def read(self, path: str, commit: str) -> str:
        """The text of a file at a commit."""
        local = self._do(lambda: self.api.hf_hub_download(**self._place, filename=path, revision=commit))
        return Path(local).read_bytes().decode("utf-8", errors="replace")

    def tensors(self, path: str, revision: str) -> dict[str, list[int]]:
        """Names and shapes of a safetensors file, from its header alone."""
        place = self._place | {"filename": path, "revision": revision}
        found = self._do(lambda: self.api.parse_safetensors_file_metadata(**place))
        return {name: list(tensor.shape) for name, tensor in found.tensors.items()}

    def upload(self, additions: Sequence[CommitOperationAdd]) -> None:
        """Send the content of those files that are not in the Hub's storage; a commit can name them afterwards."""
        options: dict[str, Any] = {
            "revision": self.target.revision,
            "create_pr": self.target.pull_request,
            "free_memory": False,
        }
        patience = replace(self.patience, attempts=min(self.patience.attempts, 3))  # the client tries each file often
        with explained(self.api.endpoint, self.url, self.token):
            patience.run(lambda: self.api.preupload_lfs_files(**self._place, additions=additions, **options))

    def commit(self, operations: Sequence[Operation], title: str, description: str, parent: str) -> CommitInfo:
        """One try at a commit on top of `parent`; raises what the client raises."""
        return self.api.create_commit(
            self.target.name, operations, commit_message=title, commit_description=description,
            repo_type=self.target.kind, revision=self.target.revision, create_pr=self.target.pull_request,
            parent_commit=parent,
        )  # fmt: skip

    def tag(self, commit: str) -> None:
        """Give the commit the target's tag."""
        if not (tag := self.target.tag):
            return
        self._do(lambda: self.api.create_tag(**self._place, tag=tag, revision=commit, exist_ok=True))
        if self.tagged() != commit:
            raise PublishError(f"{self.url} got a tag {tag} from somebody else just now", "Give another one.")

    def proposals(self) -> dict[str, str]:
        """The open pull requests of this user: their revision (`refs/pr/1`) by their address."""

        def ask() -> dict[str, str]:
            author = str(self.api.whoami(cache=True)["name"])
            mine = self.api.get_repo_discussions(
                **self._place, author=author, discussion_type="pull_request", discussion_status="open"
            )
            return {each.url: str(each.git_reference) for each in mine}

        return self._do(ask)

    def _user(self) -> tuple[str, list[str]]:
        """Name of the user, and the namespaces that are the user's."""
        with explained(self.api.endpoint, self.url, self.token):  # of the first request one may think it in vain
            patience = replace(self.patience, attempts=min(self.patience.attempts, 5))
            known = patience.run(lambda: self.api.whoami(cache=True))
        user = str(known["name"])
        if known.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise PublishError(f"the token of {user} may only read", log_in(self.api.endpoint))
        return user, [user, *(str(each["name"]) for each in known.get("orgs", ()))]

    def _check_privacy(self, info: ModelInfo | DatasetInfo) -> None:
        if self.target.private and not info.private:
            settings = f"{self.target.name} --type {self.target.kind} --private"
            raise PublishError(
                f"{self.url} is public, and --private was asked for",
                f"Give another name, or make it private first: `hf repos settings {settings}`.",
            )

    def _may_write(self) -> None:
        """Ask how a file would be uploaded: the cheapest request that needs the right to write, and changes nothing."""
        probe = [CommitOperationAdd("README.md", b"-")]
        self._do(lambda: self.api.preupload_lfs_files(self.target.name, probe, repo_type=self.target.kind))

    def _do(self, call: Callable[[], T]) -> T:
        with explained(self.api.endpoint, self.url, self.token):
            return self.patience.run(call)
