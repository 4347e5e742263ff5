import { fill, h, table, text } from "./dom.js";
import { count, percent, rate, seconds } from "./format.js";
import { live } from "./live.js";
import { lines } from "./lines.js";
import { pipeline } from "./pipeline.js";

const HOUR_MS = 3600 * 1000;
const LEGS = {
  produced_consumed: "produced → read by the worker",
  consumed_inferred: "read → answered by the model",
  inferred_readable: "answered → readable in the store",
  produced_readable: "the whole way",
};
const CONSEQUENCE = {
  kafka: "No lag is known, and nothing new comes until it answers.",
  redis: "Readers get nothing, and the worker holds its events; nothing is lost.",
  triton: "The worker holds its events until it answers; nothing is lost, features go stale.",
  worker: "Events wait in Kafka; nothing is lost, features go stale.",
  sink: "Features aren't landed as Parquet meanwhile; it catches up by itself.",
  bridge: "Another's events aren't carried over meanwhile; it goes on where it was.",
};
const NAMES = { kafka: "Kafka", redis: "Redis", triton: "Triton", worker: "The worker", sink: "The sink", bridge: "The bridge" };

const sum = (values) => values.reduce((all, one) => all + one, 0);
const problemOf = (told, name) => {
  const of = told.sources.filter((one) => one.name === name);
  return of.length > 0 && of.every((one) => one.problem);
};
/** Dead letters of the last quarter of an hour; null while no worker tells. */
const deadLately = (told) => (problemOf(told, "worker") ? null : sum(told.dead_letters.map((one) => one.lately ?? 0)));
const version = (versions) => Object.keys(versions).sort().join(", ");

function figure(name) {
  const value = h("dd", "–");
  const note = h("dd.note");
  return { element: h("div.figure", h("dt", name), value, note), set(shown, more = "") { text(value, shown); text(note, more); } };
}

function words(told) {
  const lag = sum(told.lag.map((one) => one.records));
  const behind = Math.max(0, ...told.lag.map((one) => one.seconds));
  const dead = sum(told.dead_letters.map((one) => one.count));
  const lately = deadLately(told);
  const whole = told.freshness.produced_readable ?? {};
  const down = (name, lines) => (problemOf(told, name) ? { state: "bad", lines: ["doesn't answer"] } : { lines });
  const lives = version(told.versions.lives);
  const shadows = Object.entries(told.versions.shadows).map(([one, share]) => `shadow ${one}, ${percent(share)}`);
  const worker = down("worker", [told.batches.per_s ? `${rate(told.batches.per_s)} batches/s of ${rate(told.batches.events)} events` : "no batches just now"]);
  if (worker.state !== "bad" && told.back_pressure) {
    worker.state = "warn";
    worker.lines = [`holds its events: waits for ${told.waits_for.join(", ") || "a dependency"}`];
  }
  return {
    summary: `Events go from Kafka through the worker, which asks Triton, into the online store. `
      + `${rate(told.events_per_s)} events a second, lag ${count(lag)} records, freshness p99 ${seconds(whole.p99)}, `
      + `${rate(told.rows.published_per_s)} rows a second published.`,
    boxes: {
      kafka: down("kafka", matchMedia("(max-width: 760px)").matches ? ["playback-events · browse-events"] : ["playback-events", "browse-events"]),
      worker,
      triton: down("triton", [lives ? `version ${lives}` : "", shadows[0] ?? ""]),
      dead: { lines: [lately === null ? "" : `${count(dead)} in all`], state: lately > 0 ? "warn" : "good" },
      redis: down("redis", ["Redis, as Feast"]),
      readers: {},
    },
    arrows: {
      in: { main: `${rate(told.events_per_s)} /s`, more: told.lag.length ? `lag ${count(lag)} · ${seconds(behind)}` : "lag unknown", flows: told.events_per_s > 0 },
      dead: { main: count(lately), more: "in 15 min", flows: lately > 0 },
      ask: { main: `${rate(told.cache.windows_per_s)} /s`, more: told.cache.hit_share === null ? "" : `${percent(told.cache.hit_share)} cached`, flows: told.cache.windows_per_s > 0 },
      out: { main: `${rate(told.rows.published_per_s)} rows/s`, more: told.rows.refused === null ? "" : `${count(told.rows.refused)} refused`, flows: told.rows.published_per_s > 0 },
      read: { main: seconds(whole.p50), more: whole.p99 === undefined ? "" : `p99 ${seconds(whole.p99)}`, flows: told.rows.published_per_s > 0 },
    },
  };
}

