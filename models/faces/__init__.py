"""Faces: found by MTCNN, followed from frame to frame, cut out as detectors want them."""

from clipwarden.models.faces.cascade import Face, FaceDetector
from clipwarden.models.faces.crops import crop, mouth_crop
from clipwarden.models.faces.tracking import FaceTracker, Tracked

__all__ = ["Face", "FaceDetector", "FaceTracker", "Tracked", "crop", "mouth_crop"]
