/** Scores over the time of the clip, a row for each detector; the slider that moves through the clip. */

import { h } from "./dom.js";
import { clock, span } from "./format.js";
import { onSettings } from "./settings.js";

/** @typedef {import("./types.js").Window} Window */
/** @typedef {{ name: string, windows: Window[], gaps: import("./types.js").Gap[] }} Row */
/** @typedef {{ start_s: number, end_s: number }} Span */
/** @typedef {{ duration: number, rows: Row[], ranges: Span[], moments: number[] }} Shown */

const ROW = 52;
const HEAD = 22;
const FOOT = 18;
const CLOSEST_S = 2;
const STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

/**
 * The highest score in each of the columns between two moments; NaN where none was given.
 *
 * @param {Window[]} windows
 * @param {number} from
 * @param {number} to
 * @param {number} columns
 */
export function envelope(windows, from, to, columns) {
  const highest = new Float32Array(columns).fill(NaN);
  const scale = columns / (to - from);
  for (const { start_s, end_s, score } of windows) {
    const first = Math.max(Math.floor((start_s - from) * scale), 0);
    const last = Math.min(Math.max(Math.ceil((end_s - from) * scale), first + 1), columns);
    for (let x = first; x < last; x++) if (!(highest[x] >= score)) highest[x] = score;
  }
  return highest;
}

export class Timeline {
  /** @param {import("./playhead.js").Playhead} playhead @param {AbortSignal} closing */
  constructor(playhead, closing) {
    this.playhead = playhead;
    /** @type {Shown} */
    this.shown = { duration: playhead.duration, rows: [], ranges: [], moments: [] };
    this.view = { from: 0, to: playhead.duration || 1 };
    this.still = document.createElement("canvas");
    this.canvas = h("canvas", {
      class: "timeline",
      role: "slider",
      tabindex: "0",
      "aria-label": "Moment of the clip",
      "aria-valuemin": "0",
      "aria-valuemax": String(playhead.duration),
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.key(event),
      onpointerdown: (/** @type {PointerEvent} */ event) => this.grab(event),
      onpointermove: (/** @type {PointerEvent} */ event) => event.buttons && this.point(event),
    });
    this.legend = h("p", { class: "quiet legend" });
    this.element = h("div", { class: "timeline-box" }, this.tools(), this.canvas, this.legend);
    playhead.on((time_s) => this.at(time_s));
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
    onSettings(() => this.redraw(), closing);
  }

  tools() {
    const button = (/** @type {string} */ name, /** @type {number} */ factor) =>
      h("button", { type: "button", class: "plain", onclick: () => this.zoom(factor) }, name);
    return h(
      "div",
      { class: "row" },
      h("h3", {}, "Scores over time"),
      h("span", { class: "grow" }),
      button("Zoom in", 0.5),
      button("Zoom out", 2),
      button("All", Infinity),
    );
  }

  /** @param {Shown} shown */
  show(shown) {
    this.shown = shown;
    this.canvas.style.height = `${HEAD + ROW * Math.max(shown.rows.length, 1) + FOOT}px`;
    this.legend.textContent = shown.rows.length
      ? "Height is the score, 0 to 1; filled where it is 0.5 or more. Hatched stretches were left out. Marks at the top are pictures below, bars are suspicious stretches."
      : "No scores over time.";
    this.redraw();
  }

  /** @param {number} factor */
  zoom(factor) {
    const { duration } = this.playhead;
    const length = Math.min(
      Math.max((this.view.to - this.view.from) * factor, Math.min(CLOSEST_S, duration)),
      duration,
    );
    this.look(this.playhead.time - length / 2, length);
  }

  /** @param {number} from @param {number} length */
  look(from, length) {
    const start = Math.min(Math.max(from, 0), this.playhead.duration - length);
    this.view = { from: start, to: start + length };
    this.redraw();
  }

  /** @param {number} time_s */
  at(time_s) {
    const { canvas, view, playhead } = this;
    canvas.setAttribute("aria-valuenow", time_s.toFixed(1));
    canvas.setAttribute("aria-valuetext", this.spoken(time_s));
    const length = view.to - view.from;
    if (length < playhead.duration && (time_s < view.from || time_s > view.to)) this.look(time_s - length / 10, length);
    else this.paint();
  }

