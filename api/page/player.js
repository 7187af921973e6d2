/** The clip itself, faces drawn over it at the right moment, blurred and mute until somebody wants it otherwise. */

import { h, icon, put } from "./dom.js";
import { clock } from "./format.js";
import { onSettings, set, settings } from "./settings.js";

/** @typedef {import("./types.js").Look} Look */
/** @typedef {import("./playhead.js").Playhead} Playhead */

/** Faces are looked at now and then; between two looks at most this far apart a box is taken to move evenly. */
const BETWEEN_S = 2.5;

export class Player {
  /** @param {import("./types.js").Analysis} analysis @param {Playhead} playhead @param {AbortSignal} closing */
  constructor({ input, links }, playhead, closing) {
    this.playhead = playhead;
    /** The newest link to the file; that which is being played may have expired. */
    this.link = links.media;
    this.closing = closing;
    const [wide, high] = input.probe?.pixel_aspect ?? [1, 1];
    /** Pixels that are not square: boxes count them, the browser shows them as wide as they are meant. */
    this.stretch = wide / high;
    this.size = { width: (input.width ?? 16) * this.stretch, height: input.height ?? 9 };
    /** @type {Map<number, Look[]>} */
    this.people = new Map();
    this.said = h("p", { class: "quiet", role: "status" });
    this.boxed = h("p", { class: "quiet legend" });
    this.overlay = h("canvas", { class: "overlay", "aria-hidden": "true" });
    this.media = this.made(input.kind, links.media);
    this.stage = h(
      "div",
      { class: `stage ${input.kind}`, vars: { "--width": this.size.width, "--height": this.size.height } },
      this.media,
      input.kind === "audio" ? null : this.overlay,
    );
    this.clock = h("span", { class: "number", "aria-live": "off" });
    this.element = h("div", { class: "player" }, this.stage, this.controls(input.kind), this.said, this.boxed);
    playhead.on((time_s) => this.at(time_s));
    new ResizeObserver(() => this.draw(playhead.time)).observe(this.stage);
  }

  /** @param {string | null} kind @param {string | undefined} href */
  made(kind, href) {
    if (!href) {
      this.said.textContent = "The file is no longer kept. What the detectors saw of it is below.";
      return null;
    }
    if (kind === "image") {
      return h("img", {
        src: href,
        alt: "The picture that was examined",
        decoding: "async",
        class: "veiled",
        onerror: () => this.failed(href),
      });
    }
    const media = h(kind === "audio" ? "audio" : "video", {
      src: href,
      preload: "metadata",
      playsinline: true,
      class: "veiled",
      onloadedmetadata: () => this.playhead.media || this.playhead.follow(media),
      onerror: () => this.failed(href),
    });
    onSettings(() => {
      media.muted = settings.mute;
    }, this.closing);
    return media;
  }

  /** A browser plays less than the detectors read. @param {string} href the link that did not open */
  failed(href) {
    if (this.media && this.link && !this.media.src.endsWith(this.link)) {
      const time_s = this.playhead.time;
      this.media.addEventListener("loadedmetadata", () => this.playhead.seek(time_s), { once: true });
      this.media.src = this.link;
      return;
    }
    this.media?.remove();
    this.media = null;
    this.playhead.follow(null);
    put(
      this.said,
      "This browser cannot play this file, or it is no longer kept. The timeline and the pictures below work all the same. ",
      h("a", { href: this.link ?? href, download: true }, "Save the file"),
    );
    this.draw(this.playhead.time);
  }

  /** @param {string | null} kind */
  controls(kind) {
    const play = h("button", { type: "button", class: "round", onclick: () => this.playhead.toggle() });
    this.playhead.on(() => {
      const playing = this.playhead.playing;
      if (play.dataset.playing === String(playing)) return;
      play.dataset.playing = String(playing);
      play.setAttribute("aria-label", playing ? "Pause" : "Play");
      put(play, icon(playing ? "pause" : "play"));
    });
    const still = kind === "image";
    return h(
      "div",
      { class: "row controls" },
      !still && play,
      !still && this.clock,
      h("span", { class: "grow" }),
      kind !== "audio" && toggle("blur", "Blur", this.closing),
      !still && toggle("mute", "Mute", this.closing),
    );
  }

