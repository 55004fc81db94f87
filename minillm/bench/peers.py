"""The engines that are compared: each loads a folder in Hugging Face layout and decodes greedily, one row.

A peer is a class with `load(folder, threads)`, which sets `versions` and `threads` (as the engine itself reports them),
`prefill(ids) -> next id`, which forgets all that was before, and `decode(id) -> next id`. Libraries are imported inside
`load`, in the peer's own process.
"""

from __future__ import annotations

import numpy as np


class MinillmNumpy:
    """minillm's readable forward on NumPy, float32, with KV cache."""

    def load(self, folder: str, threads: int) -> None:
        from threadpoolctl import threadpool_info

        from .. import __version__
        from ..model import GPT2

        self.model = GPT2.from_pretrained(folder)
        self.cache = self.model.new_cache()
        blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        self.threads = max((pool["num_threads"] for pool in blas), default=1)
        self.versions = {"minillm": __version__, "numpy": np.__version__, **{p["internal_api"]: p["version"] for p in blas}}

    def prefill(self, ids) -> int:
        self.cache.truncate(0)
        return int(self.model(ids, self.cache, last=True)[-1].argmax())

    def decode(self, token: int) -> int:
        return int(self.model([token], self.cache, last=True)[-1].argmax())


class Transformers:
    """Hugging Face transformers with its own cache, called without the overhead of its generate()."""

    dtype = "float32"

    def load(self, folder: str, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.torch, self.new_cache = torch, transformers.DynamicCache
        self.model = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=getattr(torch, self.dtype)).eval()
        self.threads = torch.get_num_threads()
        self.versions = {"transformers": transformers.__version__, "torch": torch.__version__}

    def _next(self, ids) -> int:
        tensor = self.torch.as_tensor(ids)[None]
        return int(self.model(tensor, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits[0, -1].argmax())

    def prefill(self, ids) -> int:
        self.cache = self.new_cache()
        return self._next(ids)

    def decode(self, token: int) -> int:
        return self._next([token])


class TransformersBf16(Transformers):
    """transformers with weights and arithmetic in bfloat16."""

    dtype = "bfloat16"


PEERS = {"minillm-numpy": MinillmNumpy, "transformers-fp32": Transformers, "transformers-bf16": TransformersBf16}
