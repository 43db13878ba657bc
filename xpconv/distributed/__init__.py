"""Training by several processes, each with a part of every batch."""

from xpconv.distributed.data_parallel import DataParallel
from xpconv.distributed.ranks import Ranks

__all__ = ["DataParallel", "Ranks"]
