/** One analysis on the desk: from its first moment in the queue to the last picture of its evidence. */

import { showAbout } from "./about.js";
import { onceOnly, read, readAtLast, sentence } from "./api.js";
import { follow } from "./events.js";
import { showEvidence } from "./evidence.js";
import { h, icon, put } from "./dom.js";
import { percent, plain } from "./format.js";
import { Player } from "./player.js";
import { Playhead } from "./playhead.js";
import { Review } from "./review.js";
import { Timeline } from "./timeline.js";
import { BRANCH_NAMES, BRANCHES, hasEnded } from "./types.js";
import { LABELS, showVerdict } from "./verdict.js";
import { showProgress } from "./watch.js";

/** @typedef {import("./types.js").Analysis} Analysis */

/** How often the estimate is asked for while an analysis waits or runs. */
const ESTIMATE_MS = 8_000;
/** How long before links to files expire new ones are asked for. */
const EARLY_MS = 120_000;

export class Desk {
  /**
   * @param {HTMLElement} into
   * @param {string} id
   * @param {import("./types.js").Detectors | null} installed
   * @param {{ news: (analysis: Analysis) => void, say: (text: string) => void }} ears
   */
  constructor(into, id, installed, ears) {
    this.id = id;
    this.installed = installed;
    this.ears = ears;
    this.closing = new AbortController();
    this.following = new AbortController();
    /** @type {Map<string, import("./types.js").Series>} */
    this.series = new Map();
    /** @type {Map<string, string>} */
    this.drawn = new Map();
    /** @type {Analysis | null} */
    this.analysis = null;
    /** @type {Review | null} */
    this.review = null;
    /** @type {{ playhead: Playhead, player: Player, timeline: Timeline } | null} */
    this.stage = null;
    this.title = h("h1", { tabindex: "-1" }, "Analysis");
    this.actions = h("div", { class: "row actions" });
    this.trouble = h("p", { class: "trouble", role: "status", hidden: true });
    this.refused = h("p", { class: "trouble", role: "status", hidden: true });
    this.parts = {
      fault: h("section", { class: "card fault-card", hidden: true }),
      verdict: h("section", { class: "card verdict", "aria-label": "Verdict", hidden: true }),
      review: h("section", { class: "card review", "aria-label": "Review", hidden: true }),
      media: h("section", { class: "card media", "aria-label": "The clip", hidden: true }),
      progress: h("section", { class: "card progress", "aria-label": "Progress", hidden: true }),
      evidence: h("section", { class: "card evidence", "aria-label": "Evidence", hidden: true }),
      about: h("section", { class: "card about", "aria-label": "About this analysis", hidden: true }),
    };
    const { fault, verdict, review, progress, about, media, evidence } = this.parts;
    put(
      into,
      h(
        "header",
        { class: "desk-head" },
        h("a", { href: "#/", class: "back" }, "\u2190 Queue"),
        this.title,
        this.actions,
      ),
      this.trouble,
      this.refused,
      h(
        "div",
        { class: "desk" },
        h("div", { class: "column" }, [fault, verdict, review, progress, about]),
        h("div", { class: "column" }, [media, evidence]),
      ),
    );
    this.run();
    const again = setInterval(() => document.hidden || this.refresh(), ESTIMATE_MS);
    this.closing.signal.addEventListener("abort", () => clearInterval(again));
  }

  async run() {
    const { signal } = this.following;
    try {
      await follow(this.id, {
        news: (analysis) => this.show(analysis),
        trouble: (error) => this.tell(error),
        signal,
      });
    } catch (error) {
      if (!signal.aborted) this.tell(error);
    }
  }

  /** Estimates and links change without anything happening to the analysis, so no event tells of them. */
  async refresh() {
    if (!this.analysis || !this.trouble.hidden) return;
    const { analysis } = this;
    if (hasEnded(analysis.state) && Date.now() < expiry(analysis.links) - EARLY_MS) return;
    const now = await read(`/v1/analyses/${this.id}`, { signal: this.closing.signal }).catch(() => null);
    if (now && analysis === this.analysis) this.show(now);
  }

  close() {
    this.following.abort();
    this.closing.abort();
    this.stage?.playhead.media?.pause();
  }

  /** @param {unknown} error */
  tell(error) {
    say(this.trouble, error, () => this.again());
  }

  again() {
    this.following.abort();
    this.following = new AbortController();
    this.run();
  }

