#!/usr/bin/env python3
"""Checks rules, dashboards and runbook against each other and against the registry, from their files alone.

    tests/observe/lint.py [--binary PATH]     with a binary the runbook's commands are checked too
"""
import json
import re
import subprocess
import sys

sys.dont_write_bytecode = True
import registry  # noqa: E402

ROOT = registry.ROOT
METRIC = re.compile(r"\bsmsfleet_[a-z][a-z0-9_]*\b")
RECORD = re.compile(r"\bsmsfleet:[a-z0-9_:]+\b")
KNOWN_VARIABLES = {"datasource", "namespace", "instance", "account", "runbook", "__rate_interval", "__range"}
UNITS = {"cps", "short", "s", "percentunit", "bytes"}
wrong = []


def check(holds, text):
    if not holds:
        wrong.append(text)


def read_rules():
    """Alerts and records of rules.yaml, each with its block of lines: the file's own form is simple, and is checked by promtool."""
    alerts, records, current = {}, {}, None
    for line in (ROOT / "deploy/prometheus/rules.yaml").read_text().splitlines():
        if found := re.match(r"\s*- (alert|record): (\S+)$", line):
            current = [line]
            (alerts if found[1] == "alert" else records)[found[2]] = current
        elif re.match(r"\s*- name:", line):
            current = None
        elif current is not None and not line.strip().startswith("#"):
            current.append(line)
    return {name: "\n".join(lines) for name, lines in alerts.items()}, {name: "\n".join(lines) for name, lines in records.items()}


def field(block, name):
    found = re.search(rf"^\s*{name}: (.+)$", block, re.MULTILINE)
    return found[1].strip().strip('"') if found else ""


def expression(block):
    after = re.split(r"^\s*expr: ?", block, flags=re.MULTILINE)[1]
    return re.split(r"^\s*(?:for|labels|annotations|keep_firing_for):", after, flags=re.MULTILINE)[0]


def names_exist(where, text, metrics, records):
    for name in METRIC.findall(text):
        check(registry.base(name, metrics) in metrics, f"{where}: {name} is not in src/runtime/metrics.rs")
    for name in RECORD.findall(text):
        check(name in records, f"{where}: {name} is no recording rule")


def check_alerts(alerts, records, dashboards, metrics):
    for name, block in alerts.items():
        where = f"alert {name}"
        check(field(block, "severity") in ("critical", "warning"), f"{where}: severity is critical or warning")
        for wanted in ("summary", "description", "runbook_url", "dashboard_path"):
            check(field(block, wanted), f"{where}: no {wanted}")
        check(field(block, "runbook_url") == f"deploy/RUNBOOK.md#{name.lower()}", f"{where}: runbook_url is not its own section")
        names_exist(where, block, metrics, records)
        found = re.fullmatch(r"/d/([\w-]+)\?viewPanel=(\d+)", field(block, "dashboard_path"))
        panels = {
            (board["uid"], panel["id"]): panel for board in dashboards.values() for panel in board["panels"]
        }
        panel = panels.get((found[1], int(found[2]))) if found else None
        check(panel, f"{where}: there is no panel at {field(block, 'dashboard_path')}")
        if not panel:
            continue
        linked = [link["url"] for link in panel["links"]]
        check(f"${{runbook}}#{name.lower()}" in linked, f"{where}: panel {panel['title']!r} does not link to its runbook section")
        shown = set(METRIC.findall(" ".join(target["expr"] for target in panel["targets"])))
        used = expression(block)
        for _ in range(3):
            used = RECORD.sub(lambda found: expression(records[found[0]]) if found[0] in records else "", used)
        check(shown & set(METRIC.findall(used)), f"{where}: panel {panel['title']!r} shows nothing of what the alert looks at")
    every = {link["url"].split("#")[1] for board in dashboards.values() for panel in board["panels"] for link in panel["links"]}
    for anchor in every - {name.lower() for name in alerts}:
        check(False, f"a panel links to #{anchor}, which is no alert")


def aggregated(expr, name, function):
    """Whether every use of a metric in the expression is directly within FUNCTION(…) or FUNCTION by (…) (…)."""
    uses = [found.start() for found in re.finditer(rf"\b{name}\b", expr)]
    return all(re.search(rf"\b{function}\s*(by \([^)]*\)\s*)?\($", expr[:at].rstrip()) for at in uses)


