"""Structured files, broken at random: `python tests/fuzz/fuzz.py FORMAT [N] [SEED]` tries N inputs.

Each input is the valid files of a format with one or a few faults, drawn from the seed and the
input's number alone. Reading it must give a value or one line (InputError): no other exception, not
more than SECONDS, and no more memory than twice the files and 50 MB.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from minillm import GPT2, GPT2Config, InputError, Llama, LlamaConfig, Tokenizer, load, recording
from minillm.bench import lab
from minillm.bench.datasheet import Datasheet
from minillm.bench.datasheet_report import DatasheetReport
from minillm.bench.predictions import Point
from minillm.checkpoints import gguf as gguf_files
from minillm.checkpoints import safetensors
from minillm.checkpoints.opening import save_checkpoint
from minillm.clock.limits import Limits
from minillm.clock.machines import Constants, Machine
from minillm.clock.verdict import Evidence, verdict
from minillm.families import read_config
from minillm.families.gpt2 import step_names
from minillm.families.llama.qwen import Qwen3Config
from minillm.loading import load_model
from minillm.machine.files import read_json
from minillm.machine.memory import peak_bytes
from minillm.record import record
from minillm.reference import Reference, verify
from minillm.tasks.classify import BagOfWords, Pooled, Transformer, load_classifier
from minillm.tasks.examples import Words, read_examples
from minillm.tasks.lstm import LSTM, LSTMConfig
from minillm.tokenizer import gguf
from minillm.training import checkpoint
from minillm.training.curves import read_curve
from minillm.training.data import Tokens
from minillm.training.lora import load_adapters, save_adapters, with_adapters
from minillm.training.pretrain import pretrain
from minillm.training.settings import settings
from minillm.weights import store

SECONDS = 10  # a busy machine's; an input takes some milliseconds
MEGABYTES = 50
TOKENIZER = Tokenizer.train(["the low lower lowest <|endoftext|> new newer newest"] * 3, 280)
CONFIG = GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=8, n_embd=8, n_layer=2, n_head=2)
MODEL = GPT2.random(CONFIG)
IDS = [3, 1, 4]

# ---- the formats: {name: (write valid files into a folder, read them and use what comes)}


def a_model(folder: Path) -> None:
    MODEL.save_pretrained(folder, "bfloat16")


def a_sharded_model(folder: Path) -> None:
    MODEL.save_pretrained(folder)
    tensors, _ = safetensors.read(folder / "model.safetensors")
    files = {name: f"model-{n % 2}.safetensors" for n, name in enumerate(tensors)}
    for file in set(files.values()):
        safetensors.write(
            folder / file, {n: np.array(tensors[n]) for n in files if files[n] == file}
        )
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def a_quantised_model(folder: Path) -> None:
    MODEL.quantize("int4_min").save_pretrained(folder)


def read_model(folder: Path) -> None:
    load_model(folder, kernels="numpy")(IDS)


def a_safetensors_file(folder: Path) -> None:
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0), "c": np.ones(2)}
    safetensors.write(folder / "a.safetensors", tensors, {"format": "pt"})


def read_safetensors_file(folder: Path) -> None:
    for array in safetensors.read(folder / "a.safetensors")[0].values():
        array.tobytes()


def a_run(folder: Path) -> None:
    plan = settings(n_layer=1, n_head=1, n_embd=8, n_positions=8, context=4, vocab_size=280)
    about = {"data": str(folder / "text.txt"), "start": None} | plan.to_dict()
    (folder / "settings.json").write_text(json.dumps(about))
    steps = [{"step": n, "loss": 5 / n, "lr": 1e-3, "tokens": n} for n in range(1, 6)]
    lines = [*steps, {"step": 5, "loss": 1.0, "val_loss": 1.5, "bits_per_byte": 2.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.save(folder / "train.npy", np.arange(40, dtype=np.uint16))
    checkpoint.write(folder, {"model.a": np.ones(3)}, 5, keep=1)


def read_run(folder: Path) -> None:
    read_curve(folder)
    checkpoint.read(folder / "checkpoint.safetensors")
    Tokens(folder / "train.npy", 80, 280).windows(4).sum()
    pretrain(folder, None, settings, resume=True, start="no such folder!", kernels="numpy")


def a_classifier(folder: Path) -> None:
    score = {"weight": np.ones((8, 2), np.float32), "bias": np.zeros(2, np.float32)}
    Pooled(Transformer(MODEL), score, "mean", ["no", "yes"], TOKENIZER, 8).save(folder)
    TOKENIZER.save(folder)


def an_lstm(folder: Path) -> None:
    score = {"weight": np.ones((8, 2), np.float32), "bias": np.zeros(2, np.float32)}
    body = LSTM.random(LSTMConfig(TOKENIZER.vocab_size, 8))
    Pooled(body, score, "last", ["no", "yes"], TOKENIZER, 8).save(folder)
    TOKENIZER.save(folder)


def a_bag_of_words(folder: Path) -> None:
    words = Words.of(["a good film", "a bad film"])
    zeros = {"weight": np.zeros((words.vocab_size, 2), np.float32), "bias": np.zeros(2, np.float32)}
    BagOfWords(["no", "yes"], words, 8, zeros).save(folder)
    words.save(folder)


def read_classifier(folder: Path) -> None:
    load_classifier(folder, "numpy").log_probabilities(["a good film"])


def adapters(folder: Path) -> None:
    save_adapters(with_adapters(MODEL, 2), folder)


def adapters_of_peft(folder: Path) -> None:
    save_adapters(with_adapters(MODEL, 2), folder, "peft")


def a_reference(folder: Path) -> None:
    trace = MODEL.trace(np.array([IDS]))
    steps = {name: np.asarray(trace[name], np.float64) for name in step_names(CONFIG.n_layer)}
    Reference(np.array([IDS]), steps, np.array([1, 2])).save(folder / "reference.npz")


def a_settings_file(folder: Path) -> None:
    lines = 'n_layer = 2\nlr = 1e-3\noptimizer = "adamw"\nrecompute = false\nsample_prompt = "a"\n'
    (folder / "run.toml").write_text(lines)


def a_tokenizer(folder: Path) -> None:
    TOKENIZER.save(folder)
    (folder / "tokenizer.json").unlink()


def a_tokenizer_json(folder: Path) -> None:
    TOKENIZER.save(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()


def read_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(folder)
    tokenizer.decode(tokenizer.encode("the lowest <|endoftext|> \u00e9"))


def a_tokenizer_in_gguf(folder: Path) -> None:
    """Its metadata alone; the file around them is a format of its own."""
    (folder / "metadata.json").write_text(json.dumps(gguf.metadata(TOKENIZER, 290)))


def read_tokenizer_in_gguf(folder: Path) -> None:
    metadata = read_json(folder / "metadata.json", dict[str, object])
    tokenizer = Tokenizer(*gguf.read(metadata, folder / "a.gguf"))
    tokenizer.readable(tokenizer.encode("the lowest <|endoftext|> \u00e9", add_special_tokens=True))


def a_gguf_file(folder: Path) -> None:
    """A Llama whose matrices are of several types, with its tokenizer."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16}
    config = LlamaConfig(TOKENIZER.vocab_size, **sizes, **heads)
    model = Llama.random(config)
    half = {n: store(p, "int4_min") for n, p in model.parameters.items() if "mlp" in n}
    save_checkpoint(model.with_parameters(half), folder / "a.gguf", None, TOKENIZER)


