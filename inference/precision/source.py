"""A model to make variants of: its sizes, its tensors and its tokenizer, whatever it comes from.

A GGUF file's matrices are dequantised, and the rows of q and k put back from llama.cpp's order
(each head's rope halves interleaved) into Hugging Face's. A folder has config.json, tokenizer.json
and one or more files of safetensors: a variant of ours, or what others publish.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel

from inference.architecture import Architecture
from inference.checkpoint import architecture_of
from inference.gguf_file import TensorFormat, read_gguf
from inference.precision.faults import Fault, PrecisionError
from inference.precision.files import PRECISION, read_state
from inference.precision.network import network_of
from inference.precision.schemes import Precision
from inference.registry import ModelFileError
from inference.safetensors_file import read_json, read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from inference.gguf_file import GgufFile, Tensor
    from inference.precision.network import Network

__all__ = ["Source", "config_of", "read_gguf_source", "read_parts", "read_source"]

_CONTROL = 3  # gguf.TokenType.CONTROL
_FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model as it was read. `state` has Hugging Face's names.

    tokenizer: the text of tokenizer.json. template: the chat template; empty if there is none.
    precision: of the tensors; fp32 where a GGUF file was dequantised.
    """

    architecture: Architecture
    state: dict[str, torch.Tensor]
    tokenizer: str
    template: str
    precision: Precision
    ends: tuple[int, ...] = ()

    def network(self) -> Network:
        """Build the forward pass over these very tensors.

        Raises:
            PrecisionError: DAMAGED.
        """
        return network_of(self.architecture, self.state)

    def encoder(self) -> Tokenizer:
        """The tokenizer, for text without turns."""
        return Tokenizer.from_str(self.tokenizer)


def read_source(path: Path) -> Source:
    """Read a GGUF file or a folder of safetensors.

    Raises:
        PrecisionError: NOT_A_MODEL, NOT_LLAMA, DAMAGED, NOT_FINITE, NO_LIBRARY.
    """
    if path.is_dir():
        return read_parts({file.name: file for file in sorted(path.iterdir())})
    if path.suffix != ".gguf":
        raise PrecisionError(Fault.NOT_A_MODEL)
    return read_gguf_source(path)


def read_parts(parts: Mapping[str, Path]) -> Source:
    """Read a model of safetensors whose files lie wherever they lie, by their names.

    Raises:
        PrecisionError: NOT_A_MODEL, NOT_LLAMA, DAMAGED, NOT_FINITE, NO_LIBRARY.
    """
    shards = [path for name, path in parts.items() if name.endswith(".safetensors")]
    try:
        config = read_json(parts["config.json"])
        tokenizer = parts["tokenizer.json"].read_text(encoding="utf-8")
        tensors = read_tensors(shards)
    except (KeyError, OSError, ValueError, ModelFileError) as error:
        raise PrecisionError(Fault.NOT_A_MODEL) from error
    try:
        architecture = architecture_of(config)
    except ModelFileError as error:
        raise PrecisionError(Fault.NOT_LLAMA) from error
    state = read_state(tensors)
    if architecture.tied:
        state.pop("lm_head.weight", None)  # some files hold it twice
    return _finite(
        Source(
            architecture=architecture,
            state=state,
            tokenizer=tokenizer,
            template=_template(parts),
            precision=_precision(tensors.metadata.get(PRECISION), state),
            ends=_ends(config),
        )
    )


def _finite(source: Source) -> Source:
    for tensor in source.state.values():
        if type(tensor) is torch.Tensor and not torch.isfinite(tensor).all():
            raise PrecisionError(Fault.NOT_FINITE)
    return source


def _precision(told: str | None, state: dict[str, torch.Tensor]) -> Precision:
    if told is not None:
        return Precision.named(told)
    kinds = {tensor.dtype for tensor in state.values()}
    return next((one for one in Precision if {one.plain} == kinds), Precision.FP32)


def _template(parts: Mapping[str, Path]) -> str:
    try:
        if "chat_template.jinja" in parts:
            return parts["chat_template.jinja"].read_text(encoding="utf-8")
        if "tokenizer_config.json" not in parts:
            return ""
        return str(read_json(parts["tokenizer_config.json"]).get("chat_template", ""))
    except (OSError, ValueError, ModelFileError) as error:
        raise PrecisionError(Fault.NOT_A_MODEL) from error


def _ends(config: dict[str, Any]) -> tuple[int, ...]:
    told = config.get("eos_token_id")
    return (told,) if isinstance(told, int) else tuple(told or ())


