"""Writes a model card from a finished run: facts that hold for the detector, figures that hold for the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from clipwarden.models.training.measure import Estimate
from clipwarden.models.training.run_folder import AS_IT_IS, CODED, THINNED, RunFolder

_UNCALIBRATED: Final = "An uncalibrated score that only the fusion may turn into a verdict. Not evidence on its own."
_STANDBY: Final = """An uncalibrated score that no verdict weighs yet. On standby: it takes part only where it is named
(`--detectors`), for the default for frames tells more in less time."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The parts of a card that do not come from a run; without summary or failures those of the installed card stay.

    What was tried once stays in the installed card too: no code can make its figures anew.
    """

    title: str
    data: str
    recipe: str
    protocol: str
    aim: str = ""
    summary: str = ""
    failures: str = ""
    use: str = _UNCALIBRATED


_CLIPS: Final = """Short clips of people from public repositories and project pages: interviews, news, driving and
research recordings against talking heads, portrait animation, face swaps, lip-sync, head avatars and text-to-video.
Many sources allow research only or state no licence at all; the weights hold no picture and no recording."""
_SPEECH: Final = """Read and spontaneous speech in several languages, against vocoder copies, classical and neural
text-to-speech and voice conversion of 64 systems. Part of it states no licence; the weights hold no recording."""
_BY_CLIPS: Final = """Five folds; a fold's generators and sources, and every clip that shares a person or footage with
it, are not trained on. One score per clip."""
_BY_SPEECH: Final = """Five folds; a fold tests bona fide speech of its sources and spoofed speech of its families of
synthesis, and nothing of either is trained on. One score per utterance, without channel copies. "Modern" are recent
systems and new sources only: the honest part."""
_SPECIFIED: Final = """The recipe that the model specifications state for the frames: AdamW, a cosine to zero over the
epochs, label smoothing. An epoch takes one {example} of each {item}. From random weights: there are none to start from
that may be shipped."""

_FROM_NOTHING: Final = """Binary cross entropy of single faces, by the documents of the 5-way pipeline: small crops,
mirrored, recoloured. Faces are drawn by 1/sqrt(n) of the clip's generator or source, both labels equally often, half of
them from a copy of the clip as H.264 at CRF 30. AdamW with a warm-up and a cosine, clipped gradients. From random
weights."""

_VERSIONS: Final = {
    AS_IT_IS: "clips as they are",
    THINNED: "clips as they are, by every fourth of their faces",
    CODED: "copies by H.264 at CRF 30, by every fourth of their faces",
}
_PARTS: Final = {
    "all": "all, pooled",
    "modern": "modern",
    "all_copied": "all, pooled, copied",
    "modern_copied": "modern, copied",
}
_TRIED: Final = "Tried once, not reproduced by the command"


FACTS: Final[dict[str, Facts]] = {
    "frame_efficientnet_b4": Facts(
        title="EfficientNet-B4 of frames",
        data=_CLIPS,
        recipe=_SPECIFIED.format(example="face", item="clip"),
        protocol=_BY_CLIPS,
    ),
    "temporal_3dcnn": Facts(
        title="3D convolutional network",
        data=_CLIPS,
        recipe=_SPECIFIED.format(example="run of sixteen frames", item="clip"),
        protocol=_BY_CLIPS,
    ),
    "mel_resnet18": Facts(
        title="Mel ResNet-18",
        data=_SPEECH,
        recipe=_SPECIFIED.format(example="window", item="utterance"),
        protocol=_BY_SPEECH,
    ),
    "av_sync": Facts(
        title="Two towers for mouth and sound",
        data="""Real clips with sound in which somebody speaks in sight: interviews, news and recordings from public
repositories and project pages. Many sources allow research only or state no licence at all; the weights hold no picture
and no recording.""",
        recipe="""Principal components of the mouths (mean of the five frames, and the steps between them) and of the
sounds, each less the clip's mean and in units of its spread, and of these the four pairs of directions that correlate
most (canonical correlations). Nothing is random. The cosine becomes log-odds by a scale and a bias with the least
out-of-fold log-loss over the clips below.""",
        protocol="""Five folds; people, footage and sources of a fold are not trained on. "Real" is a clip as it is,
"fake" the same clip with its sound 0.2 to 1 s early or late, twice each, what falls off one end coming in at the other.
Groups are people.""",
        use="Calibrated to tell moved sound on the clips above. Shown beside a verdict and weighed in none.",
    ),
    "frame_stats": Facts(
        title="Frame statistics",
        data=_CLIPS,
        recipe="""A linear discriminant on the mean numbers of each clip, its scatter within labels shrunk towards a
