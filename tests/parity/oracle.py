"""Run the published anomaly-infra package over an NDJSON event file, in event time, and print what it decides.

usage: oracle.py EVENTS.ndjson > EXPECTED.ndjson

Needs `pip install anomaly-infra==0.2.6 "Django>=5,<6"`. A line with anomaly_type is an anomaly that the app reports and
goes to AnomalyDetectionService.evaluate(); every other line goes through the Django request middleware.
Environment: FLAGS (JSON object, flag to bool) and SETTINGS (JSON object of ANOMALY_* settings).
"""
import datetime
import json
import os
import sys
import types
from unittest import mock

import django
from django.conf import settings

flags = json.loads(os.environ.get("FLAGS", '{"ANOMALY_DETECTION_ENABLED": true, "ANOMALY_ALERTING_ENABLED": true}'))
overrides = json.loads(os.environ.get("SETTINGS", "{}"))
profiles = overrides.pop("ANOMALY_RULE_PROFILES", {})
# The cache that holds the package's counters must never drop one for lack of room.
cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100_000_000}}
settings.configure(CACHES={"default": cache}, INSTALLED_APPS=[], DATABASES={}, USE_TZ=True, **overrides)
django.setup()

from anomaly_infra.config import AnomalyConfig  # noqa: E402
from anomaly_infra.django import middleware as package  # noqa: E402
from anomaly_infra.sanitizer import mask_sensitive  # noqa: E402
from anomaly_infra.service import AnomalyDetectionService, StaticFeatureFlags  # noqa: E402

OF_DECISION = ("anomaly_type", "category", "severity", "risk_score", "action_taken", "should_alert", "should_block", "should_step_up",
               "user_message")
OF_PAYLOAD = ("status_code", "resource_type", "resource_id", "ip_address", "user_id", "tenant_id", "tenant_name", "path", "method")
current = {}


def emit(decision, payload):
    row = {name: getattr(decision, name) for name in OF_DECISION}
    row["event_id"] = current["event_id"]
    row["metadata"] = {k: v for k, v in decision.metadata.items() if k != "request"}
    row |= {name: payload.get(name) for name in OF_PAYLOAD}
    print(json.dumps(row, sort_keys=True, separators=(",", ":")))


class Store:
    def save(self, payload):
        return types.SimpleNamespace(id="e")


class Service(AnomalyDetectionService):
    def record(self, decision, *, payload=None):
        emit(decision, payload or {})
        return super().record(decision, payload=payload)


service = Service(flags=StaticFeatureFlags(flags), event_store=Store(), config=AnomalyConfig(rule_profiles=profiles))
package.get_anomaly_service = lambda: service


def epoch_seconds(value):
    if isinstance(value, (int, float)):
        return value / 1000.0
    return datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()


def evaluate(event, middleware):
    user_id = event.get("user_id")
    user = types.SimpleNamespace(id=user_id, pk=user_id, is_authenticated=user_id is not None)
    if event.get("anomaly_type"):
        if service.is_enabled(user=user):
            emit(service.evaluate(event["anomaly_type"], user=user, metadata=event.get("data") or {}), mask_sensitive(event))
        return
    meta = {"HTTP_" + k.upper().replace("-", "_"): v for k, v in (event.get("headers") or {}).items()}
    if event.get("ip_address"):
        meta["REMOTE_ADDR"] = event["ip_address"]
    request = types.SimpleNamespace(META=meta, path=event.get("path"), method=event.get("method"), user=user)
    for name in ("tenant_id", "tenant_name"):
        if event.get(name) is not None:
            setattr(request, name, event[name])
    middleware(request)


def main(path):
    now = [0.0]
    middleware = package.RequestAnomalyMiddleware(lambda request: types.SimpleNamespace(status_code=current.get("status_code")))
    with mock.patch("time.time", lambda: now[0]), open(path, encoding="utf-8") as lines:
        for line in filter(str.strip, lines):
            event = json.loads(line)
            current.clear()
            current.update(event)
            now[0] = epoch_seconds(event["event_time"])
            evaluate(event, middleware)


if __name__ == "__main__":
    main(sys.argv[1])
