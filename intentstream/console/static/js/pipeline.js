// The picture of the pipeline: boxes, arrows between them, and live figures on the arrows. It lies
// on a wide page and stands on a narrow one.

import { svg, text } from "./dom.js";

const STEPS = ["decode", "session", "infer", "publish"];

const WIDE = {
  size: [1180, 350],
  boxes: {
    kafka: [8, 52, 172, 128],
    worker: [322, 36, 420, 160],
    triton: [520, 284, 150, 58],
    dead: [322, 284, 150, 58],
    redis: [872, 52, 150, 128],
    readers: [1092, 84, 84, 64],
  },
  steps: STEPS.map((_, at) => [338 + at * 99, 112, 90, 54]),
  arrows: {
    in: { d: "M180 116H316", at: [248, 92] },
    dead: { d: "M383 166V278", at: [396, 228], left: true },
    ask: { d: "M581 166V278", at: [594, 228], left: true },
    out: { d: "M742 139H866", at: [806, 92] },
    read: { d: "M1022 116H1086", at: [1056, 66] },
  },
};

const TALL = {
  size: [360, 500],
  boxes: {
    kafka: [70, 6, 220, 66],
    worker: [6, 150, 348, 118],
    dead: [6, 358, 104, 56],
    triton: [130, 358, 104, 56],
    redis: [250, 358, 104, 56],
    readers: [250, 462, 104, 34],
  },
  steps: STEPS.map((_, at) => [16 + at * 83, 206, 78, 46]),
  arrows: {
    in: { d: "M180 72V144", at: [194, 102], left: true },
    dead: { d: "M56 252V352", at: [64, 296], left: true },
    ask: { d: "M212 252V352", at: [202, 296], right: true },
    out: { d: "M304 252V352", at: [296, 296], right: true },
    read: { d: "M302 414V456", at: [240, 440], right: true },
  },
};

const TITLES = { kafka: "Kafka", worker: "Worker", triton: "Triton", dead: "Dead letters", redis: "Online store", readers: "Readers" };

/** The picture; `show` gives its boxes and arrows their words. */
export function pipeline() {
  const narrow = matchMedia("(max-width: 760px)");
  const picture = svg("svg.pipeline", { role: "img" });
  const description = svg("title");
  let boxes = {};
  let arrows = {};
  let told = null;

  function draw() {
    const plan = narrow.matches ? TALL : WIDE;
    picture.setAttribute("viewBox", `0 0 ${plan.size.join(" ")}`);
    boxes = {};
    arrows = {};
    picture.replaceChildren(description, svg("defs",
      svg("marker", { id: "head", viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto", markerUnits: "userSpaceOnUse" },
        svg("path.head", { d: "M0 0L8 4L0 8z" }))));
    for (const [name, arrow] of Object.entries(plan.arrows)) {
      const flow = svg("path.flow", { d: arrow.d });
      const anchor = arrow.left ? "start" : arrow.right ? "end" : "middle";
      const main = svg("text.arrow-main", { x: arrow.at[0], y: arrow.at[1], "text-anchor": anchor });
      const more = svg("text.arrow-more", { x: arrow.at[0], y: arrow.at[1] + 16, "text-anchor": anchor });
      arrows[name] = { flow, main, more };
      picture.append(svg("path.arrow", { d: arrow.d, "marker-end": "url(#head)" }), flow, main, more);
    }
    for (const [name, [x, y, width, height]] of Object.entries(plan.boxes)) {
      const inside = name === "worker" ? y + 26 : y + height / 2 - (name === "kafka" && !narrow.matches ? 30 : 4);
      const rect = svg("rect", { x, y, width, height, rx: 12 });
      const middle = x + width / 2;
      const title = svg("text.box-title", { x: middle, y: name === "readers" ? y + height / 2 + 5 : inside, "text-anchor": "middle" }, TITLES[name]);
      const lines = [0, 1, 2].map((at) => svg("text.box-line", { x: middle, y: inside + 18 + at * 17, "text-anchor": "middle" }));
      boxes[name] = { group: svg(`g.box.box-${name}`, rect, title, lines), lines };
      picture.append(boxes[name].group);
    }
    plan.steps.forEach(([x, y, width, height], at) => picture.append(svg("g.step",
      svg("rect", { x, y, width, height, rx: 8 }),
      svg("text", { x: x + width / 2, y: y + height / 2 + 4, "text-anchor": "middle" }, STEPS[at]),
      at < 3 && !narrow.matches ? svg("path.link", { d: `M${x + width} ${y + height / 2}h9` }) : null)));
    if (told) show(told);
  }

  /** `boxes`: name to {lines, state}; `arrows`: name to {main, more, flows}; `summary`: all in words. */
  function show(next) {
    told = next;
    text(description, next.summary);
    picture.setAttribute("aria-label", next.summary);
    for (const [name, { group, lines }] of Object.entries(boxes)) {
      const of = next.boxes[name] ?? {};
      group.dataset.state = of.state ?? "good";
      lines.forEach((line, at) => text(line, of.lines?.[at] ?? ""));
    }
    for (const [name, { flow, main, more }] of Object.entries(arrows)) {
      const of = next.arrows[name] ?? {};
      flow.dataset.flows = Boolean(of.flows);
      text(main, of.main ?? "");
      text(more, of.more ?? "");
    }
  }

  narrow.addEventListener("change", draw);
  draw();
  return { element: picture, show, end: () => narrow.removeEventListener("change", draw) };
}
