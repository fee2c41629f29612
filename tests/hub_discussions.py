"""What the local Hub answers about discussions and pull requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub_accounts import need_account, need_write
from hub_repository import Discussion, HttpError, Repo
from hub_routes import API, route

if TYPE_CHECKING:
    from hub_server import Handler

ONE = API + r"/discussions/(?P<number>\d+)"
SHOWN = {"open": ("open", "draft"), "closed": ("closed", "merged")}


@route("POST", API + r"/discussions")
def open_discussion(h: Handler, kind: str, id_: str) -> int:
    repo, wanted, account = h.repo(kind, id_), h.json(), need_account(h.account)
    if not account.proposes(repo.namespace):
        raise HttpError(403, "You don't have the required permissions to open a discussion")
    is_request = bool(wanted.get("pullRequest"))
    with repo.lock:
        # such a pull request has no commits yet: it is a draft until its status is set to open
        status, base = ("draft", "main") if is_request else ("open", None)
        made = repo.open(wanted["title"], account.user, wanted.get("description", ""), status, base)
    number = made.number
    return h.send(200, {"num": number, "pullRequest": is_request, "url": f"{h.web_url(repo.kind, id_)}/{number}"})


@route("GET", API + r"/discussions")
def list_discussions(h: Handler, kind: str, id_: str) -> int:
    repo = h.repo(kind, id_)
    found = [described(repo, each) for each in reversed(repo.discussions.values()) if asked_for(each, h.query)]
    start = int(h.query.get("p", 0)) * h.hub.page
    closed = sum(each.status in SHOWN["closed"] for each in repo.discussions.values())
    return h.send(
        200,
        {
            "discussions": found[start : start + h.hub.page], "count": len(found), "start": start,
            "numClosedDiscussions": closed,
        },
    )  # fmt: skip


def asked_for(discussion: Discussion, query: dict[str, str]) -> bool:
    kind = "pull_request" if discussion.is_pull_request else "discussion"
    return (
        query.get("type", "all") in ("all", kind)
        and discussion.status in SHOWN.get(query.get("status", "all"), (discussion.status,))
        and query.get("author", discussion.author) == discussion.author
    )


def described(repo: Repo, discussion: Discussion) -> dict[str, Any]:
    return {
        "num": discussion.number, "title": discussion.title, "author": {"name": discussion.author},
        "status": discussion.status, "isPullRequest": discussion.is_pull_request, "createdAt": discussion.date,
        "repo": {"name": repo.id, "type": repo.kind}, "numComments": len(discussion.events), "pinned": False,
    }  # fmt: skip


def found(h: Handler, kind: str, id_: str, number: str) -> tuple[Repo, Discussion]:
    repo = h.repo(kind, id_)
    if int(number) not in repo.discussions:
        raise HttpError(404, "Discussion not found")
    return repo, repo.discussions[int(number)]


@route("GET", ONE)
def show(h: Handler, kind: str, id_: str, number: str) -> int:
    repo, discussion = found(h, kind, id_, number)
    about = {**described(repo, discussion), "events": discussion.events, "filesWithConflicts": [], "diff": ""}
    if discussion.is_pull_request:
        about["changes"] = {"base": f"refs/heads/{discussion.base}", "mergeCommitId": discussion.merged_as}
    return h.send(200, about)


@route("POST", ONE + r"/comment")
def comment(h: Handler, kind: str, id_: str, number: str) -> int:
    _, discussion = found(h, kind, id_, number)
    return h.send(200, {"newMessage": discussion.comment(need_account(h.account).user, h.json()["comment"])})


def need_say(h: Handler, repo: Repo, discussion: Discussion) -> str:
    """Its author and those who may write decide about a discussion."""
    account = need_account(h.account)
    if account.role == "read" or account.user != discussion.author:
        need_write(account, repo.namespace, "You don't have the rights to change this discussion")
    return account.user


@route("POST", ONE + r"/title")
def rename(h: Handler, kind: str, id_: str, number: str) -> int:
    repo, discussion = found(h, kind, id_, number)
    user, title = need_say(h, repo, discussion), h.json()["title"]
    event = discussion.note("title-change", user, {"from": discussion.title, "to": title})
    discussion.title = title
    return h.send(200, {"newTitle": event})


@route("POST", ONE + r"/status")
def set_status(h: Handler, kind: str, id_: str, number: str) -> int:
    repo, discussion = found(h, kind, id_, number)
    user, wanted = need_say(h, repo, discussion), h.json()["status"]
    if discussion.status == "merged":
        raise HttpError(400, "This pull request is merged already")
    discussion.status = wanted
    return h.send(200, {"newStatus": discussion.note("status-change", user, {"status": wanted})})


@route("POST", ONE + r"/merge")
def merge(h: Handler, kind: str, id_: str, number: str) -> int:
    repo, discussion = found(h, kind, id_, number)
    need_write(h.account, repo.namespace, f"You don't have the rights to write to {id_}")
    if not discussion.is_pull_request or discussion.status != "open":
        raise HttpError(400, f"This pull request is {discussion.status}: only open ones can be merged")
    with repo.lock:
        discussion.merged_as = repo.refs[discussion.base] = merged(repo, discussion, h.user or "")
    discussion.status = "merged"
    discussion.note("status-change", h.user or "", {"status": "merged"})
    return h.send(200, {})


def merged(repo: Repo, discussion: Discussion, user: str) -> str:
    """A commit with what the pull request changed, over the branch as it is now."""
    head = repo.refs[discussion.base]
    before, after = repo.files(discussion.parent), repo.files(f"refs/pr/{discussion.number}")
    files = {path: file for path, file in repo.files(head).items() if path in after or path not in before}
    files |= {path: file for path, file in after.items() if before.get(path) != file}
    return repo.add_commit(head, files, f"{discussion.title} (#{discussion.number})", user)
