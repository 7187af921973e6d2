"""The examples of the OpenAPI document; a test reads each back through its schema."""

from typing import Any

WEIGHTS = "sha256:" + "5e" * 32
PIPELINE = "sha256:" + "a1" * 32

HERE = "/v1/analyses/019f2b1c-4a00-7c3e-9d2a-0f6c1b7e5a10"
OPENS = "?expires=1795266000&signature=Zk1vUc0pQ3sT5dJx8bY2nR7wLh4gAe9oMi6qKfVtXyE"
FACE = f"{HERE}/evidence/visual/forensic_mlp/face-0.jpg{OPENS}"

ANALYSIS: dict[str, Any] = {
    "id": "019f2b1c-4a00-7c3e-9d2a-0f6c1b7e5a10",
    "state": "done",
    "stage": None,
    "percent": 100,
    "queue_position": None,
    "eta_s": None,
    "rerun_of": None,
    "follows": None,
    "from_cache": False,
    "created_at": "2026-11-21T10:00:00Z",
    "finished_at": "2026-11-21T10:00:03Z",
    "deleted_at": None,
    "tag": "report-4711",
    "metadata": {"account": "a-17"},
    "pipeline": PIPELINE,
    "detectors": None,
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
            "reused": False,
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
                            "href": FACE,
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
            "reused": False,
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
        "thresholds": {"real": 0.44, "fake": 0.56},
        "error_rates": {
            "real_called_fake": {"count": 13, "clips": 138, "low": 0.0511, "high": 0.1557},
            "real_called_real": {"count": 20, "clips": 138, "low": 0.0909, "high": 0.2148},
            "fake_called_fake": {"count": 46, "clips": 252, "low": 0.1367, "high": 0.2359},
            "fake_called_real": {"count": 25, "clips": 252, "low": 0.0652, "high": 0.1430},
            "real_groups": 56,
            "fake_groups": 76,
            "text": "Of 138 real clips held out of the fit, 13 (9%, with 95% confidence 5% to 16%) were "
            "called fake as well. Of 252 fake ones it found 46.",
        },
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
    "links": {
        "self": HERE,
        "events": f"{HERE}/events",
        "media": f"{HERE}/media{OPENS}",
        "report": f"{HERE}/report{OPENS}",
    },
}

QUEUED: dict[str, Any] = ANALYSIS | {
    "state": "queued",
    "percent": 0,
    "finished_at": None,
    "input": ANALYSIS["input"] | dict.fromkeys(("kind", "duration_s", "width", "height", "fps", "has_audio", "probe")),
    "branches": {},
    "verdict": None,
    "timings_ms": {},
    "links": {name: link for name, link in ANALYSIS["links"].items() if name != "report"},
}

LISTED: dict[str, Any] = {
    "analyses": [
        {
            **{name: ANALYSIS[name] for name in ("id", "state", "created_at", "finished_at", "tag", "from_cache")},
            "filename": "clip.mp4",
            "kind": "video",
            "duration_s": 8.0,
            "lane": "realtime",
            "batch": None,
            "follows": None,
            "label": "fake",
            "probability": 0.6681877721681662,
            "feedback": None,
            "error": None,
            "links": {"self": HERE},
        }
    ],
    "next": "AZ8rHEoAfD6dKg9sG35aEA",
}

CANCELLED: dict[str, Any] = QUEUED | {
    "state": "cancelled",
    "finished_at": "2026-11-21T10:00:03Z",
    "links": ANALYSIS["links"],
}

DELETED: dict[str, Any] = CANCELLED | {
    "state": "deleted",
    "deleted_at": "2026-11-21T11:00:00Z",
    "input": QUEUED["input"] | {"filename": "", "bytes": 0, "sha256": ""},
    "tag": None,
    "metadata": {},
    "links": {"self": HERE, "events": f"{HERE}/events"},
}

FEEDBACK: dict[str, Any] = {
    "id": "019f2b1c-9d00-7a11-8c3e-2b6f4d0e9a77",
    "label": "real",
    "category": "false_positive",
    "comment": "The original is on the broadcaster's site.",
    "created_at": "2026-11-21T10:30:00Z",
}

SIGLIP_LSTM: dict[str, Any] = {
    "prediction": "FAKE",
    "confidence": 0.9,
    "metadata": {
        "model_version": "V4",
        "frames_analyzed": 2,
        "video_duration": 8.0,
        "per_frame_scores": [0.8, 0.9],
        "rolling_average_scores": [0.8, 0.85],
        "temporal_metrics": {"score_variance": 0.0025, "consistency_score": 0.9},
    },
}

