"""The hub, through its real client and a server on this machine: what arrives, and what is said
when it does not."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from minillm import GPT2, GPT2Config, Tokenizer
from minillm.checkpoints import find, safetensors
from minillm.checkpoints.opening import save_checkpoint

pytestmark = pytest.mark.live
pytest.importorskip("huggingface_hub", reason="needs huggingface_hub (extra: hub)")

COMMIT = "a" * 40
MUCH = 10 * 2**20 + 5  # the client keeps what it has of a file in pieces of 10 MiB
PAGE = b"<!DOCTYPE html><title>Log in to the network</title>"
CONFIG = GPT2Config(vocab_size=300, n_positions=8, n_embd=6, n_layer=1, n_head=2)


class Hub(ThreadingHTTPServer):
    """A hub with the files of one model, `some/model`, and one fault; notes what is asked of it."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.fault, self.asked = files, None, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def downloaded(self) -> list[str]:
        return sorted(
            {
                unquote(path).rpartition("/")[2]
                for command, path, _ in self.asked
                if command == "GET" and "/resolve/" in path
            }
        )


class Answer(BaseHTTPRequestHandler):
    """Answers as the hub does, or wrongly, as `fault` says."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        pass

    def send(self, body=b"", status=200, length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, begin = self.path.split("?")[0], self.headers.get("Range", "bytes=0-")
        begin = int(begin.removeprefix("bytes=").split("-")[0])
        self.server.asked.append((self.command, path, begin))
        fault, files = self.server.fault, self.server.files
        if isinstance(fault, int):
            return self.send(status=fault)
        if fault == "page":
            return self.send(PAGE)
        if fault == "circle":
            return self.send(status=302, Location=self.path)
        if fault in ("nothing", "no commit") and "/api/" in path:
            info = {"id": "some/model", "siblings": [{"rfilename": name} for name in files]}
            return self.send(json.dumps(info if fault == "no commit" else {}).encode())
        if fault == "gated" or (fault == "gated files" and "/resolve/" in path):
            return self.send(status=403 if "files" in fault else 401, X_Error_Code="GatedRepo")
        if "some/model" not in path:
            return self.send(status=401, X_Error_Code="RepoNotFound")
        if "/tree/" in path:
            listed = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(data),
                    "oid": hashlib.sha1(data).hexdigest(),
                }
                for name, data in files.items()
            ]
            return self.send(json.dumps(listed).encode(), Content_Type="application/json")
        if "/api/" in path:
            siblings = [{"rfilename": name} for name in files]
            info = {"id": "some/model", "sha": COMMIT, "siblings": siblings}
            return self.send(json.dumps(info).encode(), Content_Type="application/json")
        data = files.get(unquote(path).rpartition("/")[2])
        if data is None:
            return self.send(status=404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X_Repo_Commit": COMMIT}
        if fault == "page for files":
            return self.send(PAGE)
        if self.command == "GET" and fault == "page for contents":
            return self.send(PAGE)
        if self.command == "GET" and fault == "half":
            return self.send(data[: len(data) // 2], **headers)
        if begin:
            headers["Content_Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        weights = self.command == "GET" and path.endswith("safetensors")
        if weights and (fault == "cut" or (fault == "cut once" and not begin)):
            self.close_connection = True
            return self.send(data[begin : begin + MUCH][:-1], length=len(data) - begin, **headers)
        return self.send(data[begin:], 206 if begin else 200, **headers)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """What a repository holds that transformers 5 wrote."""
    folder = tmp_path_factory.mktemp("files")
    GPT2.random(CONFIG).save_pretrained(folder)
    Tokenizer.train([], 257).save(folder)
    return {
        f.name: f.read_bytes()
        for f in folder.iterdir()
        if f.name not in ("vocab.json", "merges.txt")
    }


@pytest.fixture
def hub(files):
    hub = Hub(dict(files))
    yield hub
    hub.shutdown()
    hub.server_close()


CODE = """
import sys
from minillm import InputError, load
try:
    model, tokenizer = load(sys.argv[1])
    print(model.n_parameters, tokenizer.vocab_size)
