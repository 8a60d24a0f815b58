"""Worker processes that do tasks one at a time, and what becomes of those that die or hang.

A worker makes what it needs once, with `make`, and then calls `work` for each task. While at it,
work may ask its driver something. All decisions are the driver's; a worker holds nothing that
cannot be made again, and ends with the driver, however that ends.

A driver has a `Pool`. What carries messages to workers and back is a `Transport`: here, `Pipes` to
processes of this machine.
"""

from diswot.workers.packed import Ask, Make, Packed, Work
from diswot.workers.pipes import Pipes
from diswot.workers.pool import Answer, Outcome, Pool
from diswot.workers.talk import talk
from diswot.workers.transport import Channel, Message, Transport

__all__ = [
    "Answer",
    "Ask",
    "Channel",
    "Make",
    "Message",
    "Outcome",
    "Packed",
    "Pipes",
    "Pool",
    "Transport",
    "Work",
    "talk",
]
