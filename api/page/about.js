/** What stands behind a verdict: the file, the models with their versions, the limits. */

import { facts, h, put } from "./dom.js";
import { bytes, clock, moment, plain, short } from "./format.js";
import { BRANCH_NAMES, BRANCHES } from "./types.js";
import { timings } from "./watch.js";

/** @typedef {import("./types.js").Analysis} Analysis */

const LIMITS = [
  "A verdict is evidence for a person's decision. It is not proof, and it does not decide.",
  "The detectors are small, trained on little data, and wrong often. How often is said beside the number where it was counted.",
  "Compression, filters, small faces and generators that they have never met make every detector worse.",
  "Scores of detectors are not probabilities; only the number of the verdict is one.",
  "Nothing is said about who made a clip, when, or why.",
];

/** @param {Element} into @param {Analysis} analysis */
export function showAbout(into, analysis) {
  const before = new Map(Array.from(into.querySelectorAll("details"), (each) => [titleOf(each), each.open]));
  put(
    into,
    analysis.verdict && more("Limits", h("ul", {}, LIMITS.map((line) => h("li", {}, line))), true),
    more("Models and versions", models(analysis)),
    more("The file", file(analysis)),
    provenance(analysis),
    more("Times", timings(analysis)),
  );
  for (const each of into.querySelectorAll("details")) each.open = before.get(titleOf(each)) ?? each.open;
}

/** @param {Element} details */
const titleOf = (details) => details.querySelector("summary")?.textContent;

/** @param {string} title @param {Element} content @param {boolean} [open] */
const more = (title, content, open = false) => h("details", { open }, h("summary", {}, h("h3", {}, title)), content);

/** @param {Analysis} analysis */
function models({ branches, verdict, pipeline }) {
  const rows = BRANCHES.flatMap((branch) =>
    (branches[branch]?.detectors ?? []).map((d) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, h("code", {}, d.name)),
        h("td", {}, BRANCH_NAMES[branch]),
        h("td", {}, d.version),
        h("td", { class: "number" }, d.score === null ? d.status : d.score.toFixed(2)),
        h("td", {}, h("code", {}, short(d.weights) ?? "none")),
      )
    )
  );
  const heads = ["Detector", "Branch", "Version", "Score", "Weights"].map((name) => h("th", { scope: "col" }, name));
  return h(
    "div",
    {},
    rows.length
      ? h(
        "div",
        { class: "wide", tabindex: "0", role: "region", "aria-label": "Models" },
        h("table", { class: "list" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows)),
      )
      : null,
    facts([
      ["Fusion head", verdict?.head],
      ["Policy", verdict?.policy],
      ["Pipeline", h("code", {}, short(pipeline))],
    ]),
  );
}

/** @param {Analysis} analysis */
function file({ input, id, created_at, finished_at, metadata, rerun_of }) {
  const size = input.width && input.height ? `${input.width} × ${input.height}` : null;
  const codecs = [input.probe?.video_codec, input.probe?.audio_codec].filter(Boolean).join(", ");
  return facts([
    ["Name", plain(input.filename)],
    ["Size", bytes(input.bytes)],
    ["SHA-256", input.sha256 && h("code", { class: "break" }, input.sha256)],
    ["Kind", input.kind],
    ["Length", input.duration_s === null ? null : clock(input.duration_s)],
    ["Picture", size],
    ["Frames per second", input.fps && String(Math.round(input.fps * 100) / 100)],
    ["Container", input.probe?.container],
    ["Codecs", codecs],
    ["Sent", moment(created_at)],
    ["Ended", finished_at && moment(finished_at)],
    ["Run again from", rerun_of && h("a", { href: `#/analyses/${rerun_of}` }, rerun_of)],
    ["Metadata", Object.keys(metadata).length ? h("code", { class: "break" }, plain(JSON.stringify(metadata))) : null],
    ["Analysis", h("code", { class: "break" }, id)],
  ]);
}

/** What the file tells of its own making. @param {Analysis} analysis */
function provenance({ input }) {
  const told = input.probe?.provenance;
  if (!told || !(told.hints.length || told.notes.length)) return null;
  const notes = told.notes.map((
    note,
  ) => /** @type {[string, string]} */ ([`${note.place}: ${plain(note.key)}`, plain(note.text)]));
  return more(
    "What the file tells of its making",
    h(
      "div",
      {},
      h("p", { class: "quiet" }, "Hints for a person; no detector reads them, and anybody can write them."),
      h("ul", {}, told.hints.map((hint) => h("li", {}, plain(hint.text)))),
      facts(notes),
    ),
  );
}
