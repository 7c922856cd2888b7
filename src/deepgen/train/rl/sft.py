"""The supervised loss beside the surrogate: the same objective and data as fine-tuning's, edits included."""

from collections.abc import Iterator
from functools import partial

from deepgen.checkpoints import GenerationDefaults
from deepgen.data.batch import TrainBatch
from deepgen.data.loader import MixtureLoader
from deepgen.model.deepgen import DeepGenModel
from deepgen.pipeline.inputs import check_length
from deepgen.train.monitor import LossMeter
from deepgen.train.parallel import Ranks, computing
from deepgen.train.report import BatchPlan, plan_batches
from deepgen.train.rl.config import RLConfig, SftConfig
from deepgen.train.supervised import Objective, batch_loss


class SftTerm:
    """Adds λ times the gradient of the supervised loss.

    Attributes:
        loader: its position is part of the run's state.
        meter: of the losses.
    """

    def __init__(
        self,
        model: DeepGenModel,
        config: RLConfig,
        settings: SftConfig,
        defaults: GenerationDefaults,
        ranks: Ranks,
    ) -> None:
        self.model, self.config, self.settings, self.ranks = model, config, settings, ranks
        self.plan: BatchPlan = plan_batches(settings, ranks.world_size)
        self.loader = MixtureLoader(
            settings.data,
            settings.batch_size,
            ranks.rank,
            ranks.world_size,
            settings.workers,
            partial(check_length, tokenizer=model.vlm.tokenizer),
        )
        sampler = config.sampler
        self.objective = Objective(
            config.seed, sampler.shift or defaults.shift, sampler.padding or defaults.padding, "sft"
        )
        self.meter = LossMeter(ranks)
        self._batches: Iterator[TrainBatch] | None = None

    def accumulate(self, update: int) -> None:
        """Add the gradient of one update, number `update` of the run."""
        if self._batches is None:
            self._batches = iter(self.loader)
        for turn in range(self.plan.accumulation):
            micro = self.plan.micro_batch(update, turn, self.ranks.rank)
            batch = next(self._batches)
            with computing(self.config.parallel, self.ranks):
                numbers = self.plan.sample_numbers(micro, len(batch))
                result = batch_loss(self.model, batch, self.objective, numbers)
            scale = self.settings.weight / (self.settings.batch_size * self.plan.accumulation)
            (scale * result.losses.sum()).backward()
            self.meter.add(result)