def read_gguf_file(folder: Path) -> None:
    model, tokenizer = load(folder / "a.gguf", kernels="numpy")
    model(IDS)
    tokenizer.encode("the lowest")


def a_config_of_qwen3(folder: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    config = Qwen3Config(num_hidden_layers=2, rope_scaling=scaling, eos_token_id=[1, 2])
    said = config.to_dict() | {"layer_types": ["full_attention"] * 2}
    (folder / "config.json").write_text(json.dumps(said))


def a_table(folder: Path) -> None:
    (folder / "a.csv").write_text('label,text\nno,"a bad, bad film"\nyes,good\n')


RATES = {"float32": 1e9, "int8": 2e9}
LIMITS = Limits({}, 1, {10**6: 1e10, 10**8: 5e9}, RATES, RATES, 1e9, 1e-6, 1e-6, 1e-7)


def a_recording(folder: Path) -> None:
    made = record(MODEL, TOKENIZER, "lo", max_new_tokens=3, limits=LIMITS)
    made.write(folder / "recording.safetensors")


def read_recording(folder: Path) -> None:
    made = recording.read(folder / "recording.safetensors")
    made.text, made.seconds, repr(made)
    str(verdict(Evidence.of_recording(made)))
    for cycle in range(len(made.header["cycles"])):
        made.arrays["times.ends"][made.intervals(cycle)].sum()


A_MACHINE = Machine(
    "A processor", "measured here", True, 10**10, (LIMITS,),
    {("minillm", "int8", "token"): Constants(1.25, 1.5, 1e-6, ("tales",))},
)  # fmt: skip


def sheet_of(machine: Machine) -> Datasheet:
    """A datasheet that says all it can."""
    sheet = Datasheet("a", CONFIG, machine, kinds=["float32", "int8"])
    DatasheetReport(sheet, "").page(None)
    return sheet


def a_lab_file(folder: Path) -> None:
    sheet = sheet_of(A_MACHINE)
    point = Point("a", "minillm", "int8", 8, "token", 7)
    point.predicted, point.seconds = [sheet.predicted("int8", "token", 8)] * 2, [1e-3, 2e-3]
    sheet.measured = [point]
    (folder / "lab.json").write_text(json.dumps(lab.to_dict(sheet)))


def read_lab_file(folder: Path) -> None:
    labs = lab.read_all([folder / "lab.json"])
    lab.machines(labs), lab.table(labs), json.dumps(lab.values(labs), allow_nan=False)


FORMATS: dict[str, tuple[Callable, Callable]] = {
    "config": (
        lambda folder: (folder / "config.json").write_text(json.dumps(CONFIG.to_dict())),
        lambda folder: read_config(folder).parameter_shapes(),
    ),
    "config-qwen3": (a_config_of_qwen3, lambda folder: read_config(folder).layout),
    "safetensors": (a_safetensors_file, read_safetensors_file),
    "model": (a_model, read_model),
    "shards": (a_sharded_model, read_model),
    "quantised": (a_quantised_model, read_model),
    "run": (a_run, read_run),
    "classifier": (a_classifier, read_classifier),
    "lstm": (an_lstm, read_classifier),
    "bag-of-words": (a_bag_of_words, read_classifier),
    "adapters": (adapters, lambda folder: load_adapters(MODEL, folder)(IDS)),
    "peft": (adapters_of_peft, lambda folder: load_adapters(MODEL, folder)(IDS)),
    "reference": (a_reference, lambda folder: verify(MODEL, Reference.load(folder))),
    "recording": (a_recording, read_recording),
    "toml": (a_settings_file, lambda folder: settings(file=folder / "run.toml")),
    "tokenizer": (a_tokenizer, read_tokenizer),
    "tokenizer.json": (a_tokenizer_json, read_tokenizer),
    "tokenizer-in-gguf": (a_tokenizer_in_gguf, read_tokenizer_in_gguf),
    "gguf": (a_gguf_file, read_gguf_file),
    "table": (a_table, lambda folder: read_examples(folder / "a.csv")),
    "machine": (
        lambda folder: A_MACHINE.save(folder / "machine.json"),
        lambda folder: sheet_of(Machine.load(folder / "machine.json")),
    ),
    "lab": (a_lab_file, read_lab_file),
    "limits": (
        lambda folder: LIMITS.save(folder / "limits.json"),
        lambda folder: Limits.load(folder / "limits.json").bandwidth_at(1e7),
    ),
}

# ---- the faults

VALUES = [
    None, True, False, 0, -1, 1, 2, 3, 7, 1e308, -1e-300, float("nan"), float("inf"), 2**31, 2**63,
    10**30, -(2**63), "", "a", "\0", "\ud800", "int8", "../x", "x" * 100_000, [], {}, [[]], [1, 2],
    [-1], {"a": 1}, [None] * 1000, 3_000_000, 0.5, "1e400", [2**62, 4],
]  # fmt: skip
PIECES = [b"\0", b"\xff", b"\n", b'"', b"{", b"[", b"]", b"}", b",", b"=", b"-", b"9" * 40, b"e999",
          b"<|endoftext|>", b"\xef\xbb\xbf", b"[" * 2000, b"\r", b"\xed\xa0\x80", b" " * 1000,
]  # fmt: skip


def break_bytes(data: bytes, draw: random.Random) -> bytes:
    """One fault in bytes: some changed, cut out, doubled, put in; or the end cut off."""
    start = draw.randrange(len(data) + 1)
    stop = min(len(data), start + draw.choice([0, 1, 1, 2, 4, 8, 64]))
    return draw.choice(
        [
            lambda: data[:start] + bytes([draw.randrange(256)]) + data[start + 1 :],
            lambda: data[:start] + draw.randbytes(stop - start) + data[stop:],
            lambda: data[:start] + data[stop:],
            lambda: data[:stop] + data[start:],
            lambda: data[:start] + draw.choice(PIECES) + data[stop:],
            lambda: data[:start],
        ]
    )()


def break_value(value, draw: random.Random):
    """One fault in what JSON stands for: somewhere another value, a missing or a surplus one."""
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key, changed = draw.choice(keys), value.copy()
        fault = draw.random()
        if fault < 0.1:
            del changed[key]
        elif fault < 0.2 and isinstance(value, dict):
            changed[draw.choice(["a", "", key + "x"])] = draw.choice([value[key], *VALUES])
        elif fault < 0.2:
            changed.append(draw.choice([value[key], *VALUES]))
        else:
            changed[key] = break_value(value[key], draw)
        return changed
    if isinstance(value, str) and value[:1] == "{" and draw.random() < 0.8:  # JSON within JSON
        return json.dumps(break_value(json.loads(value), draw))
    return draw.choice(VALUES)


def break_gguf(data: bytes, draw: random.Random) -> bytes:
    """One fault in what a GGUF file says: a key, or a line of the table of tensors."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.gguf"
        path.write_bytes(data)
        contents = gguf_files.read(path)
        metadata, tensors = dict(contents.metadata), [*contents.tensors.values()]
        if draw.random() < 0.6:
            key = draw.choice([*metadata])
            metadata[key] = break_value(metadata[key], draw)
        else:
            i, form = draw.randrange(len(tensors)), draw.choice(["shape", "type", "name"])
            other = draw.choice(tensors)
            tensors[i] = replace(tensors[i], **{form: getattr(other, form)})
        entries = [(t.name, t.shape, t.type, lambda t=t: fitting(t)) for t in tensors]
        gguf_files.write(path, metadata, entries)
        return path.read_bytes()


def fitting(tensor) -> np.ndarray:
    """As many bytes as a tensor's shape and type ask for."""
    t = gguf_files.TYPES[tensor.type]
    return np.resize(tensor.raw.ravel(), math.prod(tensor.shape) // t.numbers * t.nbytes)


def broken(name: str, data: bytes, draw: random.Random) -> bytes:
    """A file's data with a fault of its own kind, or one in its bytes."""
    if draw.random() < 0.4:
        return break_bytes(data, draw)
    if name.endswith(".json"):
        return json.dumps(break_value(json.loads(data), draw)).encode()
    if name.endswith(".jsonl"):
        lines = data.splitlines()
        n = draw.randrange(len(lines))
        lines[n] = json.dumps(break_value(json.loads(lines[n]), draw)).encode()
        return b"\n".join(lines) + b"\n"
    if name.endswith(".safetensors"):
        n = int.from_bytes(data[:8], "little")
        header = json.dumps(break_value(json.loads(data[8 : 8 + n]), draw)).encode()
        return len(header).to_bytes(8, "little") + header + data[8 + n :]
    if name.endswith(".gguf"):
        try:
            return break_gguf(data, draw)
        except Exception:  # broken already, or what no file can hold
            return break_bytes(data, draw)
    if name.endswith(".toml"):
        lines = data.splitlines()
        n = draw.randrange(len(lines))
        lines[n] = lines[n].split(b"=")[0] + b"= " + json.dumps(draw.choice(VALUES)).encode()
        return b"\n".join(lines)
    return break_bytes(data, draw)


def broken_files(files: dict[str, bytes], seed: int, number: int) -> dict[str, bytes]:
    """The files that differ in input `number`: one to three faults, most often one."""
    draw, changed = random.Random(f"{seed} {number}"), {}
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        name = draw.choice(sorted(files))
        try:
            changed[name] = broken(name, changed.get(name, files[name]), draw)
        except Exception:  # a second fault, in what is no JSON any more
            changed[name] = break_bytes(changed.get(name, files[name]), draw)
    return changed


# ---- trying them


class Hang(BaseException):
    """An input took longer than SECONDS."""


def too_long(*_):
    raise Hang


def fuzz(name: str, n: int, seed: int) -> list[str]:
    """Try `n` inputs of a format; return what was found, a text for each fault, at most twenty."""
    make, read = FORMATS[name]
    found: list[str] = []
    warnings.simplefilter("ignore")  # numbers that overflow
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        try:
            read(folder)
        except InputError as error:
            if name != "run":  # whose start is missing on purpose
                return [f"the valid files are refused: {error}"]
        before = peak_bytes() or 0
        for number in range(n):
            changed = broken_files(files, seed, number)
            for file, data in changed.items():
                (folder / file).write_bytes(data)
            size = sum(len(changed.get(file, data)) for file, data in files.items())
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                read(folder)
            except InputError as error:
                if "\n" in str(error) or len(str(error)) > 1100:
                    found.append(f"{name} {seed} {number}: no line: {str(error)!r:.300}")
            except Hang:
                found.append(f"{name} {seed} {number}: longer than {SECONDS} s")
            except Exception:
                found.append(f"{name} {seed} {number}: {traceback.format_exc(limit=-3)}")
            finally:
                if hasattr(signal, "setitimer"):
                    signal.setitimer(signal.ITIMER_REAL, 0)
            after = peak_bytes() or 0
            if after - before > 2 * size + MEGABYTES * 10**6:
                found.append(f"{name} {seed} {number}: {(after - before) / 1e6:.0f} MB")
                before = after
            if len(found) == 20:
                break
            for file in changed:
                (folder / file).write_bytes(files[file])
    return found


if __name__ == "__main__":
    kind, n, seed = sys.argv[1], *map(int, sys.argv[2:] + ["1000", "0"][len(sys.argv) - 2 :])
    began = time.perf_counter()
    faults = fuzz(kind, n, seed)
    sys.stdout.write("\n".join([*faults, ""]))
    sys.stdout.write(f"{kind}: {n:,} inputs, {time.perf_counter() - began:.0f} s\n")
    sys.stdout.flush()
    os._exit(bool(faults))  # without waiting for what a format may have started
