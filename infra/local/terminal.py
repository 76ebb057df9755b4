"""A terminal's output as an animated SVG: text as text, the lines of tables as one path, time as keyframes of CSS.

It knows what the command line prints: lines, colours, and a line of progress that is written again. On anything else it
fails, rather than draw what no terminal shows.
"""

import itertools
import re
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

COLUMNS, ROWS = 100, 31
WIDTH, HEIGHT, SIZE = 8.4, 18, 14
LEFT, TOP = 20, 46
PART = re.compile(r"\x1b\[([\d;?]*)([A-Za-z])|\x1b|([\r\n])|([^\x1b\r\n]+)")
# To the right, to the left, down, up: the arms of each letter that draws a table.
ARMS = {"─": "rl", "│": "du", "┌": "rd", "┐": "ld", "└": "ru", "┘": "lu"}
ARMS |= {"├": "rdu", "┤": "ldu", "┬": "rld", "┴": "rlu", "┼": "rldu"}
COLOURS = {1: "red", 2: "green", 3: "yellow", 4: "blue", 5: "magenta", 6: "cyan"}
STYLE = """
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d7dee6;white-space:pre}
path{stroke:#59636e;fill:none}.red{fill:#ff8178}.green{fill:#56d364}.yellow{fill:#e3b341}.blue{fill:#79b8ff}
.magenta{fill:#d2a8ff}.cyan{fill:#76e3ea}.typed{fill:#fff;font-weight:600}.comment{fill:#9ba5b0}.cover{visibility:hidden}
"""


@dataclass
class Screen:
    """Rows of letters, each with the name of its colour."""

    rows: list[list[tuple[str, str]]] = field(default_factory=lambda: [[]])
    column: int = 0
    colour: str = ""

    def feed(self, output: str) -> "Screen":
        for codes, command, end, text in PART.findall(output):
            if end == "\n":
                self.rows.append([])
            if end:
                self.column = 0
            elif text:
                self.write(text)
            elif command == "m":
                self.paint(codes)
            elif command == "K" and codes == "2":
                self.rows[-1] = []
            else:
                raise ValueError(f"the terminal does not know the sequence ESC [ {codes} {command}")
        return self

    def write(self, text: str) -> None:
        for letter in text:
            if self.column == COLUMNS:
                self.rows.append([])
                self.column = 0
            row = self.rows[-1]
            row += [(" ", "")] * (self.column - len(row))
            row[self.column :] = [(letter, self.colour), *row[self.column + 1 :]]
            self.column += 1

    def paint(self, codes: str) -> None:
        match [int(code or 0) for code in codes.split(";")]:
            case [0] | [39]:
                self.colour = ""
            case [code] if 30 < code < 37:
                self.colour = COLOURS[code - 30]
            case [38, 5, code] if code % 8 in COLOURS and code < 16:
                self.colour = COLOURS[code % 8]
            case _:
                raise ValueError(f"the terminal does not know the colour {codes}")

    def svg(self, top: int) -> str:
        """Words by their places, then all lines."""
        drawn = []
        for number, row in enumerate(self.rows, top):
            for colour, places in itertools.groupby(enumerate(row), lambda place: place[1][1]):
                run = list(places)
                letters = "".join(" " if letter in ARMS else letter for _, (letter, _) in run)
                for word in re.finditer(r"\S+(?: \S+)*", letters):
                    drawn.append(text(word[0], run[0][0] + word.start(), number, colour))
        if path := self.lines(top):
            drawn.append(f'<path d="{path}"/>')
        return "\n".join(drawn)

    def lines(self, top: int) -> str:
        """Arms that follow one another are one line."""
        across: dict[tuple[int, int], int] = {}
        down: dict[tuple[int, int], int] = {}
        for number, row in enumerate(self.rows):
            for column, (letter, _) in enumerate(row):
                x, y = 2 * column, 2 * number
                for arm in ARMS.get(letter, ""):
                    lines, place = (across, (y, x + (arm == "r"))) if arm in "rl" else (down, (x, y + (arm == "d")))
                    lines[place] = 1
        path = []
        for lines, command in ((across, "h"), (down, "v")):
            cell = WIDTH / 2 if command == "h" else HEIGHT / 2
            for line, start in sorted(lines):
                if (line, start - 1) in lines:
                    continue
                length = next(n for n in range(1, 1000) if (line, start + n) not in lines)
                x, y = (start, line + 1) if command == "h" else (line + 1, start)
                path.append(f"M{x * WIDTH / 2:g} {y * HEIGHT / 2 + top * HEIGHT:g}{command}{length * cell:g}")
        return "".join(path)


