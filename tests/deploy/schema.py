"""The part of helm/ringback/values.schema.json that docs/configuration.md says: `config`, key by key.

    python tests/deploy/schema.py --write
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "helm/ringback/values.schema.json"
DURATION = r"^[0-9]+(ms|s|m|h|d)$"

# What the chart sets itself, from values of their own or by reference to Secrets.
CHARTS_OWN = re.compile(
    r"log\..*|secrets\..*|.*\.listen|.*password(_file)?|admin\.operator_token(_file)?|dispatcher\.name"
    r"|admin\.projection\.(engine|dir|url)|canary\.(enabled|url|admin_url|ingest_url|token(_file)?)"
)
# What the tables say in words only.
KNOWN = {
    "admin.redact.numbers": {"type": "integer", "minimum": 0, "maximum": 6},
    "admin.mail.tls": {"enum": ["starttls", "tls", "none"]},
    "admin.projection.sslmode": {"enum": ["disable", "require", "verify-full"]},
    "dispatcher.record_headers": {"enum": ["failures", "all", "none"]},
    "telemetry.format": {"enum": ["text", "json"]},
    "telemetry.traces.sample_ratio": {"type": "number", "minimum": 0, "maximum": 1},
    "ingest.raw": {"type": "array", "items": {"type": "object"}},
    "dispatcher.allow_networks": {"type": "array", "items": {"type": "string"}},
    "dispatcher.allow_ports": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1, "maximum": 65535},
    },
}


def kind(key, default):
    """What a key takes, going by its default."""
    if key in KNOWN:
        return KNOWN[key]
    if default == "none":
        return {"type": "string"}
    value = json.loads(default)
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(value, list):
        items = {"type": "string"}
        if value and all(re.match(DURATION, item) for item in value):
            items["pattern"] = DURATION
        return {"type": "array", "items": items}
    if re.match(DURATION, value):
        return {"type": "string", "pattern": DURATION}
    return {"type": "string"}


def documented():
    """The rows of docs/configuration.md: key and default."""
    page = (ROOT / "docs/configuration.md").read_text()
    return re.findall(r"^\| `([a-z_.]+)` \| (?:`(.*?)`|none) \|", page, re.MULTILINE)


def section():
    """The schema of one section."""
    return {"type": "object", "additionalProperties": False, "properties": {}}


def config():
    """The schema of `config`."""
    schema = section()
    for key, default in documented():
        if CHARTS_OWN.fullmatch(key):
            continue
        *path, name = key.split(".")
        at = schema
        for part in path:
            at = at["properties"].setdefault(part, section())
        at["properties"][name] = kind(key, default or "none")
    return schema


def current():
    """The schema as it must be."""
    schema = json.loads(SCHEMA.read_text())
    schema["definitions"]["config"] = config()
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    SCHEMA.write_text(current())