  /** @param {Analysis} analysis */
  show(analysis) {
    const before = this.analysis?.state;
    this.analysis = analysis;
    if (before !== analysis.state) say(this.refused, null);
    this.title.textContent = plain(analysis.input.filename) || "Deleted analysis";
    document.title = `${this.title.textContent} · Clipwarden`;
    this.renew("actions", [analysis.state, analysis.links], () => this.showActions(analysis));
    this.renew("fault", [analysis.state, analysis.error], () => showFault(this.parts.fault, analysis));
    this.renew("progress", [{ ...analysis, links: null }, this.installed], () => this.showProgress(analysis));
    if (analysis.state === "deleted") {
      for (const part of Object.values(this.parts)) part.hidden = part !== this.parts.fault;
      this.stage?.playhead.media?.pause();
      return this.ears.news(analysis);
    }
    const { verdict } = analysis;
    if (verdict) this.renew("verdict", verdict, () => this.showVerdict(verdict, analysis));
    this.showMedia(analysis);
    const { input, branches, metadata, timings_ms, finished_at } = analysis;
    this.renew("about", [input, branches, verdict, metadata, timings_ms, finished_at], () => {
      this.parts.about.hidden = false;
      showAbout(this.parts.about, analysis);
    });
    this.loadSeries(analysis);
    this.ears.news(analysis);
    if (before && before !== analysis.state && hasEnded(analysis.state)) this.ears.say(outcome(analysis));
  }

  /** Draw a part only when what it shows has changed: focus, scroll and open details stay. @param {string} part @param {unknown} of @param {() => void} draw */
  renew(part, of, draw) {
    const now = JSON.stringify(of);
    if (this.drawn.get(part) === now) return;
    draw();
    this.drawn.set(part, now);
  }

  /** @param {Analysis} analysis */
  showProgress(analysis) {
    this.parts.progress.hidden = hasEnded(analysis.state) && !Object.keys(analysis.branches).length;
    this.parts.progress.classList.toggle("moving", !hasEnded(analysis.state));
    showProgress(this.parts.progress, analysis, this.installed);
  }

  /** @param {import("./types.js").Verdict} verdict @param {Analysis} analysis */
  showVerdict(verdict, analysis) {
    this.parts.verdict.hidden = this.parts.review.hidden = false;
    showVerdict(this.parts.verdict, verdict, (time_s) => this.seek(time_s));
    this.review ??= new Review(analysis, this.parts.review);
  }

  /** @param {Analysis} analysis */
  showMedia(analysis) {
    if (this.stage) this.stage.player.link = analysis.links.media;
    const { kind, duration_s } = analysis.input;
    if (!this.stage && kind) {
      const { signal } = this.closing;
      const playhead = new Playhead(duration_s ?? 0);
      this.stage = {
        playhead,
        player: new Player(analysis, playhead, signal),
        timeline: new Timeline(playhead, signal),
      };
      put(this.parts.media, this.stage.player.element, kind === "image" ? null : this.stage.timeline.element);
      this.parts.media.hidden = false;
    }
    this.renew("timeline", [analysis.branches, analysis.verdict], () => this.showScores(analysis));
  }

  /** @param {Analysis} analysis */
  showScores(analysis) {
    const detectors = BRANCHES.flatMap((branch) =>
      (analysis.branches[branch]?.detectors ?? []).map((detector) => ({ branch, detector }))
    );
    const pictures = detectors.flatMap(({ detector }) => detector.evidence.filter((e) => e.box && e.time_s !== null));
    this.stage?.timeline.show({
      duration: analysis.input.duration_s ?? 0,
      rows: detectors.map(({ branch, detector }) => ({
        name: `${BRANCH_NAMES[branch]} · ${detector.name}`,
        windows: this.series.get(detector.name)?.windows ?? detector.windows,
        gaps: this.series.get(detector.name)?.gaps ?? detector.gaps,
      })).filter(({ windows, gaps }) => windows.length + gaps.length),
      ranges: analysis.verdict?.ranges ?? [],
      moments: pictures.map((picture) => picture.time_s ?? 0),
    });
    const looks = detectors.map(({ detector: { name } }) => ({ name, looks: this.series.get(name)?.looks ?? [] }));
    const weights = new Map(analysis.verdict?.contributions.map((c) => [c.detector, Math.abs(c.log_odds)]));
    const weight = (/** @type {string} */ name) => weights.get(name) ?? -1;
    const [most] = looks.filter((each) => each.looks.length).sort((a, b) => weight(b.name) - weight(a.name));
    if (most) this.stage?.player.show(most.looks, most.name);
    showEvidence(this.parts.evidence, analysis, this.series, (time_s) => this.seek(time_s));
    this.parts.evidence.hidden = !this.parts.evidence.hasChildNodes();
  }

  /** Everything over time that a detector said is a file of its own. @param {Analysis} analysis */
  loadSeries(analysis) {
    for (const { name, windows, gaps, evidence } of BRANCHES.flatMap((b) => analysis.branches[b]?.detectors ?? [])) {
      const file = evidence.find((e) => e.kind === "series");
      if (!file || this.series.has(name)) continue;
      this.series.set(name, { windows, gaps, looks: [], curves: [] });
      this.load(name, file.href);
    }
  }