LIPFD: dict[str, Any] = {
    "prediction": "REAL",
    "confidence": 0.75,
    "processing_time": 1.5,
    "frames_analyzed": 2,
    "frame_predictions": [
        {"index": 0, "score": 0.125, "prediction": "REAL"},
        {"index": 1, "score": 0.375, "prediction": "REAL"},
    ],
    "metrics": {"final_average_score": 0.25, "window_scores": [0.125, 0.375]},
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
    "policies": ["balanced", "strict"],
    "limits": {"bytes": 2147483648, "duration_s": 7200.0, "pixels": 67108864, "frames": 500000},
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

DELIVERY: dict[str, Any] = {
    "id": "019f2b1c-56b8-7d11-8e0f-3c9a7d5b2e64",
    "event": "analysis.done",
    "analysis_id": ANALYSIS["id"],
    "url": "https://hooks.example.com/clipwarden",
    "status": "ok",
    "attempts": 1,
    "next_attempt_at": None,
    "created_at": "2026-11-21T10:00:03Z",
    "finished_at": "2026-11-21T10:00:04Z",
    "log": [{"at": "2026-11-21T10:00:04Z", "elapsed_ms": 87, "status": 204, "error": None}],
}
REPLAYED: dict[str, Any] = {
    **DELIVERY,
    "status": "open",
    "attempts": 0,
    "next_attempt_at": "2026-11-21T11:30:00Z",
    "finished_at": None,
}
PING: dict[str, Any] = {**REPLAYED, "event": "webhook.ping", "analysis_id": None, "log": []}
SECRETS: dict[str, Any] = {
    "secrets": [
        {
            "id": "019f2b1c-1111-7d11-8e0f-3c9a7d5b2e64",
            "secret": "whsec_" + "A" * 43 + "=",
            "created_at": "2026-11-21T09:00:00Z",
            "expires_at": None,
        }
    ]
}

UPLOADED: dict[str, Any] = {
    "id": "019f2b1c-2222-7d11-8e0f-3c9a7d5b2e64",
    "filename": "clip.mp4",
    "bytes": 1234567,
    "sha256": "0" * 64,
    "expires_at": "2026-11-22T10:00:00Z",
}

ANNOUNCED: dict[str, Any] = {
    "id": UPLOADED["id"],
    "put": {
        "url": "https://bucket.example.com/uploads/019f2b1c?X-Amz-Signature=0",
        "headers": {},
        "expires_at": "2026-11-21T11:00:00Z",
    },
    "links": {"complete": f"/v1/uploads/{UPLOADED['id']}/complete"},
}

BATCH: dict[str, Any] = {
    "id": "019f2b1c-3333-7d11-8e0f-3c9a7d5b2e64",
    "tag": "monday",
    "created_at": "2026-11-21T10:00:00Z",
    "total": 2,
    "accepted": 1,
    "refused": 1,
    "ended": 0,
    "states": {"queued": 1},
    "labels": {},
    "items": [
        {
            "index": 0,
            "id": ANALYSIS["id"],
            "state": "queued",
            "label": None,
            "error": None,
            "links": {"self": f"/v1/analyses/{ANALYSIS['id']}"},
        },
        {
            "index": 1,
            "id": None,
            "state": None,
            "label": None,
            "error": {"code": "invalid", "message": "The field 'tga' is not known."},
            "links": {},
        },
    ],
    "next": None,
    "links": {
        "self": "/v1/batches/019f2b1c-3333-7d11-8e0f-3c9a7d5b2e64",
        "analyses": "/v1/analyses?batch=019f2b1c-3333-7d11-8e0f-3c9a7d5b2e64",
    },
}

EXAMPLES: dict[tuple[str, str], dict[str, Any]] = {
    ("/v1/analyses", "post"): QUEUED,
    ("/v1/analyses", "get"): LISTED,
    ("/v1/analyses/{analysis_id}", "get"): ANALYSIS,
    ("/v1/analyses/{analysis_id}", "delete"): DELETED,
    ("/v1/analyses/{analysis_id}/cancel", "post"): CANCELLED,
    ("/v1/analyses/{analysis_id}/rerun", "post"): QUEUED | {"rerun_of": "019f2b1b-0000-7c3e-9d2a-0f6c1b7e5a10"},
    ("/v1/analyses/{analysis_id}/feedback", "post"): FEEDBACK,
    ("/v1/analyses/{analysis_id}/feedback", "get"): {"feedback": [FEEDBACK]},
    ("/v1/analyses/{analysis_id}/verdict", "get"): {
        "policy": "low-false-positive",
        "label": "inconclusive",
        "probability": 0.6681877721681662,
        "head": "visual",
    },
    ("/v1/analyses/{analysis_id}/views/siglip-lstm", "get"): SIGLIP_LSTM,
    ("/v1/analyses/{analysis_id}/views/lipfd", "get"): LIPFD,
    ("/v1/analyses/{analysis_id}/views/lipfd-fixed", "get"): LIPFD,
    ("/v1/uploads/{filename}", "put"): UPLOADED,
    ("/v1/uploads", "post"): ANNOUNCED,
    ("/v1/uploads/{upload_id}/complete", "post"): UPLOADED,
    ("/v1/batches", "post"): BATCH,
    ("/v1/batches/{batch_id}", "get"): BATCH,
    ("/v1/detectors", "get"): DETECTORS,
    ("/v1/webhooks/deliveries", "get"): {"deliveries": [DELIVERY], "next": None},
    ("/v1/webhooks/deliveries/{delivery_id}", "get"): DELIVERY,
    ("/v1/webhooks/deliveries/{delivery_id}/replay", "post"): REPLAYED,
    ("/v1/webhooks/test", "post"): PING,
    ("/v1/webhooks/secrets", "get"): SECRETS,
    ("/v1/webhooks/secrets/rotate", "post"): SECRETS,
    ("/", "get"): {
        "service": "clipwarden",
        "links": {"analyses": "/v1/analyses", "openapi": "/openapi.json", "page": "/page/"},
    },
    ("/livez", "get"): {"status": "alive"},
    ("/readyz", "get"): READY,
    ("/analyze", "post"): SEED_ACCEPTED,
    ("/status/{analysis_id}", "get"): SEED_DONE,
}