except InputError as error:
    print(error)
"""


@pytest.fixture
def ask(hub, tmp_path):
    """Load a model in a process of its own, whose client asks `hub`; return the line it prints."""

    def ask(name="some/model", **changes):
        env = (
            os.environ
            | {
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path),
                "PYTHONPATH": str(find.PACKAGE.parent),
                "HF_HUB_ETAG_TIMEOUT": "5",
            }
            | changes
        )
        hub.asked.clear()
        done = subprocess.run(
            [sys.executable, "-c", CODE, name],
            env=env,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert not done.stderr, done.stderr  # no bar and no warning where nobody looks
        [line] = done.stdout.splitlines()
        return line

    return ask


def test_a_gguf_file_is_fetched_where_it_is_named_or_alone(hub, ask, files, tmp_path):
    model = GPT2.random(CONFIG)
    save_checkpoint(model, tmp_path / "m.gguf", None, Tokenizer.train([], 257))
    hub.files = {"m.Q8_0.gguf": (tmp_path / "m.gguf").read_bytes(), "README.md": b"x"}
    loaded = LOADED.replace("257", "300")  # the file names the ids without a token, too
    assert ask() == loaded and hub.downloaded() == ["m.Q8_0.gguf"]
    assert ask(HF_HUB_OFFLINE="1") == loaded and hub.asked == []
    hub.files["m.F16.gguf"] = b"GGUF"
    assert ask("some/model/m.Q8_0.gguf") == loaded
    assert ask().endswith("has 2 GGUF files: name one of them, as some/model/m.Q8_0.gguf")
    assert "has 2 GGUF files and no 'x.gguf': name one" in ask("some/model/x.gguf")
    hub.files |= files
    assert ask() == LOADED and "model.safetensors" in hub.downloaded()
    assert ask(HF_HUB_OFFLINE="1") == LOADED and hub.asked == []  # the same one as with the hub


LOADED = f"{GPT2.random(CONFIG).n_parameters} 257"


def test_a_model_is_fetched_and_found_again_offline(hub, ask):
    hub.files |= {"pytorch_model.bin": b"x", "onnx/model.onnx": b"x", "README.md": b"x"}
    assert ask() == LOADED
    assert hub.downloaded() == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert ask() == LOADED and hub.downloaded() == []
    assert ask(HF_HUB_OFFLINE="1") == LOADED and hub.asked == []
    for hub.fault in ("page", 500, "gated"):  # what was fetched before is used
        assert ask() == LOADED
    assert ask(HF_ENDPOINT="http://127.0.0.1:9") == LOADED


def test_of_several_formats_one_is_taken(hub, ask, tmp_path):
    GPT2.random(CONFIG).save_pretrained(tmp_path / "f")
    tensors, _ = safetensors.read(tmp_path / "f" / "model.safetensors")
    names = [*tensors]
    shards = {
        "model-00001-of-00002.safetensors": names[:5],
        "model-00002-of-00002.safetensors": names[5:],
    }
    for file, part in shards.items():
        safetensors.write(tmp_path / "f" / file, {name: tensors[name] for name in part})
        hub.files[file] = (tmp_path / "f" / file).read_bytes()
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    hub.files |= {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model.fp16.safetensors": b"x",
    }
    hub.files |= {"vocab.json": b"x", "merges.txt": b"x"}
    assert ask() == LOADED
    assert hub.downloaded() == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    del hub.files["model.safetensors"]
    assert ask(HF_HOME=str(tmp_path / "another")) == LOADED
    assert {*shards, "model.safetensors.index.json"} < {*hub.downloaded()}
    assert "model.fp16.safetensors" not in hub.downloaded()


@pytest.mark.parametrize(
    "second, message",
    [
        ("weights [2] of 2*.safetensors", None),  # a name is no pattern
        ("gone.safetensors", "index.json names the shard 'gone.safetensors', which is not there"),
        ("../outside.safetensors", "'../outside.safetensors' of .* must be a file name"),
        ("inner/two.safetensors", "'inner/two.safetensors' of .* must be a file name"),
    ],
)
def test_shards_have_the_names_that_the_index_says(hub, ask, tmp_path, second, message):
    GPT2.random(CONFIG).save_pretrained(tmp_path / "f")
    tensors, _ = safetensors.read(tmp_path / "f" / "model.safetensors")
    shards = {"one.safetensors": [*tensors][:5], second: [*tensors][5:]}
    for file, names in shards.items():
        safetensors.write(tmp_path / "part", {name: tensors[name] for name in names})
        hub.files[file.replace("gone", "other")] = (tmp_path / "part").read_bytes()
    index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.files["weights 2 of 2.safetensors"] = b"another"  # which the name as a pattern would fit
    del hub.files["model.safetensors"]
    line = ask()
    assert re.search(message, line) if message else line == LOADED
    assert "weights 2 of 2.safetensors" not in hub.downloaded()


def test_a_model_in_other_formats_alone_is_not_fetched(hub, ask):
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    line = ask()
    assert "no model.safetensors; it has pytorch_model.bin: save it with save_pretrained" in line
    assert hub.downloaded() == []


@pytest.mark.parametrize(
    "fault, reason",
    [
        ("gated", "it is gated: accept its terms at http"),
        ("gated files", "it is gated: accept its terms at http"),
        (401, "no such model, or a private one: check the name, or log in with `hf auth login`"),
        (403, "it is gated"),
        (404, "no such model, or a private one"),
        (500, "it answered with status 500: try again later"),
        (429, "it answered with status 429"),
        ("page", "something else answered, such as a network's log-in page: open http"),
        ("circle", "something else answered, such as a network's log-in page"),
        ("nothing", "something else answered, such as a network's log-in page"),
        ("no commit", "something else answered, such as a network's log-in page"),
        ("page for files", "something else answered, such as a network's log-in page"),
        ("page for contents", "a file came with another size than announced: run it again"),
        ("half", "a file came with another size than announced"),
        ("cut", "the connection broke off: run it again"),
    ],
)
def test_what_the_hub_refuses_or_a_network_spoils_is_one_line(hub, ask, fault, reason):
    hub.fault = fault
    line = ask()
    assert line.startswith("model 'some/model' is neither a folder nor bundled")
    assert f"the Hugging Face hub did not give it: {reason}" in line and len(line) < 400
    hub.fault = None
    assert ask() == LOADED  # nothing wrong was kept


@pytest.mark.parametrize(
    "name, reason",
    [
        ("no/such-model", "no such model"),
        ("not valid", "no model can have this name"),
        ("./gpt2", "no folder './gpt2'"),
        ("a" * 300, "no model can have this name"),
    ],
    ids=lambda text: text[:20],
)
def test_a_name_that_leads_nowhere_is_one_line(ask, name, reason):
    assert reason in ask(name)


def test_without_a_network_it_says_what_to_do(ask):
    assert "it cannot be reached: check the connection" in ask(HF_ENDPOINT="http://127.0.0.1:9")
    assert "HF_HUB_OFFLINE is set, and the cache does not hold it" in ask(HF_HUB_OFFLINE="1")


def test_a_download_that_is_cut_goes_on_where_it_stopped(hub, ask, tmp_path):
    config = GPT2Config(vocab_size=300, n_positions=8, n_embd=256, n_layer=4, n_head=2)
    model = GPT2.random(config)
    model.save_pretrained(tmp_path / "large")
    for name in ("config.json", "model.safetensors"):
        hub.files[name] = (tmp_path / "large" / name).read_bytes()
    assert len(hub.files["model.safetensors"]) > MUCH
    hub.fault = "cut once"
    assert ask() == f"{model.n_parameters} 257"
    begins = [
        begin
        for command, path, begin in hub.asked
        if command == "GET" and path.endswith("model.safetensors")
    ]
    assert begins[0] == 0 and len(begins) == 2 and begins[1] >= 10 * 2**20
