"""Which judge a benchmark is put to, and the scorer behind its name."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from deepgen.errors import InputError
from deepgen.evaluation.benchmark import Benchmark
from deepgen.scorers.calls import JudgeProfile
from deepgen.scorers.endpoint import Endpoint
from deepgen.scorers.judge import JudgeClient, Patience, Scorer


@dataclass(frozen=True)
class ScorerOptions:
    """Where a scorer is and what it needs. url: of an endpoint; key_variable: the environment variable with its
    key; command: of an external program; detector, clip: model folders; device: of local models."""

    url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    patience_seconds: float = 900.0
    timeout_seconds: float = 300.0
    command: str | None = None
    detector: Path | None = None
    clip: Path | None = None
    device: str = "cpu"


def choose_profile(benchmark: Benchmark, judge: str | None, model: str | None) -> JudgeProfile:
    """The manner of asking: the benchmark's profile of that name (the first if None), with another model if given.

    A judge that the benchmark does not know is asked in the first profile's manner. A model other than the
    profile's own shows in the judge's name, and so in every metric's.
    """
    known = {profile.name: profile for profile in benchmark.judges}
    profile = benchmark.judges[0] if judge is None else known.get(judge)
    if profile is None:
        if benchmark.judges[0].kind != "openai":
            raise InputError(f"{benchmark.name} has no judge {judge!r}; choose from {', '.join(known)}")
        return replace(benchmark.judges[0], name=str(judge), model=model or str(judge))
    own = profile.model or profile.name
    if model is not None and model != own:
        return replace(profile, name=f"{model}~{profile.name}", model=model)
    return replace(profile, model=own) if profile.kind == "openai" else profile


def build_scorer(benchmark: Benchmark, profile: JudgeProfile, options: ScorerOptions) -> Scorer:
    """The scorer of a profile's kind. Raises InputError that names the option it lacks."""
    own = benchmark.own_scorer(profile, options)
    if own is not None:
        return own
    if profile.kind not in BUILDERS:
        raise InputError(f"{benchmark.name}: no scorer of kind {profile.kind!r}")
    return BUILDERS[profile.kind](profile, options)


def _endpoint(profile: JudgeProfile, options: ScorerOptions) -> Scorer:
    if options.url is None:
        raise InputError(f"judge {profile.name} needs --url, such as http://localhost:8000/v1")
    endpoint = Endpoint(options.url, os.environ.get(options.key_variable), options.timeout_seconds)
    return JudgeClient(profile, endpoint, options.concurrency, Patience(options.patience_seconds))


def _process(profile: JudgeProfile, options: ScorerOptions) -> Scorer:
    if options.command is None:
        raise InputError(f"scorer {profile.name} is a program of its own and needs --command")
    from deepgen.scorers.process import ProcessScorer

    return ProcessScorer(replace(profile, model=profile.model or options.command), options.command)


def _geneval_hf(profile: JudgeProfile, options: ScorerOptions) -> Scorer:
    if options.detector is None or options.clip is None:
        raise InputError(
            "scorer geneval-hf needs --detector (Mask2Former's folder) and --clip (CLIP's folder)"
        )
    from deepgen.scorers.geneval_hf import GenEvalScorer

    return GenEvalScorer(options.detector, options.clip, options.device)


def _ocr_clip(profile: JudgeProfile, options: ScorerOptions) -> Scorer:
    from deepgen.scorers.ocr_clip import OcrClipScorer

    return OcrClipScorer(options.clip, options.device)


BUILDERS: dict[str, Callable[[JudgeProfile, ScorerOptions], Scorer]] = {
    "openai": _endpoint,
    "process": _process,
    "geneval-hf": _geneval_hf,
    "ocr-clip": _ocr_clip,
}
