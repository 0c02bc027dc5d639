"""Train a method: encode each picture once, then learn prompts epoch by epoch."""

from faprompt.training.training_config import TrainingConfig
from faprompt.training.training_session import TrainOptions, train
from faprompt.training.training_steps import TrainingReport

__all__ = ["TrainOptions", "TrainingConfig", "TrainingReport", "train"]