  /** The faces that a detector looked at. @param {Look[]} looks @param {string} detector */
  show(looks, detector) {
    this.boxed.textContent = `Boxes and scores of faces are those of ${detector}; dashed between two looks.`;
    this.people = new Map();
    for (const look of looks) this.people.set(look.person, [...(this.people.get(look.person) ?? []), look]);
    this.draw(this.playhead.time);
  }

  /** @param {number} time_s */
  at(time_s) {
    this.clock.textContent = `${clock(time_s)} / ${clock(this.playhead.duration)}`;
    this.draw(time_s);
  }

  /** @param {number} time_s */
  draw(time_s) {
    const context = this.overlay.getContext("2d");
    const { clientWidth: width, clientHeight: height } = this.overlay;
    if (!context || !width) return;
    const ratio = devicePixelRatio;
    if (this.overlay.width !== Math.round(width * ratio) || this.overlay.height !== Math.round(height * ratio)) {
      this.overlay.width = Math.round(width * ratio);
      this.overlay.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const scale = Math.min(width / this.size.width, height / this.size.height);
    context.translate((width - scale * this.size.width) / 2, (height - scale * this.size.height) / 2);

    for (const [person, looks] of this.people) {
      const seen = lookAt(looks, time_s);
      if (seen) {
        frame(context, seen, [scale * this.stretch, scale], `Face ${person + 1}: score ${seen.score.toFixed(2)}`);
      }
    }
  }
}

/**
 * Where a face is at a moment: as it was looked at, or between two looks; null where nobody looked.
 *
 * @param {Look[]} looks of one person, in order of time
 * @param {number} time_s
 * @returns {{ box: number[], score: number, exact: boolean } | null}
 */
export function lookAt(looks, time_s) {
  const after = looks.findIndex((look) => look.time_s >= time_s - 0.02);
  const [next, last] = [looks[after], looks[after - 1] ?? (after < 0 ? looks[looks.length - 1] : undefined)];
  for (const near of [next, last]) {
    if (near && Math.abs(near.time_s - time_s) <= 0.05) return { box: near.box, score: near.score, exact: true };
  }
  if (!next || !last || next.time_s - last.time_s > BETWEEN_S) return null;
  const part = (time_s - last.time_s) / (next.time_s - last.time_s);
  const between = (/** @type {number} */ a, /** @type {number} */ b) => a + part * (b - a);
  return {
    box: last.box.map((edge, i) => between(edge, next.box[i])),
    score: part < 0.5 ? last.score : next.score,
    exact: false,
  };
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{ box: number[], exact: boolean }} seen
 * @param {[number, number]} scale across and down
 * @param {string} label
 */
function frame(context, { box, exact }, scale, label) {
  const [left, top, right, bottom] = box.map((edge, i) => edge * scale[i % 2]);
  context.setLineDash(exact ? [] : [6, 4]);
  for (const [width, colour] of /** @type {const} */ ([[4, "rgb(0 0 0 / 70%)"], [2, "#fff"]])) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.setLineDash([]);
  context.font = "600 12px system-ui, sans-serif";
  const wide = context.measureText(label).width + 10;
  const above = Math.max(top - 20, 0);
  context.fillStyle = "rgb(0 0 0 / 75%)";
  context.fillRect(left, above, wide, 18);
  context.fillStyle = "#fff";
  context.fillText(label, left + 5, above + 13);
}

/** @param {"blur" | "mute"} name @param {string} label @param {AbortSignal} closing */
function toggle(name, label, closing) {
  const button = h("button", { type: "button", class: "toggle", onclick: () => set(name, !settings[name]) }, label);
  onSettings(() => button.setAttribute("aria-pressed", String(settings[name])), closing);
  return button;
}
