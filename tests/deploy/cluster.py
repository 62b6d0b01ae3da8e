"""As much of an API server as a template's `lookup` asks."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

RESOURCES = {"Deployment": "deployments", "StatefulSet": "statefulsets"}


@contextmanager
def cluster(found):
    """The path of a kubeconfig for a cluster that has these Deployments and StatefulSets."""
    answers = {"/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}}
    answers["/apis/apps/v1"] = {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "apps/v1",
        "resources": [
            {"name": name, "kind": kind, "namespaced": True, "verbs": ["get"]}
            for kind, name in RESOURCES.items()
        ],
    }
    for each in found:
        at = each["metadata"]
        path = f"/apis/apps/v1/namespaces/{at['namespace']}/{RESOURCES[each['kind']]}/{at['name']}"
        answers[path] = each
    missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.split("?")[0]
            self.send_response(200 if path in answers else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(path, missing)).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with TemporaryDirectory() as folder:
            named = {"cluster": "c", "user": "u"}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "t",
                "contexts": [{"name": "t", "context": named}],
                "clusters": [
                    {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
                ],
                "users": [{"name": "u", "user": {}}],
            }
            path = Path(folder) / "kubeconfig"
            path.write_text(yaml.safe_dump(config))
            yield path
    finally:
        server.shutdown()
        server.server_close()
