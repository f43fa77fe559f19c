"""The metrics as src/runtime/metrics.rs registers them: names, kinds and labels."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINE = re.compile(r'^    ([A-Z_]+) = "(smsfleet_[a-z_]+)", (Counter|Gauge|Fleet|Histogram), \[([^\]]*)\], "([^"]*)";$', re.MULTILINE)


class Metric:
    def __init__(self, constant, name, kind, labels, text):
        self.constant, self.name, self.kind, self.text = constant, name, kind, text
        self.labels = re.findall(r'"(\w+)"', labels)


def read():
    """All metrics by name. Every line of the table must be understood, else a metric would go unseen."""
    source = (ROOT / "src/runtime/metrics.rs").read_text()
    table = source.split("metrics_table! {\n", 1)[1].split("\n}\n", 1)[0]
    found = {match[1]: Metric(*match) for match in LINE.findall(table)}
    lines = [line for line in table.splitlines() if line.strip()]
    if len(found) != len(lines) or len(found) < 40:
        raise SystemExit(f"src/runtime/metrics.rs: {len(lines)} lines in the table, {len(found)} understood")
    return found


def base(name, metrics):
    """The registered name of an exposed one: histograms are exposed as three."""
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix) and metrics.get(name.removesuffix(suffix), None) is not None:
            if metrics[name.removesuffix(suffix)].kind == "Histogram":
                return name.removesuffix(suffix)
    return name
