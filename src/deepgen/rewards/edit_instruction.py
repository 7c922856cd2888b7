"""Whether an edit was carried out, by a judge that sees the sources and the result."""

from collections.abc import Sequence

from deepgen.rewards.config import JudgeSettings
from deepgen.rewards.judged import Asked, JudgeDesk
from deepgen.rewards.protocol import Kind, RewardInput, Score
from deepgen.rewards.templates import EDIT_INSTRUCTION, fill, read_template, read_yes


class EditInstruction:
    """1 for yes, 0 for no; no value without a source, or where the reply is neither."""

    kind: Kind = "pointwise"

    def __init__(self, name: str, settings: JudgeSettings) -> None:
        self.name = name
        self._template = read_template(settings.template, EDIT_INSTRUCTION)
        self._desk = JudgeDesk(name, settings)

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        scores = [Score(None, "the edit has no source")] * len(batch)
        places = [place for place, one in enumerate(batch) if one.references]
        questions = [
            Asked(fill(self._template, batch[place].prompt), (*batch[place].references, batch[place].picture))
            for place in places
        ]
        for place, answer in zip(places, self._desk.ask(questions, read_yes), strict=True):
            scores[place] = (
                Score(None, answer.reason, answer.failed)
                if answer.meaning is None
                else Score.of(float(answer.meaning))
            )
        return scores