sphere, and of that scatter the part between generators or sources counted little: unseen ones lie elsewhere. Clips
weigh 1/sqrt(n) of their generator or source, both labels equally. The logits are scaled to the least out-of-fold
log-loss. Nothing is random.""",
        protocol=_BY_CLIPS,
        aim="""Aimed at: AUC 0.80 over all, and 0.82 with repositories left out. Where a figure is below: real and fake
of one repository are told apart better than clips of different ones, whose scores have different offsets, and 138 real
clips of 56 repositories were too few to learn these. The thresholds of verdicts are the fusion's: its card says how
many real clips they give away.""",
    ),
    "tiny_gate": Facts(
        title="Tiny gate",
        data=f"""{_CLIPS}

The network was written from its published description. The authors' weights are under the Yissum research licence (no
commercial use, weights and derivatives included): loadable, never shipped, never trained on.""",
        recipe=_FROM_NOTHING,
        protocol=_BY_CLIPS,
        use=f"""{_STANDBY}

To run the authors' weights where their licence allows it, `clipwarden models install tiny_gate FILE`; it must fit name
by name, or it is refused with every difference. Its options (`--option KEY=VALUE`) must name the filter and the
scaling: `front` is `npr` for the file named ForenSynth, a gradient for the one named WildRF; `scaling` is `imagenet`,
or `unit` with `front` `raw` for the 5-way pipeline's file.""",
    ),
    "frame_resnet18": Facts(
        title="ResNet-18 of faces",
        data=_CLIPS,
        recipe=_FROM_NOTHING,
        protocol=_BY_CLIPS,
        use=_STANDBY,
    ),
    "temporal_bilstm": Facts(
        title="BiLSTM over faces",
        data=_CLIPS,
        recipe="""Binary cross entropy of the mean logit over runs of the sequence, turned round in time or not, drawn
by 1/sqrt(n) of the clip's generator or source, both labels equally often. AdamW, one cycle, clipped gradients. On
embeddings of the frame network, which is frozen; a fold's sequences come from the fold's own.""",
        protocol=_BY_CLIPS,
        use=_STANDBY,
    ),
    "forensic_mlp": Facts(
        title="Forensic MLP",
        summary="""Judges face crops by twelve hand-made numbers (spectrum, noise, sharpness, block edges) with a
12-64-32-2 perceptron of 3,170 parameters. Eight frames spread over the clip, the followed face of each squared,
widened by 30 % and scaled to 256 px. Reports the mean, maximum and 90th percentile of P(fake) over the crops, and the
logistic of the mean logit as its score. Architecture and feature order follow the model specifications of
Monike123/The-Third-Derivative; that project published no weights, these are our own. Departures: feature 12 is the
mean step across vertical edges of the 8 x 8 grid, the noise ratio is clipped at 100, heavy-tailed features enter
as log(1 + x), features are clamped at four standard deviations.""",
        data=_CLIPS,
        recipe="""Crops drawn by 1/sqrt(n) of the clip's generator or source, both labels equally often; half of the
draws are crops scaled, blurred and JPEG-coded once more, alike for both labels. AdamW.""",
        protocol=f"{_BY_CLIPS} It is the mean logit over its crops; clips without a face have none.",
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
        data=_SPEECH,
        recipe="""Random stretches of 2.6 s, drawn by 1/sqrt(n) of the system or source, both labels equally often.
Each utterance also in two copies through random channels (MP3, AAC, Opus, noise, lost bandwidth, a room), alike for
both labels. A random constant on each cepstrum stands for an unknown microphone; random columns are masked. AdamW,
label smoothing, bfloat16, fixed length.""",
        protocol=_BY_SPEECH,
        failures="""- Systems and sources unlike the training ones are near chance; read the modern figures first.
- Families with an AUC near or below 0.5 in the table, formant and concatenative synthesis first of all, are missed when
  they are unseen.
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
        data=_SPEECH,
        recipe="""A linear discriminant whose scatter within labels is shrunk towards a sphere. Utterances weigh
1/sqrt(n) of their system or source, both labels equally. Each utterance also in two copies through random channels
(MP3, AAC, Opus, noise, lost bandwidth, a room), alike for both labels. The logits are scaled to the least out-of-fold
log-loss. Nothing is random but the channels.""",
        protocol=_BY_SPEECH,
        aim="""Aimed at, by the headline protocol: EER 0.19 over all, 0.27 on the modern part, 0.25 over all, copied.
None is reached. Families of synthesis that are unseen and not neural, or that copy genuine speech, are told from
genuine speech no better than by chance (see the table), and further copies and voices of the forge's did not help: more
systems and sources of other people's are needed.""",
        failures="""- Systems and sources unlike the training ones are missed often; read the modern figures first.
- Formant and concatenative synthesis and copies by neural vocoders are missed when their family is unseen: their AUC is
  below 0.5 in the table.
- Noise, lossy codecs, a room and lost bandwidth cost accuracy.
- Judges speech. Music, sound effects and singing are not in its training data. Where no speech is heard nothing is
  judged, but singing and speech over loud music may pass for speech and were not tested.
- A clip can be a video forgery with genuine sound, or the reverse: this score speaks of the sound alone.""",
    ),
}


