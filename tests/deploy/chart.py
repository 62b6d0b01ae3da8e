"""Rendering the Helm chart with the values of helm/ringback/ci.

`cargo xtask test` sets HELM and RINGBACK (paths of the programs) and CRDS (a folder of
CustomResourceDefinitions, if there is one).
"""

import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/ringback"
VALUES = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
# The oldest that Chart.yaml takes, and the newest that was tried.
KUBERNETES = ["1.30", "1.34"]
COMPONENTS = ["producer", "dispatcher", "metrics", "admin"]
HELM = os.environ["HELM"]
RINGBACK = os.environ["RINGBACK"]


def helm(*args, values="minimal", over=None):
    """Runs helm with a file of values and others over them."""
    command = [HELM, *args, "--values", str(CHART / f"ci/{values}.yaml")]
    text = yaml.safe_dump(over or {})
    command += ["--values", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


def template(values="minimal", over=None, crds=True, kubernetes="1.34", kubeconfig=None):
    """What `helm template` says; with a kubeconfig, templates look up what that cluster has."""
    args = ["template", "rb", str(CHART), "--namespace", "voice", "--kube-version", f"{kubernetes}.0"]
    if kubeconfig:
        args += ["--dry-run=server", "--kubeconfig", str(kubeconfig)]
    if crds:
        args += ["--api-versions", "monitoring.coreos.com/v1"]
    return helm(*args, values=values, over=over)


def rendered(values="minimal", over=None, **options):
    """The objects of `helm template`."""
    done = template(values, over, **options)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def notes(values="minimal", over=None, crds=False):
    """What Helm says at the end of an installation, which it does not make without a cluster."""
    text = (CHART / "templates/NOTES.txt").read_text()
    shown = """
kind: ConfigMap
metadata: { name: notes }
data: { text: {{ include "notes" . | toJson }} }
"""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "ringback"
        shutil.copytree(CHART, copy)
        (copy / "templates/notes.yaml").write_text('{{ define "notes" }}' + text + "{{ end }}" + shown)
        args = ["template", "rb", str(copy), "--show-only", "templates/notes.yaml"]
        if crds:
            args += ["--api-versions", "monitoring.coreos.com/v1"]
        done = helm(*args, values=values, over=over)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["data"]["text"]


@cache
def objects(values):
    """The objects that a file of values makes."""
    return rendered(values)


def of_kind(found, *kinds):
    return [one for one in found if one["kind"] in kinds]


def component(one):
    return one["metadata"]["labels"].get("app.kubernetes.io/component")


def one(found, kind, of):
    """The one object of a kind and a component."""
    [match] = [each for each in of_kind(found, kind) if component(each) == of]
    return match


def workloads(found):
    return of_kind(found, "Deployment", "StatefulSet", "Job")


def pod(workload):
    return workload["spec"]["template"]["spec"]


def container(workload):
    [only] = pod(workload)["containers"]
    return only


def variables(workload, without=None):
    """The environment as Kubernetes makes it, where there is no Secret of a name."""
    made = {}
    for entry in container(workload)["env"]:
        source = entry.get("valueFrom", {}).get("secretKeyRef", {})
        if without and source.get("name") == without:
            assert source["optional"], entry
            continue
        if "value" in entry:
            text = entry["value"].replace("$$", "\0")
            text = re.sub(r"\$\((\w+)\)", lambda name: made.get(name[1], name[0]), text)
            made[entry["name"]] = text.replace("\0", "$")
        else:
            made[entry["name"]] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
            if entry["name"].endswith("PROJECTION__URL"):
                made[entry["name"]] = "postgresql://a:b@c/d"
            if entry["name"] == "POD_NAME":
                made[entry["name"]] = "rb-dispatcher-0"
    return made
