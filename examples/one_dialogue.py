"""One error-correction dialogue, from question to ShareGPT, in one flat file.

For reading: it shows the whole method and uses nothing of the package but an engine and a model.
Scenarios, journal, checks and many dialogues at once are what the package adds.

    python examples/one_dialogue.py
"""

import asyncio
import json

from boost_qa import models
from boost_qa.config import Embedded
from boost_qa.engines.embedded import EmbeddedEngine
from boost_qa.types import Call, Message, Request, Sampling

QUESTION = (
    "A tram has 23 passengers. At the square 9 get off and 14 get on; at the park half of them get off. "
    "How many are left?"
)
ANSWER = "After the square there are 23 - 9 + 14 = 28 passengers. Half of 28 is 14. The answer is 14."


async def ask(engine: EmbeddedEngine, role: str, task: str, temperature: float) -> str:
    """One request: a role, what it is shown, and how bold it is."""
    messages = (Message("system", role), Message("user", task))
    request = Request("model", messages, Sampling(temperature, max_tokens=256))
    reply = await engine.ask(Call("tram", "error_correction", 0, request, digest="", seed=1))
    return reply.text


async def main() -> None:
    name = "smollm2-135m-instruct"  # try "qwen2.5-coder-1.5b-instruct" for the teacher and the strong student
    engine = EmbeddedEngine(Embedded(engine="embedded", model=name), models.resolve(name))
    await engine.open()

    # 1. A weak student answers the bare question, boldly; it has never seen the answer.
    attempt = await ask(engine, "You are a pupil who finds this subject difficult. Show your steps.", QUESTION, 0.8)

    # 2. The teacher compares with the answer and guides, without giving it away.
    guidance = await ask(
        engine,
        "You are a teacher. Say whether the working is correct, name the faulty step, and describe the way. "
        "Give no result.",
        f"QUESTION\n{QUESTION}\n\nTHE PUPIL'S WORKING\n{attempt}\n\nREFERENCE ANSWER (keep it secret)\n{ANSWER}",
        0.2,
    )

    # 3. A strong student takes the pupil's place, admits the mistake, and solves the question again.
    correction = await ask(
        engine,
        "You are the pupil. Own up to the mistake, then solve the question again with every step shown.",
        f"QUESTION\n{QUESTION}\n\nYOUR WORKING\n{attempt}\n\nTHE TEACHER SAID\n{guidance}\n\n"
        f"REFERENCE ANSWER\n{ANSWER}",
        0.2,
    )
    await engine.close()

    # 4. The dialogue as training data: what a model hears is `human`, what it learns to say is `gpt`.
    turns = [("human", QUESTION), ("gpt", attempt), ("human", guidance), ("gpt", correction)]
    print(json.dumps({"conversations": [{"from": side, "value": text} for side, text in turns]}, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
