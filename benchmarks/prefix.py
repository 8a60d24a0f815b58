"""An exhaustive scan of S0 with shared prefixes over one by one, building included in both.

On one thread, as a worker has.
"""

from __future__ import annotations

from functools import partial

import torch
from timing import footer, in_turn

from diswot.cli import console
from diswot.data.registry import create_dataset
from diswot.models.registry import create_teacher
from diswot.nas.prefix import Chain
from diswot.proxies.scorer import scorer
from diswot.spaces.registry import build_network, create_space, enumerate_params


def main() -> None:
    torch.set_num_threads(1)
    turns, space = 3, create_space("s0", 100)
    fixed = scorer(
        create_teacher("resnet56", 100), [create_dataset("noise", classes=100).batch(64)]
    )
    plan = enumerate_params(space, 64) or []
    builds = [partial(build_network, space, params) for params in plan]

    def alone() -> list[float]:
        return [fixed.score(fixed.students(build), ["diswot"])["diswot"][0] for build in builds]

    def shared() -> list[float]:
        chain = Chain()
        students = (chain.through(fixed.fresh(build)) for build in builds)
        return [fixed.score([student], ["diswot"])["diswot"][0] for student in students]

    assert alone() == shared()
    times = in_turn({"alone": alone, "shared": shared}, turns, warm_up=0)
    console.table(
        "(e) the 64 networks of S0 one by one over sharing prefixes, same bits; target at least 3",
        ["one by one", "sharing", "ratio"],
        [[*(f"{t.median:.2f} s" for t in times.values()), times["alone"].over(times["shared"])]],
    )
    print(footer(turns))


if __name__ == "__main__":
    main()
