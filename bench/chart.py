"""The chart: one panel a measure, scenarios side by side, the reference as a line at 1."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from bench.peers import AIOHTTP, EDGE, ENVOY, NGINX
from bench.report import MEASURES, Report

COLOURS = {EDGE: "#c2410c", NGINX: "#4d7c0f", ENVOY: "#6d28d9", AIOHTTP: "#64748b"}


def draw(report: Report, file: Path) -> None:
    """Write the chart as PNG."""
    results = report.results
    figure, panels = plt.subplots(len(MEASURES), 1, figsize=(10, 11), layout="constrained")
    names = [one.name for one in report.contenders]
    width = 0.8 / len(names)
    for panel, (measure, title) in zip(panels, MEASURES.items(), strict=True):
        for place, name in enumerate(names):
            points = [
                (index + (place - (len(names) - 1) / 2) * width, ratio)
                for index, result in enumerate(results)
                if name in result.samples
                and (ratio := report.ratio(result, name, measure)) is not None
            ]
            if not points:
                continue
            xs, ratios = zip(*points, strict=True)
            label = report.label(name)
            bars = panel.bar(xs, ratios, width, label=label, color=COLOURS.get(name, "#000000"))
            panel.bar_label(bars, fmt="%.2f", fontsize=8)
        panel.axhline(1, color="#000000", linewidth=0.8, linestyle=":")
        better = "more is better" if measure == "per_second" else "less is better"
        panel.set_ylabel(f"{title}\n({better})")
        panel.set_xticks(range(len(results)), [one.scenario.title for one in results], fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(y=0.15)
    panels[0].legend(ncols=len(names), frameon=False, loc="upper left", fontsize=9)
    figure.suptitle(
        f"One core, keep-alive, access logs on; ratio to {report.label(report.reference)}\n"
        f"{report.machine['cpu']}, {report.machine['python']}",
        fontsize=11,
    )
    figure.savefig(file, dpi=140)
    plt.close(figure)
