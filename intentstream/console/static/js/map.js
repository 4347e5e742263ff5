import { fill, h, svg, text } from "./dom.js";
import { live } from "./live.js";
import { ago, dot, hue, label, memberHref } from "./words.js";

const WIDTH = 1000;
const HEIGHT = 620;
const MARGIN = 70;
const FADES_MS = 120000;

/** The clusters of intents in the plane, and the active members among them. */
export function show(root) {
  const problem = h("p.problem", { role: "status", hidden: true });
  const summary = h("p.sr", { "aria-live": "off" });
  const plane = svg("svg.plane", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "Clusters of intents, and active members" });
  const grounds = svg("g", { "aria-hidden": "true" });
  const dots = svg("g", { "aria-hidden": "true" });
  const names = svg("g", { "aria-hidden": "true" });
  plane.append(grounds, dots, names);
  const told = h("p.picked.small", { role: "status" }, "Point at a dot, or pick a cluster: a dot is a member, and moves as its intent does.");
  const list = h("ul.clusters");
  root.append(h("p.lead", "What members want now, as places: the nearer two dots are, the more alike their intents. Clusters were found when the model version was trained."),
    problem, h("section.card.mapcard", plane, told, summary),
    h("section.card", h("div.head", h("h2", "Clusters"), h("a", { href: "/api/map/segments.csv", download: "segments.csv" }, "Segments by minute (CSV)")),
      h("p.quiet.small", "How many members were in which cluster in which minute, since this console began to look, a day at most."), list));
  const members = new Map();
  let clusters = [];
  let scale = null;
  let picked = null;

  function map(given) {
    problem.hidden = !given.problem;
    text(problem, given.problem);
    clusters = given.clusters ?? [];
    members.clear();
    fill(dots);
    if (!clusters.length) {
      fill(grounds); fill(names); fill(list, h("li.quiet", given.version ? `Version ${given.version} has no clusters of intents.` : "No model version has answered yet."));
      return;
    }
    const [xs, ys] = [0, 1].map((axis) => clusters.map((one) => one.at[axis]));
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    // One scale for both axes: distances are what the map is about.
    const unit = Math.min((WIDTH - 2 * MARGIN) / (right - left || 1), (HEIGHT - 2 * MARGIN) / (high - low || 1));
    scale = (x, y) => [WIDTH / 2 + (x - (left + right) / 2) * unit, HEIGHT / 2 - (y - (low + high) / 2) * unit]
      .map((value, axis) => Math.max(10, Math.min((axis ? HEIGHT : WIDTH) - 10, value)));
    const largest = Math.max(...clusters.map((one) => one.size ?? 1));
    const drawn = clusters.map((one) => {
      const [x, y] = scale(...one.at);
      return { ...one, x, y, r: 26 + 46 * Math.sqrt((one.size ?? largest / 3) / largest) };
    });
    fill(grounds, drawn.map(({ number, x, y, r }) => {
      const ground = svg("circle.ground", { cx: x, cy: y, r, "data-cluster": number });
      ground.style.setProperty("--hue", hue(number));
      ground.addEventListener("click", () => pick(number));
      return ground;
    }));
    fill(names, signs(drawn).map(({ number, words, x, y }) => svg("text.place", { x, y, "data-cluster": number }, words)));
    fill(list, clusters.map((one) => h("li", h("button.cluster", { type: "button", "aria-pressed": "false", "data-cluster": one.number, onclick: () => pick(one.number) },
      dot(one.number), h("span.names", h("span.name", one.description || `Cluster ${one.number}`), h("span.facts.quiet.small", traits(one))),
      h("span.number.count", "0")))));
  }

  function pick(number) {
    picked = picked === number ? null : number;
    plane.classList.toggle("picking", picked !== null);
    for (const element of root.querySelectorAll("[data-cluster]")) {
      const is = picked !== null && Number(element.dataset.cluster) === picked;
      element.classList.toggle("picked", is);
      if (element.hasAttribute("aria-pressed")) element.setAttribute("aria-pressed", String(is));
    }
  }

  function move(given) {
    if (!scale) return;
    for (const id of given.gone) { members.get(id)?.element.remove(); members.delete(id); }
    for (const [id, x, y, cluster, at] of given.moved) {
      let one = members.get(id);
      if (!one) {
        one = { element: svg("circle.member", { r: 6 }) };
        one.element.addEventListener("pointerenter", () => tell(id));
        one.element.addEventListener("click", () => { location.hash = memberHref(id); });
        members.set(id, one);
        dots.append(one.element);
      }
      const [px, py] = scale(x, y);
      one.element.style.setProperty("--x", `${px}px`);
      one.element.style.setProperty("--y", `${py}px`);
      one.element.style.setProperty("--hue", hue(cluster));
      one.element.dataset.cluster = cluster;
      one.element.classList.toggle("picked", cluster === picked);
      Object.assign(one, { cluster, at, seen: Date.now() });
      dots.append(one.element); // who moved last is on top
      one.element.animate?.([{ opacity: 0.2 }, { opacity: 1 }], 500);
    }
    const counts = new Map();
    for (const { cluster } of members.values()) counts.set(cluster, (counts.get(cluster) ?? 0) + 1);
    for (const button of list.querySelectorAll("[data-cluster]")) text(button.querySelector(".count"), counts.get(Number(button.dataset.cluster)) ?? 0);
    text(summary, `${members.size} members on the map.`);
  }

  function tell(id) {
    const one = members.get(id);
    if (one) fill(told, h("a", { href: memberHref(id) }, id), ` · ${clusters[one.cluster]?.description || `cluster ${one.cluster}`} · last event ${ago(Date.now() - one.at)}`);
  }

  const timer = setInterval(() => {
    for (const { element, seen } of members.values()) element.classList.toggle("faded", Date.now() - seen > FADES_MS);
  }, 5000);
  const end = live("map", { map, dots: move });
  return () => { clearInterval(timer); end(); };
}

/** Where the clusters' names stand: inside, below or above, wherever none stands yet. */
function signs(drawn) {
  const placed = [];
  for (const one of drawn) {
    const words = one.description ? one.description.split(", ").slice(0, 2).map((name) => label("release_age", name)).join(", ") : `cluster ${one.number}`;
    const half = words.length * 5.2 + 6;
    const x = Math.max(half, Math.min(WIDTH - half, one.x));
    const tried = [one.y + 6, one.y + one.r + 18, one.y - one.r - 8, one.y + one.r + 42, one.y - one.r - 32].filter((y) => y > 20 && y < HEIGHT - 8);
    const y = tried.find((at) => placed.every((other) => Math.abs(other.y - at) > 22 || Math.abs(other.x - x) > other.half + half)) ?? tried[0];
    placed.push({ number: one.number, words, half, x, y });
  }
  return placed;
}

function traits(one) {
  return Object.entries(one.traits).map(([head, { likeliest, distinctive }]) => {
    const found = new Map([likeliest, distinctive].map((trait) => [trait.label, trait]));
    return [...found.values()].map((trait) => `${label(head, trait.label)} ${Math.round(trait.share * 100)} % (${Math.round(trait.share_of_all * 100)} % of all)`).join(", ");
  }).join(" · ") || (one.size ? `${one.size} windows` : "this version describes no clusters");
}
