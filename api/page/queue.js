/** The list of recent analyses: filtered, page by page, walked through with the keyboard. */

import { mayPass, patience, pause, read, sentence } from "./api.js";
import { byId, h, icon, put } from "./dom.js";
import { ago, clock, percent, plain } from "./format.js";
import { hasEnded } from "./types.js";

/** @typedef {import("./types.js").Summary} Summary */

const PAGE = 50;
/** How often the first page is read again: while something on it moves, and otherwise. */
const BUSY_MS = 4_000;
const CALM_MS = 20_000;

/** Cursors of the pages before this one; the last is this page's. @type {(string | null)[]} */
let cursors = [null];
/** @type {Summary[]} */
let page = [];
/** @type {string | null} */
let next = null;
/** @type {string | null} */
let open = null;
/** @type {Record<string, string>} */
const MARKS = { confirmation: "marked right", false_positive: "marked wrong", false_negative: "marked wrong" };

/** Filters by the name that the API has for them; "show" is a state or a label. @type {Record<string, string>} */
const filters = { show: "", tag: "", batch: "" };

/** The last analysis that the page was read again for. */
let sought = "";
/** Where on the page the open entry was seen last; -1 if it was not. What followed it moves up to there when it leaves. */
let place = -1;
/** Which way a walk goes on once the page that it came to is read. @type {1 | -1 | 0} */
let onward = 0;
/** What each part of the list was last drawn from. @type {Map<Element, string>} */
const drawn = new Map();
let reading = new AbortController();

export function startQueue() {
  for (const name of Object.keys(filters)) {
    const field = /** @type {HTMLInputElement} */ (byId(`filter-${name}`));
    field.addEventListener("change", () => filter(name, field.value.trim()));
  }
  byId("newer").addEventListener("click", () => turn(-1));
  byId("older").addEventListener("click", () => turn(1));
  document.addEventListener("visibilitychange", () => !document.hidden && refresh());
  addEventListener("reviewed", (event) => {
    const { id, category } = /** @type {CustomEvent} */ (event).detail;
    for (const each of page.filter((one) => one.id === id)) each.feedback = category;
    render();
  });
  refresh();
}

/** @param {string} name @param {string} value */
export function filter(name, value) {
  filters[name] = value;
  /** @type {HTMLInputElement} */ (byId(`filter-${name}`)).value = value;
  cursors = [null];
  leave();
  refresh();
}

/** Nothing of the page that was shown until now says where to go from here. */
function leave() {
  [next, place, onward] = [null, -1, 0];
}

/** Read the page again, and then now and again for as long as it is the one that is shown. */
export function refresh() {
  reading.abort();
  reading = new AbortController();
  keepReading(reading.signal);
}

/** @param {AbortSignal} signal */
async function keepReading(signal) {
  for (let tries = 0; !signal.aborted;) {
    try {
      const found = await read(`/v1/analyses?${query()}`, { signal });
      await showBatch(signal);
      if (signal.aborted) return;
      [page, next, tries] = [found.analyses, found.next, 0];
      render();
      byId("queue-said").textContent = "";
      goOn();
    } catch (error) {
      if (signal.aborted) return;
      put(
        byId("queue-said"),
        sentence(error),
        h("button", { type: "button", class: "plain", onclick: refresh }, "Try now"),
      );
      if (!mayPass(error)) return;
      await pause(patience(error, tries++), signal);
      continue;
    }
    const busy = page.some((each) => !hasEnded(each.state));
    await pause(busy ? BUSY_MS : CALM_MS, signal);
    if (document.hidden) return;
  }
}

function query() {
  const asked = new URLSearchParams({ limit: String(PAGE) });
  const { show, tag, batch } = filters;
  if (show) asked.set(...asFilter(show));
  if (tag) asked.set("tag", tag);
  if (batch) asked.set("batch", batch);
  const cursor = cursors[cursors.length - 1];
  if (cursor) asked.set("cursor", cursor);
  return asked;
}

/** The API's own filter. @param {string} show @returns {[string, string]} */
function asFilter(show) {
  if (show === "unreviewed") return ["reviewed", "false"];
  return [["fake", "real", "inconclusive"].includes(show) ? "label" : "state", show];
}

/** To the next page, or the one before. Whether there is one. @param {1 | -1} by */
function turn(by) {
  if (by > 0 && next) cursors.push(next);
  else if (by < 0 && cursors.length > 1) cursors.pop();
  else return false;
  leave();
  refresh();
  byId("queue").scrollTop = 0;
  return true;
}

