"""Who asks the local Hub, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hub_repository import HttpError, Repo

TOKENS = {
    "hf_alice": "alice", "hf_alice_read": "alice", "hf_alice_fine": "alice", "hf_bob": "bob", "hf_carol": "carol",
}  # fmt: skip
ROLES = {"hf_alice_read": "read", "hf_alice_fine": "fineGrained"}  # others: write
NO_PASSWORD = "Invalid username or password."
NO_SUCH_TOKEN = "Invalid credentials in Authorization header"
FINE_RIGHTS = ["repo.write", "repo.content.read"]


@dataclass(frozen=True)
class Account:
    """A user as one token shows them; a fine-grained token reaches the user's own repositories only."""

    user: str
    role: str
    orgs: tuple[str, ...] = ()

    def reads(self, namespace: str) -> bool:
        return namespace == self.user or (namespace in self.orgs and self.role != "fineGrained")

    def writes(self, namespace: str) -> bool:
        return self.role != "read" and self.reads(namespace)

    def proposes(self, namespace: str) -> bool:
        """May open a pull request there."""
        return self.role == "write" or self.writes(namespace)

    def described(self) -> dict[str, Any]:
        """The answer of whoami-v2."""
        token: dict[str, Any] = {"displayName": "t", "role": self.role, "createdAt": "2026-01-01T00:00:00.000Z"}
        if self.role == "fineGrained":
            scope = {"entity": {"_id": "0", "type": "user", "name": self.user}, "permissions": FINE_RIGHTS}
            token["fineGrained"] = {"canReadGatedRepos": True, "global": [], "scoped": [scope]}
        orgs = [
            {"type": "org", "id": name, "name": name, "fullname": name.title(), "roleInOrg": "write"}
            for name in self.orgs
        ]
        about = {"type": "user", "id": self.user, "name": self.user, "fullname": self.user.title(), "isPro": False}
        return {**about, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}


def need_account(account: Account | None) -> Account:
    if account is None:
        raise HttpError(401, NO_PASSWORD)
    return account


def need_write(account: Account | None, namespace: str, refusal: str) -> None:
    if not need_account(account).writes(namespace):
        raise HttpError(403, refusal)


def need_commit(account: Account | None, repo: Repo, revision: str, as_request: bool) -> None:
    """Writers commit to all; who opened a pull request also to it; `as_request` opens one."""
    account = need_account(account)
    request = repo.discussion_of(revision)
    own = as_request or (request is not None and request.author == account.user)
    if not (account.writes(repo.namespace) or (own and account.proposes(repo.namespace))):
        raise HttpError(403, "pass `create_pr=1` as a query parameter to create a Pull Request")


def need_files(account: Account | None, repo: Repo) -> None:
    """Files of a gated repository are for those whom its owner accepted: here, its members."""
    if not repo.gated or (account and account.reads(repo.namespace)):
        return
    if account is None:
        why = "You must have access to it and be authenticated to access it. Please log in."
        raise HttpError(401, f"Access to {repo.kind} {repo.id} is restricted. {why}", "GatedRepo")
    why = f"you are not in the authorized list. Visit the page of {repo.id} to ask for access."
    raise HttpError(403, f"Access to {repo.kind} {repo.id} is restricted and {why}", "GatedRepo")