function troubles(told) {
  const found = told.sources.filter((one) => one.problem).map((one) => h("div.problem",
    h("p", h("b", `${NAMES[one.name] ?? one.name}${one.address ? ` at ${one.address}` : ""} doesn't answer.`), " ", CONSEQUENCE[one.name] ?? ""),
    h("p.small", one.problem)));
  for (const one of told.sources) {
    if (!one.problem && one.ready === false) found.push(h("div.problem.warn", h("p", h("b", `${NAMES[one.name] ?? one.name} at ${one.address} is not ready.`),
      told.back_pressure ? ` It holds its events and waits for ${told.waits_for.join(", ") || "a dependency"}.` : " Its log says what it waits for.")));
  }
  return found;
}

function bars(rows, empty) {
  if (!rows.length) return h("p.quiet", empty);
  const most = Math.max(...rows.map(([, value]) => value), 1e-9);
  return h("ul.bars.tight", rows.map(([name, value, shown]) => {
    const bar = h("span.bar-fill");
    bar.style.width = `${(100 * value) / most}%`;
    return h("li", h("span.bar-label", name), h("span.number", shown), h("span.bar-track", bar));
  }));
}

function alertsCard(told) {
  const order = { firing: 0, pending: 1, unknown: 2, inactive: 3 };
  const kinds = { firing: "bad", pending: "warn", inactive: "good", unknown: "" };
  const said = { firing: "firing", pending: "pending", inactive: "quiet", unknown: "not known" };
  const from = {
    prometheus: "as Prometheus says",
    console: "judged by the console from what it reads; Prometheus is not set",
    nobody: "",
  }[told.from] ?? "";
  const sorted = [...told.alerts].sort((one, other) => (order[one.state] ?? 9) - (order[other.state] ?? 9));
  const firing = sorted.filter((one) => one.state === "firing").length;
  return [
    h("div.head", h("h2", "Alerts"), h("span.quiet.small", from)),
    told.problem ? h("p.problem", told.problem) : null,
    told.from === "nobody" ? h("p.quiet", "Alerts are judged by Prometheus; INTENT_CONSOLE_PROMETHEUS_URL says where it is. Without one, INTENT_CONSOLE_ALERT_RULES names its file of rules, and the console judges what it can.") : null,
    sorted.length ? h("p", firing ? h("b", `${count(firing)} of ${count(sorted.length)} fire.`) : `None of ${count(sorted.length)} fires.`) : null,
    h("ul.alerts", sorted.map((one) => h("li",
      h("details", { open: one.state === "firing" },
        h("summary", h(`span.badge${kinds[one.state] ? `.${kinds[one.state]}` : ""}`, said[one.state] ?? one.state), h("b", one.name), h("span.quiet.small", one.severity)),
        h("div.inside", h("p", one.summary), one.about.length ? h("ul.about", one.about.map((each) => h("li", each))) : null, h("p.quiet", one.description)))))),
  ];
}

