import { fill, h, svg, text } from "./dom.js";
import { percent, seconds } from "./format.js";
import { keyed } from "./keyed.js";
import { ask, live } from "./live.js";
import { ACTION, HEAD, ago, dot, facts, label, memberHref, sign } from "./words.js";

const BARS = 6;
const STEPS = 12;

/** `#/member` lists who is active; `#/member/<id>` shows one. */
export function show(root, [profile]) {
  return profile ? showOne(root, profile) : showAll(root);
}

function showAll(root) {
  const id = h("input", { id: "profile", name: "profile", autocomplete: "off", spellcheck: "false", required: true, maxlength: 256 });
  const find = h("form.find", { role: "search", onsubmit: (event) => {
    event.preventDefault();
    if (id.value.trim()) location.hash = memberHref(id.value.trim());
  } }, h("label", { for: "profile" }, "Profile id"), id, h("button.main", "Show"));
  const problem = h("p.problem", { role: "status", hidden: true });
  const nobody = h("p.quiet", "Nobody yet. Whoever is active appears here within a second.");
  const people = h("ul.people", { "aria-label": "Active members, newest first" });
  root.append(h("p.lead", "What one member wants now, and why. Pick one of those who are active, or ask by the profile's id."),
    find, problem, h("section", h("div.head", h("h2", "Active now")), nobody, people));
  let latest = null;
  const end = live("member/active", { message(told) {
    latest = { ...told, at: Date.now() };
    problem.hidden = !told.problem;
    text(problem, told.problem);
    nobody.hidden = told.members.length > 0;
    keyed(people, told.members, { key: (one) => one.profile_id, make: person, update: (element, one) => personNow(element, one, told.now_ms) });
  } });
  const timer = setInterval(() => {
    if (!latest) return;
    for (const one of latest.members) {
      const element = people.known?.get(one.profile_id);
      if (element) text(element.querySelector("time"), ago(latest.now_ms + Date.now() - latest.at - one.event_at_ms));
    }
  }, 1000);
  return () => { clearInterval(timer); end(); };
}

function person(one) {
  return h("li", h("a.person", { href: memberHref(one.profile_id) },
    h("span.mark"), h("span.id.mono", one.profile_id), h("span.wants"), h("time.quiet.small")));
}

function personNow(element, one, now) {
  fill(element.querySelector(".mark"), dot(one.cluster));
  fill(element.querySelector(".wants"), ["action", "genre", "kind"].filter((head) => one.labels[head])
    .map((head) => h("span.badge", label(head, one.labels[head]))));
  text(element.querySelector("time"), ago(now - one.event_at_ms));
}

function showOne(root, profile) {
  const parts = {
    badge: h("span.badge", "reading …"), age: h("span.quiet.small"), problem: h("p.problem", { role: "status", hidden: true }),
    figures: h("dl.figures"), attention: h("div.attention", { "aria-hidden": "true" }), told: h("p.sr", { "aria-live": "polite" }),
    heads: h("div.heads"), next: h("ol.next"), strip: h("div.strip", { "aria-hidden": "true" }),
    steps: h("ol.steps"), more: h("button", { type: "button", hidden: true }), empty: h("p.quiet", "Looking for the window …"),
    acts: h("section.card.acts", { hidden: true, "aria-label": "Act as this member" }), latency: h("span.badge.good.latency", { hidden: true }),
  };
  root.append(
    h("div.who", h("p.id.mono", profile), parts.badge, parts.age, parts.latency, h("a.back", { href: "#/member" }, "All members")),
    parts.problem, parts.figures,
    h("section", { "aria-label": "Intents" },
      h("div.head", h("h2", "What comes next"), h("span.quiet.small", "probabilities; the bar below: what the intent is made of")),
      parts.attention, parts.told, parts.heads),
    h("div.columns",
      h("div.stack", parts.acts, h("section.card", h("h2", "Next titles"), parts.next)),
      h("section.card", { "aria-label": "Timeline" },
        h("div.head", h("h2", "What it did"), legend()), parts.strip, parts.empty, parts.steps, parts.more)));
  const shown = { all: false, told: null, at: 0, tagged: null };
  parts.more.addEventListener("click", () => { shown.all = !shown.all; if (shown.told) timeline(parts, shown.told, shown); });
  const acting = actPanel(parts.acts, profile);

  function draw(told) {
    shown.told = told;
    shown.at = Date.now();
    parts.problem.hidden = !told.problem;
    text(parts.problem, told.problem);
    ages();
    intents(parts, told);
    timeline(parts, told, shown);
    acting.told(told);
    if (told.answered && told.answered.event_id !== shown.tagged) {
      shown.tagged = told.answered.event_id;
      parts.latency.hidden = false;
      text(parts.latency, `known ${seconds(told.answered.ms / 1000)} after it was sent`);
      parts.latency.animate?.([{ transform: "scale(1.15)" }, { transform: "none" }], 400);
    }
  }

  function ages() {
    const { told, at } = shown;
    if (!told) return;
    const age = told.row ? told.now_ms + Date.now() - at - told.row.event_at_ms : null;
    const freshness = !told.row ? "absent" : age <= told.fresh_for_ms ? "fresh" : "stale";
    parts.badge.className = `badge ${{ fresh: "good", stale: "warn", absent: "bad" }[freshness]}`;
    text(parts.badge, freshness);
    text(parts.age, told.row ? `last event ${ago(age)}` : "the online store has no features of this profile");
  }

  const end = live(`member/live?profile=${encodeURIComponent(profile)}`, { message: draw, problem: (told) => { parts.problem.hidden = false; text(parts.problem, told.problem); } });
  const timer = setInterval(ages, 1000);
  return () => { clearInterval(timer); end(); };
}

