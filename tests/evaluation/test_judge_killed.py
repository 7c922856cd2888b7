"""Processes that are killed in the middle of judging, as users type the commands: nothing is lost or paid twice."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from deepgen.evaluation.benchmarks import wise
from deepgen.scorers.replies import ReplyCache

BENCH = next(one for one in wise.BENCHMARKS if one.name == "wise-verified")
ITEMS, AT_ONCE = 60, 4
# Answers and notes each answer under one lock; at the 21st call a server told to "die" kills its own process.
SERVER = """
import json, os, re, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
port, log, dies = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "die"
lock, answered = threading.Lock(), 0
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *words): pass
    def do_POST(self):
        global answered
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = re.search(r"prompt (\\d+)", json.dumps(body)).group(1)
        time.sleep(0.02)
        with lock:
            if dies and answered == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            message = {"role": "assistant", "content": f"Score: {int(asked) % 2}"}
            reply = json.dumps({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]})
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply.encode())
            answered += 1
            with open(log, "a") as file:
                file.write(asked + "\\n")
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
CLONE = """
def build_evaluation_messages(prompt_data, image_base64):
    return [
        {"role": "system", "content": [{"type": "text", "text": "Be strict."}]},
        {"role": "user", "content": [{"type": "text", "text": f"{prompt_data['Prompt']}"}]},
    ]
"""


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Sixty items of WISE and their pictures."""
    data = tmp_path / "data" / "wise"
    rows = [{"Prompt": f"prompt {n}", "Explanation": "because", "prompt_id": n} for n in range(1, ITEMS + 1)]
    for path in BENCH.version.files:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_text(json.dumps(rows if path == BENCH.version.files[0] else []))
    (data / BENCH.version.judge_file).write_text(CLONE)
    for row in rows:
        (tmp_path / "theirs").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (row["prompt_id"], 0, 0)).save(
            tmp_path / "theirs" / f"{row['prompt_id']}.png"
        )
    return tmp_path


class Judge:
    """A server process on a port that it keeps when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.script, self.log = folder / "server.py", folder / "answered.txt"
        self.script.write_text(SERVER)
        self.log.touch()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self, how: str = "live") -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            [sys.executable, str(self.script), str(self.port), str(self.log), how]
        )
        wait_for(self._listens)
        return self.process

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def paid(self) -> Counter[int]:
        return Counter(int(line) for line in self.log.read_text().split())


def wait_for(done) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "waited a minute in vain"
        time.sleep(0.01)


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    server = Judge(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


def run_command(folder: Path, judge: Judge) -> subprocess.Popen[str]:
    """`deepgen bench run` with pictures made elsewhere, as a process of its own."""
    shared = ["--images", str(folder / "theirs"), "--data", str(folder / "data"), "-o", str(folder / "run")]
    command = [sys.executable, "-c", "from deepgen.cli import main; main()", "bench", "run", BENCH.name]
    url = ["--url", f"http://127.0.0.1:{judge.port}/v1", "--concurrency", str(AT_ONCE)]
    return subprocess.Popen(
        [*command, *shared, *url, "--allow-partial"],
        env=os.environ | {"HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_judge_killed_mid_run_and_restarted_is_asked_every_question_once(
    prepared: Path, judge: Judge
) -> None:
    dying = judge.start("die")
    command = run_command(prepared, judge)
    assert dying.wait(timeout=60) == -signal.SIGKILL
    assert sum(judge.paid().values()) == 20
    judge.start()
    told, errors = command.communicate(timeout=120)
    assert command.returncode == 0, errors
    assert judge.paid() == Counter(range(1, ITEMS + 1))
    assert f"coverage {ITEMS}/1000" in told and "wise-verified/overall" in told
    results = json.loads((prepared / "run/scores/qwen3.5-35b-a3b.strict/results.json").read_text())
    assert results["groups"]["CULTURE"]["wiscore"]["value"] == 0.5


def test_a_command_killed_mid_run_goes_on_with_what_it_has_not_heard(prepared: Path, judge: Judge) -> None:
    judge.start()
    first = run_command(prepared, judge)
    wait_for(lambda: sum(judge.paid().values()) >= 20)
    first.kill()
    first.communicate()
    kept, paid = len(ReplyCache(prepared / "run" / "replies.sqlite")), sum(judge.paid().values())
    assert paid - AT_ONCE <= kept < ITEMS
    second = run_command(prepared, judge)
    told, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert f"{ITEMS - kept} new calls, {kept} known" in told
    assert set(judge.paid()) == set(range(1, ITEMS + 1))
    # Only calls that were on their way when the command was killed were answered to nobody.
    assert sum(judge.paid().values()) <= ITEMS + AT_ONCE
