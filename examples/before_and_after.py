"""One question to a model before and after fine-tuning, with plain transformers and PEFT.

    python examples/before_and_after.py ADAPTER [QUESTION]

Exit code 1 if the tuned model does not stop by itself.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

QUESTION = "A baker fills 6 trays with 8 rolls each and sells 29 of them. How many rolls are left?"
LONGEST = 400


def answer(model: Any, tokenizer: Any, question: str, ends: int | list[int]) -> tuple[str, bool]:
    """The greedy answer, and whether it ended by itself, with one of the tokens `ends`."""
    greedy = GenerationConfig(
        max_new_tokens=LONGEST, do_sample=False, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        said = model.generate(**prompt, generation_config=greedy)[0, prompt["input_ids"].shape[1] :]
    stopped = int(said[-1]) in (ends if isinstance(ends, list) else [ends])
    return tokenizer.decode(said, skip_special_tokens=True).strip(), stopped


def main(adapter: str, question: str = QUESTION) -> int:
    """Print both answers."""
    base = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    tokenizer = AutoTokenizer.from_pretrained(adapter)  # the template of the training lies with the adapter
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    before, _ = answer(model, tokenizer, question, GenerationConfig.from_pretrained(base).eos_token_id)
    tuned = PeftModel.from_pretrained(model, adapter)
    after, stopped = answer(tuned, tokenizer, question, GenerationConfig.from_pretrained(adapter).eos_token_id)
    print(f"question\n  {question}\n\nbefore\n  {before}\n\nafter\n  {after}\n")
    print(f"the tuned model {'stopped by itself' if stopped else f'went on to {LONGEST} tokens'}; "
          f"the answers {'are the same' if before == after else 'differ'}")  # fmt: skip
    return 0 if stopped else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
