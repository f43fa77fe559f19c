#!/usr/bin/env python3
"""Breaks each alert on purpose and expects its test to notice: one that never fires, one that always does, and one that
never resolves. (That they hold as they are is promtool's own check.)

    tests/observe/mutate.py PROMTOOL
"""
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "deploy/prometheus"
RULES, TESTS = (FOLDER / "rules.yaml").read_text(), (FOLDER / "rules.test.yaml").read_text()
BLOCK = re.compile(r"      - alert: (\w+)\n        expr: (.*?)\n((?:        for: \S+\n)?)        labels:", re.DOTALL)


def broken():
    """Each alert broken in each way: which, what was done, and the rules."""
    for found in BLOCK.finditer(RULES):
        name, expr, wait = found.groups()
        head = f"      - alert: {name}\n        expr: "

        def with_(text):
            return RULES[: found.start()] + text + RULES[found.end():]

        yield name, "never fires", with_(f"{head}vector(0) > 1\n{wait}        labels:")
        # The same where it fires, and something where it does not: only the times at which it must not fire can notice.
        always = f"({' '.join(expr.removeprefix('>-').split())}) or on () vector(1)"
        yield name, "always fires", with_(f"{head}>-\n          {always}\n        labels:")
        yield name, "never resolves", with_(f"{head}{expr}\n{wait}        keep_firing_for: 9d\n        labels:")


def passes(promtool, rules, name):
    """Whether the tests named after an alert hold, and there are some."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "rules.yaml").write_text(rules)
        (pathlib.Path(folder) / "rules.test.yaml").write_text(TESTS)
        command = [promtool, "test", "rules", "--run", f"^{name}\\b", "rules.test.yaml"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120).returncode == 0


def main():
    promtool = str(pathlib.Path(sys.argv[1]).resolve())
    alerts, cases = len(re.findall(r"- alert: ", RULES)), list(broken())
    if len(cases) != 3 * alerts or not alerts:
        sys.exit(f"{alerts} alerts, {len(cases)} ways to break them: the form of rules.yaml is not understood")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        passed = pool.map(lambda case: passes(promtool, case[2], case[0]), cases)
        unnoticed = [f"{name} {what}" for (name, what, _), well in zip(cases, passed) if well]
    if unnoticed:
        sys.exit("deploy/prometheus/rules.test.yaml does not notice that " + "; ".join(unnoticed))
    print(f"{len(cases)} ways to break {alerts} alerts are noticed")


main()