def text(words: str, column: int, row: int, kind: str = "") -> str:
    """As wide as it is in a terminal, whatever font there is."""
    kind = f' class="{kind}"' if kind else ""
    width = f' textLength="{len(words) * WIDTH:g}"' if len(words) > 1 else ""
    return f'<text x="{column * WIDTH:g}" y="{row * HEIGHT + SIZE}"{width}{kind}>{escape(words)}</text>'


class Film:
    """Commands and their output, one below the other, and when each is seen."""

    def __init__(self) -> None:
        self.seconds, self.rows = 0.0, 0
        self.parts: list[str] = []
        # From when each part is seen, when it is typed to its end, and how many letters that are.
        self.shown: list[tuple[float, float, int]] = []
        self.scrolled: list[tuple[float, int]] = []

    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    def add(self, svg: str, rows: int, typing: float = 0.0, letters: int = 0) -> None:
        number = len(self.parts)
        self.parts.append(f'<g class="p{number}">{svg}</g>')
        self.shown.append((self.seconds, self.seconds + typing, letters))
        self.rows += rows
        if self.rows > ROWS:
            self.scrolled.append((self.seconds, (self.rows - ROWS) * HEIGHT))
        self.wait(typing)

    def type(self, line: str, prompt: str, kind: str, secs_per_letter: float) -> None:
        """A cover moves off the line, letter by letter."""
        if len(prompt + line) > COLUMNS:
            raise ValueError(f"longer than {COLUMNS} columns: {line}")
        y, x = self.rows * HEIGHT, len(prompt) * WIDTH
        cover = f'<rect y="{y - 1}" x="{x:g}" width="900" height="{HEIGHT + 1}" fill="#0f1419"/>'
        cursor = f'<rect y="{y + 1}" x="{x:g}" width="{WIDTH}" height="{HEIGHT - 2}" fill="#d7dee6"/>'
        typed = text(line, len(prompt), self.rows, kind)
        if prompt.strip():
            typed = text(prompt.strip(), 0, self.rows, "green") + typed
        svg = f'{typed}<g class="cover c{len(self.parts)}">{cover}{cursor}</g>'
        self.add(svg, 1, len(line) * secs_per_letter, len(line))

    def print(self, output: str) -> None:
        screen = Screen().feed(output.removesuffix("\n").removesuffix("\r"))
        self.add(screen.svg(self.rows), len(screen.rows))

    def svg(self, title: str, description: str) -> str:
        """All of it. Whoever prefers no motion sees the last frame."""
        whole = self.seconds
        moves, frames = [], []

        def at(seconds: float) -> str:
            return f"{seconds / whole * 100:.2f}%"

        def move(name: str, keyframes: str) -> None:
            moves.append(f".{name}{{animation:{name} {whole:.1f}s step-end infinite}}")
            frames.append(f"@keyframes {name}{{{keyframes}}}")

        for number, (start, end, letters) in enumerate(self.shown):
            hidden = "" if start == 0 else "0%{visibility:hidden}"
            move(f"p{number}", f"{hidden}{at(start)},to{{visibility:visible}}")
            if letters:
                typing = f"visibility:visible;transform:none;animation-timing-function:steps({letters})"
                typed = f"visibility:hidden;transform:translateX({letters * WIDTH:g}px)"
                move(f"c{number}", f"{at(start)}{{{typing}}}{at(end)},to{{{typed}}}")
        steps = "".join(f"{at(when)}{{transform:translateY(-{by}px)}}" for when, by in self.scrolled)
        last = self.scrolled[-1][1] if self.scrolled else 0
        move("film", f"0%{{transform:none}}{steps}to{{transform:translateY(-{last}px)}}")
        width, height = round(COLUMNS * WIDTH), ROWS * HEIGHT
        outer, tall = width + 2 * LEFT, TOP + height + 16
        joined = "\n".join
        dots = "".join(f'<circle cx="{22 + 18 * n}" cy="18" r="5.5" fill="#3d444d"/>' for n in range(3))
        size = f'viewBox="0 0 {outer} {tall}" width="{outer}" height="{tall}"'
        return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">
<title id="title">{escape(title)}</title>
<desc id="desc">{escape(description)}</desc>
<style>{STYLE}.film{{transform:translateY(-{last}px)}}
@media (prefers-reduced-motion:no-preference){{
{joined(moves)}
{joined(frames)}
}}</style>
<rect x=".5" y=".5" width="{outer - 1}" height="{tall - 1}" rx="9" fill="#0f1419" stroke="#3d444d"/>
{dots}
<svg x="{LEFT}" y="{TOP}" width="{width + LEFT - 2}" height="{height}"><g class="film">
{joined(self.parts)}
</g></svg>
</svg>
"""
