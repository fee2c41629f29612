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


def answer(model: Any, tokenizer: Any, question: str, settings: GenerationConfig) -> tuple[str, bool]:
    """The greedy answer, and whether it ended by itself."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        tokens = model.generate(**prompt, generation_config=settings, do_sample=False, max_new_tokens=LONGEST)[0]
    said = tokens[prompt["input_ids"].shape[1] :]
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    return tokenizer.decode(said, skip_special_tokens=True).strip(), int(said[-1]) in ends


def main(adapter: str, question: str = QUESTION) -> int:
    """Print both answers."""
    base = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    tokenizer = AutoTokenizer.from_pretrained(adapter)  # the template of the training lies with the adapter
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    before, _ = answer(model, tokenizer, question, GenerationConfig.from_pretrained(base))
    tuned = PeftModel.from_pretrained(model, adapter)
    after, stopped = answer(tuned, tokenizer, question, GenerationConfig.from_pretrained(adapter))
    print(f"question\n  {question}\n\nbefore\n  {before}\n\nafter\n  {after}\n")
    print(f"the tuned model {'stopped by itself' if stopped else f'went on to {LONGEST} tokens'}; "
          f"the answers {'are the same' if before == after else 'differ'}")  # fmt: skip
    return 0 if stopped else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
