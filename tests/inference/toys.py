"""Toy models with random weights, laid as transformers lays them, and opened as a store would."""

import hashlib
import json
import logging
import os
from contextlib import ExitStack
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from inference.store.manifest import FileDigest, Manifest
from inference.store.store import Opened

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
for name in ("torchao", "torch.utils._pytree"):  # it remarks on kernels for other machines
    logging.getLogger(name).setLevel(logging.ERROR)

MARKS = ("<|begin|>", "<|start|>", "<|end|>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] | trim"
    " + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
VOCABULARY = 320
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "initializer_range": 0.2, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip


def tokenizer_told(*, ignore_merges: bool = False) -> dict:
    """Bytes, two merges, and marks that lie in the vocabulary too, as SmolLM's do."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*letters, "th", "the", *MARKS))}
    merges = [("t", "h"), ("th", "e")]
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(list(MARKS))
    bpe.add_tokens(["<think>"])
    return json.loads(bpe.to_str())


def write_tokenizer(folder: Path, *, template: str = TEMPLATE) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_told()))
    told = {"bos_token": MARKS[0], "eos_token": {"content": MARKS[2]}, "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def write_model(folder: Path, model: torch.nn.Module, **save) -> Path:
    """Save a transformers model and a tokenizer beside it."""
    folder.mkdir(exist_ok=True)
    model.save_pretrained(folder, **save)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_tokenizer(folder)
    return folder


def opened(folder: Path, **claims) -> Opened:
    """Open all of a folder, as a store does once digests and signature hold."""
    paths = {path.name: path for path in sorted(folder.iterdir())}
    files = tuple(
        FileDigest(name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for name, path in paths.items()
    )
    known = {
        "name": "toy", "version": "1", "format": "safetensors", "precision": "as they are",
        "context_tokens": 128, "licence": "none", "source": "random", "intended_use": "tests",
        "template_sha256": hashlib.sha256(TEMPLATE.encode()).hexdigest(),
    }  # fmt: skip
    return Opened(Manifest(files=files, **known | claims), paths, ExitStack())


def toy(kind: str, *, seed: int = 0, **changes) -> torch.nn.Module:
    """A random transformers model: its biases and norms random, too, or they would not show."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**SIZES | changes)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3 + ("norm" in name))
    return model
