"""Any OpenAI-compatible server: vLLM, SGLang, llama.cpp, a provider.

One process must keep eight GPUs busy, so a request costs little more here than in the HTTP library
below. Overload is met by asking less (`concurrency`), and by waiting; what no waiting mends stops the
run at once. Proxies of the environment are not used, and redirects are not followed: the key goes to
`base_url` and nowhere else.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import aiohttp
import orjson
from yarl import URL

from boost_qa.config import OpenAI
from boost_qa.engines.answers import Failure, read_failure, read_models, read_pause, read_reply
from boost_qa.engines.concurrency import AdaptiveLimit
from boost_qa.engines.control import control_text
from boost_qa.engines.gate import Gate
from boost_qa.errors import EngineError, ModelError, RecipeError
from boost_qa.types import Call, Reply

if TYPE_CHECKING:
    from boost_qa.engines.chat import ChatTokenizer

OVERLOADED = frozenset({408, 429, 502, 503, 504, 520, 521, 522, 523, 524, 529, 530})  # from 520: of proxies
AGAIN = OVERLOADED | {200, 409, 425, 500}  # 200: a body without a reply
LONGEST_BACK_OFF = 60.0  # seconds
LONGEST_PAUSE = 3600.0  # seconds; a server that asks for more is out of quota
LONGEST_MESSAGE = 300  # characters
OWN_FIELDS = ("model", "messages", "prompt", "stream", "n", "temperature", "top_p", "max_tokens", "seed")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Miss:
    """A try that brought nothing but may be repeated; after `pause` seconds where the server said so."""

    what: str
    pause: float | None = None


class OpenAIEngine:
    """Asks one model behind one URL.

    `extra_body` adds fields to every request; null leaves out one that the server does not know, as in
    `{seed: null}`. What a request does not say, servers fill in: vLLM from the model's
    generation_config.json, llama.cpp with top_k 40 and min_p 0.05; only `extra_body` rules that out.
    Without `tokenizer` the server tokenises, so a message with text that looks like a control token is
    refused rather than asked.

    Raises:
        RecipeError: if `extra_body` would replace what belongs to the call.
    """

    def __init__(self, settings: OpenAI) -> None:
        self._settings = settings
        self._url = URL(settings.base_url + ("/completions" if settings.tokenizer else "/chat/completions"))
        self._models_url = URL(settings.base_url + "/models")
        self._limit = AdaptiveLimit(settings.concurrency)
        self._gate = Gate(self._limit)
        self._left_out = [name for name, value in settings.extra_body.items() if value is None]
        self._constant = {"model": settings.model} | settings.extra_body
        for name in settings.extra_body.keys() & set(OWN_FIELDS):
            if name in ("model", "messages", "prompt", "stream") or settings.extra_body[name] is not None:
                raise RecipeError(
                    f"model {settings.model!r}: extra_body must not set {name!r}",
                    "Sampling belongs to the agents of the cast; null leaves a field out.",
                )
        self._key = ""
        self._session: aiohttp.ClientSession | None = None
        self._tokenizer: ChatTokenizer | None = None

    @property
    def slots(self) -> int:
        """Requests at once: adapts between 1 and `concurrency`."""
        return self._limit.slots

    @property
    def revision(self) -> str | None:
        """As the recipe gives it; servers do not tell."""
        return self._settings.revision

    async def open(self) -> None:
        """Connect, and check key, server and model name.

        Raises:
            EngineError: no key, no server there, or it refuses us.
            ModelError: the server does not list the model, or the tokenizer's folder is not one.
        """
        self._key = self._read_key()
        if self._settings.tokenizer:
            from boost_qa.engines.chat import ChatTokenizer

            self._tokenizer = ChatTokenizer(self._settings.tokenizer)
            self._constant.setdefault("stop_token_ids", sorted(self._tokenizer.stop_ids))
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        headers["User-Agent"] = "boost-qa"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            # most servers drop an idle connection after 5 s, so it is ours to drop it before they do
            connector=aiohttp.TCPConnector(limit=self._settings.concurrency, keepalive_timeout=4.0),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=min(30.0, self._settings.timeout), sock_read=self._settings.timeout
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
        )
        try:
            await self._check_model()
        except BaseException:
            await self.close()
            raise

    async def ask(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            EngineError: all tries failed, or one failed in a way that no waiting mends.
            ModelError: the tokenizer's chat template refuses the messages.
        """
        body = self._body(call)
        if isinstance(body, Reply):
            return body
        failures = 0
        while isinstance(outcome := await self._try(body), _Miss):
            failures += 1
            await self._back_off(outcome, failures)
        return outcome

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()

    # --- one request ---------------------------------------------------------------------------------

    def _body(self, call: Call) -> bytes | Reply:
        """The request as JSON; or, where it must not be sent, the reply that says why."""
        request, sampling = call.request, call.request.sampling
        body: dict[str, Any] = {
            **self._constant,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": call.seed,
        }
        if self._tokenizer:
            body["prompt"] = self._tokenizer.encode(request.messages)
        else:
            for message in request.messages:
                if found := control_text(message.content):
                    return Reply(f"control text {found!r} in a message, which the server might obey", "refused")
            body["messages"] = request.messages
        for name in self._left_out:
            del body[name]
        return orjson.dumps(body)

    async def _try(self, body: bytes) -> Reply | _Miss:
        assert self._session, "open() comes first"
        era = await self._gate.enter()
        try:
            response = await self._session.post(self._url, data=body, allow_redirects=False)
            raw = await response.read()
            if response.status == 200 and (reply := read_reply(raw)):
                self._limit.success(era)
                return reply
            failure = read_failure(raw)
            if failure.refuses_prompt(response.status):
                return Reply(self._clean(failure.message), "refused")
            if response.status == 404:
                await self._stop_unknown(failure)
            return self._judge(response, failure, era)
        except (aiohttp.ClientError, OSError) as error:  # OSError: timeouts too
            return self._slow_down(_Miss(f"POST {self._url}: {self._clean(_describe(error))}"), era)
        finally:
            self._gate.leave()

    def _judge(self, response: aiohttp.ClientResponse, failure: Failure, era: int) -> _Miss:
        """An answer that is none: a miss to repeat, or EngineError where no waiting helps."""
        status = response.status
        what = f"{response.method} {response.url}: {self._tell(status, failure)}"
        if status not in AGAIN or failure.out_of_money:
            raise EngineError(what, self._remedy(status, response.headers.get("Location", "")))
        pause = read_pause(response.headers)
        if pause is not None:
            if pause > LONGEST_PAUSE:
                raise EngineError(what, f"The server asks for {pause / 3600:.1f} hours of rest: resume the run then.")
            self._gate.pause(pause)
        miss = _Miss(what, pause)
        return self._slow_down(miss, era) if status in OVERLOADED else miss

    def _slow_down(self, miss: _Miss, era: int) -> _Miss:
        if self._limit.overload(era):
            log.warning("%s; from now on %d requests at once", miss.what, self._limit.slots)
        return miss

    async def _back_off(self, miss: _Miss, failures: int) -> None:
        """Wait before the next try. Raises EngineError when there is none left."""
        if failures > self._settings.retries:
            raise EngineError(
                f"{miss.what} (try {failures} of {self._settings.retries + 1})",
                "See to the server and resume: all replies so far are kept. Where it is merely slow or busy, "
                "a lower `concurrency`, a higher `timeout` or more `retries` help.",
            )
        longest = min(LONGEST_BACK_OFF, 0.5 * 2**failures)
        # a pause that the server names is the least: it may name none at all while it is overloaded
        await asyncio.sleep((miss.pause or 0) + random.uniform(0, longest))

    # --- the server as a whole -----------------------------------------------------------------------

    def _read_key(self) -> str:
        name = self._settings.api_key_env
        if name is None:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            what = f"the environment variable {name}, with the key for {self._settings.base_url}, is not set"
            raise EngineError(what, f"Set it: export {name}=...")
        if not (key.isascii() and key.isprintable()):
            raise EngineError(f"the environment variable {name} holds no API key", "It has characters that no key has.")
        return key

    async def _check_model(self) -> None:
        failures = 0
        while True:
            try:
                response, raw = await self._get_models()
            except (aiohttp.ClientError, OSError) as error:
                raise EngineError(
                    f"no server at {self._settings.base_url}: {self._clean(_describe(error))}",
                    f"Start one there, for example with `vllm serve {self._settings.model}` or "
                    "`llama-server --model FILE`, or correct base_url (up to and including /v1).",
                ) from None
            if response.status in (200, 404, 405):
                break
            failures += 1
            await self._back_off(self._judge(response, read_failure(raw), era=-1), failures)
        names = read_models(raw) if response.status == 200 else None  # some servers have no list
        if names is not None and self._settings.model not in names:
            raise ModelError(f"{self._settings.base_url} does not serve {self._settings.model!r}", self._offer(names))

    async def _get_models(self) -> tuple[aiohttp.ClientResponse, bytes]:
        assert self._session, "open() comes first"
        response = await self._session.get(self._models_url, allow_redirects=False)
        return response, await response.read()

    async def _stop_unknown(self, failure: Failure) -> NoReturn:
        response, raw = await self._get_models()
        names = read_models(raw) if response.status == 200 else None
        what = f"POST {self._url}: {self._tell(404, failure)}"
        if names is None:
            raise EngineError(what, "Is base_url right, up to and including /v1? The server lists no models.")
        raise EngineError(what, self._offer(names))

    def _offer(self, names: list[str]) -> str:
        near = difflib.get_close_matches(self._settings.model, names, n=1, cutoff=0.4)
        hint = f" The nearest to {self._settings.model!r} is {near[0]!r}." if near else ""
        return f"It offers: {', '.join(sorted(names)[:20]) or 'nothing'}{', ...' if len(names) > 20 else ''}.{hint}"

    def _remedy(self, status: int, location: str) -> str:
        variable = self._settings.api_key_env
        if status in (401, 403) and variable:
            return f"Set the environment variable {variable} to a key that may use {self._settings.model!r}."
        if status in (401, 403):
            return "The server wants a key: name the environment variable that holds it in api_key_env."
        if 300 <= status < 400:
            return self._clean(f"Redirects are not followed: set base_url to where this one leads ({location}).")
        if status in (402, 429):
            return "The account is exhausted: top it up and resume, all replies so far are kept."
        return "The server does not take such requests: see `extra_body`, `tokenizer` and the agents' sampling."

    def _tell(self, status: int, failure: Failure) -> str:
        return f"{'no reply in the answer' if status == 200 else status}: {self._clean(failure.message)}"

    def _clean(self, text: str) -> str:
        """Without the key, which servers like to quote, and no longer than an error should be."""
        return (text.replace(self._key, "[key]") if self._key else text)[:LONGEST_MESSAGE]


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
