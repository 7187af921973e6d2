/** Numbers, times and codes as a person reads them. */

/** Seconds of a clip as `1:02.5`, or `1:02:03` from an hour on. @param {number} seconds */
export function clock(seconds) {
  const whole = Math.max(seconds, 0);
  if (whole >= 3600) {
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
    return `${hours}:${two(minutes)}:${two(Math.floor(whole) % 60)}`;
  }
  const tenths = Math.floor(whole * 10 + 1e-6);
  return `${Math.floor(tenths / 600)}:${two(Math.floor(tenths / 10) % 60)}.${tenths % 10}`;
}

/** @param {number} n */
const two = (n) => String(n).padStart(2, "0");

/** A stretch of a clip. @param {number} from @param {number} to */
export const span = (from, to) => `${clock(from)} to ${clock(to)}`;

/** A waiting time, roughly. @param {number} seconds */
export function about(seconds) {
  if (seconds < 90) return `about ${Math.max(Math.round(seconds), 1)} s`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min`;
  return `about ${Math.round(seconds / 3600)} h`;
}

/** @param {number} n */
export function bytes(n) {
  for (const [unit, size] of /** @type {const} */ ([["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])) {
    if (n >= size) return `${(n / size).toFixed(n >= 10 * size ? 0 : 1)} ${unit}`;
  }
  return `${n} bytes`;
}

/** A share as whole per cent; never 0 or 100 for what is neither. @param {number} share */
export function percent(share) {
  const rounded = Math.round(100 * share);
  if (rounded === 100 && share < 1) return "over 99 %";
  if (rounded === 0 && share > 0) return "under 1 %";
  return `${rounded} %`;
}

/** With its sign, and a real minus. @param {number} x */
export const signed = (x) => `${x < 0 ? "\u2212" : "+"}${Math.abs(x).toFixed(2)}`;

/** A digest short enough to read aloud. @param {string | null} digest */
export const short = (digest) => digest && digest.replace(/^sha256:/, "").slice(0, 12);

/** A moment in the reader's own way of writing it. @param {string} iso */
export const moment = (iso) => new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** How long ago, in one unit. @param {string} iso @param {number} [now] */
export function ago(iso, now = Date.now()) {
  const seconds = Math.max((now - Date.parse(iso)) / 1000, 0);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(iso).toLocaleDateString(undefined, { dateStyle: "medium" });
}

/** A file's own name may hide what it is by turning the direction of reading. @param {string} text */
export const plain = (text) => text.replace(/[\u202a-\u202e\u2066-\u2069\u200e\u200f]/g, "\ufffd");
