/**
 * The JSON of `/v1` as far as the page reads it; nothing runs here.
 *
 * @typedef {"visual" | "audio" | "lipsync" | "clip"} Branch
 * @typedef {"fake" | "real" | "inconclusive"} Label
 * @typedef {"queued" | "running" | "done" | "rejected" | "failed" | "cancelled" | "deleted"} State
 * @typedef {{ code: string, message: string }} Fault
 * @typedef {{ start_s: number, end_s: number, score: number }} Window
 * @typedef {{ start_s: number, end_s: number, code: string }} Gap
 * @typedef {[number, number, number, number]} Box
 * @typedef {{ time_s: number, frame: number, person: number, box: Box, score: number }} Look
 * @typedef {{ name: string, axis: "time_s" | "offset_s", x: number[], y: number[] }} Curve
 * @typedef {"face" | "mouth" | "frames" | "heatmap" | "residual" | "spectrogram" | "series"} ExhibitKind
 *
 * @typedef {object} Exhibit
 * @property {ExhibitKind} kind
 * @property {string} name
 * @property {string} href
 * @property {number | null} time_s
 * @property {number | null} end_s
 * @property {Box | null} box
 *
 * @typedef {object} Series
 * @property {Window[]} windows
 * @property {Gap[]} gaps
 * @property {Look[]} looks
 * @property {Curve[]} curves
 *
 * @typedef {object} Detector
 * @property {string} name
 * @property {string} version
 * @property {string | null} weights
 * @property {"ok" | "skipped" | "failed"} status
 * @property {string | null} message
 * @property {number} elapsed_ms
 * @property {number | null} score
 * @property {Window[]} windows
 * @property {Gap[]} gaps
 * @property {Record<string, number>} facts
 * @property {Exhibit[]} evidence
 *
 * @typedef {object} BranchView
 * @property {"open" | "leased" | "ok" | "skipped" | "failed"} status
 * @property {string | null} message
 * @property {number | null} elapsed_ms
 * @property {Detector[]} detectors
 *
 * @typedef {{ count: number, clips: number, low: number, high: number }} Share
 *
 * @typedef {object} Verdict
 * @property {Label} label
 * @property {number | null} probability
 * @property {string} policy
 * @property {string | null} head
 * @property {{ real: number, fake: number } | null} [thresholds]
 * @property {{ text: string, real_groups: number, fake_groups: number } | null} [error_rates]
 * @property {number} coverage
 * @property {boolean} degraded
 * @property {number | null} baseline_logit
 * @property {{ branch: Branch, detector: string, log_odds: number }[]} contributions
 * @property {{ code: string, text: string }[]} reasons
 * @property {{ start_s: number, end_s: number, branches: Branch[], peak: number }[]} ranges
 * @property {boolean} localised
 * @property {boolean | null} out_of_domain
 *
 * @typedef {object} Provenance
 * @property {{ code: string, text: string }[]} hints
 * @property {{ place: string, key: string, text: string }[]} notes
 *
 * @typedef {object} Input
 * @property {"video" | "audio" | "image" | null} kind
 * @property {string} filename
 * @property {number} bytes
 * @property {string} sha256
 * @property {number | null} duration_s
 * @property {number | null} width
 * @property {number | null} height
 * @property {number | null} fps
 * @property {{ container: string, video_codec: string | null, audio_codec: string | null, pixel_aspect: [number, number],
 *   provenance: Provenance | null } | null} probe
 *
 * @typedef {object} Analysis
 * @property {string} id
 * @property {State} state
 * @property {"fetch" | "ingest" | "assess" | "fuse" | null} stage
 * @property {number} percent
 * @property {number | null} queue_position
 * @property {number | null} eta_s
 * @property {string | null} rerun_of
 * @property {string | null} follows
 * @property {string} created_at
 * @property {string | null} finished_at
 * @property {string | null} tag
 * @property {Record<string, unknown>} metadata
 * @property {string} pipeline
 * @property {string[] | null} detectors
 * @property {Input} input
 * @property {Partial<Record<Branch, BranchView>>} branches
 * @property {Verdict | null} verdict
 * @property {Fault | null} error
 * @property {Record<string, number>} timings_ms
 * @property {Record<string, string>} links
 *
 * @typedef {object} Summary
 * @property {string} id
 * @property {State} state
 * @property {string} created_at
 * @property {string} filename
 * @property {string | null} kind
 * @property {number | null} duration_s
 * @property {string | null} tag
 * @property {string | null} batch
 * @property {Label | null} label
 * @property {number | null} probability
 * @property {string | null} feedback
 * @property {Fault | null} error
 *
 * @typedef {{ name: string, branch: Branch, state: "ready" | "no_weights" | "disabled" }} Installed
 * @typedef {{ bytes: number, duration_s: number, pixels: number, frames: number }} Limits
 * @typedef {{ pipeline: string, detectors: Installed[], policies: string[], limits: Limits }} Detectors
 *
 * @typedef {object} Batch
 * @property {string} id
 * @property {string | null} tag
 * @property {number} total
 * @property {number} accepted
 * @property {number} refused
 * @property {number} ended
 * @property {Partial<Record<Label, number>>} labels
 *
 * @typedef {{ id: string, label: string, category: string, comment: string | null, created_at: string }} Feedback
 */

/** @type {Branch[]} */
export const BRANCHES = ["visual", "audio", "lipsync", "clip"];

/** @type {Record<Branch, string>} */
export const BRANCH_NAMES = {
  visual: "Faces and frames",
  audio: "Speech",
  lipsync: "Lips against speech",
  clip: "Scene as a whole",
};

/** Whether nothing more will happen to an analysis but its deletion. @param {State} state */
export const hasEnded = (state) => state !== "queued" && state !== "running";
