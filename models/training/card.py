"""Writes a model card from a finished run: facts that hold for the detector, figures that hold for the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from clipwarden.models.training.measure import Estimate
from clipwarden.models.training.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Facts:
    """The parts of a card that do not come from a run."""

    title: str
    summary: str
    data: str
    recipe: str
    protocol: str
    failures: str


FACTS: Final[dict[str, Facts]] = {
    "forensic_mlp": Facts(
        title="Forensic MLP",
        summary="""Judges face crops by twelve hand-made numbers (spectrum, noise, sharpness, block edges) with a
12-64-32-2 perceptron of 3,170 parameters. Eight frames spread over the clip, the followed face of each squared,
widened by 30 % and scaled to 256 px. Reports the mean, maximum and 90th percentile of P(fake) over the crops, and the
logistic of the mean logit as its score. Architecture and feature order follow the model specifications of
Monike123/The-Third-Derivative; that project published no weights, these are our own. Departures: feature 12 is the
mean step across vertical edges of the 8 x 8 grid, the noise ratio is clipped at 100, heavy-tailed features enter
as log(1 + x), features are clamped at four standard deviations.""",
        data="""Short clips of people from public repositories and project pages: interviews, news, driving and
research recordings against talking heads, portrait animation, face swaps, lip-sync, head avatars and text-to-video.
Many sources allow research only or state no licence at all; the weights hold 3,170 numbers and no picture.""",
        recipe="""Crops drawn by 1/sqrt(n) of the clip's generator or source, both labels equally often; half of the
draws are crops scaled, blurred and JPEG-coded once more, alike for both labels. AdamW.""",
        protocol="""Five folds; a fold's generators and sources, and every clip that shares a person or footage with
it, are not trained on. One score per clip, the mean logit over its crops. Clips without a face are not scored.""",
        failures="""- The features read the quality of a picture as much as its origin: compression, scaling, blur and
small faces can move the score in both directions. How much was not measured.
- Scores of different sources have different offsets; ranking within one source does not carry over to a threshold.
- Sees single crops: no motion, no sound, no background.
- Faces under about 40 px are not judged; drawings, masks and profile views were not tested.
- Does not know which face of several matters: it looks at the most prominent person of a frame (area times time).""",
    ),
    "cqcc_cnn": Facts(
        title="CQCC network",
        summary="""Judges speech by constant-Q cepstral coefficients (30 with slope and curvature, 90 rows, 16 ms a
column) with four convolutions, global average and one logit; 389,057 parameters. Up to two minutes of 16 kHz mono
in windows of 6.4 s, each 3.2 s after the one before; a longer clip gives twelve stretches of 9.6 s from its first to
its last second; sound below 3.2 s is repeated to that length. Windows below -60 dBFS and windows with less than 10 %
speech (by silero-vad, MIT) are left out and named. The score is the logistic of the mean logit. The architecture
follows the audio network of harsh-dev-05/Mugen-Deepfake; the weights are our own. Departures: rows are standardised
with statistics kept in the weights and clamped at five standard deviations, windows instead of one centre crop, no
zero padding, what is not speech is left out.""",
        data="""Read and spontaneous speech in several languages, against vocoder copies, classical and neural
text-to-speech and voice conversion of 64 systems. Part of it states no licence; the weights hold no recording.""",
        recipe="""Random stretches of 2.6 s, drawn by 1/sqrt(n) of the system or source, both labels equally often.
Each utterance also in two copies through random channels (MP3, AAC, Opus, noise, lost bandwidth, a room), alike for
both labels. A random constant on each cepstrum stands for an unknown microphone; random columns are masked. AdamW,
label smoothing, bfloat16, fixed length.""",
        protocol="""Five folds; a fold tests bona fide speech of its sources and spoofed speech of its families of
synthesis, and nothing of either is trained on. One score per utterance, without channel copies. "Modern" are recent
systems and new sources only: the honest part.""",
        failures="""- Systems and sources unlike the training ones are near chance; read the modern figures first.
- Formant and concatenative synthesis, WORLD and Griffin-Lim copies are missed when their family is unseen: their AUC
  is below 0.5 in the table.
- Bona fide speech of a telephone band scores lower (more genuine) than that of full bandwidth, see the means above:
  the channel enters the score.
- What noise, reverberation and repeated coding do to the score was not measured.
- Judges speech. Music, sound effects and singing are not in its training data. Where no speech is heard nothing is
  judged, but singing and speech over loud music may pass for speech and were not tested.
- A clip can be a video forgery with genuine sound, or the reverse: this score speaks of the sound alone.
- Above 4.8 kHz it is deaf by construction.""",
    ),
    "speech_stats": Facts(
        title="Speech statistics",
        summary="""Judges speech by 3,444 hand-made numbers and one linear discriminant of 3,445 parameters: how phases
agree from frame to frame and from line to line, in 16 bands and at three frame sizes; envelopes of bands by the
millisecond and how bands follow each other; slow and fast modulation; bicoherence; linear-frequency cepstra; flatness.
Up to two minutes of 16 kHz mono in windows of 8 s, each 4 s after the one before; a longer clip gives ten stretches of
12 s from its first to its last second. Windows below -60 dBFS and windows with less than 10 % speech (by silero-vad,
MIT) are left out and named. The score is the logistic of the mean logit. No number depends on the level of the sound;
heavy-tailed numbers enter as sign * log(1 + size), standardised and clamped at six standard deviations. Features and
weights are our own.""",
        data="""Read and spontaneous speech in several languages, against vocoder copies, classical and neural
