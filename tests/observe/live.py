#!/usr/bin/env python3
"""Scrapes a real run of the fleet with a real Prometheus, asks every query of dashboards and rules, and draws the panels.

    tests/observe/live.py SMSFLEET PROMETHEUS FOLDER      FOLDER is made anew; the pictures are in FOLDER/pictures
"""
import json
import pathlib
import re
import shutil
import sys
import time

sys.dont_write_bytecode = True
import draw  # noqa: E402
import excused  # noqa: E402
import fleet as fleets  # noqa: E402
import registry  # noqa: E402
from lint import expression, read_rules  # noqa: E402
from prometheus import Prometheus, exposed, written_out  # noqa: E402

ROOT = registry.ROOT
LABEL = re.compile(r"\{\{(\w+)\}\}")
wrong = []


def check(holds, text):
    if not holds:
        wrong.append(text)


def check_exposed(text, metrics):
    """What the process serves is what is registered: names and labels."""
    for name, labels in exposed(text).items():
        metric = metrics.get(registry.base(name, metrics))
        check(metric, f"/metrics has {name}, which is not registered")
        if metric:
            check(labels <= {*metric.labels, "le"}, f"/metrics: {name} has labels {sorted(labels)}, registered are {metric.labels}")


def check_query(prometheus, where, expr, metrics):
    """Prometheus reads the query; its names are registered; fleet gauges are within max, counters within rate or increase."""
    try:
        used = prometheus.names(expr)
    except ValueError as error:
        check(False, f"{where}: {error}")
        return
    for name, around in used:
        if name.startswith("smsfleet:") or name == "ALERTS":
            continue
        metric = metrics.get(registry.base(name, metrics))
        check(metric, f"{where}: {name} is not registered")
        innermost = around[-1] if around else None
        if metric and metric.kind == "Fleet":
            check(innermost == "max" or (innermost == "deriv" and "max" in around), f"{where}: {name} is not within max")
        if metric and metric.kind in ("Counter", "Histogram"):
            check(innermost in ("rate", "increase"), f"{where}: {name} is not within rate or increase")


def check_dashboards(prometheus, dashboards, metrics, begin, end):
    """Asks every query over the whole run. Returns what each panel showed."""
    shown, whole = {}, int(end - begin)
    for file, board in dashboards.items():
        for panel in board["panels"]:
            found = []
            for target in panel["targets"]:
                key, where = (file, panel["id"], target["refId"]), f"{file}: {panel['title']!r}, query {target['refId']}"
                expr = written_out(target["expr"], whole)
                check_query(prometheus, where, expr, metrics)
                try:
                    series = prometheus.series(expr, begin, end)
                except ValueError as error:
                    check(False, f"{where}: {error}")
                    continue
                if key in excused.CLUSTER:
                    check(not series, f"{where} has data and needs no excuse")
                elif key not in excused.FAILURES:
                    check(series, f"{where} has no data: {expr}")
                for labels, points in series:
                    missing = [label for label in LABEL.findall(target["legendFormat"]) if label not in labels]
                    check(not missing, f"{where}: the legend wants {missing}, which {labels} lacks")
                    named = LABEL.sub(lambda one: labels.get(one[1], ""), target["legendFormat"])
                    found.append((named, points))
            shown[file, panel["id"]] = found
    known = {(file, panel["id"], target["refId"]) for file, board in dashboards.items() for panel in board["panels"] for target in panel["targets"]}
    for key in {**excused.CLUSTER, **excused.FAILURES}:
        check(key in known, f"excused.py excuses {key}, which is no query")
    return shown


def check_variables(prometheus, dashboards):
    """Whoever opens a dashboard has something to choose from."""
    for file, board in dashboards.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query" and variable["name"] != "namespace":
                selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
                values = prometheus.ask(f"label/{label}/values", **{"match[]": written_out(selector, 60)})
                check(values, f"{file}: ${variable['name']} has no values")


