import { fill, h, table } from "./dom.js";
import { count, moment } from "./format.js";
import { ask, live } from "./live.js";

const SHOWN = 100;

const address = (one) => `#/dead-letters/${encodeURIComponent(one.topic)}/${one.partition}/${one.offset}`;

function command(words) {
  const told = h("span.small.quiet", { role: "status" });
  return h("div.command", h("pre", words), h("button", {
    type: "button",
    onclick: async () => {
      await navigator.clipboard.writeText(words).then(() => { told.textContent = "copied"; }, () => { told.textContent = "select it to copy"; });
    },
  }, "Copy"), told);
}

async function one(root, [topic, partition, offset]) {
  const card = h("section.card", { "aria-label": "The record" }, h("p.quiet", "Asking Kafka …"));
  root.append(h("p", h("a", { href: "#/dead-letters" }, "← All dead letters")), card);
  const path = `dead-letters/${[topic, partition, offset].map(encodeURIComponent).join("/")}`;

  async function look(payload) {
    try {
      const letter = await ask(path + (payload ? "?payload=true" : ""));
      fill(card,
        h("div.head", h("h2", letter.reason || "No reason given"), h("span.quiet.small", moment(letter.timestamp_ms))),
        letter.message ? h("p", letter.message) : null,
        h("dl.pairs",
          [["came from", letter.source_topic || "it doesn't tell"],
            ["stands on", `${letter.topic}, partition ${letter.partition}, offset ${letter.offset}`],
            ["its value", `${count(letter.value_bytes)} bytes`]].map(([name, value]) => [h("dt", name), h("dd", value)])),
        payload ? [
          h("h3", "Key"), h("pre", letter.key ?? "none"),
          h("h3", "Value"), h("pre", letter.value ?? "none"),
          letter.headers.length ? [h("h3", "Headers"), h("pre", letter.headers.map(([name, value]) => `${name}: ${value}\n`))] : null,
        ] : h("div.command", h("button", { type: "button", onclick: () => look(true) }, "Show key, value and headers"),
          h("span.quiet.small", "It is what a member sent.")),
        h("h3", "Send it again, once its cause is mended"),
        letter.can_be_replayed ? [command(letter.replay), h("p.quiet.small", "It sends all dead letters of this reason; an event that was taken in before changes nothing.")]
          : h("p.quiet", "It can't be sent again: it was too large to be kept whole, or doesn't tell where it came from."));
    } catch (error) {
      fill(card, h("p.problem", { role: "alert" }, error.message));
    }
  }

  await look(false);
}

function overview(told) {
  const standing = Object.values(told.standing).reduce((sum, many) => sum + many, 0);
  if (!standing) return h("section.card", h("p", "No dead letters: every record could be read."));
  const most = Math.max(...told.counts.map((each) => each.count), 1);
  return [
    h("section.card",
      h("div.head", h("h2", "By reason"), h("span.quiet.small", `${count(standing)} stand on the topics; the ${count(told.letters.length)} newest are counted here`)),
      h("ul.bars", told.counts.map((each) => {
        const bar = h("span.bar-fill");
        bar.style.width = `${(100 * each.count) / most}%`;
        return h("li", h("span.bar-label", h("b", each.reason || "no reason given"), " ", h("span.quiet", each.source_topic)),
          h("span.number", count(each.count)), h("span.bar-track", bar), h("code", each.replay));
      }))),
    h("section.card",
      h("div.head", h("h2", "The newest"), told.letters.length > SHOWN ? h("span.quiet.small", `${SHOWN} of them`) : null),
      table("The newest dead letters", ["at", "reason", "came from", "why", "record"],
        told.letters.slice(0, SHOWN).map((letter) => [
          moment(letter.timestamp_ms), letter.reason || "–", letter.source_topic || "–", letter.message,
          h("a", { href: address(letter) }, `${letter.topic} ${letter.partition}/${letter.offset}`)]))),
  ];
}

/** The newest dead letters, or the one of which `rest` names topic, partition and offset. */
export async function show(root, rest) {
  if (rest.length === 3) return one(root, rest);
  const place = h("div.stack", h("p.quiet", "Asking Kafka …"));
  root.append(h("p.lead", "Records that can never be taken in, with the reason. Nothing is dropped: each can be sent again once its cause is mended."), place);
  return live("dead-letters/live", {
    message: (told) => fill(place, overview(told)),
    problem: ({ problem }) => fill(place, h("p.problem", { role: "alert" }, problem)),
  });
}