def card_text(detector: str, run: RunFolder) -> str:
    """The card in Markdown. Raises ConfigError if the run is not finished."""
    facts, metrics, data = FACTS[detector], run.read_json("metrics.json"), run.read_json("data.json")
    stays = _installed(detector)
    sections = {
        "What it is": facts.summary or stays["What it is"],
        "Data and licences": f"{facts.data}\n\n{_licences(data)}",
        "Recipe": f"{facts.recipe}\n\n{_recipe(detector, run)}",
        _TRIED: stays.get(_TRIED, ""),
        "Figures": "\n\n".join(filter(None, (facts.protocol, _figures(metrics), facts.aim))),
        "Known failures": facts.failures or stays["Known failures"],
        "Use": facts.use,
    }
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items() if text)
    return f"# {facts.title} (`{detector}`)\n\n{body}\n"


def _installed(detector: str) -> dict[str, str]:
    """The sections of the installed card, by title."""
    text = files("clipwarden.models").joinpath(f"cards/{detector}.md").read_text("utf-8")
    return {title: body.strip() for title, _, body in (part.partition("\n") for part in text.split("\n## ")[1:])}


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
    lines += [_row(name, metrics[key]) for key, name in _PARTS.items() if key in metrics]
    lines += [_row(f"headline: {_PARTS[key]}", part) for key, part in metrics.get("headline", {}).items()]
    lines += [_row(f"fold {k}", part) for k, part in metrics["folds"].items()]
    lines += [_row(name.replace("_", " "), part) for name, part in metrics.get("families", {}).items()]
    notes = [
        "Intervals resample whole groups (sources, speakers, generators); 0.5 is chance for both figures.",
        "Pooled figures mix five fits of one seed, one for each fold; what ships is a sixth, made from everything.",
    ]
    if "families" in metrics:
        notes.append("Speakers of a tested fold are not trained on either.")
    if "headline" in metrics:
        notes.append(
            "Copied: each utterance went through one random channel before it was judged. Headline: the protocol that "
            "the corpus states, in which sources and families are unseen and speakers need not be."
        )
    if channels := metrics.get("channels"):
        means = ", ".join(f"{name} {c['mean_logit']:+.2f} ({c['real']})" for name, c in channels.items())
        notes.append(f"Mean logit of bona fide speech by channel (utterances): {means}.")
    if matched := metrics.get("source_matched_auc"):
        notes.append(
            f"Real against fake of the same repository, averaged over {matched['repositories']} repositories: "
            f"AUC {matched['mean']:.3f} (spread {matched['spread']:.3f})."
        )
    if apart := metrics.get("left_out_auc"):
        notes.append(
            f"Each of {apart['repositories']} repositories left out in turn, with its generators, people and footage: "
            f"real against fake within it, AUC {Estimate(**apart['auc'])} over repositories."
        )
    if look := metrics.get("first_look"):
        notes.append(
            f"A first look that clears a clip if no patch of it is above {look['clear_below']:.4f} loses "
            f"{look['fake_cleared']:.0%} of the fakes and spares {look['real_cleared']:.0%} of the real clips; the "
            "bound was chosen on these same clips."
        )
    notes += [_operation(_VERSIONS[name], shares) for name, shares in metrics.get("operation", {}).items()]
    return "\n".join([*lines, "", "\n\n".join(notes)])


def _operation(version: str, shares: Mapping[str, float]) -> str:
    """What becomes of clips at thresholds that gave away a tenth of each label of other folds."""
    return (
        f"At thresholds that give away 10 % of the other folds' clips ({version}): of the fakes "
        f"{shares['fake_called_fake']:.0%} are called fake, {shares['fake_called_real']:.0%} real, "
        f"{shares['fake_inconclusive']:.0%} neither; of the real clips {shares['real_called_fake']:.0%} are called "
        f"fake, {shares['real_called_real']:.0%} real, {shares['real_inconclusive']:.0%} neither."
    )


def _row(name: str, part: Mapping[str, Any]) -> str:
    auc, eer = Estimate(**part["auc"]), Estimate(**part["eer"])
    return f"| {name} | {part['real']} | {part['fake']} | {part['groups']} | {auc} | {eer} |"
