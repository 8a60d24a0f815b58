"""The table of proxies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from diswot.errors import unknown
from diswot.knowledge.registry import KNOWLEDGE, Knowledge
from diswot.proxies import activations, az_nas, default_score, gradients, ntk_fisher, size
from diswot.proxies.candidate import Candidate
from diswot.proxies.diswot_score import diswot
from diswot.proxies.layers import Anatomy
from diswot.proxies.recorders import Codes, Entropies, Watch
from diswot.proxies.synflow import synflow

Score = Callable[[Candidate], float]
Cost = Literal["free", "forward", "backward", "many"]


@dataclass(frozen=True)
class Proxy:
    """A training-free score and its facts.

    All scores are oriented so that higher is better; where the paper's quantity is better when it
    is lower, the summary begins with "minus".

    Attributes:
        score: Of a candidate. Minus infinity is a score, the lowest; other infinities and NaN say
            that there is none.
        summary: One line.
        paper: Where it is from.
        cost: `free`: no pass over the batch; `forward`: all of these share one forward pass;
            `backward`: a forward and a backward pass; `many`: several of either.
        needs_teacher: Whether it compares with a teacher.
        same_width: Whether the teacher has to be as wide where the classifier begins.
        needs_labels: Whether it looks at the labels.
        needs_backward: Whether it differentiates through the network.
        needs_batches: Whether it splits the batch into several.
        needs_cam: Whether it needs `Observation.cam_weights`.
        opens: Whether it compares how the two networks open, with weights drawn for that alone.
        watch: What it wants caught during the one forward pass.
        init: The initialisation that is part of its definition: a key of `initialise.INITS`.
        higher_is_better: Always.
    """

    score: Score
    summary: str
    paper: str
    cost: Cost = "free"
    needs_teacher: bool = False
    same_width: bool = False
    needs_labels: bool = False
    needs_backward: bool = False
    needs_batches: bool = False
    needs_cam: bool = False
    opens: bool = False
    watch: type[Watch] | None = None
    init: str = "gaussian"
    higher_is_better: bool = True

    @property
    def needs_forward(self) -> bool:
        """Whether it looks at a pass, and so depends on images and weights."""
        return self.cost != "free"

    @property
    def sees_weights(self) -> bool:
        """Whether a teacher's trained weights matter."""
        return self.needs_teacher and not self.opens


def _closeness(row: Knowledge) -> Proxy:
    """A knowledge distance at initialisation, through its fixed adapter, negated."""

    def score(candidate: Candidate) -> float:
        return -float(row.between(candidate.teacher, candidate.observation))

    return Proxy(
        score,
        f"minus: {row.summary}",
        row.paper,
        "forward",
        needs_teacher=True,
        same_width=row.same_width,
        needs_labels=row.needs_labels,
        needs_cam=row.needs_cam,
    )


def _gradient(score: Score, summary: str, paper: str) -> Proxy:
    return Proxy(score, summary, paper, "backward", needs_labels=True, needs_backward=True)


def _jacobian(score: Score, summary: str, paper: str) -> Proxy:
    return Proxy(score, summary, paper, "backward", needs_backward=True)


_DISWOT = Proxy(
    diswot,
    "minus semantic, minus relation distance",
    "DisWOT, CVPR 2023",
    "forward",
    needs_teacher=True,
    same_width=KNOWLEDGE["semantic"].same_width,
    needs_labels=True,
)


def _anatomy(score: Score, summary: str) -> Proxy:
    return Proxy(score, summary, "", "forward", watch=Anatomy, init="kaiming")


def _opening(score: Score, summary: str) -> Proxy:
    return Proxy(score, summary, "", "many", needs_teacher=True, opens=True, init="kaiming")


_STEADINESS = Proxy(
    default_score.steadiness,
    "minus how much more gradients change from block to block than in residual networks",
    "",
    "backward",
    needs_labels=True,
    needs_backward=True,
    init="kaiming",
)

