/** The page: which part of it is shown, by the address after the #, and what the keys do. */

import { shown as showAccess } from "./access.js";
import { Desk } from "./analysis.js";
import { byId, put } from "./dom.js";
import { bind, listenToKeys, openHelp } from "./keys.js";
import { mark, refresh, startQueue, step, told } from "./queue.js";
import { applySettings, openSettings, set, settings } from "./settings.js";
import { installed, offer, pickFiles, startSubmitting } from "./submit.js";

/** @type {Desk | null} */
let desk = null;
/** @type {import("./types.js").Detectors | null} */
let detectors = null;

/** Said to who does not see the page. @param {string} text */
const say = (text) => put(byId("live"), text);

function route() {
  const id = /^#\/analyses\/([0-9a-f-]{36})$/.exec(location.hash)?.[1] ?? null;
  if (id && id === desk?.id) return;
  desk?.close();
  desk = null;
  document.body.dataset.route = id ? "analysis" : "home";
  byId("home").hidden = id !== null;
  byId("analysis").hidden = id === null;
  mark(id);
  if (!id) {
    document.title = "Clipwarden";
    put(byId("analysis"));
    return;
  }
  desk = new Desk(byId("analysis"), id, detectors, { news: told, say });
  desk.title.focus({ preventScroll: true });
  byId("main").scrollTop = 0;
  scrollTo(0, 0);
}

/** What stands after the # is the route, so a link within the page may not put itself there. @param {Event} event */
function skip(event) {
  event.preventDefault();
  byId("main").focus();
}

/** What is installed decides what can be promised; the page works without knowing. */
async function learn() {
  detectors = await installed().catch(() => null);
  if (!detectors) return;
  offer(detectors);
  if (!desk) return;
  desk.installed = detectors;
  if (desk.analysis) desk.show(desk.analysis);
}

function bindKeys() {
  const page = (/** @type {string} */ hash) => () => {
    location.hash = hash;
  };
  bind(
    { key: "n", does: "Next analysis in the queue", run: () => step(1), repeats: true },
    { key: "p", does: "Previous analysis in the queue", run: () => step(-1), repeats: true },
    { key: "c", does: "Mark the verdict right", run: () => desk?.review?.right() },
    { key: "w", does: "Mark the verdict wrong", run: () => desk?.review?.wrong() },
    { key: "k", does: "Play or pause", run: () => desk?.stage?.playhead.toggle() },
    { key: "]", does: "To the next suspicious stretch", run: () => desk?.jump(1) },
    { key: "[", does: "To the previous suspicious stretch", run: () => desk?.jump(-1) },
    { key: "b", does: "Blur on or off", run: () => set("blur", !settings.blur) },
    { key: "m", does: "Sound on or off", run: () => set("mute", !settings.mute) },
    { key: "u", does: "Send a clip", run: pickFiles },
    { key: "q", does: "Back to the queue", run: page("#/") },
    { key: "s", does: "Settings", run: openSettings },
    { key: "?", does: "This list", run: openHelp },
  );
  listenToKeys();
}

applySettings();
showAccess();
bindKeys();
byId("skip").addEventListener("click", skip);
byId("open-settings").addEventListener("click", openSettings);
byId("open-help").addEventListener("click", openHelp);
byId("pick").addEventListener("click", pickFiles);
byId("send").addEventListener("click", pickFiles);
startSubmitting((id, alone) => {
  refresh();
  say("Accepted.");
  const free = alone && !desk;
  if (free) location.hash = `#/analyses/${id}`;
  return free;
});
startQueue();
addEventListener("hashchange", route);
route();
learn();
