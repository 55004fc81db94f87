"""A language model from text: tokenizer, token files, model, trainer, put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ..decoding import Options
from ..decoding.generate import moments
from ..errors import InputError
from ..loading import load, save_model
from ..machine.distributed import ALONE, World
from ..model import Model, model_of
from ..tokenizer import Tokenizer
from ..twins.choose import twin
from ..twins.threads import keep_to_quota
from ..twins.twin import abilities
from ..weights.lora import LoRA
from .data import BATCHES, open_tokens, split_documents, token_files
from .language import LanguageModel, bits_per_byte
from .lock import one_run_a_folder
from .lora import merged, save_adapters, with_adapters
from .memory import check_memory
from .settings import Settings
from .trainer import FORMAT, Trainer, check_folder, run_to_resume, write_settings


def training_twin(name: str | None, precision: str):
    """The twin for training: the textbook, or kernels with products in blocks, of numbers in
    `precision`."""
    keep_to_quota()
    ops = twin(name)
    if (faster := abilities(ops).training) is not None:
        return faster(precision)
    if precision != "float32":
        raise InputError(f"precision is {precision!r}; the kernels numpy compute in float32 only")
    return ops


@one_run_a_folder
def pretrain(
    out: Path,
    data: Path | None,
    settings_of: Callable[..., Settings],
    *,
    start: str | None = None,
    tokenizer: str | None = None,
    resume: bool = False,
    kernels: str | None = None,
    world: World = ALONE,
    echo: Callable[[dict], None] = lambda record: None,
) -> Model:
    """Train a model on the text in `data` and save it, its tokenizer, its checkpoint and its
    metrics in `out`; return it.

    settings_of(**known) -> Settings, given what the run in `out` has, on resuming, or the shape of
    the model to start from. start: fine-tune this model. tokenizer: a model whose tokenizer to use;
    else one is trained on the text.
    """
    before = run_to_resume(out, Settings) if resume else {"format": FORMAT}
    data, start = (
        data or (before.get("data") and Path(before["data"])),
        start or before.get("start"),
    )
    if data is None:
        raise InputError("--data is needed: a folder with .txt files, or one text file")
    known = {f.name: before[f.name] for f in dataclasses.fields(Settings) if f.name in before}
    first = None
    if start is not None:
        first, words = load(start, "float32", "numpy")
        shape = {
            name: getattr(first.config, name)
            for name in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
        }
        known = shape | known
    plan = settings_of(**known)
    if start is not None and any(getattr(plan, name) != value for name, value in shape.items()):
        wrong = next(name for name, value in shape.items() if getattr(plan, name) != value)
        raise InputError(
            f"{wrong} is {getattr(plan, wrong)}; {start} has {shape[wrong]}, and --from keeps a"
            " model's shape"
        )
    if plan.lora_rank and start is None:
        raise InputError(
            f"lora_rank is {plan.lora_rank}: adapters need a model to adapt, --from MODEL"
        )
    ops = training_twin(kernels, plan.precision)

    curve = {f.name for f in dataclasses.fields(plan) if f.metadata["curve"]} | {"start"}
    everything = {"format": before["format"], "data": str(data), "start": start} | plan.to_dict()
    if world.rank == 0:
        check_folder(out, everything, curve, resume)
        if start is None:
            words = (
                Tokenizer.from_pretrained(out) if resume else tokenizer_for(data, plan, tokenizer)
            )
        words.save(out)
        token_files(data, out / "tokens", words, plan.val_fraction, changed=not resume)
    world.barrier()
    words = Tokenizer.from_pretrained(out)
    train, val = open_tokens(out / "tokens", words.vocab_size)
    batches = BATCHES[before["format"]](train, plan.window, plan.batch_size, plan.seed)
    if len(val) <= plan.window:
        raise InputError(
            f"the validation text has {len(val):,} tokens; a window of {plan.window} needs one"
            " more: more text"
        )
    prompt = words.encode(plan.sample_prompt)
    if not 0 < len(prompt) < plan.n_positions:
        raise InputError(
            f"sample_prompt has {len(prompt)} tokens; it must have 1 to {plan.n_positions - 1}"
        )

    config = (
        first.config if start is not None else plan.model_config(words.vocab_size, words.eot_id)
    )
    check_memory(
        config, plan.batch_size // plan.accumulate // world.size, plan.window, plan.recompute
    )
    model = model_of(config, (first or Model.random(config, plan.seed)).parameters, ops)
    if plan.lora_rank:
        model = with_adapters(model, plan.lora_rank, plan.lora_alpha, plan.lora_matrices, plan.seed)
    objective = LanguageModel(model, plan.recompute)
    model = objective.model  # which sees what is trained

    def evaluate(last: bool) -> dict:
        loss, bits = bits_per_byte(objective, val, plan.window, None if last else plan.eval_tokens)
        return {"val_loss": loss, "bits_per_byte": bits}

    def sample() -> str:
        room = model.config.sizes.P - len(prompt)
        options = Options(
            max_new_tokens=min(80, room), temperature=0.8, top_p=0.95, min_p=0, seed=plan.seed
        )
        text = moments(model, prompt, options, tokenizer=words)
        return words.readable([*prompt, *(moment.id for moment in text)])

    def save() -> None:
        if any(isinstance(w, LoRA) for w in model.parameters.values()):
            save_adapters(model, out)
        save_model(merged(model), out, plan.save_dtype)

    if world.rank == 0:
        write_settings(out, everything)
    trainer = Trainer(
        objective,
        batches.batch,
        plan,
        out,
        evaluate=evaluate,
        sample=sample,
        save=save,
        world=world,
        echo=echo,
    )
    trainer.run(resume)
    return model


def tokenizer_for(data: Path, plan: Settings, name: str | None) -> Tokenizer:
    """The tokenizer of a new run: that of a named model, or one trained on the training text."""
    if name is not None:
        return load(name, kernels="numpy")[1]
    return Tokenizer.train(split_documents(data, plan.val_fraction)[0], plan.vocab_size)
