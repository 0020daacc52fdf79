"""Settings of the xLSTM. Defaults are what recommends best; the family of blocks is that of the two papers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from seqrec.config import Choice, Range, Switch
from seqrec.models.cloze import ClozeConfig

#: Names of kernels elsewhere, alone or with more after an underscore: those of the package xlstm, and older ones.
OTHER_KERNEL_NAMES = {
    "chunkwise": "native",
    "chunkwise--native": "native",
    "chunkwise--triton": "triton",
    "parallel--native": "parallel",
    "parallel--triton": "triton",
    "native_sequence__native": "native",
    "native_sequence__torch": "native",
    "native_sequence__triton": "triton",
    "torch": "native",
    "step": "recurrent",
}


class XLSTMConfig(ClozeConfig):
    """What the blocks are, and which form of a cell runs where."""

    stack: str = Field("m", description="blocks in order, repeated: m mLSTM, s sLSTM, a attention; or m:s as in '7:1'")
    projection: Literal["post", "pre"] = Field(
        "post", description="of mLSTM blocks: a feed-forward layer after the cell, or the cell inside a wider space"
    )
    projection_factor: float = Field(2, gt=0, description="width of that space over embedding_dim")
    conv_width: int = Field(4, ge=0, description="events that the causal convolution before a cell sees; 0 or 1: none")
    gate_cap: float | None = Field(15, gt=0, description="mLSTM gates saturate smoothly here before their activation")
    shared_conv: bool = Field(False, description="one convolution for all cells, not one each")
    key_factor: float = Field(1, gt=0, description="width of an mLSTM's queries and keys over that of its values")
    key_value_heads: int | None = Field(
        None, ge=1, description="of mLSTM blocks: as many keys and values, shared among the heads; by itself num_heads"
    )
    gates: Literal["learned", "constant"] = Field(
        "learned",
        description="constant: what comes in does not move input and forget gates; an sLSTM's output still does",
    )
    head_norm: bool = Field(True, description="normalise what each head of a cell gives")
    output_gate: Literal["sigmoid", "silu", "none"] = Field(
        "sigmoid", description="of mLSTM blocks, projection post; pre has SiLU and sLSTM sigmoid by their nature"
    )
    forget_bias: tuple[float, float] = Field((3, 6), description="forget gates start there, evenly from first to last")
    input_bias: float = Field(0, description="input gates start there")
    time_gate: bool = Field(False, description="forget gates see the time since the event before; needs clock times")
    position_gate: bool = Field(False, description="forget gates see how many events came before")
    bidirectional: bool = Field(False, description="every second cell reads backwards; trained to fill gaps")
    chunkwise_kernel: Literal["auto", "native", "triton", "nxai", "parallel", "recurrent"] = Field(
        "auto", description="form of a cell in training"
    )
    sequence_kernel: Literal["auto", "native", "triton", "nxai", "recurrent"] = Field(
        "auto", description="form that reads a history and leaves a state"
    )
    step_kernel: Literal["auto", "native", "triton", "nxai"] = Field("auto", description="form that takes one event")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "stack": Choice("m", "ms", "ma"),
        "num_heads": Choice(2, 4, 8),
        "num_blocks": Choice(2, 3, 4),
    }

    switches: ClassVar[Mapping[str, Switch]] = {
        "conv": Switch({"conv_width": 0}),
        "gates": Switch({"gates": "constant"}),
        "output_gate": Switch({"output_gate": "none"}, where={"projection": "post"}),
        "head_norm": Switch({"head_norm": False}),
        "gate_cap": Switch({"gate_cap": None}),
        "forget_bias": Switch({"forget_bias": [0, 0]}),
        "feedforward": Switch({"feedforward_factor": 0}),
        "stack": Switch({"stack": "m"}),
        "shared_conv": Switch({"shared_conv": False}),
        "shared_keys": Switch({"key_value_heads": None}),
        "key_factor": Switch({"key_factor": 1}),
        "time_gate": Switch({"time_gate": False}),
        "position_gate": Switch({"position_gate": False}),
        "bidirectional": Switch({"bidirectional": False}),
        "last_masked": Switch({"last_share": 0}, where={"bidirectional": True}),
    }

    @property
    def kinds(self) -> str:
        """The kind of each block, bottom first: `num_blocks` letters."""
        return (self.stack * self.num_blocks)[: self.num_blocks]

    @property
    def inner_dim(self) -> int:
        """Width in which an mLSTM works."""
        return self.embedding_dim if self.projection == "post" else int(self.embedding_dim * self.projection_factor)

    @field_validator("stack", mode="before")
    @classmethod
    def _letters(cls, stack: Any) -> Any:
        if isinstance(stack, int) and stack >= 60:
            stack = f"{stack // 60}:{stack % 60}"  # YAML reads 7:1 as minutes and seconds
        if not isinstance(stack, str):
            return stack
        ratio = re.fullmatch(r"(\d+):(\d+)", stack)
        letters = "m" * int(ratio[1]) + "s" * int(ratio[2]) if ratio else stack
        if not letters or set(letters) - set("msa"):
            raise ValueError("name blocks by m (mLSTM), s (sLSTM) and a (attention), or mLSTM to sLSTM as in '7:1'")
        return letters

    @field_validator("chunkwise_kernel", "sequence_kernel", "step_kernel", mode="before")
    @classmethod
    def _short(cls, kernel: Any, info: ValidationInfo) -> Any:
        known = (short for name, short in OTHER_KERNEL_NAMES.items() if f"{kernel}_".startswith(f"{name}_"))
        short = next(known, kernel)
        return "native" if (info.field_name, short) == ("step_kernel", "recurrent") else short

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.inner_dim < 1 or self.inner_dim % self.num_heads:
            raise ValueError(
                f"embedding_dim * projection_factor is {self.inner_dim}, not a positive multiple of num_heads "
                f"{self.num_heads}"
            )
        if self.num_heads % (self.key_value_heads or 1):
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of key_value_heads {self.key_value_heads}")
        if self.shared_conv and not set(self.kinds) & set("ms"):
            raise ValueError("shared_conv is for mLSTM and sLSTM blocks, and stack names none: leave it out")
        if self.shared_conv and self.projection == "pre" and "s" in self.kinds and "m" in self.kinds:
            raise ValueError("shared_conv needs cells of one width, and with projection pre the mLSTM's is wider")
        if cut := sorted(set(self.stack) - set(self.kinds)):
            raise ValueError(f"num_blocks {self.num_blocks} cuts stack {self.stack[:20]} off before its {cut[0]} block")
        if (self.time_gate or self.position_gate) and not set(self.kinds) & set("ms"):
            raise ValueError("time_gate and position_gate are for mLSTM and sLSTM blocks, and stack names none")
        if self.bidirectional and len(self.kinds) == 1 and self.kinds != "a":
            raise ValueError("bidirectional needs num_blocks of 2 at least: the second one reads backwards")
        return self
