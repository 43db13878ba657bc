"""Training: a trainer, and callbacks, the one way to take part in its steps."""

from xpconv.training.averaging import WeightAverage
from xpconv.training.checkpoints import Checkpoints, DamagedCheckpointError, load_checkpoint, save_checkpoint
from xpconv.training.clipping import ClipNorm, ClipValue, clip_norm, clip_value
from xpconv.training.divergence import StopAtNaN
from xpconv.training.history import History
from xpconv.training.loss_scaling import LossScaler, LossScaling
from xpconv.training.metrics import JsonLines, TensorBoard
from xpconv.training.monitoring import Progress
from xpconv.training.schedules import cosine, one_cycle, stairs, warmup
from xpconv.training.stopping import EarlyStopping
from xpconv.training.trainer import Callback, Trainer

__all__ = [
    "Callback",
    "Checkpoints",
    "ClipNorm",
    "ClipValue",
    "DamagedCheckpointError",
    "EarlyStopping",
    "History",
    "JsonLines",
    "LossScaler",
    "LossScaling",
    "Progress",
    "StopAtNaN",
    "TensorBoard",
    "Trainer",
    "WeightAverage",
    "clip_norm",
    "clip_value",
    "cosine",
    "load_checkpoint",
    "one_cycle",
    "save_checkpoint",
    "stairs",
    "warmup",
]