function intents(parts, { row, moments }) {
  parts.figures.hidden = !row;
  if (!row) {
    keyed(parts.heads, [], { key: String, make: String });
    keyed(parts.next, [], { key: String, make: String });
    fill(parts.attention);
    return;
  }
  fill(parts.figures,
    figure("kind of intent", row.cluster ? [dot(row.cluster.number), " ", row.cluster.description || `cluster ${row.cluster.number}`] : "none",
      row.cluster ? `cluster ${row.cluster.number}${row.cluster.size ? `, ${row.cluster.size.toLocaleString("en")} windows` : ""}` : "the version has no clusters"),
    figure("this session", row.session_length, row.session_length === 1 ? "interaction" : "interactions"),
    figure("model", `version ${row.version}`, `published ${seconds(Math.max(0, row.published_at_ms - row.event_at_ms) / 1000)} after the event`));
  const before = moments.filter((one) => one.sequence_no < row.sequence_no).at(-1);
  keyed(parts.attention, row.heads, {
    key: (head) => head.name,
    make: (head) => h("span", h("b", HEAD[head.name] ?? head.name), " ", h("i")),
    update: (element, head, place) => {
      element.style.setProperty("--part", Math.max(0.02, head.attention));
      element.style.setProperty("--shade", place);
      text(element.querySelector("i"), percent(head.attention));
    },
  });
  keyed(parts.heads, row.heads, { key: (head) => head.name, make: headCard,
    update: (element, head, place) => headNow(element, head, place, moments, before) });
  text(parts.told, row.heads.map((head) => {
    const best = head.probs.indexOf(Math.max(...head.probs));
    return `${HEAD[head.name] ?? head.name}: ${label(head.name, head.labels[best])}, ${percent(head.probs[best])}.`;
  }).join(" "));
  const most = Math.max(...row.next.map((one) => one.p), 0.001);
  keyed(parts.next, row.next, { key: (one) => one.title.title_id,
    make: (one) => h("li.title", h("span.rank"), h("span.names", h("span.name", one.title.name), h("span.facts.quiet.small", facts(one.title))), h("span.meter", { "aria-hidden": "true" }, h("i")), h("span.number.p")),
    update: (element, one, place) => {
      text(element.querySelector(".rank"), place + 1);
      text(element.querySelector(".p"), percent(one.p, 1));
      element.querySelector(".meter i").style.setProperty("--p", one.p / most);
    } });
}

function figure(name, value, note) {
  return h("div.figure", h("dt", name), h("dd", value), h("dd.note", note));
}

function headCard(head) {
  return h("section.card.headcard", { "data-head": head.name },
    h("div.head", h("h3", HEAD[head.name] ?? head.name), h("span.quiet.small", "attention ", h("b.attends"))),
    h("ul.bars"), h("div.trace"));
}

