#!/usr/bin/env bash
# Checks docker-compose.yml without starting anything: with Docker's own check where its client has it, else as YAML.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if docker compose version >/dev/null 2>&1; then
    docker compose --profile traffic config --quiet
    echo "docker-compose.yml: accepted by docker compose config"
elif python3 -c 'import yaml' 2>/dev/null; then
    python3 - <<'PY'
import sys, yaml

compose = yaml.safe_load(open("docker-compose.yml"))
services, volumes = compose["services"], compose.get("volumes") or {}
problems = []
for name, service in services.items():
    if not ({"image", "build"} & service.keys()):
        problems.append(f"{name}: neither image nor build")
    depends = service.get("depends_on") or {}
    for other in depends:
        if other not in services:
            problems.append(f"{name}: depends on {other}, which does not exist")
        elif isinstance(depends, dict) and depends[other]["condition"] == "service_healthy" and "healthcheck" not in services[other]:
            problems.append(f"{name}: waits for the health of {other}, which has no check")
    for mount in service.get("volumes") or []:
        source = mount.split(":")[0]
        if not source.startswith((".", "/")) and source not in volumes:
            problems.append(f"{name}: mounts volume {source}, which is not declared")
print("\n".join(problems) or "docker-compose.yml: well-formed (docker compose config is not available here)")
sys.exit(bool(problems))
PY
else
    echo "neither docker compose nor Python's yaml is here: docker-compose.yml was not checked" >&2
    exit 1
fi