def check_queries(where, expr, metrics):
    for name in set(METRIC.findall(expr)):
        metric = metrics.get(registry.base(name, metrics))
        if metric is None:
            continue
        if metric.kind == "Fleet":
            check(aggregated(expr, name, "max"), f"{where}: {name} is the leader's alone, so only its max says something: {expr}")
        if metric.kind in ("Counter", "Histogram"):
            check(aggregated(expr, name, "(rate|increase)"), f"{where}: {name} is a counter and needs rate or increase: {expr}")
            check(re.search(r"\b(sum|histogram_quantile)\b", expr), f"{where}: {name} is of each process; sum it: {expr}")
        if metric.kind == "Histogram":
            check(name.endswith("_bucket") and "histogram_quantile(" in expr and re.search(r"by \(le\b", expr),
                  f"{where}: {name} needs histogram_quantile over le")


def check_dashboard(file, board, metrics, records):
    check(board["uid"] == f"smsfleet-{file}", f"{file}: uid is not smsfleet-{file}")
    check(board["editable"] is False and board["tags"] == ["smsfleet"] and board["description"], f"{file}: editable, tags or description")
    variables = {one["name"]: one for one in board["templating"]["list"]}
    check({"datasource", "namespace", "instance", "runbook"} <= set(variables), f"{file}: a variable is missing")
    ids, taken = [panel["id"] for panel in board["panels"]], set()
    check(len(ids) == len(set(ids)), f"{file}: two panels have one id")
    check(3 <= len(ids) <= 10, f"{file}: {len(ids)} panels")
    for panel in board["panels"]:
        where, place, defaults = f"{file}: {panel['title']!r}", panel["gridPos"], panel["fieldConfig"]["defaults"]
        check(panel["title"].endswith("?"), f"{where} is no question")
        check(len(panel["description"]) > 20 and panel["description"].endswith("."), f"{where} has no description")
        check(defaults.get("unit") in UNITS, f"{where}: unit {defaults.get('unit')}")
        steps = [step["value"] for step in defaults["thresholds"]["steps"]]
        check(steps and steps[0] is None and steps[1:] == sorted(steps[1:]), f"{where}: thresholds {steps}")
        check(place["x"] + place["w"] <= 24, f"{where} stands outside")
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        check(not cells & taken, f"{where} lies over another")
        taken |= cells
        references = [target["refId"] for target in panel["targets"]]
        check(references and len(references) == len(set(references)), f"{where}: queries have one letter each")
        for thing in [panel, *panel["targets"]]:
            check(thing["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, f"{where}: not the data source that is chosen")
        for target in panel["targets"]:
            check_target(where, target, variables, metrics, records)


def check_target(where, target, variables, metrics, records):
    expr = target["expr"]
    names_exist(where, expr, metrics, records)
    check(not RECORD.search(expr), f"{where}: works only with the recording rules: {expr}")
    check_queries(where, expr, metrics)
    check(target["legendFormat"], f"{where}: no legend")
    for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
        used = [metrics.get(registry.base(name, metrics)) for name in METRIC.findall(expr)]
        known = {label for metric in used if metric for label in metric.labels} | {"instance"}
        check(label in known, f"{where}: no metric of the query has the label {label}")
    for window in re.findall(r"\[([^\]]+)\]", expr):
        check(window in ("$__rate_interval", "$__range"), f"{where}: a window of {window}")
    for used in re.findall(r"\$\{?(\w+)", expr):
        check(used in KNOWN_VARIABLES and (used.startswith("__") or used in variables), f"{where}: ${used} is not defined")
    for selector in re.findall(r"smsfleet_[a-z_]+(\{[^}]*\})?", expr):
        check('namespace=~"$namespace"' in selector and 'instance=~"$instance"' in selector, f"{where}: ignores what is chosen: {expr}")


def check_labels_of_rules(rules, metrics, records):
    """What rules group by, join on and print are labels that the metrics have."""
    def known_of(text, depth=0):
        names = {label for name in METRIC.findall(text) for label in metrics[registry.base(name, metrics)].labels}
        for record in RECORD.findall(text) if depth < 4 else []:
            names |= known_of(expression(records[record]), depth + 1)
        return names

    for name, block in rules.items():
        try:
            known = known_of(expression(block)) | {"namespace", "le", "instance"}
        except KeyError:
            continue  # A name that does not exist was reported before.
        used = {label.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", block) for label in group.split(",")}
        used |= set(re.findall(r"\$labels\.(\w+)", block))
        used |= set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", expression(block)))
        check(used <= known, f"{name}: {', '.join(sorted(used - known))} is no label of its metrics")


def check_runbook(alerts, binary):
    text = (ROOT / "deploy/RUNBOOK.md").read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for name in alerts:
        check(name.lower() in anchors, f"deploy/RUNBOOK.md has no section {name}")
    for target in re.findall(r"\]\(#([^)]+)\)", text):
        check(target in anchors, f"deploy/RUNBOOK.md links to #{target}, which is not there")
    metrics = registry.read()
    for name in METRIC.findall(text):
        check(registry.base(name, metrics) in metrics, f"deploy/RUNBOOK.md: {name} is not registered")
    if binary:
        commands = re.findall(r"^ {4,}(?:\S+ exec \S+ -- )?smsfleet (.+)$", text, re.MULTILINE)
        commands += re.findall(r"`smsfleet ([^`]+)`", text)
        check(len(commands) > 20, f"deploy/RUNBOOK.md: only {len(commands)} commands were found")
        for command in commands:
            check_command(binary, command)


def helped(binary, words, known={}):
    words = tuple(words)
    if words not in known:
        said = subprocess.run([binary, *words, "--help"], capture_output=True, text=True, timeout=60)
        known[words] = said.stdout if said.returncode == 0 else None
    return known[words]


def check_command(binary, command):
    """Whether each word and flag of a command is in the binary's own help."""
    words, path = command.split("#")[0].split(), []
    help_text = helped(binary, path)
    while words and words[0].startswith("-"):
        check(words[0].split("=")[0] in help_text, f"deploy/RUNBOOK.md: smsfleet {command}: no flag {words[0]}")
        words = words[2:]
    while words and re.search(r"^Commands:", help_text, re.MULTILINE):
        below = helped(binary, [*path, words[0]])
        if below is None:
            check(False, f"deploy/RUNBOOK.md: smsfleet {command}: no command {words[0]}")
            return
        path.append(words.pop(0))
        help_text = below
    for word in words:
        if word.startswith("--"):
            check(re.search(rf"{re.escape(word.split('=')[0])}(?![\w-])", help_text), f"deploy/RUNBOOK.md: smsfleet {command}: no flag {word}")


def check_chart(metrics):
    """Queries of the chart's scaling name metrics as well. Those that an adapter makes of them (`as: NAME`) are its own."""
    kinds = (".yaml", ".yml", ".tpl", ".gotmpl", ".json", ".md", ".txt")
    files = [path for path in sorted((ROOT / "helm").rglob("*")) if path.is_file() and path.suffix in kinds]
    texts = {path: path.read_text(errors="replace") for path in files}
    made = {name for text in texts.values() for name in re.findall(r"\bas: (smsfleet_\w+)", text)}
    stages = "|".join(sorted({name.split("_")[1] for name in metrics}))
    for path, text in texts.items():
        for name in set(re.findall(rf"\bsmsfleet_(?:{stages})_[a-z_]+\b", text)) - made:
            check(registry.base(name, metrics) in metrics, f"{path.relative_to(ROOT)}: {name} is not registered")


def main():
    binary = sys.argv[2] if sys.argv[1:2] == ["--binary"] else None
    metrics, (alerts, records) = registry.read(), read_rules()
    dashboards = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "deploy/grafana").glob("*.json"))}
    check(len(alerts) > 10 and len(dashboards) == 6, f"{len(alerts)} alerts, {len(dashboards)} dashboards")
    for file, board in dashboards.items():
        check_dashboard(file, board, metrics, records)
    for name, block in {**records, **alerts}.items():
        names_exist(name, block, metrics, records)
    check_alerts(alerts, records, dashboards, metrics)
    check_labels_of_rules({**alerts, **records}, metrics, records)
    shown = {
        registry.base(name, metrics)
        for board in dashboards.values() for panel in board["panels"] for target in panel["targets"]
        for name in METRIC.findall(target["expr"])
    }
    for name in sorted(set(metrics) - shown):
        check(False, f"{name} is registered and no panel shows it")
    check_chart(metrics)
    check_runbook(alerts, binary)
    if wrong:
        sys.exit("\n".join(dict.fromkeys(wrong)))
    panels = sum(len(board["panels"]) for board in dashboards.values())
    print(f"{len(metrics)} metrics, {len(alerts)} alerts, {len(records)} recording rules, {panels} panels agree")


if __name__ == "__main__":
    main()
