"""Compare Tripline with the package on fresh traces: every case, many seeds. Exit 1 on any difference.

usage: compare.py TRIPLINE [--seeds N] [--first SEED] [--count EVENTS] [--case NAME]

TRIPLINE is the binary. Run it with an interpreter that has anomaly-infra 0.2.6 and Django 5. Rows are compared per
event, in order, on every field that the oracle prints.
"""
import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

from parity import CASES, PACK, expected, write_events


def by_event(text):
    rows = {}
    for line in text.splitlines():
        row = json.loads(line)
        rows.setdefault(row["event_id"], []).append(row)
    return rows


def replay(binary, events, case, folder):
    files = []
    for name in ("flags", "settings"):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(case[name]), encoding="utf-8")
        files.append(path)
    command = [binary, "replay", "--rules", PACK, "--flags", files[0], "--settings", files[1], "--input", events]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return run.stdout.decode("utf-8")


def differences(want, got):
    """Pairs of rows that differ; a row that only one side has is paired with None."""
    for event_id in dict.fromkeys([*want, *got]):
        for left, right in itertools.zip_longest(want.get(event_id, []), got.get(event_id, [])):
            if left is None or right is None or any(right.get(field) != value for field, value in left.items()):
                yield left, right


def show(left, right):
    if left is None or right is None:
        return f"only {'the package' if right is None else 'Tripline'}: {json.dumps(left or right)}"
    fields = {name: [value, right.get(name)] for name, value in left.items() if right.get(name) != value}
    return f"{left['event_id']} {left['anomaly_type']}, package and Tripline: {json.dumps(fields)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tripline", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--case", action="append")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.case or case["name"] in options.case]
    if not cases:
        parser.error("no case of that name in cases.json")
    rows = differing = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        events = folder / "events.ndjson"
        for seed in range(options.first, options.first + options.seeds):
            write_events(events, seed, options.count)
            for case in cases:
                want = by_event(expected(events, case))
                got = by_event(replay(options.tripline, events, case, folder))
                found = list(differences(want, got))
                count = sum(map(len, want.values()))
                rows, differing = rows + count, differing + len(found)
                print(f"seed {seed} {case['name']}: {count} rows, {len(found)} differ")
                for left, right in found[:5]:
                    print("  " + show(left, right))
    print(f"{rows} rows compared, {differing} differ")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
