"""Pictures of the report as inline SVG: numbers in, markup out.

Colours come from classes of the page's style sheet (kept, made, dropped, quarantined), so that one drawing serves light, dark and
paper. No `style` attribute and no script: the page's content policy allows neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from curate.report.visible import visible


def number(value: float | int | None) -> str:
    """Counts with thousands separators, measures with four significant digits, an en dash for "not measured"."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def percent(part: float, whole: float) -> str:
    """A share in per cent; small but not zero is never shown as zero, nor almost all as all."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.05:
        return "< 0.1 %"
    if 99.95 <= share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %"


def _at(value: float) -> str:
    """A coordinate: one decimal is finer than any screen, and keeps the page small."""
    return f"{value:.1f}".removesuffix(".0")


def _text(text: object) -> Markup:
    return escape(visible(str(text), 200))


def stacked_bar(parts: Sequence[tuple[str, int, str]], height: int = 22) -> Markup:
    """One horizontal bar across the page: (class, count, label) from left to right, widths by count."""
    total = sum(count for _, count, _ in parts) or 1
    drawn, x = [], 0.0
    for kind, count, label in parts:
        width = 1000 * count / total
        title = f"<title>{_text(label)}: {number(count)} ({percent(count, total)})</title>"
        drawn.append(f'<rect class="{kind}" x="{_at(x)}" y="0" width="{_at(width)}" height="{height}">{title}</rect>')
        x += width
    body = "".join(drawn)
    return Markup(f'<svg class="stacked" viewBox="0 0 1000 {height}" preserveAspectRatio="none" role="img">{body}</svg>')


def meter(part: float, whole: float, kind: str) -> Markup:
    """A small bar for a table cell: `part` of `whole`, at least a hair wide where part is not zero."""
    width = 100 * min(1.0, part / whole) if whole else 0.0
    width = max(width, 0.6) if part else 0.0
    return Markup(
        '<svg class="meter" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10"/>'
        f'<rect class="{kind}" width="{_at(width)}" height="10"/></svg>'
    )


def band(value: float, interval: tuple[float, float], random: float, random_interval: tuple[float, float], outside: bool) -> Markup:
    """A dot for the subset, its interval as a whisker, on the band of the random subsets with a tick at their mean."""
    width, height, margin = 260, 26, 8
    marks = [mark for mark in (value, *interval, random, *random_interval) if math.isfinite(mark)]
    low, high = min(marks, default=0.0), max(marks, default=0.0)
    span = high - low

    def x(mark: float) -> float:
        place = (min(max(mark, low), high) - low) / span if span else 0.5
        return margin + (width - 2 * margin) * place

    left, right = (x(mark) for mark in random_interval)
    middle = height / 2
    drawn = [
        f'<path class="grid" d="M0 {middle}H{width}"/>',
        f'<rect class="chance" x="{_at(left)}" y="5" width="{_at(max(right - left, 2))}" height="{height - 10}" rx="3"/>',
        f'<path class="axis" d="M{_at(x(random))} 5V{height - 5}"/>',
        f'<path class="whisker" d="M{_at(x(interval[0]))} {middle}H{_at(x(interval[1]))}"/>',
        f'<circle class="{"dropped" if outside else "kept"}" cx="{_at(x(value))}" cy="{middle}" r="5"/>',
    ]
    title = f"<title>{number(value)}; random subsets {number(random_interval[0])} to {number(random_interval[1])}</title>"
    return Markup(f'<svg class="band" viewBox="0 0 {width} {height}" role="img">{title}{"".join(drawn)}</svg>')


def whisker(value: float, interval: tuple[float, float], low: float, high: float, kind: str) -> Markup:
    """A dot with its interval on an axis from `low` to `high` that a whole column of such pictures shares; 0 and 1 are ticks."""
    width, height, margin = 260, 26, 8

    def x(mark: float) -> float:
        return margin + (width - 2 * margin) * (min(max(mark, low), high) - low) / ((high - low) or 1)

    middle = height / 2
    drawn = [
        f'<path class="grid" d="M0 {middle}H{width}"/>',
        *(f'<path class="axis" d="M{_at(x(tick))} 5V{height - 5}"/>' for tick in (0.0, 1.0) if low <= tick <= high),
        f'<path class="whisker" d="M{_at(x(interval[0]))} {middle}H{_at(x(interval[1]))}"/>',
        f'<circle class="{kind}" cx="{_at(x(value))}" cy="{middle}" r="5"/>',
    ]
    title = f"<title>{number(value)} ({number(interval[0])} to {number(interval[1])})</title>"
    return Markup(f'<svg class="band" viewBox="0 0 {width} {height}" role="img">{title}{"".join(drawn)}</svg>')


RIVER = 300  # width of the river's drawing, in its own units; its height per step is 100


def river(steps: Sequence[tuple[int, int, int, int]], rows_in: int) -> list[Markup]:
    """One piece of river per step, to be put one below the other: (rows before, generated, dropped, quarantined).

    Width is rows. Rows that leave flow out to the right, generated rows flow in from the left. A flow too
    thin to be seen is drawn as a line; the figures beside it are exact.
    """
    most_generated = sum(generated for _, generated, _, _ in steps)
    scale = 0.72 * RIVER / max(rows_in + most_generated, 1)
    left = 0.08 * RIVER + scale * most_generated
    pieces = []
    for before, generated, dropped, quarantined in steps:
        right = left + scale * before
        leaving = scale * (dropped + quarantined)
        drawn = []
        if generated:
            joined = left - scale * generated
            thick = min(max(scale * generated, 2), 40)
            drawn.append(
                f'<path class="made" d="M0 {_at(50 - thick / 2)}C{_at(joined * 0.6)} {_at(50 - thick / 2)} {_at(left)} 55 {_at(left)} 100'
                f'L{_at(min(joined, left - 1))} 100C{_at(joined)} 80 {_at(joined * 0.5)} {_at(50 + thick / 2)} 0 {_at(50 + thick / 2)}Z"/>'
            )
        # Quarantined rows flow above the dropped ones: they leave for another place.
        edge = right
        for kind, count, level in (("quarantined", quarantined, 26), ("dropped", dropped, 62)):
            if not count:
                continue
            width = scale * count
            thick = min(width * 0.9, 46)
            bend = edge + 0.35 * (RIVER - edge)
            if width < 3:  # too thin for a shape: a line of constant width on screen
                drawn.append(
                    f'<path class="thread {kind}" d="M{_at(edge)} 0C{_at(edge)} {level} {_at(bend)} {level} {RIVER} {level}" '
                    'vector-effect="non-scaling-stroke"/>'
                )
            else:
                inner, above, below = edge - width, level - thick / 2, level + thick / 2
                drawn.append(
                    f'<path class="{kind}" d="M{_at(edge)} 0C{_at(edge)} {_at(above)} {_at(bend)} {_at(above)} {RIVER} {_at(above)}'
                    f'V{_at(below)}C{_at(inner + 0.5 * (RIVER - inner))} {_at(below)} {_at(inner)} {_at(below)} {_at(inner)} 0Z"/>'
                )
            edge -= scale * count
        through = max(right - leaving - left, 1.0 if before + generated else 0.0)
        drawn.insert(0, f'<rect class="kept" x="{_at(left)}" y="-1" width="{_at(through)}" height="102"/>')
        pieces.append(Markup(f'<svg viewBox="0 0 {RIVER} 100" preserveAspectRatio="none" aria-hidden="true">{"".join(drawn)}</svg>'))
        left -= scale * generated
    return pieces


def histogram(
    edges: Sequence[float], kept: Sequence[int], dropped: Sequence[int], marks: Sequence[tuple[float, str, str]] = (), label: str = ""
) -> Markup:
    """Bars of kept rows with the rows left out stacked on top; `marks` are (value, text, class) upright lines.

    Args:
        edges: n + 1 bin edges, ascending. kept, dropped: n counts each.
    """
    if len(edges) != len(kept) + 1 or len(kept) != len(dropped):
        raise ValueError(
            f"a histogram of {len(kept)} kept and {len(dropped)} dropped counts has {len(edges)} edges: give one edge more than counts"
        )
    width, height, left, top, bottom = 420, 190, 40, 14 * len(marks) + 8, 24
    low, high = edges[0], edges[-1]
    span = (high - low) or 1.0
    tallest = max((k + d for k, d in zip(kept, dropped, strict=True)), default=0) or 1
    ground, reach, across = height - bottom, height - bottom - top, width - left - 12

    def x(value: float) -> float:
        return left + across * min(max((value - low) / span, 0.0), 1.0)

    drawn = [f'<path class="axis" d="M{left} {top}V{ground}H{width - 12}"/>']
    for fraction in (1.0, 0.5):
        y = ground - reach * fraction
        drawn.append(f'<path class="grid" d="M{left} {_at(y)}H{width - 12}"/>')
        drawn.append(f'<text x="{left - 5}" y="{_at(y + 3.5)}" text-anchor="end">{compact(tallest * fraction)}</text>')
    for i, (stays, goes) in enumerate(zip(kept, dropped, strict=True)):
        if not stays + goes:
            continue
        x0, x1 = x(edges[i]), x(edges[i + 1])
        title = f"<title>{number(float(edges[i]))} to {number(float(edges[i + 1]))}: {number(stays)} kept, {number(goes)} left out</title>"
        y = float(ground)
        for kind, count in (("kept", stays), ("dropped", goes)):
            tall = reach * count / tallest
            y -= tall
            if count:
                drawn.append(
                    f'<rect class="{kind}" x="{_at(x0 + 0.4)}" y="{_at(y)}" width="{_at(max(x1 - x0 - 0.8, 0.6))}" '
                    f'height="{_at(max(tall, 0.4))}">{title}</rect>'
                )
    for tick in ticks(low, high):
        drawn.append(f'<text x="{_at(x(tick))}" y="{ground + 15}" text-anchor="middle">{compact(tick)}</text>')
        drawn.append(f'<path class="axis" d="M{_at(x(tick))} {ground}v3"/>')
    for row, (value, _, kind) in enumerate(marks):
        drawn.append(f'<path class="mark {kind}" d="M{_at(x(value))} {3 + 14 * row}V{ground}"/>')
    for row, (value, said, kind) in enumerate(marks):  # over the lines, which would cross the words
        at, y = x(value), 11 + 14 * row
        end = at > left + across * 0.55  # write towards the wider side
        anchor, beside = ("end", at - 5) if end else ("start", at + 5)
        drawn.append(f'<text class="mark {kind}" x="{_at(beside)}" y="{y}" text-anchor="{anchor}">{_text(said)}</text>')
    return Markup(f'<svg class="histogram" viewBox="0 0 {width} {height}" role="img" aria-label="{_text(label)}">{"".join(drawn)}</svg>')


def compact(value: float) -> str:
    """An axis label: 12k, 3.5M, 0.25."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * (10 if unit == "k" else 1):
            return f"{value / size:.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers inside [low, high], some `about` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


