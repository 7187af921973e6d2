/** How far an analysis is: the stages it really went through, and a lane for each branch. */

import { facts, h, icon, put } from "./dom.js";
import { about } from "./format.js";
import { BRANCH_NAMES, BRANCHES, hasEnded } from "./types.js";

/** @typedef {import("./types.js").Analysis} Analysis */
/** @typedef {import("./types.js").Branch} Branch */

const STEPS = ["Queued", "Extracting frames", "Running models", "Final classification"];

/** @type {Record<string, string>} */
const WORDS = {
  planned: "planned",
  open: "waiting for a worker",
  leased: "running",
  ok: "done",
  skipped: "skipped",
  failed: "failed",
};

/** Which of the steps an analysis is at; one more than the last when it is through. @param {Analysis} analysis */
function step(analysis) {
  if (analysis.state === "done") return STEPS.length;
  return { fetch: 0, ingest: 1, assess: 2, fuse: 3, none: 0 }[analysis.stage ?? "none"];
}

/**
 * @param {Element} into
 * @param {Analysis} analysis
 * @param {import("./types.js").Detectors | null} installed
 */
export function showProgress(into, analysis, installed) {
  const moving = !hasEnded(analysis.state);
  const chosen = chosenFor(analysis, installed);
  put(
    into,
    h("h2", {}, moving ? "Examining" : "How it was examined"),
    moving && steps(analysis),
    moving && outlook(analysis),
    BRANCHES.map((branch) => lane(branch, analysis, chosen)),
  );
}

/** @param {Analysis} analysis */
function steps(analysis) {
  const at = step(analysis);
  const mark = (/** @type {number} */ i) => i < at ? "ok" : i === at ? "leased" : "open";
  return h(
    "div",
    {},
    h("progress", { max: 100, value: analysis.percent, "aria-label": "Progress of the analysis" }),
    h(
      "ol",
      { class: "steps" },
      STEPS.map((name, i) =>
        h(
          "li",
          { class: mark(i), "aria-current": i === at && "step" },
          icon(mark(i)),
          i || analysis.stage !== "fetch" ? name : "Fetching",
        )
      ),
    ),
  );
}

/** @param {Analysis} analysis */
function outlook({ queue_position: place, eta_s: left, follows }) {
  const said = [
    place !== null && (place === 1 ? "Next in the queue" : `Place ${place} in the queue`),
    left !== null && `${about(left)} left, as an estimate`,
    follows && "shares the run of the same content",
  ].filter(Boolean);
  return h("p", { class: "quiet outlook" }, said.length ? `${said.join(" · ")}.` : "No estimate yet.");
}

/**
 * The detectors that an analysis is examined with; null where that is not known, for others are installed by now.
 *
 * @param {Analysis} analysis
 * @param {import("./types.js").Detectors | null} installed
 */
function chosenFor({ pipeline, detectors }, installed) {
  if (installed?.pipeline !== pipeline) return null;
  return installed.detectors.filter((d) => d.state === "ready" && (detectors?.includes(d.name) ?? true));
}

/**
 * @param {Branch} branch
 * @param {Analysis} analysis
 * @param {import("./types.js").Installed[] | null} chosen
 */
function lane(branch, analysis, chosen) {
  const view = analysis.branches[branch];
  const ready = (chosen ?? []).filter((d) => d.branch === branch);
  if (!view && (hasEnded(analysis.state) || (chosen && !ready.length))) return null;
  const status = view?.status ?? "planned";
  const settled = view && !["open", "leased"].includes(view.status);
  const shape = /** @type {"ok" | "skipped" | "failed" | "open" | "leased"} */ (status === "planned" ? "open" : status);
  return h(
    "section",
    { class: `lane ${status}`, "aria-label": BRANCH_NAMES[branch] },
    h(
      "header",
      {},
      icon(shape),
      h("h3", {}, BRANCH_NAMES[branch]),
      h("span", { class: "chip" }, WORDS[status]),
      settled && view.elapsed_ms ? h("span", { class: "quiet number" }, seconds(view.elapsed_ms)) : null,
    ),
    settled && view.message && h("p", { class: "quiet" }, view.message),
    h(
      "ul",
      { class: "detectors" },
      (view?.detectors ?? []).map(found),
      !settled && awaited(ready, view?.detectors ?? [], status === "leased"),
    ),
  );
}

/**
 * Detectors of a branch that have not finished, in the order in which they run.
 *
 * @param {import("./types.js").Installed[]} ready
 * @param {import("./types.js").Detector[]} arrived
 * @param {boolean} running whether the first of them is at work
 */
function awaited(ready, arrived, running) {
  const left = ready.filter(({ name }) => arrived.every((detector) => detector.name !== name));
  return left.map(({ name }, i) =>
    h("li", {}, h("code", {}, name), h("span", { class: "quiet" }, running && !i ? "running" : "to come"))
  );
}

/** @param {import("./types.js").Detector} detector */
function found(detector) {
  const score = detector.score === null ? null : h("meter", {
    min: 0,
    max: 1,
    value: detector.score,
    "aria-label": `Score of ${detector.name}`,
  });
  return h(
    "li",
    {},
    h("code", {}, detector.name),
    score,
    detector.score === null
      ? h("span", { class: "quiet" }, `${WORDS[detector.status]}: ${detector.message ?? ""}`)
      : h("span", { class: "number" }, detector.score.toFixed(2)),
    h("span", { class: "quiet number" }, seconds(detector.elapsed_ms)),
  );
}

/** @param {number} ms */
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

/** Where the time went. @param {Analysis} analysis */
export function timings({ timings_ms: spent }) {
  return facts(Object.entries(spent).map(([name, ms]) => [name, seconds(ms)]));
}