/** @param {AbortSignal} signal */
async function showBatch(signal) {
  const box = byId("batch");
  box.hidden = !filters.batch;
  if (!filters.batch) return;
  /** @type {import("./types.js").Batch} */
  const batch = await read(`/v1/batches/${filters.batch}?limit=1`, { signal });
  const labels = Object.entries(batch.labels).map(([label, count]) => `${count} ${label}`);
  const said = [`${batch.ended} of ${batch.accepted} ended`, ...labels, batch.refused && `${batch.refused} refused`];
  renew(box, batch, () => [
    h("strong", {}, "Batch ", batch.tag ? plain(batch.tag) : batch.id.slice(0, 8)),
    h("progress", { max: batch.accepted || 1, value: batch.ended, "aria-label": "Progress of the batch" }),
    h("span", { class: "quiet" }, said.filter(Boolean).join(" · ")),
    h(
      "button",
      { type: "button", class: "plain", "data-holds": "leave", onclick: () => filter("batch", "") },
      "Leave the batch",
    ),
  ]);
}

/**
 * Draw a part only when what it shows has changed, and leave the focus where it was.
 *
 * @param {Element} part
 * @param {unknown} of
 * @param {() => Element[]} draw what can have the focus is told apart by `data-holds`
 */
function renew(part, of, draw) {
  const now = JSON.stringify(of);
  if (drawn.get(part) === now) return;
  drawn.set(part, now);
  const held = part.contains(document.activeElement) && document.activeElement?.getAttribute("data-holds");
  put(part, draw());
  if (held) /** @type {HTMLElement | null} */ (part.querySelector(`[data-holds="${held}"]`))?.focus();
}

function render() {
  locate();
  renew(byId("queue"), [page, filters.batch, page.map((each) => ago(each.created_at))], () => page.map(row));
  byId("queue-empty").hidden = page.length > 0;
  /** @type {HTMLButtonElement} */ (byId("newer")).disabled = cursors.length === 1;
  /** @type {HTMLButtonElement} */ (byId("older")).disabled = !next;
  byId("page-number").textContent = `Page ${cursors.length}`;
}

/** @param {Summary} summary */
function row(summary) {
  const { id, filename, state, label, probability, created_at, duration_s, tag, batch, feedback, error } = summary;
  const shape = label ??
    (state === "running" ? "leased" : state === "queued" ? "open" : state === "done" ? "inconclusive" : "failed");
  const word = label ?? state;
  const details = [
    ago(created_at),
    duration_s === null ? null : clock(duration_s),
    tag && plain(tag),
    feedback && (MARKS[feedback] ?? "reviewed"),
  ];
  return h(
    "li",
    {},
    h(
      "a",
      {
        href: `#/analyses/${id}`,
        "data-holds": id,
        class: `entry ${word}`,
        "aria-current": id === open && "true",
        title: error?.message,
      },
      icon(shape),
      h("span", { class: "name" }, plain(filename) || "(deleted)"),
      h("span", { class: "word" }, probability === null ? word : `${word} ${percent(probability)}`),
      h("span", { class: "quiet details" }, details.filter(Boolean).join(" · ")),
    ),
    batch && batch !== filters.batch
      ? h(
        "button",
        { type: "button", class: "plain", "data-holds": `batch-${id}`, onclick: () => filter("batch", batch) },
        "Its batch",
      )
      : null,
  );
}

/** Mark the entry that is open. @param {string | null} id */
export function mark(id) {
  open = id;
  [place, onward] = [-1, 0];
  locate();
  for (const link of document.querySelectorAll("#queue a")) {
    const here = link.getAttribute("href") === `#/analyses/${id}`;
    if (here) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    if (here) link.scrollIntoView({ block: "nearest" });
  }
}

/** What is known of an analysis from elsewhere, so that the list need not be read for it. @param {import("./types.js").Analysis} analysis */
export function told(analysis) {
  const known = page.find((each) => each.id === analysis.id);
  if (!known) seek(analysis.id);
  if (!known || (known.state === analysis.state && known.label === (analysis.verdict?.label ?? null))) return;
  known.state = analysis.state;
  known.label = analysis.verdict?.label ?? null;
  known.probability = analysis.verdict?.probability ?? null;
  known.duration_s = analysis.input.duration_s;
  render();
}

/** Read the first page again for an analysis that is newer than it, once: a filter may keep it out. @param {string} id */
function seek(id) {
  const first = page[0];
  if (cursors.length > 1 || !first || id <= first.id || id === sought) return;
  sought = id;
  refresh();
}

/** Remember where on the page the open entry is, if it is on it. */
function locate() {
  const at = page.findIndex((each) => each.id === open);
  if (at >= 0) place = at;
}

/** Open the entry after the one that is open, or before it, on the next page if need be; the first one if none is. @param {1 | -1} by */
export function step(by) {
  if (onward) return;
  const gone = page[place]?.id !== open;
  const target = place < 0 ? page[0] : page[gone && by > 0 ? place : place + by];
  if (target) show(target);
  else if (place >= 0 && turn(by)) onward = by;
}

/** Open the entry that a walk over the edge of a page came to. */
function goOn() {
  const target = onward && page[onward > 0 ? 0 : page.length - 1];
  onward = 0;
  if (target) show(target);
}

/** @param {Summary} summary */
const show = ({ id }) => {
  location.hash = `#/analyses/${id}`;
};