def check_rules(prometheus, metrics, begin, end):
    """All rules are well; records have data; no alert fires in a run in which nothing is wrong but one kill."""
    alerts, records = read_rules()
    states = {rule["name"]: rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}
    check(set(states) == set(alerts) | set(records), f"Prometheus has other rules than rules.yaml: {set(states) ^ (set(alerts) | set(records))}")
    for name, rule in states.items():
        check(rule["health"] == "ok", f"{name}: {rule.get('lastError') or rule['health']}")
        check_query(prometheus, name, rule["query"], metrics)
        if rule["type"] == "recording":
            check(prometheus.series(name, begin, end), f"{name} recorded nothing: {expression(records[name])}")
    for labels, _ in prometheus.series('ALERTS{alertstate="firing"}', begin, end):
        check(False, f"the alert {labels['alertname']} fired")
    # Most alerts wait longer than the run takes: what they look at has to be well at its end.
    for one in prometheus.ask("query", query="ALERTS", time=end)["result"]:
        check(False, f"at the end the alert {one['metric']['alertname']} is {one['metric']['alertstate']}")


def check_counters(prometheus, metrics, begin, end):
    """Whatever a run does is seen to grow: a counter that stands still counts nothing, or was not asked for in time."""
    for name, metric in metrics.items():
        if metric.kind not in ("Counter", "Histogram"):
            continue
        counted = f"{name}_count" if metric.kind == "Histogram" else name
        grown = prometheus.ask("query", query=f"sum(increase({counted}[{int(end - begin)}s]))", time=end)["result"]
        grew = bool(grown) and float(grown[0]["value"][1]) > 0
        if name not in excused.STILL:
            check(grew, f"{name} does not grow in a run, and excused.py does not say why")
    for name in set(excused.STILL) - set(metrics):
        check(False, f"excused.py excuses {name}, which is no metric")


def check_numbers(prometheus, report, end):
    """What the metrics say of the batch is what its report says."""
    settlement = report["settlement"]
    counted = {}
    for labels, points in prometheus.series("sum by (outcome) (smsfleet_statistics_records_total)", end - 10, end):
        counted[labels["outcome"]] = int(points[-1][1])
    counted = {outcome: records for outcome, records in counted.items() if records}
    check(counted == settlement["outcomes"], f"records by metrics {counted}, by the report {settlement['outcomes']}")
    check(sum(counted.values()) == fleets.ROWS, f"{sum(counted.values())} records counted of {fleets.ROWS}")


def main():
    smsfleet, prometheus_binary, folder = sys.argv[1:4]
    folder = pathlib.Path(folder).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    metrics = registry.read()
    dashboards = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "deploy/grafana").glob("*.json"))}
    fleet, prometheus = fleets.Fleet(smsfleet, folder / "fleet"), None
    try:
        prometheus = Prometheus(prometheus_binary, folder / "prometheus", f"127.0.0.1:{fleet.port}", ROOT / "deploy/prometheus/rules.yaml")
        begin = time.time()
        report = fleets.work(fleet, lambda: prometheus.ask("query", query="count_over_time(smsfleet_build_info[1m]) > 1")["result"])
        end = time.time()
        check(any(value == 1 for _, points in prometheus.series("up", begin, end) for _, value in points), "Prometheus refuses what the process serves")
        check_exposed(fleet.get("/metrics"), metrics)
        shown = check_dashboards(prometheus, dashboards, metrics, begin, end)
        check_variables(prometheus, dashboards)
        check_rules(prometheus, metrics, begin, end)
        check_counters(prometheus, metrics, begin, end)
        check_numbers(prometheus, report, end)
    finally:
        fleet.stop()
        if prometheus:
            prometheus.stop()
    pictures = folder / "pictures"
    pictures.mkdir()
    for file, board in dashboards.items():
        (pictures / f"{file}.svg").write_text(draw.dashboard(board, {panel: found for (of, panel), found in shown.items() if of == file}, begin, end))
    if wrong:
        sys.exit("\n".join(dict.fromkeys(wrong)))
    queries = sum(len(panel["targets"]) for board in dashboards.values() for panel in board["panels"])
    print(f"{queries} queries asked about {fleets.ROWS} records in {end - begin:.0f} s; {len(excused.CLUSTER)} have data in a cluster alone; pictures in {pictures}")


if __name__ == "__main__":
    main()
