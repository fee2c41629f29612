"""What the Hub's answers mean for who publishes: what is wrong, and what to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from boost_qa.errors import BoostQAError, HubError, PublishError
from boost_qa.publish.patience import is_passing, status
from boost_qa.publish.secrets import known_secrets, without

AGAIN = "Nothing is half published; run the same command again, and it goes on."


@contextmanager
def explained(endpoint: str, url: str, token: str | None) -> Iterator[None]:
    """Failures of the client inside the block become ours; no secret is in their text.

    Args:
        endpoint: of the Hub.
        url: of the repository.
        token: that requests are made with.

    Raises:
        PublishError: for what only the user can mend.
        HubError: for a Hub that does not answer, or not as it should.
    """
    try:
        yield
    except BoostQAError:
        raise
    except Exception as error:
        found = explain(error, endpoint, url)
        if found is None:
            raise
        known = known_secrets(token=token)
        raise type(found)(without(found.what, known), without(found.remedy, known)) from error


def explain(error: Exception, endpoint: str, url: str) -> BoostQAError | None:
    """The error of ours that the client's stands for; None if it has nothing to do with the Hub."""
    said, code = _first_line(error), status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return PublishError("HF_HUB_OFFLINE is set, so that nothing can be published", "Unset it.")
    if isinstance(error, LocalTokenNotFoundError):
        return PublishError(f"no token for {endpoint}", log_in(endpoint))
    if isinstance(error, httpx2.UnsupportedProtocol):
        return PublishError(f"{endpoint} is no address of a Hub", "HF_ENDPOINT begins with https:// or http://.")
    if is_passing(error):
        return HubError(f"{endpoint} fails: {said}", AGAIN)
    if isinstance(error, ValueError) and "metadata in README.md" in str(error):
        return PublishError(f"{url}: {' '.join(str(error).split())}", "Mend the block between the card's --- lines.")
    if isinstance(error, GatedRepoError):
        remedy = f"Accept its licence at {url}, and run `hf auth login` as who accepted it."
        return PublishError(f"{url} is gated, and this user has no access to its files", remedy)
    if code == 401:
        return PublishError(f"{endpoint} does not accept the token", log_in(endpoint))
    if code == 403:
        return PublishError(f"no right to write to {url}: {said}", f"{log_in(endpoint)} Or publish under another name.")
    if code == 404:
        return PublishError(f"{url}: {said}", "Check the name, and `hf auth whoami`.")
    if code in (409, 412):
        return HubError(f"{url}: others publish there all the time ({said})", AGAIN)
    if code is not None:
        return PublishError(f"{url}: HTTP {code}: {said}", "The Hub refuses it; mend what it names.")
    if isinstance(error, RuntimeError) or "LFS batch API" in str(error):  # what storage says, by Xet or by LFS
        return HubError(f"{url}: the upload fails: {said}", AGAIN)
    if isinstance(error, HFValidationError):
        return PublishError(f"{url}: {said}", "Give user/name or organisation/name.")
    return None


def log_in(endpoint: str) -> str:
    """What to do about a token."""
    return f"Make a token that may write at {endpoint}/settings/tokens; then `hf auth login`, or set HF_TOKEN."


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = getattr(error, "server_message", None)
    return str(message or (lines[0] if lines else type(error).__name__))
