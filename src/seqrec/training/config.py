"""How a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from seqrec.config import Choice, Config, Range, Switch
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

    start_from: str | None = Field(
        None, description="a run or a weights file whose weights training starts from, as far as they fit"
    )
    optimizer: Literal["adamw", "adam", "rmsprop", "sgd", "muon"] = Field(
        "adamw",
        description="muon is for matrices inside blocks, with adamw for the rest; adam, rmsprop and sgd (with "
        "Nesterov's momentum) want a weight_decay near 0, and sgd a far higher learning_rate",
    )
    learning_rate: float = Field(1e-3, gt=0, description="the highest; see schedule")
    weight_decay: float = Field(
        0.1, ge=0, description="on matrices, never on norms and biases; adam, rmsprop and sgd add it to gradients"
    )
    betas: tuple[Decay, Decay] = Field(
        (0.9, 0.98), description="memory of adamw and adam for gradients and their squares; rmsprop takes the second"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and rmsprop; muon's is .95")
    warmup_steps: int = Field(100, ge=0, description="steps over which the learning rate rises; not for one_cycle")
    schedule: Literal["constant", "step", "plateau", "linear", "cosine", "one_cycle", "wsd"] = Field(
        "constant",
        description="what the learning rate does after that: stay; fall every few epochs, or when validation stops "
        "gaining; fall to zero over all `epochs` in a line or half a wave; rise for 30% of all steps and fall for the "
        "rest; stay, and fall to zero in the end",
    )
    step_epochs: int = Field(5, ge=1, description="schedule step: epochs after which the learning rate falls")
    step_factor: float = Field(
        0.5, gt=0, le=1, description="schedules step and plateau: by what the learning rate is multiplied then"
    )
    plateau_patience: int = Field(
        3, ge=0, description="schedule plateau: evaluations without improvement that are let pass before it falls"
    )
    decay_share: float = Field(0.2, gt=0, le=1, description="schedule wsd: share of all steps in which it falls")
    clip_norm: float = Field(1.0, gt=0, description="gradient norm above which a step is scaled down")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="averaged weights are evaluated and kept; 0 for none")
    average_best: int = Field(
        1, ge=1, description="best epochs whose mean weights are kept if they validate better than the best epoch's"
    )

    metric: str = Field("ndcg@10", description="validation metric that chooses the epoch")
    patience: int = Field(10, ge=1, description="evaluations without improvement before stopping")
    evaluate_every: int = Field(1, ge=1, description="epochs between evaluations")

    shard_items: bool = Field(False, description="several processes: each holds a part of the item table, not a copy")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on a GPU")
    compile: Literal["auto", "off"] = Field("auto", description="auto: on a GPU, steps are recorded as CUDA graphs")
    checkpoint_seconds: float = Field(30.0, ge=0, description="time between checkpoints that training resumes from")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "learning_rate": Range(5e-4, 4e-3, log=True),
        "weight_decay": Range(0.03, 1.0, log=True),
        "item_dropout": Choice(0.0, 0.1, 0.2),
        "schedule": Choice("constant", "linear"),
    }

    switches: ClassVar[Mapping[str, Switch]] = {
        "windows": Switch({"random_windows": False}),
        "item_dropout": Switch({"item_dropout": 0}),
        "augmentation": Switch({"random_windows": False, "item_dropout": 0}),
        "ema": Switch({"ema_decay": 0}),
        "averaging": Switch({"average_best": 1}),
        "weight_decay": Switch({"weight_decay": 0}),
        "warmup": Switch({"warmup_steps": 0}),
        "schedule": Switch({"schedule": "constant"}),
        "muon": Switch({"optimizer": "adamw"}, where={"optimizer": "muon"}),
        "start_from": Switch({"start_from": None}),
    }

    def histories_per_step(self, people: int) -> int:
        """`batch_size`, or by itself: few people make few steps, and a small log learns more from small batches than
        from many epochs."""
        return self.batch_size or max(1, min(128, people // 20))

    def in_bfloat16(self, device: str) -> bool:
        """Whether matrix products are in bfloat16 on a device of this type."""
        return self.precision == "bfloat16" or (self.precision == "auto" and device == "cuda")

    @field_validator("compile", mode="before")
    @classmethod
    def _off_is_a_word(cls, compile_: Any) -> Any:
        return "off" if compile_ is False else compile_  # which is how YAML 1.1 reads it

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        name, _, k = metric.partition("@")
        if name not in ACCURACY:
            raise ValueError(str(unknown_name("metric", name, ACCURACY)))
        if not k.isdigit() or int(k) < 1:
            raise ValueError("a metric is written name@k, such as ndcg@10")
        return metric

    @model_validator(mode="after")
    def _plateaus_come_before_the_end(self) -> Self:
        if self.schedule == "plateau" and self.plateau_patience >= self.patience:
            raise ValueError(
                f"plateau_patience {self.plateau_patience} is never over before patience {self.patience} ends training"
            )
        return self
