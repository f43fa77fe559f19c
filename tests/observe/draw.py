"""Draws a dashboard's panels from a run's data as a small SVG: no screenshot of Grafana, and made to be read in a README."""
from xml.sax.saxutils import escape

WIDTH, PANEL, HEIGHT, HEAD, GAP = 1000, 490, 190, 46, 10
COLORS = ["#3871b8", "#d9822b", "#3c9a5f", "#b8443c", "#7a5cb0", "#2a9aa8", "#9a7b2f", "#c05a94"]
POINTS_MAX, SERIES_MAX = 90, 6
UNITS = {"cps": "/s", "s": " s", "percentunit": " %", "bytes": " MB", "short": ""}


def number(value, unit):
    if unit == "percentunit":
        value *= 100
    if unit == "bytes":
        value /= 1e6
    if abs(value) >= 10_000:
        text = f"{value / 1000:,.0f}k"
    elif value == int(value) or abs(value) >= 100:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3g}"
    return text + UNITS.get(unit, "")


def text(x, y, words, size=11, color="#333", anchor="start", weight="normal"):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{color}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'


def largest(points):
    return max(value for _, value in points)


def thinned(points):
    """At most POINTS_MAX points, of each stretch the largest, so that peaks stay."""
    size = -(-len(points) // POINTS_MAX)
    return [max(points[at : at + size], key=lambda point: point[1]) for at in range(0, len(points), size)]


def lines(series, unit, box, begin, end):
    x, y, width, height = box
    top = max(value for _, points in series for _, value in points)
    low = min(0, min(value for _, points in series for _, value in points))
    span = (top - low) or 1
    made = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="#f6f7f9"/>']
    made.append(text(x - 4, y + 9, number(top, unit), 9, "#777", "end"))
    made.append(text(x - 4, y + height, number(low, unit), 9, "#777", "end"))
    for at, (_, points) in enumerate(series):
        place = lambda point: (x + width * (point[0] - begin) / (end - begin), y + height * (1 - (point[1] - low) / span))  # noqa: E731
        # A gap of several steps stays a gap: the process was away.
        runs, last = [[]], None
        for point in thinned(points):
            if last is not None and point[0] - last > 8:
                runs.append([])
            runs[-1].append("{:.0f},{:.0f}".format(*place(point)))
            last = point[0]
        for run in runs:
            run = run * 2 if len(run) == 1 else run
            made.append(f'<polyline points="{" ".join(run)}" fill="none" stroke="{COLORS[at % len(COLORS)]}" stroke-width="1.4" stroke-linecap="round"/>')
    return made


def bars(series, unit, decimals, box):
    x, y, width, _ = box
    top = max(largest(points) for _, points in series) or 1
    made = []
    for at, (name, points) in enumerate(series):
        row, value = y + 4 + 18 * at, largest(points)
        value = value if decimals is None else round(value, decimals)
        made.append(text(x + 60, row + 10, name, 10, anchor="end"))
        made.append(f'<rect x="{x + 66}" y="{row}" width="{(width - 130) * value / top:.0f}" height="12" fill="{COLORS[0]}"/>')
        made.append(text(x + 72 + (width - 130) * value / top, row + 10, number(value, unit), 10))
    return made


def values(series, unit, box):
    x, y, width, _ = box
    made = []
    for at, (name, points) in enumerate(series[:2]):
        middle = x + width * (at + 0.5) / min(2, len(series))
        made.append(text(middle, y + 56, number(largest(points), unit), 34, COLORS[2], "middle", "bold"))
        made.append(text(middle, y + 78, name, 10, "#777", "middle"))
    return made


def panel(spec, series, x, y, begin, end):
    made = [f'<rect x="{x}" y="{y}" width="{PANEL}" height="{HEIGHT}" rx="4" fill="#fff" stroke="#d8dbe0"/>']
    made.append(text(x + 10, y + 18, spec["title"], 12, "#111", weight="bold"))
    if not series:
        return [*made, text(x + PANEL / 2, y + HEIGHT / 2, "nothing in this run", 11, "#999", "middle")]
    unit = spec["fieldConfig"]["defaults"]["unit"]
    if spec["type"] == "stat":
        return made + values(series, unit, (x + 10, y + 30, PANEL - 20, HEIGHT - 40))
    # Those that say most; the rest would only be in each other's way.
    series = sorted(series, key=lambda one: -largest(one[1]))[: 8 if spec["type"] == "bargauge" else SERIES_MAX]
    if spec["type"] == "bargauge":
        return made + bars(series, unit, spec["fieldConfig"]["defaults"].get("decimals"), (x + 20, y + 30, PANEL - 40, HEIGHT - 40))
    right = {one["matcher"]["options"]: one["properties"][0]["value"] for one in spec["fieldConfig"]["overrides"]}
    left = [one for one in series if one[0] not in right] or series
    made += lines(left, unit, (x + 52, y + 28, PANEL - 64, HEIGHT - 76), begin, end)
    for at, (name, points) in enumerate([*left, *(one for one in series if one[0] in right and one not in left)]):
        column, row = x + 14 + (PANEL - 20) / 2 * (at % 2), y + HEIGHT - 34 + 13 * (at // 2)
        color = COLORS[at % len(COLORS)] if at < len(left) else "#bbb"
        made.append(f'<rect x="{column:.0f}" y="{row - 7:.0f}" width="8" height="8" fill="{color}"/>')
        made.append(text(column + 12, row, f"{name[:34]}: {number(largest(points), right.get(name, unit))}", 9, "#555"))
    return made


def dashboard(board, shown, begin, end):
    """The whole picture. What it says in figures is the largest value of the run: at its end everything is 0 again."""
    rows = -(-len(board["panels"]) // 2)
    height = HEAD + rows * (HEIGHT + GAP)
    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#eef0f3"/>',
        text(10, 20, board["title"], 15, "#111", weight="bold"),
        text(10, 37, f"Drawn by tests/observe from a test run of {end - begin:.0f} seconds in which the fleet was killed once; figures are the largest of it. No screenshot of Grafana.", 10, "#777"),
    ]
    for at, spec in enumerate(board["panels"]):
        x, y = 5 + (PANEL + GAP) * (at % 2), HEAD + (HEIGHT + GAP) * (at // 2)
        made += panel(spec, shown.get(spec["id"], []), x, y, begin, end)
    return "\n".join([*made, "</svg>"]) + "\n"
