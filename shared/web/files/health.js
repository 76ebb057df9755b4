// Health of a registration: its circuit, and a bar for each of the last 24 hours.

import { badge, facts, h, moment, svg, when } from "./page.js";

const HEIGHT = 48;
const WIDTH = 12;
const TONES = { closed: "good", open: "bad", "half-open": "open" };
// From the bottom of a bar to its top: key, tone, word.
const PARTS = [
  ["delivered", "good", "delivered"],
  ["failed", "bad", "failed"],
  ["open", "open", "open"],
  ["other", "quiet", "skipped or cancelled"],
];

const total = (hour) => PARTS.reduce((sum, [key]) => sum + hour[key], 0);

/** `12 delivered, 1 failed`. */
function counted(hours) {
  const sums = PARTS.map(([key, , word]) => [hours.reduce((sum, hour) => sum + hour[key], 0), word]);
  const told = sums.filter(([sum]) => sum).map(([sum, word]) => `${sum.toLocaleString("en")} ${word}`);
  return told.length ? told.join(", ") : "no deliveries";
}

function bar(hour, at, most) {
  let y = HEIGHT;
  return PARTS.filter(([key]) => hour[key]).map(([key, tone]) => {
    const height = Math.max(2, (hour[key] / most) * HEIGHT);
    y -= height;
    return svg("rect", { class: tone, x: at * WIDTH + 1, y, width: WIDTH - 2, height });
  });
}

function bars(hours, label) {
  const most = Math.max(1, ...hours.map(total));
  const size = {
    viewBox: `0 0 ${hours.length * WIDTH} ${HEIGHT + 1}`,
    width: hours.length * WIDTH,
    height: HEIGHT + 1,
  };
  const base = svg("line", { x1: 0, x2: hours.length * WIDTH, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 });
  return svg(
    "svg",
    { class: "bars", role: "img", "aria-label": label, ...size },
    hours.flatMap((hour, at) => bar(hour, at, most)),
    base,
  );
}

export function health({
  circuit,
  failing_since: failing,
  delivered_at: delivered,
  failed_at: failed,
  hours,
  has_more: more,
}) {
  const told = counted(hours);
  const until = circuit.open_until && [": tried again ", when(circuit.open_until)];
  return h(
    "div",
    { class: "box" },
    facts(
      ["Circuit", [badge(circuit.state, TONES[circuit.state] ?? "quiet"), until].flat()],
      ["Failing since", moment(failing)],
      ["Last delivered", moment(delivered)],
      ["Last failed", moment(failed)],
      ["Deliveries", told],
    ),
    bars(hours, `By the hour: ${told}`),
    h("p", { class: "muted" }, more ? "The newest 1,000, by the hour" : "By the hour, until now"),
  );
}