function headNow(card, head, place, moments, before) {
  card.style.setProperty("--shade", place);
  text(card.querySelector(".attends"), percent(head.attention));
  const was = before?.probs[head.name] ?? [];
  const bars = head.labels.map((name, at) => ({ name, at, p: head.probs[at] ?? 0, was: was[at] }))
    .sort((a, b) => b.p - a.p || a.at - b.at).slice(0, BARS);
  const scale = [0.25, 0.5, 1].find((most) => bars[0].p <= most) ?? 1;
  keyed(card.querySelector(".bars"), bars, {
    key: (one) => one.name,
    make: (one) => h("li.bar-row", h("span.label", label(head.name, one.name)), h("span.track", { "aria-hidden": "true" }, h("i"), h("em")), h("span.number.p"), h("span.change.small", { "aria-hidden": "true" })),
    update: (row, one) => {
      row.dataset.label = one.name;
      row.querySelector("i").style.setProperty("--p", Math.min(1, one.p / scale));
      const ghost = row.querySelector("em");
      ghost.hidden = one.was === undefined;
      ghost.style.setProperty("--p", Math.min(1, (one.was ?? 0) / scale));
      text(row.querySelector(".p"), percent(one.p, one.p < 0.0995 ? 1 : 0));
      const points = one.was === undefined ? 0 : Math.round((one.p - one.was) * 100);
      const change = row.querySelector(".change");
      text(change, points ? `${points > 0 ? "+" : "−"}${Math.abs(points)}` : "");
      change.dataset.way = points > 0 ? "up" : "down";
    },
  });
  trace(card.querySelector(".trace"), head, bars.slice(0, 2), moments);
}

/** The likeliest labels over the last events, as lines. */
function trace(place, head, bars, moments) {
  if (moments.length < 3) { fill(place); return; }
  const [width, height] = [300, 34];
  const x = (at) => (at * width) / (moments.length - 1);
  const y = (p) => height - 2 - p * (height - 4);
  const most = Math.max(...bars.flatMap((bar) => moments.map((one) => one.probs[head.name]?.[bar.at] ?? 0)), 0.05);
  fill(place, svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    bars.map((bar, order) => svg(`polyline.line${order}`, { "data-label": bar.name, points: moments.map((one, at) => `${x(at).toFixed(1)},${y((one.probs[head.name]?.[bar.at] ?? 0) / most).toFixed(1)}`).join(" ") }))),
  h("span.quiet.small", `${bars.map((bar) => label(head.name, bar.name)).join(" and ")} over the last ${moments.length} events`));
}

function legend() {
  return h("ul.legend.small", Object.entries(ACTION).map(([action, words]) => h("li", { "data-action": action }, sign(action), words)));
}

function timeline(parts, { steps, looking }, shown) {
  parts.empty.hidden = Boolean(steps?.length);
  text(parts.empty, steps !== null ? "Nothing in the window." : looking ? "Looking for the window …" : "The window isn't known here: this profile hasn't been active since the console looks, and it wasn't found in the changelog.");
  const all = steps ?? [];
  fill(parts.strip, all.map((step) => {
    const tick = h("span", { "data-action": step.action, class: step.begins_session ? "begins" : null });
    tick.style.setProperty("--share", step.share ?? (step.action === "discover" || step.action === "continue" || step.action === "rewatch" ? 0.5 : 0.22));
    return tick;
  }));
  const items = [];
  const newest = shown.all ? all : all.slice(-STEPS);
  [...newest].reverse().forEach((step, at, reversed) => {
    items.push({ step });
    if (step.begins_session || at === reversed.length - 1) items.push({ step, session: true });
  });
  keyed(parts.steps, items, {
    key: ({ step, session }) => (session ? `session ${step.key}` : step.key),
    make: (item) => (item.session ? h("li.session.small") : stepRow(item.step)),
    update: (element, { step, session }) => {
      if (session) text(element, step.begins_session ? `${when(step.start_ms)} · a session begins` : "… the session began before");
      else stepNow(element, step);
    },
  });
  parts.more.hidden = all.length <= STEPS;
  text(parts.more, shown.all ? `Show the last ${STEPS}` : `Show all ${all.length}`);
}

function stepRow(step) {
  const title = step.title;
  const name = title ? title.name : step.action === "search" ? "Search" : "A title that no catalogue here has";
  return h("li.step", { "data-action": step.action }, h("span.disc", sign(step.action)),
    h("span.names", h("span.name", name), h("span.facts.quiet.small")),
    h("span.share", h("span.meter", { "aria-hidden": "true" }, h("i")), h("span.number.small")), h("time.quiet.small"));
}

