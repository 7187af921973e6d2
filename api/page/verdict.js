/** What the verdict is, what it means, how often it is wrong, and what made it. */

import { h, icon, put, s } from "./dom.js";
import { percent, plain, signed, span } from "./format.js";
import { BRANCH_NAMES } from "./types.js";

/** @typedef {import("./types.js").Verdict} Verdict */

/** @type {Record<import("./types.js").Label, string>} */
export const LABELS = { fake: "Judged fake", real: "Judged real", inconclusive: "Inconclusive" };

/** @type {Record<import("./types.js").Label, string>} */
const MEANINGS = {
  fake: "The evidence leans to manipulation beyond the threshold of the policy. A person decides what follows.",
  real:
    "What was examined leans to an untouched recording. That is no proof: what the detectors do not know, they do not see.",
  inconclusive:
    "The evidence is too thin to say either. This is not a finding that the clip is real; look at it yourself.",
};

const PRIOR = "Half of those were fake; where fakes are rarer, more of the alarms are false.";

/** @param {Element} into @param {Verdict} verdict @param {(time_s: number) => void} seek */
export function showVerdict(into, verdict, seek) {
  put(
    into,
    h(
      "div",
      { class: `label ${verdict.label}` },
      icon(verdict.label),
      h("h2", { id: "verdict-title" }, LABELS[verdict.label]),
      h("span", { class: "chip" }, verdict.label),
    ),
    h("p", {}, MEANINGS[verdict.label]),
    verdict.probability === null ? null : scale(verdict, verdict.probability),
    trust(verdict),
    verdict.baseline_logit === null ? null : sum(verdict, verdict.baseline_logit),
    reasons(verdict, seek),
  );
}

/** The probability between the thresholds. @param {Verdict} verdict @param {number} probability */
function scale({ thresholds, policy }, probability) {
  const zones = thresholds && [
    ["real", 0, thresholds.real, "real"],
    ["inconclusive", thresholds.real, thresholds.fake, "unclear"],
    ["fake", thresholds.fake, 1, "fake"],
  ];
  const drawn = (zones ?? []).map(([name, from, to, text]) =>
    h("div", { class: `zone ${name}`, vars: { "--from": from, "--to": to } }, h("span", {}, text))
  );
  return h(
    "figure",
    { class: "scale" },
    h(
      "p",
      { class: "probability" },
      h("strong", {}, percent(probability)),
      " probability of manipulation",
    ),
    h(
      "div",
      { class: "zones", role: "img", "aria-label": spoken(probability, thresholds) },
      drawn,
      h("div", { class: "needle", vars: { "--at": probability } }),
    ),
    h(
      "figcaption",
      { class: "quiet" },
      thresholds
        ? `Policy ${policy}: fake from ${percent(thresholds.fake)}, real up to ${percent(thresholds.real)}.`
        : `Policy ${policy}.`,
    ),
  );
}

/** @param {number} probability @param {Verdict["thresholds"]} thresholds */
function spoken(probability, thresholds) {
  const between = thresholds ? `, real up to ${percent(thresholds.real)}, fake from ${percent(thresholds.fake)}` : "";
  return `Probability of manipulation ${percent(probability)}${between}`;
}

/** How much to make of the number. @param {Verdict} verdict */
function trust(verdict) {
  const { error_rates: rates, probability, coverage, degraded, out_of_domain: strange } = verdict;
  const lines = [
    probability !== null &&
    `Of 100 clips with this number, about ${
        Math.round(100 * probability)
      } are fake, as far as they are like the clips ` +
      `that the fusion was fitted on.${rates ? ` ${PRIOR}` : ""}`,
    rates?.text,
    rates && `Counted over ${rates.real_groups} groups of related real clips and ${rates.fake_groups} of fake ones.`,
    strange && "This clip is unlike those that the fusion was fitted on: trust the number less.",
    degraded && "A branch failed, so the verdict stands on less than it should.",
    coverage < 1 && `${percent(coverage)} of the branches that could have examined the clip did.`,
  ];
  return h("ul", { class: "trust" }, lines.filter(Boolean).map((line) => h("li", {}, line)));
}

/** The contributions, one after the other from the baseline to the logit of the probability. @param {Verdict} verdict @param {number} baseline */
function sum({ contributions, probability }, baseline) {
  const parts = [
    { name: "Before any evidence", detail: "", value: baseline },
    ...contributions.map((c) => ({ name: BRANCH_NAMES[c.branch], detail: c.detector, value: c.log_odds })),
  ];
  const ends = parts.map((_, i) => parts.slice(0, i + 1).reduce((total, part) => total + part.value, 0));
  const reach = 1.1 * Math.max(0.5, ...ends.map(Math.abs));
  const rows = parts.map(({ name, detail, value }, i) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, name, detail && h("code", {}, detail)),
      h("td", { class: "bar" }, bar(ends[i] - value, ends[i], reach)),
      h("td", { class: "number" }, signed(value)),
    )
  );
  const total = ends[ends.length - 1];
  return h(
    "table",
    { class: "sum" },
    h("caption", {}, "What made the number, in log-odds"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "Evidence"),
        h("th", { scope: "col", class: "ends" }, h("span", {}, "\u2190 real"), h("span", {}, "fake \u2192")),
        h("th", { scope: "col", class: "number" }, "Share"),
      ),
    ),
    h("tbody", {}, rows),
    h(
      "tfoot",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "row" }, "Sum"),
        h("td", { class: "bar" }, bar(0, total, reach)),
        h("td", { class: "number" }, signed(total), probability !== null && ` = ${percent(probability)}`),
      ),
    ),
  );
}

/** @param {number} from @param {number} to @param {number} reach */
function bar(from, to, reach) {
  const x = (/** @type {number} */ value) => 50 + 50 * value / reach;
  const left = Math.min(x(from), x(to));
  return s(
    "svg",
    { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("line", { class: "zero", x1: 50, x2: 50, y1: 0, y2: 10 }),
    s("rect", {
      class: to >= from ? "fake" : "real",
      x: left,
      y: 2,
      width: Math.max(Math.abs(x(to) - x(from)), 0.6),
      height: 6,
    }),
  );
}

/** @param {Verdict} verdict @param {(time_s: number) => void} seek */
function reasons({ reasons: said, ranges }, seek) {
  const jump = ranges.map((range, i) =>
    h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "plain jump", onclick: () => seek(range.start_s) },
        `${i + 1}. ${span(range.start_s, range.end_s)}`,
      ),
      h(
        "span",
        { class: "quiet" },
        `${range.branches.map((b) => BRANCH_NAMES[b]).join(", ")}, highest score ${range.peak.toFixed(2)}`,
      ),
    )
  );
  return [
    h("h3", {}, "Why"),
    h("ul", { class: "reasons" }, said.map((reason) => h("li", {}, plain(reason.text)))),
    jump.length ? h("h3", {}, "Suspicious stretches") : null,
    jump.length ? h("ol", { class: "ranges" }, jump) : null,
  ];
}
