"""Fine-tuning on a dataset of dialogues: `accelerate launch -m boost_qa.train --config RECIPE`.

A thin layer on TRL's SFTTrainer. What is ours: which turns carry loss, what a dialogue looks like to a
base model, errors before anything large is loaded, and a plan of what it will cost.
"""

import logging

# Every import of PEFT makes it say that a kernel of the Hub is not installed, which nothing here needs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