function stepNow(element, step) {
  element.dataset.action = step.action;
  const episode = step.episode ? `S${step.season ?? 1} E${step.episode}` : null;
  text(element.querySelector(".facts"), [ACTION[step.action], episode, step.device].filter(Boolean).join(" · "));
  const share = element.querySelector(".share");
  share.hidden = step.share === null && !step.complete;
  share.querySelector("i").style.setProperty("--p", step.complete ? 1 : step.share ?? 0);
  text(share.querySelector(".number"), step.share === null ? "complete" : percent(step.share));
  text(element.querySelector("time"), new Date(step.start_ms).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" }));
}

function when(ms) {
  return new Date(ms).toLocaleString("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
}

/** What one does in the member's name, where one may. */
function actPanel(card, profile) {
  const words = h("input", { id: "act-title", type: "search", autocomplete: "off", placeholder: "any title of the catalogue", maxlength: 200 });
  const search = h("button", { type: "button" }, "Search for it");
  const titles = h("ul.choices");
  const log = h("ol.log", { "aria-live": "polite", "aria-label": "What was done" });
  const sittings = new Map();
  const waiting = new Map();
  let proposed = [];
  let asked = 0;
  let closed = true;

  const BUTTONS = [["play", "Play", "began"], ["finish", "Finish", "watched to the end:"], ["open", "Open", "opened"], ["list", "+ List", "put on the list:"]];

  function offer(list) {
    keyed(titles, list.slice(0, 4), { key: (title) => title.title_id,
      make: (title) => h("li.choice", h("span.names", h("span.name", title.name), h("span.facts.quiet.small", facts(title))),
        h("span.buttons", BUTTONS.map(([act, words, done]) => h("button", { type: "button", "data-act": act, "aria-label": `${words} ${title.name}`, onclick: () => send(act, done, title) }, words)))) });
  }

  async function send(act, done, title, query) {
    const line = h("li", h("span", `${done} `, h("b", title ? title.name : `“${query}”`)), h("span.quiet.small.took", "sending …"));
    log.prepend(line);
    while (log.children.length > 5) log.lastElementChild.remove();
    const took = line.querySelector(".took");
    try {
      const sent = await ask("member/act", { method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ profile_id: profile, act, title_id: title?.title_id ?? null, query: query ?? null, playback_id: title ? sittings.get(title.title_id) ?? null : null }) });
      if (title && sent.playback_id) {
        if (act === "finish") sittings.delete(title.title_id);
        else sittings.set(title.title_id, sent.playback_id);
      }
      if (took.textContent === "sending …") text(took, `Kafka has it after ${seconds(sent.sent_ms / 1000)} …`);
      if (known && known.event_id === sent.event_id) answered(took, known);
      else waiting.set(sent.event_id, took);
      setTimeout(() => { if (waiting.delete(sent.event_id)) text(took, "no features know of it yet; the page Now says what holds them up"); }, 5000);
    } catch (error) {
      text(took, error.message);
    }
  }

  let known = null;
  function answered(took, answer) {
    text(took, `in the features after ${seconds(answer.ms / 1000)}`);
    took.classList.add("done");
  }

  let typing = null;
  words.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(async () => {
      const mine = ++asked;
      const query = words.value.trim();
      const found = query ? await ask(`search/titles?q=${encodeURIComponent(query)}`).catch(() => []) : proposed;
      if (mine === asked) offer(found);
    }, 150);
  });
  search.addEventListener("click", () => { if (words.value.trim()) send("search", "searched for", null, words.value.trim()); else words.focus(); });
  card.append(h("div.head", h("h2", "Act as this member"), h("span.badge.accent", "real events")),
    h("div.find", h("label", { for: "act-title" }, "Title"), words, search), titles, log);
  ask("member/acting").then(({ refused }) => { closed = Boolean(refused); card.hidden = closed; }).catch(() => {});
  return {
    told({ row, answered: answer }) {
      proposed = row ? row.next.map((one) => one.title) : [];
      if (!words.value.trim() && !card.contains(document.activeElement)) offer(proposed);
      else if (!titles.children.length) offer(proposed);
      if (!answer) return;
      known = answer;
      const took = waiting.get(answer.event_id);
      if (took) { waiting.delete(answer.event_id); answered(took, answer); }
    },
  };
}