HUES = 10  # colours in the style sheet: hue0 ... hue9, used again from cluster 10 on (labels tell them apart)


def scatter(points: Sequence[tuple[float, float, int, bool]], names: Mapping[int, str], size: int = 640) -> Markup:
    """The map of the clusters: (x, y, cluster, kept) as dots, rows left out faint, each cluster's number at its middle or beside it.

    One path per cluster and fate: a dot is a line of no length with a round end (some ten bytes a point).
    """
    height, margin = int(size * 0.62), 14

    def said(cluster: int) -> str:
        return f"cluster {cluster}: {names[cluster]}" if names.get(cluster) else f"cluster {cluster}"

    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low_x, low_y = min(xs), min(ys)
    span_x, span_y = (max(xs) - low_x) or 1.0, (max(ys) - low_y) or 1.0
    groups: dict[tuple[bool, int], list[tuple[float, float]]] = {}
    members: dict[int, list[tuple[float, float]]] = {}
    for px, py, cluster, kept in points:
        place = (margin + (size - 2 * margin) * (px - low_x) / span_x, margin + (height - 2 * margin) * (1 - (py - low_y) / span_y))
        groups.setdefault((kept, cluster), []).append(place)
        members.setdefault(cluster, []).append(place)
    drawn = []
    for (kept, cluster), places in sorted(groups.items()):  # False first: kept rows are drawn over the others
        dots = "".join(f"M{_at(px)} {_at(py)}h0" for px, py in places)
        drawn.append(
            f'<path class="dot {"on" if kept else "off"} hue{cluster % HUES}" d="{dots}"><title>{_text(said(cluster))}</title></path>'
        )
    taken: list[tuple[float, float]] = []
    labels: list[str] = []
    for cluster, places in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        px = sorted(place[0] for place in places)[len(places) // 2]
        py = sorted(place[1] for place in places)[len(places) // 2]
        free = [
            spot for spot in _around(px, py, size, height) if not any(abs(spot[0] - tx) < 20 and abs(spot[1] - ty) < 14 for tx, ty in taken)
        ]
        if not free:
            continue  # a label that would cover a larger cluster's label is left out: the table names every cluster
        x, y = free[0]
        taken.append((x, y))
        label = (
            f'<text class="place" x="{_at(x)}" y="{_at(y + 4)}" text-anchor="middle">{cluster}<title>{_text(said(cluster))}</title></text>'
        )
        if (x, y) != (px, py):
            drawn.append(f'<path class="axis" d="M{_at(px)} {_at(py)}L{_at(x)} {_at(y)}"/>')
        labels.append(label)
    drawn += labels
    return Markup(f'<svg class="map" viewBox="0 0 {size} {height}" role="img" aria-label="map of the clusters">{"".join(drawn)}</svg>')


def _around(x: float, y: float, width: int, height: int) -> list[tuple[float, float]]:
    """A place and, ring by ring, places around it that lie on the picture."""
    rings = [(reach, turn) for reach in (20, 32, 44, 56) for turn in range(12)]
    spots = [(x, y)] + [(x + reach * math.cos(math.pi * turn / 6), y + 0.7 * reach * math.sin(math.pi * turn / 6)) for reach, turn in rings]
    return [(px, py) for px, py in spots if 10 < px < width - 10 and 8 < py < height - 8]
