"""Runs to medians, ratios, a table and a plot."""

import collections
import math
import os
import statistics

COLORS = ["#d62728", "#7f7f7f", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf", "#ff7f0e", "#000"]


def summarize(runs):
    """Medians for each fleet, work and client; ratios are those within a round."""
    groups = collections.defaultdict(list)
    for run in runs:
        groups[run.fleet, run.work, run.client].append(run)
    summaries = []
    for (fleet, work, client), group in groups.items():
        counted = [run for run in group if run.round > 0] or group
        good = [run for run in counted if not run.trouble]
        trouble = next((run.trouble for run in group if run.trouble), "")
        memory = max((run.memory for run in group if run.memory is not None), default=None)
        summary = {"fleet": fleet, "work": work, "client": client, "hosts": group[0].hosts, "trouble": trouble}
        summary |= {"rounds": len(good), "memory_mib": None if memory is None else memory / 1024}
        if good:
            median = lambda of: statistics.median(of(run) for run in good)
            summary |= {
                "wall_s": median(lambda run: run.wall),
                "cpu_ms_per_host": median(lambda run: run.cpu * 1000 / run.hosts),
                "servers_ms_per_host": median(lambda run: run.servers * 1000 / run.hosts),
                "commands_per_host": median(lambda run: run.commands),
            }
            if fleet.endswith("sshd"):
                summary["wall_by_servers"] = median(lambda run: run.wall / max(run.servers / os.cpu_count(), 0.001))
            for other in ("sshjob", "bare"):
                pairs = {run.round: run for run in groups.get((fleet, work, other), []) if not run.trouble}
                both = [(run, pairs[run.round]) for run in good if run.round in pairs]
                if both:
                    summary[f"wall_by_{other}"] = statistics.median(a.wall / b.wall for a, b in both)
                    summary[f"cpu_by_{other}"] = statistics.median(a.cpu / max(b.cpu, 0.001) for a, b in both)
        summaries.append(summary)
    return summaries


COLUMNS = [
    ("wall s", "wall_s", ".2f"),
    ("x sshjob", "wall_by_sshjob", ".2f"),
    ("x servers/CPUs", "wall_by_servers", ".2f"),
    ("CPU ms/host", "cpu_ms_per_host", ".2f"),
    ("x bare", "cpu_by_bare", ".2f"),
    ("x sshjob", "cpu_by_sshjob", ".2f"),
    ("servers ms/host", "servers_ms_per_host", ".2f"),
    ("MiB", "memory_mib", ".0f"),
]


def table(summaries):
    """Markdown, a part for each fleet and work."""
    lines, before = [], None
    for it in summaries:
        if (it["fleet"], it["work"]) != before:
            before = it["fleet"], it["work"]
            lines += ["", f"**{it['fleet']}: {it['work']}**", ""]
            lines += [row(["client", *(title for title, _, _ in COLUMNS)]), row(["---", *["--:"] * len(COLUMNS)])]
        cells = [format(it[key], form) if it.get(key) is not None else "" for _, key, form in COLUMNS]
        notes = [it["trouble"]] if it["trouble"] else []
        if it.get("commands_per_host", 1) > 1:
            notes.append(f"{it['commands_per_host']:.1f} commands per host")
        lines.append(row([it["client"] + (f" ({'; '.join(notes)})" if notes else ""), *cells]))
    return "\n".join(lines)


def row(cells):
    return "| " + " | ".join(cells) + " |"


def plot(summaries):
    """Hosts against wall and client's CPU, log-log, for `true`: a row for each fleet."""
    of_true = [it for it in summaries if it["work"].startswith("true-") and "wall_s" in it]
    fleets = list(dict.fromkeys(it["fleet"] for it in of_true))
    clients = list(dict.fromkeys(it["client"] for it in of_true))
    width, height, left, top, right = 380, 300, 60, 40, 130
    size = (2 * (width + left) + right, len(fleets) * (height + 2 * top))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" font-family="sans-serif" font-size="11">',
        f'<rect width="{size[0]}" height="{size[1]}" fill="white"/>',
    ]
    for number, fleet in enumerate(fleets):
        for column, (title, value) in enumerate(
            [("wall, s", lambda it: it["wall_s"]), ("CPU of the client, s", lambda it: it["cpu_ms_per_host"] * it["hosts"] / 1000)]
        ):
            origin = left + column * (width + left), top + number * (height + 2 * top)
            points = {c: sorted((it["hosts"], value(it)) for it in of_true if (it["fleet"], it["client"]) == (fleet, c)) for c in clients}
            parts += panel(f"{fleet}: {title}", {c: p for c, p in points.items() if p}, origin, (width - 20, height), clients)
    for n, client in enumerate(clients):
        y = top + 16 * n
        parts.append(f'<rect x="{size[0] - right + 20}" y="{y - 9}" width="10" height="10" fill="{color(n)}"/>')
        parts.append(f'<text x="{size[0] - right + 36}" y="{y}">{client}</text>')
    return "\n".join([*parts, "</svg>", ""])


def color(n):
    return COLORS[n % len(COLORS)]


def panel(title, lines, origin, size, clients):
    """One pair of axes with the line of every client."""
    (left, top), (width, height) = origin, size
    xs, ys = zip(*(point for points in lines.values() for point in points))
    x_range, y_range = decades(xs), decades(ys)

    def place(value, bounds, length):
        return (math.log10(max(value, 1e-6)) - bounds[0]) / (bounds[1] - bounds[0]) * length

    def at(x, y):
        return left + place(x, x_range, width), top + height - place(y, y_range, height)

    parts = [f'<text x="{left}" y="{top - 10}" font-weight="bold">{title}</text>']
    parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#888"/>')
    for power in range(x_range[0], x_range[1] + 1):
        x, _ = at(10**power, 1)
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + height}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{top + height + 14}" text-anchor="middle">{10**power}</text>')
    for power in range(y_range[0], y_range[1] + 1):
        _, y = at(1, 10**power)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for client, points in lines.items():
        places = [at(x, y) for x, y in points]
        shade = color(clients.index(client))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{shade}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{shade}"/>' for x, y in places]
    return parts


def decades(values):
    """The powers of ten that hold all values, at least one decade."""
    low = math.floor(math.log10(max(min(values), 1e-6)))
    return low, max(math.ceil(math.log10(max(max(values), 1e-6))), low + 1)
