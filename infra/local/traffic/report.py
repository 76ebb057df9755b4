"""What is said while a run goes on, and the table at its end."""

import sys
import time

BEGAN = time.monotonic()


def say(text: str) -> None:
    """Progress, to stderr: the results alone are for stdout."""
    print(f"{time.monotonic() - BEGAN:6.0f} s  {text}", file=sys.stderr, flush=True)


def percentile(values: list[float], percent: float) -> float | None:
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def table(head: list[str], lines: list[list[str]]) -> str:
    """Text to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *lines)]

    def row(cells: list[str]) -> str:
        first, *rest = zip(cells, widths)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()

    return "\n".join([row(head), row(["-" * width for width in widths]), *map(row, lines)])
