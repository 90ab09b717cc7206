"""A Llama with random weights and a byte tokenizer, made in a second: small enough to check sums by hand."""

from pathlib import Path

import pyarrow as pa

from curate.dataset import CANONICAL

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]


def save_tiny_model(folder: Path, seed: int = 0, layers: int = 6) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate(SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[1], chat_template=TEMPLATE)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def rows(*given: tuple[str, str] | str | list[tuple[str, str]]) -> pa.Table:
    """Canonical rows from (prompt, response), a plain text, or a list of (role, content)."""
    made = []
    for row in given:
        new = dict.fromkeys(CANONICAL.names)
        if isinstance(row, str):
            new["text"] = row
        elif isinstance(row, tuple):
            new.update(prompt=row[0], response=row[1], text="\n\n".join(row))
        else:
            new.update(messages=[{"role": role, "content": content} for role, content in row], prompt="", response="", text="")
        made.append(new)
    return pa.Table.from_pylist(made, schema=CANONICAL)
