"""The forge: labelled manipulations of real media, made to train detectors, to measure them, and to be looked at."""
