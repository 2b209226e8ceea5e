"""Stands in for Grafana: it answers on its port if what Grafana would read is there and can be read."""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

assert Path(os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"]).read_text().strip()
assert [json.loads(path.read_text()) for path in Path("/etc/grafana/dashboards").rglob("*.json")]
assert list(Path("/etc/grafana/provisioning").rglob("*.y*ml"))
Path("/var/lib/grafana/written").touch()


class Health(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815


HTTPServer(("0.0.0.0", 3000), Health).serve_forever()
