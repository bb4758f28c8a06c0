#!/usr/bin/env python3
"""Turns an access log into Tripline events.

usage: convert_access_log.py [LOG] [--event-type TYPE] [--trust-user] > events.ndjson

LOG is a file, plain or .gz; without one, or with `-`, standard input (plain). Each line is either Apache's or nginx's combined
(or common) log format, or a JSON object with ts, actor, method, path, status and optionally bytes, ua, user. The kinds may
be mixed. Events come out sorted by time; equal times keep their order. A line that is neither kind is counted and left out,
and the exit code is 1 then: numbers go to standard error, lines never do (they hold addresses).

The event id is a UUIDv5 of the line's number and content, so that the same log gives the same events.
Query strings are dropped: rules look at paths, and queries hold secrets.
"""
import argparse
import datetime
import gzip
import json
import re
import sys
import uuid

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "tripline:access-log")
COMBINED = re.compile(
    r'(?P<actor>\S+) \S+ (?P<user>\S+) \[(?P<ts>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<bytes>\d+|-)'
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<ua>(?:[^"\\]|\\.)*)")?'
)
REQUEST = re.compile(r"(?P<method>[A-Za-z]+) (?P<path>\S+)(?: HTTP/[\d.]+)?$")


def parse_combined(line):
    """The fields of a combined-format line, or None."""
    found = COMBINED.match(line)
    if not found:
        return None
    fields = found.groupdict()
    try:
        fields["at"] = datetime.datetime.strptime(fields["ts"], "%d/%b/%Y:%H:%M:%S %z")
    except ValueError:
        return None
    # A request line that is no HTTP (scanners send such) still is a request of that client: without method and path.
    request = REQUEST.match(fields["request"])
    fields.update(request.groupdict() if request else {"method": None, "path": None})
    return fields


def parse_json(line):
    """The fields of a JSON line, or None."""
    try:
        fields = json.loads(line)
        at = datetime.datetime.fromisoformat(fields["ts"].replace("Z", "+00:00"))
        fields["at"] = at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)
        int(fields["status"]), fields["actor"].strip()
        return fields
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def convert(number, line, event_type, trust_user):
    """(time, event) of a line, or None if it is no log line."""
    fields = parse_json(line) if line.startswith("{") else parse_combined(line)
    if fields is None:
        return None
    at = fields["at"].astimezone(datetime.timezone.utc)
    path = fields.get("path")
    user = fields.get("user")
    size = fields.get("bytes")
    event = {
        "event_id": str(uuid.uuid5(NAMESPACE, f"{number}\n{line}")),
        "event_time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event_type": event_type,
        # The name in a log is what the client sent, right or wrong; only the operator knows whether it was checked.
        "user_id": user if trust_user and user not in (None, "", "-") else None,
        "ip_address": fields["actor"],
        "method": fields.get("method"),
        "path": path.split("?", 1)[0] if path else None,
        "status_code": int(fields["status"]),
        "response_bytes": int(size) if size not in (None, "", "-") else None,
        "user_agent": fields.get("ua") if fields.get("ua") not in (None, "", "-") else None,
    }
    return at, {name: value for name, value in event.items() if value is not None}


def convert_all(lines, event_type="http_request", trust_user=False):
    """The events in order of time, and how many lines were none."""
    rows, bad = [], 0
    for number, line in enumerate(lines):
        line = line.strip()
        if not line:
            continue
        row = convert(number, line, event_type, trust_user)
        if row is None:
            bad += 1
        else:
            rows.append(row)
    rows.sort(key=lambda row: row[0])
    return [event for _, event in rows], bad


def open_log(name):
    if name == "-":
        return sys.stdin
    opener = gzip.open if name.endswith(".gz") else open
    return opener(name, "rt", encoding="utf-8", errors="replace")


def main():
    parser = argparse.ArgumentParser(description="Turns an access log into Tripline events (NDJSON on standard output).")
    parser.add_argument("log", nargs="?", default="-", help="combined format or JSON lines; .gz is unpacked; - is standard input")
    parser.add_argument("--event-type", default="http_request")
    parser.add_argument("--trust-user", action="store_true", help="take the log's user name as user_id")
    args = parser.parse_args()
    with open_log(args.log) as lines:
        events, bad = convert_all(lines, args.event_type, args.trust_user)
    for event in events:
        print(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
    print(f"{len(events)} events, {bad} lines left out", file=sys.stderr)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
