"""Seeded random events that exercise every detector of anomaly-infra and the corners of its settings.

usage: make_trace.py SEED COUNT > EVENTS.ndjson

The same seed and count give the same bytes. Left out, because Tripline answers otherwise on purpose or by its contract
(docs/from-anomaly-infra.md): paths with digits that are not ASCII, padded addresses, empty ids, values that are not text.
"""
import datetime
import json
import random
import sys

SENSITIVE = ["/api/v1/auth/login", "/api/v1/account/profile", "/api/v1/users/17", "/api/v1/users/", "/api/v1/invoice/9",
             "/api/v1/payments/3fa85f64-5717-4562-b3fc-2c963f66afa6", "/admin/", "/admin/users/1", "/api/v1/account/roles/2",
             "/api/v2/auth/login", "/api/v2/users/8", "/ops/console", "/shop/checkout/77"]
OTHER = ["/", "/health", "/api/v1/orders/55", "/API/v1/auth/login", "/api/v10/auth/x", "/api/v1//users///12", "/admin", "//admin/",
         "/café/été/12", "/検索/結果", "/a/" + "x" * 130, "/a/" + "9" * 130, "/%61dmin/", "/api/v1/users/17/", "/3fa85f64-5717-4562-b3fc-2c963f66afa6"]
REPORTED = ["invoice_amount_paid_tampering", "stock_underflow_attempt", "duplicate_submission_pattern", "invoice_total_mismatch",
            "invalid_invoice_status_transition", "custom_checkout_velocity", "path_probing"]
FORWARDED = ["203.0.113.9", " 203.0.113.9 , 10.0.0.1", "198.51.100.7, 203.0.113.9", ", 10.0.0.9", "   ", "2001:db8::1"]
DATA = [{"form": "checkout", "access_token": "t0p", "attempt_count": 3}, {"Shipping-Address": "x", "note": "pin"},
        {"card": {"number": "4111"}, "lines": [{"sku": "é", "csrf-token": None}, 1.5, [True]], "nested": {"deep": {"PASSWORD": []}}}, {}]


def rfc3339(ms):
    at = datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def trace(seed, count):
    rng = random.Random(seed)
    clock, left, hot = 1_760_000_000_000, 0, {}
    for number in range(count):
        clock += int(rng.expovariate(1 / rng.choice([5, 40, 400, 4000])))
        if left == 0 and rng.random() < 0.012:  # a burst: one actor, one path, many times
            left = rng.randint(12, 45)
            hot = {"user_id": rng.choice(["1", "2", "u-3", "ümlaut"]), "path": rng.choice(SENSITIVE), "method": rng.choice(["POST", "put", "GET"])}
        event = {"event_id": f"e-{seed}-{number}", "event_time": rfc3339(clock) if rng.random() < 0.8 else clock,
                 "event_type": "http_request", "method": rng.choice(["GET", "POST", "PUT", "PATCH", "DELETE", "post", "HEAD"]),
                 "path": rng.choice((SENSITIVE + OTHER)[: rng.choice([2, 9, 28])]),
                 "status_code": rng.choice([200, 200, 200, 400, 403, 403, 401, 404, 429, 500])}
        if rng.random() < 0.6:
            event["user_id"] = rng.choice(["1", "2", "u-3", "42"])
        if rng.random() < 0.9:
            event["ip_address"] = f"10.0.0.{rng.randint(1, 4)}"
        if rng.random() < 0.5:
            event["tenant_id"] = rng.choice(["acme", "globex", "Acme"])
        if rng.random() < 0.2:
            event["tenant_name"] = rng.choice(["Acme Ltd", "globex"])
        headers = {}
        for name in ("X-Tenant", "x-tenant-id"):
            if rng.random() < 0.2:
                headers[name] = rng.choice(["acme", "globex", "", "Acme Ltd"])
        if rng.random() < 0.3:
            headers["X-Forwarded-For"] = rng.choice(FORWARDED)
        if headers:
            event["headers"] = headers
        for name in ("path", "method", "status_code"):
            if rng.random() < 0.01:
                del event[name]
        if left:
            left -= 1
            event.update(hot)
            clock -= clock % 50  # time steps back a little now and then
        elif rng.random() < 0.03:  # reported from within a request, which must not count as one
            event |= {"anomaly_type": rng.choice(REPORTED + [""]), "data": rng.choice(DATA)}
        elif rng.random() < 0.03:
            event = {k: event[k] for k in ("event_id", "event_time", "user_id", "ip_address", "tenant_id") if k in event}
            event |= {"event_type": "anomaly.reported", "anomaly_type": rng.choice(REPORTED), "data": rng.choice(DATA)}
        yield json.dumps(event, ensure_ascii=rng.random() < 0.5, separators=(",", ":"))


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    for line in trace(int(sys.argv[1]), int(sys.argv[2])):
        print(line)