  /** @param {string} detector @param {string} href */
  async load(detector, href) {
    const { signal } = this.closing;
    // where it is no longer kept, the windows that came with the analysis do
    const series = await readAtLast(href, signal).catch(() => null);
    if (!series || !this.analysis || signal.aborted) return;
    this.series.set(detector, series);
    this.drawn.delete("timeline");
    this.showMedia(this.analysis);
  }

  /** @param {number} time_s */
  seek(time_s) {
    this.stage?.playhead.seek(time_s);
    this.parts.media.scrollIntoView({ block: "nearest" });
  }

  /** To the next suspicious stretch, or the one before. @param {1 | -1} by */
  jump(by) {
    const playhead = this.stage?.playhead;
    const starts = (this.analysis?.verdict?.ranges ?? []).map((range) => range.start_s);
    if (!playhead) return;
    const there = by > 0
      ? starts.find((start) => start > playhead.time + 0.05)
      : starts.filter((start) => start < playhead.time - 0.05).pop();
    if (there !== undefined) this.seek(there);
  }

  /** @param {Analysis} analysis */
  showActions({ state, links }) {
    const button = (/** @type {string} */ name, /** @type {() => void} */ run) =>
      h("button", { type: "button", onclick: run }, name);
    const headers = onceOnly();
    put(
      this.actions,
      links.report && h("a", { class: "button", href: links.report, target: "_blank", rel: "noopener" }, "Report"),
      !hasEnded(state) && button("Cancel", () => this.act("POST", "/cancel")),
      hasEnded(state) && state !== "deleted" && button("Run again", () => this.act("POST", "/rerun", headers)),
      state !== "deleted" && button("Delete", () => this.remove()),
    );
  }

  remove() {
    const dialog = h(
      "dialog",
      { class: "sheet", "aria-labelledby": "delete-title", onclose: () => dialog.remove() },
      h(
        "form",
        { method: "dialog", onsubmit: () => this.act("DELETE", "") },
        h("h2", { id: "delete-title" }, "Delete this analysis?"),
        h("p", {}, "Its file, its evidence and all that was found are gone then, for everybody."),
        h(
          "div",
          { class: "row end" },
          h("button", { type: "button", onclick: () => dialog.close() }, "Keep it"),
          h("button", { class: "danger" }, "Delete"),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  }

  /** @param {string} method @param {string} what @param {Record<string, string>} [headers] */
  async act(method, what, headers) {
    say(this.refused, null);
    try {
      const analysis = await read(`/v1/analyses/${this.id}${what}`, { method, headers });
      if (analysis.id === this.id) this.show(analysis);
      else location.hash = `#/analyses/${analysis.id}`;
    } catch (error) {
      say(this.refused, error, () => this.act(method, what, headers));
    }
  }
}

/**
 * Say in a line what went wrong, with a way to try it again.
 *
 * @param {HTMLElement} line
 * @param {unknown} error null when it is over
 * @param {() => void} [again]
 */
function say(line, error, again) {
  line.hidden = error === null;
  if (error === null) put(line);
  else put(line, sentence(error), h("button", { type: "button", class: "plain", onclick: again }, "Try now"));
}

/** When the first of an analysis's links opens nothing any more, in ms; never where none is signed. @param {Record<string, string>} links */
export function expiry(links) {
  const times = Object.values(links).map((link) => new URLSearchParams(link.split("?")[1]).get("expires"));
  return 1000 * Math.min(...times.filter((each) => each !== null).map(Number));
}

/** @param {HTMLElement} into @param {Analysis} analysis */
function showFault(into, { state, error }) {
  const words = {
    rejected: "The file could not be examined",
    failed: "The analysis failed",
    cancelled: "The analysis was cancelled",
    deleted: "The analysis was deleted",
  };
  const title = words[/** @type {keyof typeof words} */ (state)];
  into.hidden = !title;
  put(
    into,
    h("div", { class: "label failed" }, icon("failed"), h("h2", {}, title ?? "")),
    error && h("p", {}, error.message),
    error && h("p", { class: "quiet" }, "Code ", h("code", {}, error.code)),
    state === "deleted" && h("p", {}, "Its file and everything that was found are gone."),
  );
}

/** @param {Analysis} analysis */
function outcome({ verdict, error, state, input }) {
  const name = plain(input.filename);
  if (!verdict) return `${name}: ${error?.message ?? state}`;
  return `${name}: ${LABELS[verdict.label]}${verdict.probability === null ? "" : `, ${percent(verdict.probability)}`}`;
}
