import { fill, h, table } from "./dom.js";
import { count, moment, percent } from "./format.js";
import { live } from "./live.js";

function role(one) {
  if (!one.role) return null;
  const kind = one.role === "live" ? "good" : one.role.startsWith("shadow") ? "accent" : "";
  return h(`span.badge${kind && `.${kind}`}`, one.role);
}

function ready(one, tritons) {
  if (one.serving === tritons) return h("span.badge.good", tritons > 1 ? `ready in all ${tritons} Tritons` : "ready in Triton");
  if (one.serving) return h("span.badge.warn", `ready in ${one.serving} of ${tritons} Tritons`);
  return h(`span.badge${one.role ? ".bad" : ""}`, "not ready in Triton");
}

function interval(metric) {
  return metric.ci95 ? `${metric.ci95[0].toFixed(4)} to ${metric.ci95[1].toFixed(4)}` : "–";
}

const figure = (value) => (typeof value === "number" ? value.toFixed(4) : "–");

function version(one, told) {
  const trained = [
    one.source && ["trained on", one.source],
    one.trained_at && ["at", moment(Date.parse(one.trained_at))],
    one.experiment && ["experiment", one.experiment],
    one.epochs && ["epochs", count(one.epochs)],
    one.params && ["parameters", count(one.params)],
    one.titles && ["titles", count(one.titles)],
    one.window && ["window", `${one.window} interactions`],
  ].filter(Boolean);
  return h("section.card", { "aria-label": `Version ${one.version}` },
    h("div.head", h("h2", `Version ${one.version}`), h("span.badges", role(one), " ", ready(one, told.tritons))),
    trained.length ? h("dl.pairs", trained.map(([name, value]) => [h("dt", name), h("dd", value)]))
      : h("p.quiet", "Its export isn't on this machine, so nothing is known of its training."),
    one.metrics.length ? table(`Evaluation of version ${one.version}`, ["next title", "value", "95 % interval", "popularity"],
      one.metrics.map((metric) => [metric.name, figure(metric.value), interval(metric), figure(metric.popularity)])) : null,
    one.intents.length ? table(`Intents of version ${one.version}`, ["intent", "measured by", "value", "commonest label", "newest title's"],
      one.intents.map((head) => [head.head.replace("_", " "), head.measure, figure(head.value), figure(head.commonest), figure(head.newest)])) : null);
}

function shadow(told) {
  const { heads, overlap, answers } = told.divergence;
  if (!told.shadow && overlap === null) return null;
  return h("section.card",
    h("div.head", h("h2", "Shadow"), told.shadow
      ? h("span.badge.accent", `version ${told.shadow} answers ${percent(told.shadow_share)} of the profiles unseen`)
      : h("span.badge", "none now")),
    h("p.quiet", "How far its answers are from those of the live version, since the workers began."),
    overlap === null ? h("p.quiet", "Nothing was compared yet.") : [
      table("Divergence by head", ["head", "mean divergence, bits"], Object.entries(heads).map(([head, bits]) => [head.replace("_", " "), figure(bits)])),
      h("p", `${percent(overlap)} of the next titles are the same; ${Object.entries(answers).map(([how, many]) => `${count(many)} answers ${how}`).join(", ")}.`),
    ]);
}

function all(told) {
  return [
    told.remark ? h("p.problem", { role: "status" }, told.remark) : null,
    told.pinned ? h("p.quiet", `INTENT_MODEL_VERSION pins version ${told.pinned} here.`) : null,
    shadow(told),
    told.versions.length ? h("div.grid.wide", told.versions.map((one) => version(one, told))) : h("p.quiet", "No version was exported yet; `intentstream train` makes one."),
    h("section.card", h("h2", "Put another into service"),
      h("p.quiet", "Nothing on this page changes the live version. Where the models are, these do:"),
      h("pre", "intentstream model publish VERSION   # validate, shadow live traffic, then switch\nintentstream model rollback          # back to the version before")),
  ];
}

/** All versions, and what each is in service as. */
export async function show(root) {
  const place = h("div.stack", h("p.quiet", "Asking Kafka and Triton …"));
  root.append(h("p.lead", "Which versions of the model there are, which one answers, and how good each was when it was trained."), place);
  return live("models/live", {
    message: (told) => fill(place, all(told)),
    problem: ({ problem }) => fill(place, h("p.problem", { role: "alert" }, problem)),
  });
}