def config_of(arch: Architecture, *, ends: tuple[int, ...] = ()) -> dict[str, Any]:
    """Tell the sizes as Hugging Face's config.json does."""
    family = "qwen3" if arch.qk_norm else "qwen2" if arch.qkv_bias else "llama"
    told: dict[str, Any] = {
        "architectures": [_FAMILIES[family]],
        "model_type": family,
        "hidden_act": "silu",
        "num_hidden_layers": arch.layers,
        "hidden_size": arch.width,
        "intermediate_size": arch.hidden,
        "num_attention_heads": arch.heads,
        "num_key_value_heads": arch.kv_heads,
        "head_dim": arch.head,
        "vocab_size": arch.vocabulary,
        "max_position_embeddings": arch.context_tokens,
        "rope_theta": arch.rope_base,
        "rms_norm_eps": arch.norm_epsilon,
        "tie_word_embeddings": arch.tied,
        "attention_bias": False,
    }
    if ends:
        told["eos_token_id"] = list(ends) if len(ends) > 1 else ends[0]
    if arch.rope_scaling is not None:
        told["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": arch.rope_scaling.factor,
            "low_freq_factor": arch.rope_scaling.low_frequency_factor,
            "high_freq_factor": arch.rope_scaling.high_frequency_factor,
            "original_max_position_embeddings": arch.rope_scaling.original_context_tokens,
        }
    return told


def read_gguf_source(path: Path) -> Source:
    """Read a GGUF file, whatever its name; matrices are dequantised to fp32.

    Raises:
        PrecisionError: NOT_A_MODEL, NOT_LLAMA, NOT_FINITE.
    """
    try:
        file = read_gguf(path)
    except ModelFileError as error:
        raise PrecisionError(Fault.NOT_A_MODEL) from error
    if file.fields.get("general.architecture") != "llama":
        raise PrecisionError(Fault.NOT_LLAMA)
    try:
        arch = _gguf_architecture(file)
        state = dict(_renamed(tensor, arch) for tensor in file.tensors.values())
        end = file.fields["tokenizer.ggml.eos_token_id"]
        tokenizer = _gguf_tokenizer(file)
    except KeyError as error:
        raise PrecisionError(Fault.NOT_LLAMA) from error
    return _finite(
        Source(
            architecture=arch,
            state=state,
            tokenizer=tokenizer,
            template=str(file.fields.get("tokenizer.chat_template", "")),
            precision=Precision.FP32,
            ends=(end,),
        )
    )


def _gguf_architecture(file: GgufFile) -> Architecture:
    def field(name: str) -> Any:  # noqa: ANN401 -- metadata is of any type
        return file.fields[f"llama.{name}"]

    heads, width = field("attention.head_count"), field("embedding_length")
    return Architecture(
        layers=field("block_count"),
        width=width,
        hidden=field("feed_forward_length"),
        heads=heads,
        kv_heads=field("attention.head_count_kv"),
        head=width // heads,
        vocabulary=file.tensors["token_embd.weight"].shape[0],
        context_tokens=field("context_length"),
        rope_base=field("rope.freq_base"),
        norm_epsilon=field("attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in file.tensors,
    )


def _renamed(tensor: Tensor, arch: Architecture) -> tuple[str, torch.Tensor]:
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    values = _dequantised(tensor)
    if tensor.name in whole:
        return whole[tensor.name], values
    _, layer, part, kind = tensor.name.split(".")
    if part in {"attn_q", "attn_k"}:
        pairs = (-1, arch.head // 2, 2, *values.shape[1:])
        values = values.view(pairs).transpose(1, 2).reshape(values.shape)
    return f"model.layers.{layer}.{_NAMES[part]}.{kind}", values


def _dequantised(tensor: Tensor) -> torch.Tensor:
    raw = tensor.raw
    if tensor.format is TensorFormat.F32:
        return torch.from_numpy(raw.view(np.float32).copy()).view(tensor.shape)
    blocks = raw.reshape(-1, 20 if tensor.format is TensorFormat.Q4_1 else 34)
    if tensor.format is TensorFormat.Q4_1:
        scales = np.ascontiguousarray(blocks[:, :4]).view(np.float16).astype(np.float32)
        codes = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
        values = codes * scales[:, :1] + scales[:, 1:]
    elif tensor.format is TensorFormat.Q8_0:
        scale = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
        values = np.ascontiguousarray(blocks[:, 2:]).view(np.int8) * scale
    else:
        raise PrecisionError(Fault.NOT_A_MODEL)
    return torch.from_numpy(values.astype(np.float32)).view(tensor.shape)


def _gguf_tokenizer(file: GgufFile) -> str:
    """SmolLM's byte-level BPE as tokenizer.json tells it (see `inference.tokenizer`)."""
    if file.fields.get("tokenizer.ggml.pre") != "smollm":
        raise PrecisionError(Fault.NOT_LLAMA)
    tokens = file.fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in file.fields["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    made.decoder = ByteLevel()
    kinds = zip(tokens, file.fields["tokenizer.ggml.token_type"], strict=True)
    made.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in kinds if kind == _CONTROL]
    )
    return made.to_str()