text-to-speech and voice conversion of 64 systems. Part of it states no licence; the weights hold no recording.""",
        recipe="""A linear discriminant whose scatter within labels is shrunk towards a sphere. Utterances weigh
1/sqrt(n) of their system or source, both labels equally. Each utterance also in two copies through random channels
(MP3, AAC, Opus, noise, lost bandwidth, a room), alike for both labels. The logits are scaled to the least out-of-fold
log-loss. Nothing is random but the channels.

The shrinkage was chosen on the folds of the figures below, which flatters them a little. EER over all and on the
modern part by what was tried, with two copies: shrinkage 0.1 0.280 and 0.361, 0.2 0.262 and 0.338, 0.35 0.252 and
0.323, 0.5 0.244 and 0.316, 0.65 0.230 and 0.311, 0.8 0.244 and 0.331, 0.9 0.275 and 0.338; chosen anew for each fold
on the four others (0.65, 0.5, 0.8, 0.9, 0.65) 0.257 and 0.397, in part because the scales of such folds differ. With
shrinkage 0.5 and no copies 0.247 and 0.331. With one copy: 600 principal components and shrinkage 0.2 0.247 and 0.338,
a kernel machine on them 0.250 and 0.323, the sum of both 0.247 and 0.323: no gain for a thousand times the weights.""",
        protocol="""Five folds; a fold tests bona fide speech of its sources and spoofed speech of its families of
synthesis, and nothing of either is trained on. One score per utterance, without channel copies. "Modern" are recent
systems and new sources only: the honest part.""",
        failures="""- Systems and sources unlike the training ones are missed often; read the modern figures first.
- Noise, lossy codecs, a room and lost bandwidth cost accuracy: with shrinkage 0.5 the EER over all rises from 0.244 to
  0.291, on the modern part from 0.316 to 0.344, over copies that went through one random channel each.
- Judges speech. Music, sound effects and singing are not in its training data. Where no speech is heard nothing is
  judged, but singing and speech over loud music may pass for speech and were not tested.
- A clip can be a video forgery with genuine sound, or the reverse: this score speaks of the sound alone.""",
    ),
}


def card_text(detector: str, run: RunFolder) -> str:
    """The card in Markdown. Raises ConfigError if the run is not finished."""
    facts, metrics, data = FACTS[detector], run.read_json("metrics.json"), run.read_json("data.json")
    sections = {
        "What it is": facts.summary,
        "Data and licences": f"{facts.data}\n\n{_licences(data)}",
        "Recipe": f"{facts.recipe}\n\n{_recipe(detector, run)}",
        "Figures": f"{facts.protocol}\n\n{_figures(metrics)}",
        "Known failures": facts.failures,
        "Use": "An uncalibrated score that only the fusion may turn into a verdict. Not evidence on its own.",
    }
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items())
    return f"# {facts.title} (`{detector}`)\n\n{body}\n"


def _licences(data: Mapping[str, Any]) -> str:
    head = f"Trained on {data['fake']} fake and {data['real']} real items. Licences as their manifest states them:"
    return "\n".join([head, "", *(f"- {count} x {licence}" for licence, count in data["licences"].items())])


def _recipe(detector: str, run: RunFolder) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in run.config["recipe"].items())
    command = f"clipwarden train {detector} --data DIR --seed {run.config['seed']} --install"
    return f"{settings}.\n\n    {command}"


def _figures(metrics: Mapping[str, Any]) -> str:
    """A table of AUC and EER; intervals are 95 % bootstraps over groups of related items."""
    lines = ["| part | real | fake | groups | AUC [95 %] | EER [95 %] |", "|---|---|---|---|---|---|"]
    lines += [
        _row(name, metrics[key]) for name, key in (("all, pooled", "all"), ("modern", "modern")) if key in metrics
    ]
    lines += [_row(f"fold {k}", part) for k, part in metrics["folds"].items()]
    lines += [_row(name.replace("_", " "), part) for name, part in metrics.get("families", {}).items()]
    notes = [
        "Intervals resample whole groups (sources, speakers, generators); 0.5 is chance for both figures.",
        "Pooled figures mix five networks of one seed; the shipped network is a sixth, trained on everything.",
    ]
    if channels := metrics.get("channels"):
        means = ", ".join(f"{name} {c['mean_logit']:+.2f} ({c['real']})" for name, c in channels.items())
        notes.append(f"Mean logit of bona fide speech by channel (utterances): {means}.")
    if matched := metrics.get("source_matched_auc"):
        notes.append(
            f"Real against fake of the same repository, averaged over {matched['repositories']} repositories: "
            f"AUC {matched['mean']:.3f} (spread {matched['spread']:.3f})."
        )
    return "\n".join([*lines, "", "\n\n".join(notes)])


def _row(name: str, part: Mapping[str, Any]) -> str:
    auc, eer = Estimate(**part["auc"]), Estimate(**part["eer"])
    return f"| {name} | {part['real']} | {part['fake']} | {part['groups']} | {auc} | {eer} |"