  /** @param {number} time_s */
  spoken(time_s) {
    const here = (/** @type {Span} */ { start_s, end_s }) => start_s <= time_s && time_s <= end_s;
    const scores = this.shown.rows.flatMap(({ name, windows }) => {
      const found = windows.filter(here).map((w) => w.score);
      return found.length ? [`${name} ${Math.max(...found).toFixed(2)}`] : [];
    });
    const within = this.shown.ranges.find(here);
    const stretch = within ? `, in the suspicious stretch ${span(within.start_s, within.end_s)}` : "";
    return `${clock(time_s)}${stretch}${scores.length ? `, ${scores.join(", ")}` : ""}`;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { playhead } = this;
    const far = Math.max(10, playhead.duration / 20);
    const target = {
      ArrowLeft: playhead.time - 1,
      ArrowDown: playhead.time - 1,
      ArrowRight: playhead.time + 1,
      ArrowUp: playhead.time + 1,
      PageDown: playhead.time - far,
      PageUp: playhead.time + far,
      Home: 0,
      End: playhead.duration,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    playhead.seek(target);
  }

  /** @param {PointerEvent} event */
  grab(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.point(event);
  }

  /** @param {PointerEvent} event */
  point(event) {
    const { left, width } = this.canvas.getBoundingClientRect();
    const { from, to } = this.view;
    this.playhead.seek(from + (to - from) * (event.clientX - left) / width);
  }

  /** Everything that does not move with the playhead, drawn aside once. */
  redraw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const context = this.still.getContext("2d");
    if (!width || !height || !context) return;
    const ratio = devicePixelRatio;
    for (const canvas of [this.still, this.canvas]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.scale(ratio, ratio);
    draw(context, { width, height, ...this.view }, this.shown, getComputedStyle(this.canvas));
    this.paint();
  }

  /** The drawing with the playhead over it. */
  paint() {
    const context = this.canvas.getContext("2d");
    if (!context || !this.still.width) return;
    const { from, to } = this.view;
    const { width, height } = this.canvas;
    context.clearRect(0, 0, width, height);
    context.drawImage(this.still, 0, 0);
    const x = Math.round(width * (this.playhead.time - from) / (to - from));
    context.fillStyle = getComputedStyle(this.canvas).color;
    context.fillRect(Math.min(Math.max(x - 1, 0), width - 2), 0, 2 * devicePixelRatio, height);
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{ width: number, height: number, from: number, to: number }} view
 * @param {Shown} shown
 * @param {CSSStyleDeclaration} style
 */
function draw(context, view, shown, style) {
  const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  const x = (/** @type {number} */ time_s) => view.width * (time_s - view.from) / (view.to - view.from);
  context.clearRect(0, 0, view.width, view.height);
  context.font = "12px system-ui, sans-serif";
  shown.rows.forEach((row, i) => drawRow(context, view, row, HEAD + ROW * i, x, colour));
  context.fillStyle = colour("fake");
  shown.ranges.forEach(({ start_s, end_s }, i) => {
    context.fillRect(x(start_s), 2, Math.max(x(end_s) - x(start_s), 3), 12);
    context.fillStyle = colour("on-fake");
    if (x(end_s) - x(start_s) > 14) context.fillText(String(i + 1), Math.max(x(start_s), 0) + 4, 12);
    context.fillStyle = colour("fake");
  });
  context.fillStyle = colour("text");
  for (const moment of shown.moments) {
    context.beginPath();
    context.moveTo(x(moment) - 4, 15);
    context.lineTo(x(moment) + 4, 15);
    context.lineTo(x(moment), 21);
    context.fill();
  }
  scaleOf(context, view, x, colour);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{ width: number, from: number, to: number }} view
 * @param {Row} row
 * @param {number} top
 * @param {(time_s: number) => number} x
 * @param {(name: string) => string} colour
 */
function drawRow(context, view, row, top, x, colour) {
  const [base, tall] = [top + ROW - 6, ROW - 20];
  context.fillStyle = colour("raised");
  context.fillRect(0, base - tall, view.width, tall);
  hatch(context, row.gaps, x, base - tall, tall, colour("line"));
  const columns = Math.max(Math.round(view.width), 1);
  const scores = envelope(row.windows, view.from, view.to, columns);
  for (let column = 0; column < columns;) {
    const score = scores[column];
    let end = column + 1;
    while (end < columns && scores[end] === score) end++;
    if (score >= 0) {
      const high = Math.max(score * tall, 1);
      context.fillStyle = colour(score >= 0.5 ? "fake" : "calm");
      context.fillRect(column, base - high, end - column, high);
      context.fillStyle = colour(score >= 0.5 ? "fake" : "quiet");
      context.fillRect(column, base - high, end - column, 2);
    }
    column = end;
  }
  context.fillStyle = colour("line");
  context.fillRect(0, base - tall / 2, view.width, 1);
  context.fillStyle = colour("quiet");
  context.fillText(row.name, 2, top + 10);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Span[]} gaps
 * @param {(time_s: number) => number} x
 * @param {number} top
 * @param {number} tall
 * @param {string} colour
 */
function hatch(context, gaps, x, top, tall, colour) {
  context.save();
  context.beginPath();
  for (const gap of gaps) context.rect(x(gap.start_s), top, x(gap.end_s) - x(gap.start_s), tall);
  context.clip();
  context.strokeStyle = colour;
  context.beginPath();
  const [left, right] = [0, context.canvas.width];
  for (let at = left - tall; gaps.length && at < right; at += 7) {
    context.moveTo(at, top + tall);
    context.lineTo(at + tall, top);
  }
  context.stroke();
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{ width: number, height: number, from: number, to: number }} view
 * @param {(time_s: number) => number} x
 * @param {(name: string) => string} colour
 */
function scaleOf(context, view, x, colour) {
  const length = view.to - view.from;
  const step = STEPS.find((each) => length / each <= view.width / 70) ?? 7200;
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    context.fillStyle = colour("line");
    context.fillRect(x(at), view.height - FOOT, 1, 4);
    context.fillStyle = colour("quiet");
    const text = clock(at);
    const wide = context.measureText(text).width;
    context.fillText(text, Math.min(Math.max(x(at) - wide / 2, 0), view.width - wide), view.height - 3);
  }
}
