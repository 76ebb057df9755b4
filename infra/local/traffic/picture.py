"""A picture of times: which share of the deliveries had arrived when, a line for each scenario."""

from math import log10
from xml.sax.saxutils import escape

LEFT, TOP, WIDTH, HEIGHT, RIGHT, BOTTOM = 60, 30, 520, 260, 200, 45
# Readable on light and on dark pages.
COLOURS = ("#3b7dd8", "#2f9e6e", "#c7791a", "#c2477f", "#7a5bd0", "#808080")
# What came sooner stands at the edge.
LEAST_SECS, MOST_SECS = 0.01, 10.0
STEPS = 200


def arrivals(title: str, lines: list[tuple[str, list[float]]]) -> str:
    """An SVG of these lines, each a label and the seconds that its deliveries took."""

    def across(secs: float) -> float:
        share = log10(max(secs, LEAST_SECS) / LEAST_SECS) / log10(MOST_SECS / LEAST_SECS)
        return LEFT + min(share, 1) * WIDTH

    def down(share: float) -> float:
        return TOP + (1 - share) * HEIGHT

    width, height = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13" fill="#808080">',
        f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = down(share)
        svg.append(f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="#808080" stroke-opacity="0.3"/>')
        svg.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for secs in (0.01, 0.1, 1, 10):
        x = across(secs)
        svg.append(f'<path d="M{x:.1f} {TOP}v{HEIGHT}" stroke="#808080" stroke-opacity="0.3"/>')
        svg.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{secs:g} s</text>')
    svg.append(f'<text x="{LEFT + WIDTH / 2}" y="{height - 8}" text-anchor="middle">after the 202</text>')
    for number, ((label, times), colour) in enumerate(zip(lines, COLOURS)):
        times = sorted(times)
        points = [(across(LEAST_SECS), down(0))]
        # As many as can be seen.
        shares = sorted({-(-step * len(times) // STEPS) for step in range(1, STEPS + 1)})
        points += [(across(times[count - 1]), down(count / len(times))) for count in shares]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        svg.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = TOP + 14 + number * 22
        svg.append(f'<path d="M{LEFT + WIDTH + 16} {y - 4}h18" stroke="{colour}" stroke-width="3"/>')
        svg.append(f'<text x="{LEFT + WIDTH + 40}" y="{y}">{escape(label)}</text>')
    return "\n".join([*svg, "</svg>"]) + "\n"
