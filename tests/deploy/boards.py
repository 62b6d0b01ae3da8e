"""The dashboards of Grafana and what their panels ask."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))


def dashboards():
    """All by name."""
    return {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}


def panels():
    """Dashboard, panel and target of each query."""
    for name, board in dashboards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield name, panel, target


def as_asked(query, job=".*", time="30s", rate="10s"):
    """With Grafana's variables filled in."""
    for name, value in [("$__rate_interval", rate), ("$__range", time), ("$job", job)]:
        query = query.replace(name, value)
    return query
