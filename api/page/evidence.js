/** What the detectors saw: pictures of the worst moments, spectrograms with their windows, curves. */

import { h, put, s } from "./dom.js";
import { clock, span } from "./format.js";
import { BRANCH_NAMES, BRANCHES } from "./types.js";

/** @typedef {import("./types.js").Exhibit} Exhibit */
/** @typedef {import("./types.js").Detector} Detector */
/** @typedef {import("./types.js").Look} Look */
/** @typedef {import("./types.js").Series} Series */
/** @typedef {import("./types.js").Window} Window */
/** @typedef {(time_s: number) => void} Seek */

/** @type {Record<string, string>} */
export const KINDS = {
  face: "A face as it was judged",
  mouth: "A mouth as it was judged",
  frames: "Pictures as they were judged, row by row in order of time",
  heatmap: "Where more of a fake was seen: black none, white most",
  residual: "Noise of the face, brightened; even grey means none",
  spectrogram: "The sound: time to the right, low tones below, white the loudest",
};

/** @type {Record<string, string>} */
const CURVES = {
  in_sync_by_offset: "How well lips and sound fit, by how late the sound is",
  rolling: "Average of the score so far",
};

/**
 * @param {Element} into
 * @param {import("./types.js").Analysis} analysis
 * @param {Map<string, import("./types.js").Series>} series by detector
 * @param {Seek} seek
 */
export function showEvidence(into, analysis, series, seek) {
  const parts = BRANCHES.flatMap((branch) =>
    (analysis.branches[branch]?.detectors ?? []).map((detector) => part(branch, detector, series, seek))
  ).filter((each) => each !== null);
  put(into, parts.length ? [h("h2", {}, "Evidence"), ...parts] : null);
}

/**
 * @param {import("./types.js").Branch} branch
 * @param {Detector} detector
 * @param {Map<string, import("./types.js").Series>} series
 * @param {Seek} seek
 */
function part(branch, detector, series, seek) {
  const pictures = detector.evidence.filter((e) => e.kind !== "series");
  const found = { ...detector, looks: [], curves: [], ...series.get(detector.name) };
  if (!pictures.length && !found.curves.length) return null;
  const moments = grouped(pictures);
  return h(
    "section",
    { class: "exhibits" },
    h("h3", {}, `${BRANCH_NAMES[branch]} · `, h("code", {}, detector.name)),
    h(
      "div",
      { class: "moments" },
      moments.map((group) => moment(group, detector, found, seek)),
      found.curves.map(curve),
    ),
  );
}

/** Pictures of one moment belong together. @param {Exhibit[]} pictures @returns {Exhibit[][]} */
function grouped(pictures) {
  /** @type {Map<string, Exhibit[]>} */
  const groups = new Map();
  for (const picture of pictures) {
    const when = `${picture.time_s} ${picture.end_s} ${picture.box}`;
    groups.set(when, [...(groups.get(when) ?? []), picture]);
  }
  return [...groups.values()];
}

/** @param {Exhibit[]} group @param {Detector} detector @param {Series} found @param {Seek} seek */
function moment(group, detector, { windows, looks }, seek) {
  const [{ time_s, end_s }] = group;
  const when = time_s === null ? "" : end_s === null ? clock(time_s) : span(time_s, end_s);
  const score = scoreOf(group, looks);
  return h(
    "figure",
    { class: `moment ${group[0].kind}` },
    h("div", { class: "pictures" }, group.map((picture) => shown(picture, when, detector, windows))),
    h(
      "figcaption",
      {},
      time_s === null ? when : h(
        "button",
        { type: "button", class: "plain jump", "aria-label": `Go to ${clock(time_s)}`, onclick: () => seek(time_s) },
        when,
      ),
      score === null ? null : h("span", { class: "number" }, `score ${score.toFixed(2)}`),
      h("span", { class: "quiet" }, group.map((picture) => KINDS[picture.kind] ?? picture.kind).join(" · ")),
    ),
  );
}

/**
 * The score of a face or a mouth: that of the look at its moment, the highest if several people were seen then.
 *
 * @param {Exhibit[]} group of one moment
 * @param {Look[]} looks
 */
export function scoreOf(group, looks) {
  const judged = group.find(({ kind }) => kind === "face" || kind === "mouth");
  const found = looks.filter((look) => judged && Math.abs(look.time_s - (judged.time_s ?? NaN)) < 1e-3);
  return found.length ? Math.max(...found.map((look) => look.score)) : null;
}

/** @param {Exhibit} picture @param {string} when @param {Detector} detector @param {Window[]} windows */
function shown(picture, when, detector, windows) {
  const missing = () =>
    frame.replaceChildren(
      h("p", { class: "quiet" }, "This picture is no longer kept, or its link expired. Reload the page for a new one."),
    );
  const frame = h(
    "div",
    { class: "picture" },
    h("img", {
      src: picture.href,
      class: "veiled",
      loading: "lazy",
      decoding: "async",
      alt: `${KINDS[picture.kind] ?? picture.kind}, ${when}, by ${detector.name}`,
      onerror: missing,
    }),
    picture.kind === "spectrogram" ? marked(picture, windows) : null,
  );
  return frame;
}

/** The suspicious windows over a spectrogram. @param {Exhibit} picture @param {Window[]} windows */
function marked({ time_s: from, end_s: to }, windows) {
  if (from === null || to === null || to <= from) return null;
  const inside = windows.filter((w) => w.score >= 0.5 && w.end_s > from && w.start_s < to);
  const x = (/** @type {number} */ time_s) => 100 * Math.min(Math.max((time_s - from) / (to - from), 0), 1);
  return s(
    "svg",
    {
      class: "marks",
      viewBox: "0 0 100 100",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `${inside.length} windows with a score of 0.5 or more`,
    },
    inside.map((w) =>
      s(
        "rect",
        { x: x(w.start_s), y: 1, width: Math.max(x(w.end_s) - x(w.start_s), 0.5), height: 98 },
        s("title", {}, `${span(w.start_s, w.end_s)}: ${w.score.toFixed(2)}`),
      )
    ),
  );
}

/** A curve over its axis, with the highest point named. @param {import("./types.js").Curve} drawn */
function curve({ name, axis, x, y }) {
  const [low, high] = [Math.min(...x), Math.max(...x)];
  const at = (/** @type {number} */ i) =>
    `${(100 * (x[i] - low) / (high - low || 1)).toFixed(2)},${(100 - 100 * y[i]).toFixed(2)}`;
  const best = y.indexOf(Math.max(...y));
  const unit = axis === "offset_s" ? `${x[best]?.toFixed(2)} s` : clock(x[best] ?? 0);
  return h(
    "figure",
    { class: "moment curve" },
    s(
      "svg",
      {
        viewBox: "0 0 100 100",
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": `${CURVES[name] ?? name}; highest at ${unit}`,
      },
      s("line", { class: "grid", x1: 0, x2: 100, y1: 50, y2: 50 }),
      low < 0 && high > 0
        ? s("line", { class: "grid", x1: -100 * low / (high - low), x2: -100 * low / (high - low), y1: 0, y2: 100 })
        : null,
      s("polyline", { points: x.map((_, i) => at(i)).join(" ") }),
    ),
    h("div", { class: "ends quiet" }, h("span", {}, low.toFixed(1)), h("span", {}, `${high.toFixed(1)} s`)),
    h("figcaption", {}, CURVES[name] ?? name, h("span", { class: "quiet" }, `highest at ${unit}`)),
  );
}
