"""GGUF files of tiny models, as llama.cpp's converter writes them."""

import json

import gguf
from gguf import GGMLQuantizationType, GGUFWriter
from tiny_models import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

TEMPLATE = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(folder, file, kind="F32", template=TEMPLATE, **fields):
    """A GGUF file of the model in `folder`."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    config, kind = model.config, GGMLQuantizationType[kind]
    writer = GGUFWriter(file, config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(tokenizer))
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    control = {token["id"] for token in content["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe" if config.model_type == "llama" else "qwen2")
    writer.add_token_list([tokenizer.convert_ids_to_tokens(number) for number in range(len(tokenizer))])
    writer.add_token_types([3 if number in control else 1 for number in range(len(tokenizer))])
    writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id or tokenizer.eos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(template)
    for name, value in fields.items():
        getattr(writer, f"add_{name}")(value)
    for name, weights in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weights = weights.float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads and config.model_type == "llama":  # GGUF keeps these rows in another order
            weights = weights.reshape(heads, 2, -1, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)
        if weights.ndim == 1:
            writer.add_tensor(gguf_name(name), weights)
        else:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def gguf_name(name):
    stem, suffix = name.removeprefix("model.").rsplit(".", 1)
    if stem.startswith("layers."):
        _, layer, part = stem.split(".", 2)
        return f"blk.{layer}.{NAMES[part]}.{suffix}"
    return {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}[stem] + f".{suffix}"


def exact(family, folder, **changes):
    """A tiny model with as many embeddings as tokens, whose weights are bfloat16 numbers."""
    size = {"llama": 1206, "qwen2": 1203}[family]
    return tiny(family, folder, vocab_size=size, dtype="bfloat16", initializer_range=0.2, **changes)
