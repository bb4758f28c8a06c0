"""Write the golden traces: golden/CASE/events.ndjson and what the package decides on them, golden/CASE/expected.ndjson.

usage: make_golden.py          (with an interpreter that has anomaly-infra 0.2.6 and Django 5)
"""
from parity import CASES, HERE, expected, write_events

if __name__ == "__main__":
    for case in CASES:
        folder = HERE / "golden" / case["name"]
        folder.mkdir(parents=True, exist_ok=True)
        write_events(folder / "events.ndjson", case["seed"], case["count"])
        rows = expected(folder / "events.ndjson", case)
        (folder / "expected.ndjson").write_text(rows, encoding="utf-8")
        print(f"{case['name']}: {case['count']} events, {rows.count(chr(10))} rows")
