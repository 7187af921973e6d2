"""The examples of the OpenAPI document; a test reads each back through its schema."""

from typing import Any

WEIGHTS = "sha256:" + "5e" * 32
PIPELINE = "sha256:" + "a1" * 32

ANALYSIS: dict[str, Any] = {
    "id": "019f2b1c-4a00-7c3e-9d2a-0f6c1b7e5a10",
    "state": "done",
    "stage": None,
    "percent": 100,
    "queue_position": None,
    "eta_s": None,
    "rerun_of": None,
    "from_cache": False,
    "created_at": "2026-11-21T10:00:00Z",
    "finished_at": "2026-11-21T10:00:03Z",
    "tag": "report-4711",
    "metadata": {"account": "a-17"},
    "pipeline": PIPELINE,
    "input": {
        "kind": "video",
        "filename": "clip.mp4",
        "bytes": 1048576,
        "sha256": "c3" * 32,
        "duration_s": 8.0,
        "width": 1280,
        "height": 720,
        "fps": 25.0,
        "has_audio": True,
        "probe": {
            "container": "mov",
            "header_duration_s": 8.0,
            "video_codec": "h264",
            "variable_frame_rate": False,
            "interlaced": False,
            "rotation_deg": 0,
            "mirrored": False,
            "pixel_aspect": [1, 1],
            "colour": {
                "pixel_format": "yuv420p",
                "bit_depth": 8,
                "primaries": "bt709",
                "transfer": "bt709",
                "matrix": "bt709",
                "full_range": False,
                "hdr": False,
            },
            "audio_codec": "aac",
            "audio_streams": 1,
            "sample_rate_hz": 48000,
            "channels": 2,
            "channel_layout": "stereo",
            "repairs": [],
            "provenance": {
                "hints": [
                    {
                        "code": "re_encoded",
                        "text": "The stream was written by x264 core 165, a software encoder, not by a camera. "
                        "Platforms and editors do that to every clip.",
                    }
                ],
                "pictures": {
                    "I": {"count": 1, "mean_bytes": 25935.3, "deviation_bytes": 0.0},
                    "P": {"count": 199, "mean_bytes": 5140.2, "deviation_bytes": 1211.9},
                },
                "groups": {"count": 1, "closed": 1, "shortest": 200, "median": 200, "longest": 200},
                "motion": {"pictures": 15, "predicted": 0.93, "moving": 0.31, "median_px": 0.0, "p95_px": 4.25},
                "bits_per_pixel": 0.0455,
                "hidden_pictures": 0,
                "notes": [{"place": "bitstream", "key": "encoder", "text": "x264 core 165"}],
                "settings": {"rc": "crf", "crf": "23.0", "keyint": "250", "bframes": "0"},
                "openings": 1,
                "period": 0,
                "tables": None,
                "quality": None,
            },
        },
    },
    "branches": {
        "visual": {
            "status": "ok",
            "code": None,
            "message": None,
            "elapsed_ms": 812,
            "detectors": [
                {
                    "name": "forensic_mlp",
                    "version": "1",
                    "weights": WEIGHTS,
                    "status": "ok",
                    "code": None,
                    "message": None,
                    "elapsed_ms": 812,
                    "score": 0.61,
                    "features": {"forensic_score": 0.61},
                    "windows": [{"start_s": 0.0, "end_s": 1.0, "score": 0.7}],
                    "gaps": [],
                    "facts": {},
                    "evidence": [
                        {
                            "kind": "face",
                            "name": "face-0.jpg",
                            "bytes": 9140,
                            "time_s": 0.52,
                            "end_s": None,
                            "box": [412, 96, 668, 352],
                        }
                    ],
                }
            ],
        },
        "audio": {
            "status": "skipped",
            "code": "silent_audio",
            "message": "The sound track is silent; send a version with audible speech.",
            "elapsed_ms": 3,
            "detectors": [],
        },
    },
    "verdict": {
        "label": "fake",
        "probability": 0.6681877721681662,
        "policy": "balanced",
        "head": "visual",
        "coverage": 1.0,
        "degraded": False,
        "baseline_logit": -0.2,
        "contributions": [{"branch": "visual", "detector": "forensic_mlp", "log_odds": 0.9}],
        "reasons": [{"code": "leans_fake", "text": "forensic_mlp (visual) leans to fake: +0.90 log-odds."}],
        "ranges": [{"start_s": 0.0, "end_s": 1.0, "branches": ["visual"], "peak": 0.7}],
        "localised": False,
        "out_of_domain": False,
    },
    "error": None,
    "timings_ms": {"queued": 12, "ingest": 900, "visual": 840},
    "links": {"self": "/v1/analyses/019f2b1c-4a00-7c3e-9d2a-0f6c1b7e5a10"},
}

QUEUED: dict[str, Any] = ANALYSIS | {
    "state": "queued",
    "percent": 0,
    "finished_at": None,
    "input": ANALYSIS["input"] | dict.fromkeys(("kind", "duration_s", "width", "height", "fps", "has_audio", "probe")),
    "branches": {},
    "verdict": None,
    "timings_ms": {},
}

DETECTORS: dict[str, Any] = {
    "pipeline": PIPELINE,
    "detectors": [
        {
            "name": "forensic_mlp",
            "version": "1",
            "branch": "visual",
            "state": "ready",
            "weights": WEIGHTS,
            "runtime": "torch",
            "dtype": "float32",
        },
        {
            "name": "lipfd",
            "version": "1",
            "branch": "lipsync",
            "state": "no_weights",
            "weights": None,
            "runtime": "torch",
            "dtype": "float32",
        },
    ],
}

READY: dict[str, Any] = {"status": "ready", "checks": {"redis": "ok", "postgres": "ok", "blob_store": "ok"}}

SEED_ACCEPTED: dict[str, Any] = {
    "analysisId": ANALYSIS["id"],
    "status": "processing",
    "percent": 0,
    "stageName": "Queued",
}

SEED_DONE: dict[str, Any] = {
    "analysisId": ANALYSIS["id"],
    "status": "done",
    "percent": 100,
    "stageName": "Final classification",
    "result": {"verdict": "Deepfake", "confidence": 83.0},
}

EXAMPLES: dict[tuple[str, str], dict[str, Any]] = {
    ("/v1/analyses", "post"): QUEUED,
    ("/v1/analyses/{analysis_id}", "get"): ANALYSIS,
    ("/v1/detectors", "get"): DETECTORS,
    ("/", "get"): {"service": "clipwarden", "links": {"analyses": "/v1/analyses", "openapi": "/openapi.json"}},
    ("/livez", "get"): {"status": "alive"},
    ("/readyz", "get"): READY,
    ("/analyze", "post"): SEED_ACCEPTED,
    ("/status/{analysis_id}", "get"): SEED_DONE,
}
