"""What the scripts of this folder share: the cases, a case's trace, and the package's answer to it."""
import json
import os
import pathlib
import subprocess
import sys

from make_trace import trace

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACK = ROOT / "config" / "packs" / "anomaly-infra"
CASES = json.loads((HERE / "cases.json").read_text(encoding="utf-8"))


def write_events(path, seed, count):
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(line + "\n" for line in trace(seed, count))


def expected(events, case):
    """The oracle's rows, as text. Runs with this interpreter, which must have the package and Django."""
    env = dict(os.environ, FLAGS=json.dumps(case["flags"]), SETTINGS=json.dumps(case["settings"]), PYTHONIOENCODING="utf-8")
    run = subprocess.run([sys.executable, HERE / "oracle.py", events], env=env, stdout=subprocess.PIPE, check=True)
    return run.stdout.decode("utf-8")
