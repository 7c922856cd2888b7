"""Names on the hub, against a small server on this machine that speaks the hub's API."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from deepgen.checkpoints import hub, load_model, open_checkpoint
from deepgen.errors import CheckpointError, InputError
from deepgen.pipeline.shipped import resolve_model

REPO = "deepgenteam/DeepGen-1.0-diffusers"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
UNNEEDED = {
    "README.md": b"words",
    "deepgen_pipeline.py": b"raise SystemExit('executed')",
    "assets/teaser.png": b"pixels",
    "transformer/diffusion_pytorch_model.fp16.safetensors": b"variant",
    "transformer/diffusion_pytorch_model.bin": b"pickle",
    "DeepGen_CKPT.zip.part-00": b"archive",
}


class Hub:
    """Repositories served under http://127.0.0.1; `requests` are the files that were sent."""

    def __init__(self):
        self.repositories, self.commits, self.requests, self.damaged = {}, {}, [], set()
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, repo, folder, more=None, commit=COMMIT):
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        self.repositories[repo], self.commits[repo] = {**files, **(more or {})}, commit


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        pass

    def send(self, content, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        words = self.path.partition("?")[0].strip("/").split("/")
        api = words[:2] == ["api", "models"]
        words = words[2:] if api else words
        repo, action, revision = "/".join(words[:2]), words[2] if len(words) > 2 else "", "".join(words[3:4])
        files = self.hub.repositories.get(repo)
        if files is None:
            return self.send(b"{}", 404, X_Error_Code="RepoNotFound")
        commit = self.hub.commits[repo]
        if revision not in ("main", "v1", commit):
            return self.send(b"{}", 404, X_Error_Code="RevisionNotFound")
        if not api:
            return self.send_file(files, "/".join(words[4:]), commit)
        if action == "tree":
            entries = [self.entry(name, content) for name, content in files.items()]
            return self.send(json.dumps(entries).encode(), Content_Type="application/json")
        info = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        return self.send(json.dumps(info).encode(), Content_Type="application/json")

    @staticmethod
    def entry(name, content):
        entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if name.endswith(".safetensors"):
            entry["lfs"] = {
                "oid": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "pointerSize": 1,
            }
        return entry

    def send_file(self, files, name, commit):
        content = files[name]
        large = name.endswith((".safetensors", ".pt"))
        tag = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
        if self.command == "GET":
            self.hub.requests.append(name)
            if name in self.hub.damaged:
                content = content[:-100] + bytes(100)
        self.send(content, ETag=f'"{tag}"', X_Repo_Commit=commit)


@pytest.fixture(scope="module")
def server():
    running = Hub()
    yield running
    running.server.shutdown()


@pytest.fixture
def served(server, monkeypatch, tmp_path):
    server.repositories.clear()
    server.requests.clear()
    server.damaged.clear()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return server


def test_only_the_files_that_are_needed_are_fetched_and_only_once(served, layouts):
    served.add(REPO, layouts.diffusers, UNNEEDED)
    load_model(REPO)
    assert not set(served.requests) & set(UNNEEDED)
    needed = {"transformer/config.json", "connector/model.safetensors", "vlm/tokenizer.json"}
    assert needed <= set(served.requests) and len(served.requests) == len(set(served.requests))
    count = len(served.requests)
    load_model(REPO)
    assert len(served.requests) == count


def test_a_native_repository_gives_its_model_file_and_the_bases_come_from_the_hub_too(served, layouts):
    native = layouts.file("repo/model.pt", layouts.native).parent
    served.add("deepgenteam/DeepGen-1.0", native, UNNEEDED)
    served.add("Qwen/Qwen2.5-VL-3B-Instruct", layouts.vlm, {"chat_template.json": b"{}"})
    served.add("Skywork/UniPic2", layouts.dit, {"text_encoder/model.safetensors": b"not needed"})
    served.add("some/adapters", layouts.peft("peft", layouts.lora))
    checkpoint = open_checkpoint(
        "deepgenteam/DeepGen-1.0", "Qwen/Qwen2.5-VL-3B-Instruct", "Skywork/UniPic2", "some/adapters"
    )
    assert checkpoint.layout == "native" and checkpoint.parts["vlm"].adapters
    assert "model.pt" in served.requests
    assert not {"text_encoder/model.safetensors", "chat_template.json", *UNNEEDED} & set(served.requests)


def test_a_revision_is_asked_for_by_name(served, layouts):
    served.add(REPO, layouts.diffusers)
    assert hub.locate(f"{REPO}@v1", "model").name == COMMIT
    with pytest.raises(InputError, match="no revision 'v9'"):
        hub.locate(f"{REPO}@v9", "model")


def test_without_the_hub_the_cache_is_used(served, layouts, monkeypatch):
    served.add(REPO, layouts.diffusers, UNNEEDED)
    first = hub.locate(REPO, "model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.locate(REPO, "model") == first
    load_model(REPO)
    with pytest.raises(CheckpointError, match=r"some/other: no such file.*offline or cannot be reached"):
        hub.locate("some/other", "model")


def test_a_file_that_arrives_damaged_is_named_and_fetched_again(served, layouts):
    served.add(REPO, layouts.diffusers)
    served.damaged.add("connector/model.safetensors")
    with pytest.raises(CheckpointError, match=r"connector/model\.safetensors of .* arrived damaged"):
        load_model(REPO)
    served.damaged.clear()
    load_model(REPO)


def test_the_published_weights_are_held_against_their_known_sums(served, layouts, monkeypatch):
    ((_, commit),) = hub.KNOWN_SHA256
    served.add(REPO, layouts.diffusers, commit=commit)
    with pytest.raises(CheckpointError, match="arrived damaged"):
        load_model(f"{REPO}@{commit}")


def test_what_is_neither_here_nor_on_the_hub_is_the_users_mistake(served):
    with pytest.raises(InputError, match=r"nobody/nothing: no such file or folder here"):
        load_model("nobody/nothing")
    with pytest.raises(InputError, match=r"\./nothing: no such file or folder$"):
        load_model("./nothing")
    assert resolve_model(REPO) == (REPO, REPO) and resolve_model(f"{REPO}@v1")[0] == f"{REPO}@v1"


def test_a_repository_of_another_kind_is_refused(served, tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "README.md").write_text("nothing to load")
    served.add("some/words", tmp_path / "words")
    with pytest.raises(CheckpointError, match="no file that is needed here"):
        load_model("some/words")


def test_a_folder_here_goes_before_a_repository_of_its_name(served, layouts, monkeypatch):
    layouts.copy("org/name")
    monkeypatch.chdir(layouts.root)
    assert hub.locate("org/name", "model").is_dir() and not served.requests


def test_the_published_first_lines_draw(served, layouts, tmp_path):
    served.add(REPO, layouts.diffusers, UNNEEDED)
    code = f"""
import torch
from PIL import Image
from deepgen import DeepGenPipeline
pipe = DeepGenPipeline.from_pretrained("{REPO}", torch_dtype=torch.bfloat16)
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
pipe.enable_model_cpu_offload()
settings = dict(height=64, width=64, num_inference_steps=2, guidance_scale=4.0, seed=42)
result = pipe(prompt="a photo of a blue pizza", **settings)
result = pipe(prompt="make it red", image=result.images[0], negative_prompt="blurry", **settings)
assert result.images[0].size == (64, 64), result.images[0].size
"""
    environment = {**os.environ, "HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
