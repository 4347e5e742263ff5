import { fill, h, text } from "./dom.js";
import { keyed } from "./keyed.js";
import { ask, live } from "./live.js";
import { ago, facts, memberHref } from "./words.js";

const TERMS = {
  engine_score: ["the engine's score", "how far it stands out among what was found"],
  genre_match: ["genres", "how likely its genres come next"],
  kind_match: ["movie or show", "how likely its kind comes next"],
  embedding_match: ["the title itself", "the model's own probability of it"],
};
const EXAMPLES = ["love", "comedy", "dark", "war", "christmas", "crime drama"];

/** The engine's order beside the re-ranked one. `#/search/<profile>/<query>` may say both. */
export function show(root, [profile = "", query = ""]) {
  const words = h("input", { id: "query", type: "search", value: query, autocomplete: "off", maxlength: 1024, placeholder: "words of a name, or a genre" });
  const who = h("input", { id: "who", value: profile, autocomplete: "off", spellcheck: "false", list: "whos", maxlength: 256, placeholder: "a profile's id" });
  const whos = h("datalist", { id: "whos" });
  const anyway = h("input", { id: "anyway", type: "checkbox" });
  const form = h("form.card.asks", { role: "search" },
    h("div.field", h("label", { for: "query" }, "Search the catalogue"), words),
    h("div.field", h("label", { for: "who" }, "as member"), who, whos),
    h("button.main", "Search"),
    h("p.examples.small.quiet", "Try ", EXAMPLES.map((one) => [h("button", { type: "button", onclick: () => { words.value = one; go(); } }, one), " "])),
    h("label.check.small", { for: "anyway" }, anyway, " also by the intent of a session that has ended, which the service would not"));
  const verdict = h("p.verdict", { role: "status" });
  const problem = h("p.problem", { role: "alert", hidden: true });
  const sliders = h("section.card.weights", { "aria-label": "Weights", hidden: true });
  const engine = h("ol.ranking");
  const ranked = h("ol.ranking");
  const results = h("div.columns.rankings", { hidden: true },
    h("section.card", h("h2", "The engine's order"), engine),
    h("section.card", h("h2", "By live intent"), ranked));
  root.append(h("p.lead", "What re-ranking does to a search: the order of a plain word search, and beside it the order of what the member wants now, with the reasons for every move."),
    form, problem, verdict, sliders, results);
  let found = null;
  let weights = null;
  let turn = 0;

  async function go() {
    const mine = ++turn;
    const query = words.value.trim();
    if (!query) return;
    history.replaceState(null, "", `#/search/${encodeURIComponent(who.value.trim())}/${encodeURIComponent(query)}`);
    try {
      const told = await ask(`search?${new URLSearchParams({ q: query, profile: who.value.trim(), stale_too: anyway.checked })}`);
      if (mine !== turn) return;
      problem.hidden = true;
      found = told;
      if (!weights) { weights = { ...told.weights }; knobs(); }
      draw();
    } catch (error) {
      if (mine !== turn) return;
      problem.hidden = false;
      text(problem, error.message);
    }
  }

  function knobs() {
    const made = Object.entries(TERMS).map(([term, [name, note]]) => {
      const shown = h("output", { for: `w-${term}` }, weights[term].toFixed(2));
      const range = h("input", { id: `w-${term}`, type: "range", min: 0, max: 2, step: 0.05, value: weights[term], "aria-describedby": `n-${term}`, oninput: () => {
        weights[term] = Number(range.value);
        text(shown, weights[term].toFixed(2));
        draw();
      } });
      return { term, range, shown, row: h("div.knob", { "data-term": term }, h("label", { for: `w-${term}` }, h("span.swatch", { "aria-hidden": "true" }), name), range, shown, h("span.quiet.small", { id: `n-${term}` }, note)) };
    });
    const back = h("button", { type: "button", onclick: () => {
      for (const { term, range, shown } of made) {
        weights[term] = found.weights[term];
        range.value = weights[term];
        text(shown, weights[term].toFixed(2));
      }
      draw();
    } }, "As the service has them");
    fill(sliders, h("div.head", h("h2", "Weights"), back), h("p.quiet.small", "They are of this page alone; the service keeps its own."), h("div.knobs", made.map((one) => one.row)));
  }

  function draw() {
    const list = found.candidates.map((one, at) => ({ ...one, from: at + 1 }));
    const isRanked = found.order === "intent";
    results.hidden = !list.length;
    sliders.hidden = !isRanked || !list.length;
    results.classList.toggle("alone", !isRanked);
    const name = who.value.trim();
    fill(verdict, !list.length ? "No title has these words."
      : !name ? ["The engine's order: choose a member to see it re-ranked."]
        : isRanked ? ["Re-ranked by the intent of ", h("a", { href: memberHref(name) }, name), `, ${found.freshness}, last event ${ago(found.age_ms)}, model version ${found.version}.`]
          : found.freshness === "stale" ? `The engine's order stays: the session of ${name} has ended (last event ${ago(found.age_ms)}).`
            : `The engine's order stays: the online store has no features of ${name}.`);
    keyed(engine, list, { key: (one) => one.title.title_id, make: (one) => row(one), update: (element, one) => plain(element, one) });
    // Stable: equals stay as the engine had them.
    const order = isRanked ? list.map((one) => ({ ...one, score: total(one) })).sort((a, b) => b.score - a.score || a.from - b.from) : [];
    keyed(ranked, order, { key: (one) => one.title.title_id, make: (one) => row(one), update: reasoned });
  }

  const total = (one) => Object.keys(TERMS).reduce((sum, term) => sum + weights[term] * one.terms[term].term, 0);

  function plain(element, one) {
    text(element.querySelector(".rank"), one.from);
    text(element.querySelector(".move"), one.score.toFixed(2));
  }

  function reasoned(element, one, place) {
    const up = one.from - (place + 1);
    text(element.querySelector(".rank"), place + 1);
    const move = element.querySelector(".move");
    text(move, up > 0 ? `▲ ${up}` : up < 0 ? `▼ ${-up}` : "=");
    move.setAttribute("aria-label", up > 0 ? `up ${up}` : up < 0 ? `down ${-up}` : "as before");
    element.dataset.way = up > 0 ? "up" : up < 0 ? "down" : "same";
    const parts = Object.keys(TERMS).map((term) => ({ term, value: weights[term] * one.terms[term].term, read: one.terms[term].value }));
    const reach = 3;
    fill(element.querySelector(".why"), parts.map(({ term, value }) => {
      const bar = h(`i.${value < 0 ? "less" : "more"}`, { "data-term": term });
      bar.style.setProperty("--size", Math.min(1, Math.abs(value) / reach));
      return bar;
    }));
    const strongest = [...parts].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).filter(({ value }) => Math.abs(value) >= 0.005);
    text(element.querySelector(".reasons"), strongest.length ? strongest.slice(0, 3).map(({ term, value, read }) => `${TERMS[term][0]} ${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}${read === null ? " (unknown)" : ""}`).join(", ") : "nothing tells it from the others");
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); go(); });
  anyway.addEventListener("change", go);
  who.addEventListener("change", go);
  const end = live("member/active", { message({ members }) {
    fill(whos, members.slice(0, 30).map((one) => h("option", { value: one.profile_id })));
    if (!who.value && members.length && !profile) { who.value = members[0].profile_id; if (words.value) go(); }
  } });
  if (query) go();
  return end;
}

function row(one) {
  return h("li.hit", h("span.rank"), h("span.names", h("span.name", one.title.name), h("span.facts.quiet.small", facts(one.title))),
    h("span.move.small"), h("span.why", { "aria-hidden": "true" }), h("span.reasons.quiet.small"));
}
