"""Tests of the access log converter: python3 -m unittest scripts/test_convert_access_log.py"""
import gzip
import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from convert_access_log import convert_all  # noqa: E402

COMBINED = (
    '203.0.113.9 - alice [17/May/2015:12:05:03 +0200] "GET /a/b.png?token=x HTTP/1.1" 404 203 "http://x/" "Agent \\"1\\" (y)"'
)
COMMON = '203.0.113.9 - - [17/May/2015:10:05:01 +0000] "POST /login HTTP/1.0" 200 -'
NO_HTTP = '203.0.113.9 - - [17/May/2015:10:05:02 +0000] "\\x16\\x03\\x01" 400 226 "-" "-"'
JSON_LINE = json.dumps(
    {"ts": "2015-05-17T10:05:00Z", "kind": "request", "actor": "198.51.100.7", "method": "GET", "path": "/reset.css", "status": 200,
     "bytes": 1015, "referer": "-", "ua": "Bot/2.1", "line": 48}
)


class Converter(unittest.TestCase):
    def test_a_combined_line_becomes_an_event_in_utc_without_its_query(self):
        events, bad = convert_all([COMBINED])
        self.assertEqual(bad, 0)
        event_id = events[0].pop("event_id")
        self.assertEqual(len(event_id), 36)
        self.assertEqual(events[0], {
            "event_time": "2015-05-17T10:05:03.000Z", "event_type": "http_request", "ip_address": "203.0.113.9", "method": "GET",
            "path": "/a/b.png", "status_code": 404, "response_bytes": 203, "user_agent": 'Agent \\"1\\" (y)',
        })

    def test_the_user_is_taken_only_when_trusted(self):
        self.assertNotIn("user_id", convert_all([COMBINED])[0][0])
        self.assertEqual(convert_all([COMBINED], trust_user=True)[0][0]["user_id"], "alice")
        self.assertNotIn("user_id", convert_all([COMMON], trust_user=True)[0][0])

    def test_kinds_mix_and_come_out_sorted_by_time(self):
        events, bad = convert_all([COMBINED, NO_HTTP, "", COMMON, JSON_LINE])
        self.assertEqual(bad, 0)
        self.assertEqual([e["event_time"][17:19] for e in events], ["00", "01", "02", "03"])
        self.assertEqual(events[0]["ip_address"], "198.51.100.7")
        self.assertNotIn("response_bytes", events[1])
        self.assertNotIn("path", events[2])

    def test_ids_are_the_same_every_time_and_differ_between_equal_lines(self):
        first, second = convert_all([COMMON, COMMON])[0], convert_all([COMMON, COMMON])[0]
        self.assertEqual(first, second)
        self.assertNotEqual(first[0]["event_id"], first[1]["event_id"])

    def test_other_lines_are_counted_and_their_content_stays_out_of_the_message(self):
        bad_lines = ["not a log line 192.0.2.1", "{}", '{"ts":"x","actor":"a","status":1}',
                     '192.0.2.1 - - [99/May/2015:10:05:01 +0000] "GET / HTTP/1.0" 200 1']
        self.assertEqual(convert_all(bad_lines), ([], 4))
        with tempfile.TemporaryDirectory() as folder:
            log = os.path.join(folder, "access.log.gz")
            with gzip.open(log, "wt") as file:
                file.write("\n".join([COMMON] + bad_lines))
            done = subprocess.run([sys.executable, os.path.join(HERE, "convert_access_log.py"), log], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        self.assertEqual(done.stderr.strip(), "1 events, 4 lines left out")


if __name__ == "__main__":
    unittest.main()
