"""A Prometheus of our own: started over the rules, asked by its API."""
import json
import pathlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

# What the variables of the dashboards stand for.
WINDOW = "10s"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def written_out(expr, whole):
    """A query with the variables replaced as Grafana does; `whole` is how many seconds are shown."""
    for name, value in {"__rate_interval": WINDOW, "__range": f"{whole}s", "namespace": ".*", "instance": ".*", "account": ".*"}.items():
        expr = expr.replace(f"${name}", value)
    return expr


class Prometheus:
    def __init__(self, binary, folder, target, rules):
        folder = pathlib.Path(folder)
        folder.mkdir()
        # Much more often than anybody would, so that a short run has enough to show, and with time for a busy machine.
        (folder / "prometheus.yaml").write_text(
            "global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}\n"
            f"rule_files: ['{rules}']\n"
            f"scrape_configs: [{{job_name: smsfleet, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        port = free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "log"
        arguments = [
            binary, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT)
        self.ready()

    def ready(self):
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
            if self.process.poll() is not None:
                break
        raise SystemExit(f"Prometheus does not start:\n{self.log.read_text()[-2000:]}")

    def stop(self):
        self.process.terminate()
        self.process.wait(30)

    def ask(self, path, **parameters):
        """The data of an answer; a refused query ends with what is wrong with it."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", str(error))) from None

    def series(self, expr, begin, end, step=1):
        """A range query: each series with its labels and its points that are numbers."""
        data = self.ask("query_range", query=expr, start=begin, end=end, step=step)
        found = []
        for one in data["result"]:
            points = [(float(at), float(value)) for at, value in one["values"]]
            points = [(at, value) for at, value in points if value == value and abs(value) != float("inf")]
            if points:
                found.append((one["metric"], points))
        return found

    def names(self, expr):
        """The metrics of a query as Prometheus itself reads it, each with what is directly around it."""
        found = []

        def walk(node, around):
            if isinstance(node, list):
                for one in node:
                    walk(one, around)
            elif isinstance(node, dict):
                kind = node.get("type")
                if kind in ("vectorSelector",):
                    found.append((node["name"], [one for one in around if one]))
                here = node.get("op") if kind == "aggregation" else (node.get("func") or {}).get("name") if kind == "call" else None
                for value in node.values():
                    walk(value, [*around, here] if here else around)

        walk(self.ask("parse_query", query=expr), [])
        return found


def exposed(text):
    """Names and label names in a text that a process serves."""
    found = {}
    for line in text.splitlines():
        if match := re.match(r"^(smsfleet_\w+)(?:\{(.*)\})? \S+$", line):
            found.setdefault(match[1], set()).update(re.findall(r'(\w+)="', match[2] or ""))
    return found