PROXIES: dict[str, Proxy] = {
    "default": replace(
        _STEADINESS,
        score=default_score.default,
        summary="capacity, less what is lacking in the five rows below",
        cost="many",
        needs_teacher=True,
        opens=True,
        watch=Anatomy,
    ),
    "detail": _opening(
        default_score.detail, "minus what the first block smooths away and the teacher's does not"
    ),
    "diversity": _opening(
        default_score.diversity,
        "minus the gap to the teacher in how different the first channels are",
    ),
    "retention": Proxy(
        default_score.retention,
        "minus the entropy that a block loses of white noise",
        "",
        "many",
        init="kaiming",
    ),
    "steadiness": _STEADINESS,
    "directness": _anatomy(
        default_score.directness, "minus the layers on the shortest path through a block"
    ),
    "capacity": _anatomy(default_score.capacity, "log of the working layers' widths and reach"),
    "diswot": _DISWOT,
    **{name: _closeness(row) for name, row in KNOWLEDGE.items()},
    "params": Proxy(size.params, "trainable parameters", ""),
    "macs": Proxy(size.macs, "multiply-adds of one image", ""),
    "depth": Proxy(size.depth, "trainable layers", ""),
    "grad_norm": _gradient(
        gradients.grad_norm, "norm of the loss's gradient", "Abdelfattah et al., ICLR 2021"
    ),
    "snip": _gradient(gradients.snip, "sum of |weight x gradient|", "Lee et al., ICLR 2019"),
    "grasp": replace(
        _gradient(
            gradients.grasp, "minus sum of weight x Hessian x gradient", "Wang et al., ICLR 2020"
        ),
        cost="many",
    ),
    "fisher": _gradient(
        gradients.fisher, "squared activation x gradient of channels", "Theis et al., 2018"
    ),
    "zico": replace(
        _gradient(gradients.zico, "mean over deviation of gradients", "Li et al., ICLR 2023"),
        cost="many",
        needs_batches=True,
    ),
    "synflow": _jacobian(
        synflow, "log of the flow through positive weights", "Tanaka et al., NeurIPS 2020"
    ),
    "ntk_cond": replace(
        _jacobian(
            ntk_fisher.ntk_cond,
            "minus the condition number of the neural tangent kernel",
            "TE-NAS, Chen et al., ICLR 2021",
        ),
        cost="many",
    ),
    "vkdnw": Proxy(
        ntk_fisher.vkdnw,
        "entropy of the Fisher information's spectrum",
        "Tybl and Neumann, CVPR 2025",
        "many",
    ),
    "naswot": Proxy(
        activations.naswot,
        "log-determinant of agreements of activation codes",
        "Mellor et al., ICML 2021",
        "forward",
        watch=Codes,
    ),
    "jacov": _jacobian(
        activations.jacov, "lack of correlation between input gradients", "Mellor et al., 2020"
    ),
    "epe_nas": replace(
        _jacobian(
            activations.epe_nas,
            "correlation of input gradients within classes of several images",
            "Lopes et al., ICANN 2021",
        ),
        needs_labels=True,
    ),
    "zen": Proxy(
        activations.zen,
        "log of the effect of a disturbance of noise images",
        "Lin et al., ICCV 2021",
        "many",
    ),
    "expressivity": Proxy(
        az_nas.expressivity,
        "entropy of the principal components of the blocks' maps",
        "AZ-NAS, Lee and Ham, CVPR 2024",
        "forward",
        watch=Entropies,
        init="kaiming",
    ),
    "progressivity": Proxy(
        az_nas.progressivity,
        "smallest gain in that entropy from block to block",
        "AZ-NAS, Lee and Ham, CVPR 2024",
        "forward",
        watch=Entropies,
        init="kaiming",
    ),
    "trainability": replace(
        _jacobian(
            az_nas.trainability,
            "closeness to 1 of the spectral norms of the blocks' Jacobians",
            "AZ-NAS, Lee and Ham, CVPR 2024",
        ),
        init="kaiming",
    ),
    "complexity": Proxy(
        az_nas.complexity, "multiply-adds of one image", "AZ-NAS, Lee and Ham, CVPR 2024"
    ),
}


def list_proxies() -> list[str]:
    """List the names of the built-in scores."""
    return list(PROXIES)


def get_proxy(name: str) -> Proxy:
    """The proxy of that name; an unknown name is a `UserError` with the nearest."""
    if name not in PROXIES:
        raise unknown("proxy", name, PROXIES)
    return PROXIES[name]


def by_init(names: Iterable[str], init: str | None = None) -> dict[str, list[str]]:
    """Proxies by the initialisation that they are scored with, in their order.

    Those that look at no pass go with any: with the first of the others.

    Args:
        names: Keys of `PROXIES`.
        init: For all of them; if not given, each proxy's own.
    """
    rows = {name: get_proxy(name) for name in names}
    passing = {name: init or row.init for name, row in rows.items() if row.needs_forward}
    common = next(iter(passing.values()), init or Proxy.init)
    found: dict[str, list[str]] = {}
    for name in rows:
        found.setdefault(passing.get(name, common), []).append(name)
    return found