/** The pipeline as it is now, its last hour, and its alerts. */
export async function show(root) {
  const picture = pipeline();
  const trouble = h("div.stack", { role: "status", "aria-live": "polite" });
  const strip = { events: figure("Events"), fresh: figure("Freshness, p50"), lag: figure("Lag"), rows: figure("Rows published"), cache: figure("Model's cache"), dead: figure("Dead letters") };
  const charts = [
    lines("Events and rows, a second", [{ name: "events", key: "events_per_s", colour: "--s1" }, { name: "rows published", key: "published_per_s", colour: "--s3" }], rate),
    lines("Freshness", [{ name: "p50", key: "freshness_p50", colour: "--s2" }, { name: "p99", key: "freshness_p99", colour: "--s1" }], seconds),
    lines("Lag, records", [{ name: "lag", key: "lag", colour: "--s4" }], count),
  ];
  const [types, fresh, lag, dead, alerts] = [0, 1, 2, 3, 4].map(() => h("section.card"));
  let points = [];

  root.append(
    h("p.lead", "Events come in from Kafka, the worker asks the model, and what each member wants now stands in the online store."),
    trouble,
    h("section.card.picture", { "aria-label": "The pipeline" }, picture.element),
    h("dl.figures", Object.values(strip).map((one) => one.element)),
    h("div.grid.three", charts.map((one) => one.element)),
    h("div.grid", types, fresh),
    h("div.grid", lag, dead),
    alerts);

  let trouble_said = "";
  function message(told) {
    picture.show(words(told));
    const said = JSON.stringify(told.sources) + told.back_pressure + told.waits_for;
    // Said anew only when it changes, or a screen reader would never stop.
    if (said !== trouble_said) {
      trouble_said = said;
      fill(trouble, troubles(told));
    }
    const whole = told.freshness.produced_readable ?? {};
    const records = sum(told.lag.map((one) => one.records));
    strip.events.set(rate(told.events_per_s), "a second");
    strip.fresh.set(seconds(whole.p50), whole.p99 === undefined ? "nothing was published just now" : `p99 ${seconds(whole.p99)}`);
    strip.lag.set(told.lag.length ? count(records) : "–", told.lag.length ? `records, ${seconds(Math.max(0, ...told.lag.map((one) => one.seconds)))} behind` : "Kafka doesn't answer");
    strip.rows.set(rate(told.rows.published_per_s), told.rows.refused === null ? "a second" : `a second; ${count(told.rows.refused)} refused as older`);
    strip.cache.set(percent(told.cache.hit_share), "of windows had kept positions");
    strip.dead.set(count(deadLately(told)), "in the last 15 minutes");
    fill(types, h("div.head", h("h2", "Events by type"), h("span.quiet.small", "a second, over the last ten")),
      bars(Object.entries(told.types).map(([name, value]) => [name.replaceAll("_", " "), value, rate(value)]), "No event came in the last ten seconds."));
    fill(fresh, h("div.head", h("h2", "Freshness by leg"), h("span.quiet.small", "over the last ten seconds")),
      table("Freshness by leg", ["leg", "p50", "p99"], Object.entries(told.freshness).map(([leg, of]) => [LEGS[leg], seconds(of.p50), seconds(of.p99)]), "Nothing was published in the last ten seconds."),
      h("dl.pairs", [["batches", told.batches.per_s ? `${rate(told.batches.per_s)} a second, of ${rate(told.batches.events)} events of ${rate(told.batches.profiles)} profiles` : "none just now"],
        ["back-pressure", told.back_pressure ? `on: waits for ${told.waits_for.join(", ") || "a dependency"}` : "off"],
        ["live version", version(told.versions.lives) || "unknown"],
        ["shadow", Object.entries(told.versions.shadows).map(([one, share]) => `version ${one}, ${percent(share)} of the profiles`).join(", ") || "none"]].map(([name, value]) => [h("dt", name), h("dd", value)])));
    fill(lag, h("div.head", h("h2", "Lag by partition"), h("span.quiet.small", "of the worker's group; of other topics, what lags")),
      table("Lag by partition", ["topic", "partition", "records", "behind"], told.lag.filter((one) => one.records || one.topic.endsWith("-events")).map((one) => [one.topic, one.partition, one.records, one.records ? seconds(one.seconds) : "0 s"]), "Kafka doesn't answer, so no lag is known."));
    fill(dead, h("div.head", h("h2", "Dead letters by reason"), h("a", { href: "#/dead-letters" }, "Look at them")),
      table("Dead letters by reason", ["topic", "reason", "since the worker began", "in 15 min"], told.dead_letters.map((one) => [one.topic, one.reason, one.count, one.lately ?? "–"]), problemOf(told, "worker") ? "The worker doesn't answer, so none are known." : "None since the worker began."));
  }

  const draw = () => charts.forEach((one) => one.set(points));
  const ends = live("now/live", {
    message,
    hour(told) { points = told; draw(); },
    point(told) {
      points = points.filter((one) => one.at_ms > told.at_ms - HOUR_MS);
      points.push(told);
      draw();
    },
    alerts(told) { fill(alerts, alertsCard(told)); },
    problem() {},
  });
  return () => {
    ends();
    picture.end();
    charts.forEach((one) => one.end());
  };
}
