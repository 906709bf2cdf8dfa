"""The benchmark itself: that it runs, prints its rows, counts what it should, and says what it left out."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.targets import nginx_path
from tests.support.running import COMPILED

from bench import cpu

ROOT = Path(__file__).parents[2]


def test_bench_prints_its_rows(tmp_path: Path) -> None:
    saved = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--seconds", "0.2", "--concurrency", "4"]
    command += ["--chunks", "20", "--delay-ms", "2", "--json", str(saved)]
    command += ["--offers", "2"]
    command += [] if COMPILED else ["--interpreted"]
    environment = {**os.environ, "PEERS": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    program = f"Farebox is {'compiled' if COMPILED else 'interpreted'}; offers of a model: 2"
    assert program in lines[:4]
    assert max(map(len, lines)) <= 100
    nginx = nginx_path()
    for name in ("direct", "farebox", "nginx"):
        rows = [line for line in lines if line.split()[:1] == [name]]
        assert len(rows) == 2, f"{name} has a row in both tables:\n{done.stdout}"
        assert all(("skipped" in row) == (name == "nginx" and nginx is None) for row in rows)
    assert any(line.startswith("litellm: skipped, only with PEERS=1") for line in lines)
    assert sum("expected ≤" in line for line in lines) == (2 if nginx else 0)
    result = json.loads(saved.read_text())["result"]
    farebox = next(row for row in result["rows"] if row["name"] == "farebox")
    assert farebox["cpu_us_per_call"] > 0 and farebox["cpu_us_per_chunk"] > 0
    assert set(farebox["call_us_by_process"]) == {"main", "worker", "bookkeeper"}


def test_run_time_of_a_process_is_the_schedulers() -> None:
    program = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        before = cpu.read([process.pid])
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        time.sleep(0.05)
        spent_ns = cpu.spent_ns(before, cpu.read(cpu.family(process.pid)))
        process.stdin.close()
    assert 0.25e9 < spent_ns[process.pid] < 0.6e9
