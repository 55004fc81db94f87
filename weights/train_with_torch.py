"""Train the bundled models with the reference library: how weights/tales and weights/tales-draft were made.

    python weights/train_with_torch.py tales-draft --data ../shared/data/tales --out runs/tales-draft
    python weights/train_with_torch.py tales --data ../shared/data/tales --out runs/tales

Needs torch and transformers (pip install -e ".[reference]"). The tokenizer is our own, trained on the same text and
written into --out, unless it is there already. Matrices inside the blocks are trained by Muon (Jordan, 2024: each
update is made orthogonal by a Newton-Schulz iteration), everything else by AdamW; the products run in bfloat16.
Killed at any moment, the run goes on from its last checkpoint when the same command is given again.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from minillm.tokenizer import END_OF_TEXT, Tokenizer

PRESETS = {
    "tales": dict(n_layer=6, n_head=8, n_embd=256, steps=1500, lr=3e-3),
    "tales-draft": dict(n_layer=2, n_head=4, n_embd=128, steps=2500, lr=6e-3),
}
VOCABULARY, POSITIONS, BATCH, WARM_UP = 4096, 512, 8, 100
CHECKPOINT_EVERY = 100


def documents(path: Path) -> list[str]:
    return [d for d in path.read_text(encoding="utf-8").split(END_OF_TEXT + "\n") if d]


def token_stream(tokenizer: Tokenizer, docs: list[str]) -> torch.Tensor:
    """Every document, each followed by <|endoftext|>, as one row of ids."""
    ids = [i for d in docs for i in (*tokenizer.encode(d), tokenizer.eot_id)]
    return torch.from_numpy(np.array(ids, dtype=np.int64))


def loss_of(model, rows: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    logits = model(rows[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction=reduction)


@torch.no_grad()
def bits_per_byte(model, stream: torch.Tensor, n_bytes: int) -> float:
    """Windows of 512 positions without overlap, each seen alone; all nats over all bytes of the documents."""
    model.eval()
    starts = range(0, len(stream) - 1, POSITIONS)
    nats = sum(loss_of(model, stream[None, i : i + POSITIONS + 1], "sum").item() for i in starts)
    model.train()
    return nats / math.log(2) / n_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.txt and val.txt")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    steps = args.steps or preset["steps"]
    torch.manual_seed(1)

    train_docs, val_docs = documents(args.data / "train.txt"), documents(args.data / "val.txt")
    if not (args.out / "vocab.json").exists():
        Tokenizer.train(train_docs, VOCABULARY).save(args.out)
    tokenizer = Tokenizer.from_pretrained(args.out)
    train, val = token_stream(tokenizer, train_docs), token_stream(tokenizer, val_docs)
    val_bytes = sum(len(d.encode()) for d in val_docs)
    print(f"{len(train):,} training tokens, {len(val):,} validation tokens, {val_bytes:,} bytes", flush=True)

    eot = tokenizer.eot_id
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=POSITIONS, bos_token_id=eot, eos_token_id=eot,
        **{k: preset[k] for k in ("n_layer", "n_head", "n_embd")},
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    matrices = [p for n, p in model.named_parameters() if ".h." in n and p.ndim == 2]
    tables = [p for n, p in model.named_parameters() if ".h." not in n and p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(matrices, lr=preset["lr"], weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": tables, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=preset["lr"], betas=(0.9, 0.95))
    optimizers = [muon, adamw]

    def rate(step: int) -> float:
        """Up over WARM_UP steps, level to a third of the way, then straight down to zero."""
        return min((step + 1) / WARM_UP, 1.0, (steps - step) / (steps * 2 / 3))

    checkpoint, first = args.out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        first = state["step"]

    begin = time.time()
    for step in range(first, steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = preset["lr"] * rate(step)
        rng = np.random.default_rng([1, step])  # so that a resumed run sees the same batches
        rows = torch.stack([train[i : i + POSITIONS + 1] for i in rng.integers(0, len(train) - POSITIONS - 1, BATCH)])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            optimizer_states = [o.state_dict() for o in optimizers]
            torch.save({"model": model.state_dict(), "optimizers": optimizer_states, "step": step + 1}, f"{checkpoint}.tmp")
            os.replace(f"{checkpoint}.tmp", checkpoint)
        if (step + 1) % 20 == 0:
            record = {"step": step + 1, "loss": round(loss.item(), 4), "lr": round(preset["lr"] * rate(step), 6)}
            if (step + 1) % 500 == 0 or step + 1 == steps:
                record["val_bits_per_byte"] = round(bits_per_byte(model, val, val_bytes), 4)
            record["tokens_per_s"] = round((step + 1 - first) * BATCH * POSITIONS / (time.time() - begin))
            print(json.dumps(record), flush=True)
            with open(args.out / "metrics.jsonl", "a") as file:
                file.write(json.dumps(record) + "\n")

    model.half().float()  # judge what is stored
    print(f"bits per byte on val.txt, from float16: {bits_per_byte(model, val, val_bytes):.4f}")
    model.half().save_pretrained(args.out)


if __name__ == "__main__":
    main()
