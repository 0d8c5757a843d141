"""A BERT encoder that turns texts into vectors: the shape of MiniLM, BGE and their like.

Tokens of all texts of a batch stand one below another in one matrix, without padding; only
attention looks at a text at a time. Products (`inference.engines.dense`), norms and activations
work row by row, so a text's vector has the same bits in any company. It is the mean of the text's
rows, at length 1.

Callers' text is encoded by a tokenizer that knows no special tokens: `[SEP]` in a text is letters.

Source: https://arxiv.org/abs/1810.04805, https://arxiv.org/abs/1908.10084 (mean pooling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.checkpoint import Source, number_of, size_of
from inference.engines.dense import steady
from inference.registry import ModelFileError
from inference.tokenizer_file import plain_encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.safetensors_file import Tensors

__all__ = ["BertShape", "Encoder", "WordPieces", "bert_shape"]

_BEGIN, _END = "[CLS]", "[SEP]"
_Affine = tuple[torch.Tensor, torch.Tensor]
"""Weight and bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BertShape:
    """Sizes of an encoder."""

    layers: int
    width: int
    hidden: int
    heads: int
    vocabulary: int
    positions: int
    kinds: int
    norm_epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    qkv: _Affine
    out: _Affine
    out_norm: _Affine
    up: _Affine
    down: _Affine
    down_norm: _Affine


def bert_shape(config: dict[str, Any]) -> BertShape:
    """Read a `config.json`.

    Raises:
        ModelFileError: it is of another architecture, or asks for what is not implemented here.
    """
    plain = (
        config.get("model_type") == "bert"
        and config.get("hidden_act") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
    )
    if not plain:
        msg = "the model's architecture is not implemented here"
        raise ModelFileError(msg)
    shape = BertShape(
        layers=size_of(config, "num_hidden_layers"),
        width=size_of(config, "hidden_size"),
        hidden=size_of(config, "intermediate_size"),
        heads=size_of(config, "num_attention_heads"),
        vocabulary=size_of(config, "vocab_size"),
        positions=size_of(config, "max_position_embeddings"),
        kinds=size_of(config, "type_vocab_size"),
        norm_epsilon=number_of(config, "layer_norm_eps"),
    )
    if shape.width % shape.heads:
        msg = "the configuration's sizes do not fit one another"
        raise ModelFileError(msg)
    return shape


class WordPieces:
    """Texts to token ids.

    Args:
        told: the content of tokenizer.json.
        vocabulary: ids that the model knows: 0 to this, exclusive.

    Raises:
        ModelFileError: it is no WordPiece with [CLS] and [SEP], or has ids beyond the model's.
    """

    def __init__(self, told: dict[str, Any], *, vocabulary: int) -> None:
        model = told.get("model")
        known = model.get("vocab") if isinstance(model, dict) else None
        if (
            not isinstance(known, dict)
            or not isinstance(model, dict)
            or model.get("type") != "WordPiece"
        ):
            msg = "the tokenizer is no WordPiece"
            raise ModelFileError(msg)
        if any(type(one) is not int or not 0 <= one < vocabulary for one in known.values()):
            msg = "the tokenizer has tokens that the model does not know"
            raise ModelFileError(msg)
        unknown = model.get("unk_token")
        if not isinstance(unknown, str) or not {_BEGIN, _END, unknown} <= known.keys():
            msg = "the tokenizer lacks a token that begins, ends or stands for the unknown"
            raise ModelFileError(msg)
        self._begin, self._end = known[_BEGIN], known[_END]
        self._encoder = plain_encoder(told, keep=(unknown,))

    def encode(self, text: str) -> list[int]:
        """Encode a text, [CLS] before it and [SEP] behind."""
        return [self._begin, *self._encoder.encode(text, add_special_tokens=False).ids, self._end]


class Encoder:
    """The forward pass.

    Raises:
        ModelFileError: a tensor is missing, left over, of another shape, or holds no numbers.
    """

    def __init__(self, shape: BertShape, tensors: Tensors) -> None:
        self._shape = shape
        source = _Affines(tensors)
        width = shape.width
        self._words = source.table("embeddings.word_embeddings", shape.vocabulary, width)
        positions = source.table("embeddings.position_embeddings", shape.positions, width)
        kinds = source.table("embeddings.token_type_embeddings", shape.kinds, width)
        self._places = positions + kinds[0]
        self._norm = source.norm("embeddings.LayerNorm", width)
        self._blocks = [_block(source, f"encoder.layer.{i}.", shape) for i in range(shape.layers)]
        # What the pooler makes of [CLS] is not used, and neither is its table of numbers.
        source.must_be_used_up(but=("pooler", "embeddings.position_ids"))

    def vectors(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the vector of each text, of its tokens: (texts, width), fp32, of length 1."""
        lengths = [len(tokens) for tokens in texts]
        ids = torch.tensor([token for tokens in texts for token in tokens])
        places = torch.cat([self._places[:length] for length in lengths])
        x = self._normed(self._words[ids] + places, self._norm)
        for block in self._blocks:
            x = self._normed(x + steady(self._seen(block, x, lengths), *block.out), block.out_norm)
            up = F.gelu(steady(x, *block.up))
            x = self._normed(x + steady(up, *block.down), block.down_norm)
        means = torch.stack([rows.mean(0) for rows in torch.split(x, lengths)])
        return F.normalize(means)

    def _seen(self, block: _Block, x: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        shape = self._shape
        heads = (3, shape.heads, shape.width // shape.heads)
        parts = []
        for rows in torch.split(steady(x, *block.qkv), list(lengths)):
            q, k, v = rows.view(len(rows), *heads).permute(1, 2, 0, 3)[:, None]
            parts.append(F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1))
        return torch.cat(parts)

    def _normed(self, x: torch.Tensor, norm: _Affine) -> torch.Tensor:
        return F.layer_norm(x, (self._shape.width,), *norm, self._shape.norm_epsilon)


class _Affines(Source):
    """Tensors as sentence-transformers names them, in fp32."""

    def table(self, name: str, rows: int, columns: int) -> torch.Tensor:
        return self.vector(f"{name}.weight", rows, columns)

    def affine(self, name: str, outputs: int, inputs: int) -> _Affine:
        weight = self.vector(f"{name}.weight", outputs, inputs)
        return weight, self.vector(f"{name}.bias", outputs)

    def norm(self, name: str, width: int) -> _Affine:
        return self.vector(f"{name}.weight", width), self.vector(f"{name}.bias", width)


def _block(source: _Affines, at: str, shape: BertShape) -> _Block:
    width, hidden = shape.width, shape.hidden
    names = (f"{at}attention.self.{name}" for name in ("query", "key", "value"))
    parts = [source.affine(name, width, width) for name in names]
    return _Block(
        qkv=(torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])),
        out=source.affine(f"{at}attention.output.dense", width, width),
        out_norm=source.norm(f"{at}attention.output.LayerNorm", width),
        up=source.affine(f"{at}intermediate.dense", hidden, width),
        down=source.affine(f"{at}output.dense", width, hidden),
        down_norm=source.norm(f"{at}output.LayerNorm", width),
    )
