"""How a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from seqrec.config import Config
from seqrec.errors import unknown_name
from seqrec.evaluation import ACCURACY

#: Of a moving average.
Decay = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(Config):
    """Length of training, batches, optimiser, regularisation, early stopping, and what the hardware does."""

    epochs: int = Field(100, ge=1, description="at most this many")
    batch_size: int | None = Field(None, ge=1, description="histories per step; by itself 128, or 20 steps an epoch")
    random_windows: bool = Field(True, description="train on a random window of a long history, not only on its end")
    item_dropout: float = Field(0.0, ge=0, lt=1, description="share of input events hidden from the model in training")

    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0, description="on matrices; never on norms and biases")
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    warmup_steps: int = Field(100, ge=0, description="steps over which the learning rate rises")
    schedule: Literal["constant", "step", "linear"] = Field(
        "constant", description="what the learning rate does after that: stay, fall by steps, or to zero over `epochs`"
    )
    step_epochs: int = Field(5, ge=1, description="schedule step: epochs after which the learning rate falls")
    step_factor: float = Field(0.5, gt=0, le=1, description="schedule step: by what it is multiplied then")
    clip_norm: float = Field(1.0, gt=0, description="gradient norm above which a step is scaled down")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="averaged weights are evaluated and kept; 0 for none")

    metric: str = Field("ndcg@10", description="validation metric that chooses the epoch")
    patience: int = Field(10, ge=1, description="evaluations without improvement before stopping")
    evaluate_every: int = Field(1, ge=1, description="epochs between evaluations")

    shard_items: bool = Field(False, description="several processes: each holds a part of the item table, not a copy")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on a GPU")
    compile: Literal["auto", "off"] = Field("auto", description="auto: on a GPU, steps are recorded as CUDA graphs")
    checkpoint_seconds: float = Field(30.0, ge=0, description="time between checkpoints that training resumes from")

    def histories_per_step(self, people: int) -> int:
        """`batch_size`, or by itself: few people make few steps, and a small log learns more from small batches than
        from many epochs."""
        return self.batch_size or max(1, min(128, people // 20))

    def in_bfloat16(self, device: str) -> bool:
        """Whether matrix products are in bfloat16 on a device of this type."""
        return self.precision == "bfloat16" or (self.precision == "auto" and device == "cuda")

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        name, _, k = metric.partition("@")
        if name not in ACCURACY:
            raise ValueError(str(unknown_name("metric", name, ACCURACY)))
        if not k.isdigit() or int(k) < 1:
            raise ValueError("a metric is written name@k, such as ndcg@10")
        return metric
