"""A language model from text: tokenizer, token files, model, trainer, put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from .data import BATCHES, Batches, Tokens, open_tokens, split_documents, token_files
from .language import LanguageModel, bits_per_byte
from .lock import one_run_a_folder
from .lora import merged, save_adapters, with_adapters
from .memory import check_memory
from .settings import Settings
from .trainer import FORMAT, Trainer, check_folder, run_to_resume, write_settings

SHAPE = {"n_layer": "L", "n_head": "H", "n_embd": "C", "n_positions": "P", "vocab_size": "V"}


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
    before: dict[str, Any] = run_to_resume(out, Settings) if resume else {"format": FORMAT}
    data = data or (before.get("data") and Path(before["data"]))
    start = start or before.get("start")
    if data is None:
        raise InputError("--data is needed: a folder with .txt files, or one text file")
    first, own = load(start, "float32", "numpy") if start is not None else (None, None)
    if first and not own:
        raise InputError(f"{start} has no tokenizer, which the text needs")
    plan = plan_of(settings_of, before, start, first)
    ops = training_twin(kernels, plan.precision)

    curve = {f.name: f.default for f in dataclasses.fields(plan) if f.metadata["curve"]}
    curve |= {"start": None}
    everything = {"format": before["format"], "data": str(data), "start": start} | plan.to_dict()
    if world.rank == 0:
        check_folder(out, everything, curve, resume)
        resumed = Tokenizer.from_pretrained(out) if resume else None
        words = own or resumed or tokenizer_for(data, plan, tokenizer)
        words.save(out)
        token_files(data, out / "tokens", words, plan.val_fraction, changed=not resume)
    world.barrier()
    words = Tokenizer.from_pretrained(out)
    batches, val, prompt = texts_of(out, words, plan, before["format"])

    config = first.config if first else plan.model_config(words.vocab_size, words.eot_id)
    rows = plan.batch_size // plan.accumulate // world.size
    check_memory(config, rows, plan.window, plan.recompute)
    model = model_of(config, (first or Model.random(config, plan.seed)).parameters, ops)
    if plan.lora_rank:
        model = with_adapters(model, plan.lora_rank, plan.lora_alpha, plan.lora_matrices, plan.seed)
    learner = Learner(LanguageModel(model, plan.recompute), words, prompt, val, plan, out)
    if world.rank == 0:
        write_settings(out, everything)
    trainer = Trainer(
        learner.objective,
        batches.batch,
        plan,
        out,
        evaluate=learner.evaluate,
        sample=learner.sample,
        save=learner.save,
        world=world,
        echo=echo,
    )
    if world.rank == 0 and not resume:
        echo({"step": 0, "run": "begins"})  # at once: the first report comes after many steps
    trainer.run(resume)
    return learner.model


def plan_of(
    settings_of: Callable[..., Settings], before: dict, start: str | None, first: Model | None
) -> Settings:
    """The settings of a run: given what the run before had, and what `first` settles, the model
    named `start`, whose shape stays."""
    known = {f.name: before[f.name] for f in dataclasses.fields(Settings) if f.name in before}
    shape = shape_of(first) if first else {}
    plan = settings_of(**shape | known)
    if first is None:
        plan.model_config(plan.vocab_size, None)  # raises for a shape that cannot be
    if wrong := [name for name, value in shape.items() if getattr(plan, name) != value]:
        raise InputError(
            f"{wrong[0]} is {getattr(plan, wrong[0])}; {start} has {shape[wrong[0]]}, and --from"
            " keeps a model's shape"
        )
    if plan.lora_rank and start is None:
        raise InputError(
            f"lora_rank is {plan.lora_rank}: adapters need a model to adapt, --from MODEL"
        )
    return plan


def shape_of(model: Model) -> dict:
    """The settings of a run that a model settles; of a family that is not trained from nothing what
    the letters of its sizes say."""
    if knobs := model.family.knobs:
        shape = {name: getattr(model.config, field) for name, field in knobs.items()}
        return {"family": model.family.name} | shape
    return {name: getattr(model.config.sizes, letter) for name, letter in SHAPE.items()}


def texts_of(
    out: Path, words: Tokenizer, plan: Settings, form: int
) -> tuple[Batches, Tokens, list[int]]:
    """The batches to train on, as a run of this format has them, the validation text, and the
    prompt of the samples."""
    train, val = open_tokens(out / "tokens", words.vocab_size)
    batches = BATCHES[form](train, plan.window, plan.batch_size, plan.seed)
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
    return batches, val, prompt


@dataclasses.dataclass
class Learner:
    """What a trainer asks of a language model while it learns: how good it is, what it writes, and
    to be saved."""

    objective: LanguageModel
    words: Tokenizer
    prompt: list[int]  # of its samples
    val: Tokens
    plan: Settings
    out: Path

    @property
    def model(self) -> Model:
        """The model, which sees what is trained."""
        return self.objective.model

    def evaluate(self, last: bool) -> dict:
        """Return loss and bits per byte of the validation text: of all of it at the last."""
        plan, n_tokens = self.plan, None if last else self.plan.eval_tokens
        loss, bits = bits_per_byte(self.objective, self.val, plan.window, n_tokens)
        return {"val_loss": loss, "bits_per_byte": bits}

    def sample(self) -> str:
        """Return a text that it writes now."""
        room = self.model.config.sizes.P - len(self.prompt)
        options = Options(
            max_new_tokens=min(80, room), temperature=0.8, top_p=0.95, min_p=0, seed=self.plan.seed
        )
        text = moments(self.model, self.prompt, options, tokenizer=self.words)
        return self.words.readable([*self.prompt, *(moment.id for moment in text)])

    def save(self) -> None:
        """Save the model, whole, and its adapters where it has some."""
        if any(isinstance(w, LoRA) for w in self.model.parameters.values()):
            save_adapters(self.model, self.out)
        save_model(merged(self.model), self.out, self.plan.save_dtype)


def tokenizer_for(data: Path, plan: Settings, name: str | None) -> Tokenizer:
    """The tokenizer of a new run: that of a named model, or one trained on the training text."""
    if name is not None:
        return load(name, kernels="numpy")[1]
    return Tokenizer.train(split_documents(data, plan.val_fraction)[0], plan.vocab_size)
