"""The part of helm/ringback/values.schema.json that the program says: `config`, key by key.

    python tests/deploy/schema.py --write

`cargo xtask reference` does this too. RINGBACK is the path of the program (target/debug/ringback).
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "helm/ringback/values.schema.json"

# What the chart sets itself, from values of their own or by reference to Secrets; so it does secrets.
CHARTS_OWN = re.compile(
    r"log\..*|secrets\..*|.*\.listen|.*password_file|admin\.operator_token_file|dispatcher\.name"
    r"|admin\.projection\.(engine|dir)|canary\.(enabled|url|admin_url|ingest_url|token_file)"
)


@cache
def program():
    """The schema of ringback.toml."""
    ringback = os.environ.get("RINGBACK", ROOT / "target/debug/ringback")
    done = subprocess.run([ringback, "config-reference", "--schema"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def keys(section, above=""):
    """The schemas of all keys in a section, by dotted name."""
    found = {}
    for name, schema in section["properties"].items():
        if "properties" in schema:
            found |= keys(schema, f"{above}{name}.")
        else:
            found[above + name] = schema
    return found


def default(key):
    return keys(program())[key]["default"]


def chart(section, above=""):
    """A section without what is the chart's own and without defaults, which may be the chart's; None
    if nothing is left."""
    kept = {}
    for name, schema in section["properties"].items():
        key = above + name
        if "properties" in schema:
            kept[name] = chart(schema, f"{key}.")
        elif not CHARTS_OWN.fullmatch(key) and not schema.get("writeOnly"):
            kept[name] = without_defaults(schema)
    kept = {name: schema for name, schema in kept.items() if schema}
    about = {name: section[name] for name in ["description", "type", "additionalProperties"]}
    return about | {"properties": kept} if kept else None


def without_defaults(schema):
    if isinstance(schema, dict):
        return {name: without_defaults(below) for name, below in schema.items() if name != "default"}
    return schema


def current():
    """The schema as it must be."""
    schema = json.loads(SCHEMA.read_text())
    schema["definitions"]["config"] = chart(program())
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    SCHEMA.write_text(current())
