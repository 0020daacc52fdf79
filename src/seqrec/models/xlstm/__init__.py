"""xLSTM for recommendation. `model` is the model as a whole; `mlstm`, `slstm` and `attention` are what its blocks mix
events with; `config` has its settings."""

from seqrec.models.xlstm.config import XLSTMConfig
from seqrec.models.xlstm.mixers import MixerState
from seqrec.models.xlstm.model import XLSTM, XLSTMState

__all__ = ["XLSTM", "MixerState", "XLSTMConfig", "XLSTMState"]
