"""The table of proxies: training-free scores and their facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from diswot.errors import UserError, unknown
from diswot.knowledge.own import summary_of
from diswot.knowledge.registry import KNOWLEDGE, Knowledge, get_distance
from diswot.knowledge.relation import relation
from diswot.knowledge.semantic import semantic
from diswot.models.initialization import INHERITED
from diswot.proxies import (
    activations,
    agreement,
    az_nas,
    default_score,
    gradients,
    ntk_fisher,
    size,
)
from diswot.proxies.activation_codes import ActivationCodes
from diswot.proxies.candidate import Candidate
from diswot.proxies.layer_recorder import LayerRecorder
from diswot.proxies.own import own_score
from diswot.proxies.recorders import BlockEntropies, Recorder
from diswot.proxies.stage_entropy import stage_entropy
from diswot.proxies.synflow import synflow
from diswot.utils import user_code

Score = Callable[[Candidate], float]
ProxyLike = str | Callable[..., Any]  # name or function of a proxy, or of a knowledge distance
PassCost = Literal["free", "forward", "backward", "many"]


@dataclass(frozen=True)
class Proxy:
    """A training-free score and its facts; higher is better.

    If the paper's quantity is better when it is lower, the summary begins with "minus".

    Attributes:
        score: Function of a candidate. Minus infinity is the lowest score; other infinities and NaN
            are none.
        summary: One line.
        title: What tables and reports call the score beside its key; empty where the key says it.
        paper: Authors and venue; empty if it is from no paper.
        cost: `free`: no pass over the batch; `forward`: one forward pass, shared by all of these;
            `backward`: a forward and a backward pass; `many`: several passes.
        compares_observations: Whether the score compares the observations of teacher and student.
        sees_observations: Whether the score may compare the observations, and needs no teacher.
        compares_first_block: Whether it compares their first blocks, with weights drawn for that
            alone.
        same_width: Whether teacher and student must have classifiers of one width.
        needs_labels: Whether it depends on the labels.
        needs_backward: Whether it differentiates through the network.
        needs_batches: Whether it splits the batch into several.
        needs_cam: Whether it needs `Observation.cam_weights`.
        recorder: Recorder of the one forward pass, if it needs any.
        init: Initialisation that is part of the score's definition, a key of
            `initialization.INITS`.
    """

    score: Score
    summary: str
    paper: str
    cost: PassCost = "free"
    compares_observations: bool = False
    sees_observations: bool = False
    compares_first_block: bool = False
    same_width: bool = False
    needs_labels: bool = False
    needs_backward: bool = False
    needs_batches: bool = False
    needs_cam: bool = False
    recorder: type[Recorder] | None = None
    init: str = "gaussian"
    title: str = ""

    @property
    def needs_forward(self) -> bool:
        """Whether the score needs a pass, and so depends on images and weights."""
        return self.cost != "free"

    @property
    def needs_teacher(self) -> bool:
        """Whether the score compares the student with a teacher."""
        return self.compares_observations or self.compares_first_block

    @property
    def observes_teacher(self) -> bool:
        """Whether the score compares the observations, or may do so."""
        return self.compares_observations or self.sees_observations

    @property
    def uses_teacher(self) -> bool:
        """Whether the score needs a teacher, or looks at one that is there."""
        return self.observes_teacher or self.compares_first_block

    @property
    def redraws_teacher(self) -> bool:
        """Whether the score compares with the teacher by newly drawn weights alone."""
        return self.compares_first_block and not self.observes_teacher


def _agreement(row: Knowledge) -> Proxy:
    """Return minus a knowledge distance, with its fixed adapter, as a proxy."""

    def score(candidate: Candidate) -> float:
        return -float(row.between(*candidate.observations))

    return Proxy(
        score,
        f"minus: {row.summary}",
        row.paper,
        "forward",
        compares_observations=True,
        same_width=row.same_width,
        needs_labels=row.needs_labels,
        needs_cam=row.needs_cam,
    )


def _jacobian(
    score: Score, summary: str, paper: str, cost: PassCost = "backward", **facts: Any
) -> Proxy:
    return Proxy(score, summary, paper, cost, needs_backward=True, **facts)


def _gradient(
    score: Score, summary: str, paper: str, cost: PassCost = "backward", **facts: Any
) -> Proxy:
    return _jacobian(score, summary, paper, cost, needs_labels=True, **facts)


def diswot(candidate: Candidate) -> float:
    """Return minus the semantic distance, minus the relation distance; 0 at most.

    DisWOT, CVPR 2023, eq. 8: both distances on one batch, teacher and student with random weights.

    Raises:
        UserError: The classifiers of teacher and student have different shapes.
    """
    return -float(semantic(*candidate.observations)) - float(relation(*candidate.observations))


def _layers(score: Score, summary: str) -> Proxy:
    return Proxy(score, summary, "", "forward", recorder=LayerRecorder, init="kaiming")


def _predictions(score: Score, summary: str) -> Proxy:
    return Proxy(score, summary, "", "forward", compares_observations=True, init=INHERITED)


PROXIES: dict[str, Proxy] = {
    "default": Proxy(
        default_score.default,
        "capacity and effective rank, less the gaps detail and directness",
        "",
        "many",
        compares_first_block=True,
        recorder=LayerRecorder,
        init="kaiming",
        title="learnable capacity",
    ),
    "default_inherited": Proxy(
        default_score.default_inherited,
        "default score less the distance of the predictions from the teacher's",
        "",
        "many",
        compares_observations=True,
        compares_first_block=True,
        recorder=LayerRecorder,
        init=INHERITED,
        title="inherited learnable capacity",
    ),
    "detail": Proxy(
        default_score.detail,
        "minus the image detail that the first block loses and the teacher's keeps",
        "",
        "many",
        compares_first_block=True,
        init="kaiming",
    ),
    "directness": _layers(
        default_score.directness, "minus the layers on the shortest path through a block"
    ),
    "capacity": _layers(
        default_score.capacity, "log of the summed weights and activations of the working layers"
    ),
    "effective_rank": Proxy(
        default_score.effective_rank,
        "log of the effective rank of the last map's channels",
        "Roy and Vetterli, EUSIPCO 2007",
        "forward",
        init="kaiming",
    ),
    "diswot": Proxy(
        diswot,
        "minus semantic, minus relation distance",
        "DisWOT, CVPR 2023",
        "forward",
        compares_observations=True,
        same_width=True,
        needs_labels=True,
    ),
    **{name: _agreement(row) for name, row in KNOWLEDGE.items()},
    "agreement": _predictions(
        agreement.agreement, "minus the divergence of the predictions from the teacher's, in nats"
    ),
    "agreement_top1": _predictions(
        agreement.agreement_top1, "share of images with the class that the teacher predicts"
    ),
    "params": Proxy(size.params, "parameters", ""),
    "macs": Proxy(size.macs, "multiply-adds of one image", ""),
    "depth": Proxy(size.depth, "layers with weights", ""),
    "size": Proxy(size.size, "log params + log depth", ""),
    "grad_norm": _gradient(
        gradients.grad_norm, "norm of the loss's gradient", "Abdelfattah et al., ICLR 2021"
    ),
    "snip": _gradient(gradients.snip, "sum of |weight x gradient|", "Lee et al., ICLR 2019"),
    "grasp": _gradient(
        gradients.grasp,
        "minus sum of weight x Hessian x gradient",
        "Wang et al., ICLR 2020",
        "many",
    ),
    "fisher": _gradient(
        gradients.fisher, "squared activation x gradient of channels", "Theis et al., 2018"
    ),
    "zico": _gradient(
        gradients.zico,
        "mean over deviation of gradients",
        "Li et al., ICLR 2023",
        "many",
        needs_batches=True,
    ),
    "synflow": _jacobian(
        synflow, "log of the flow through positive weights", "Tanaka et al., NeurIPS 2020"
    ),
    "ntk_cond": _jacobian(
        ntk_fisher.ntk_cond,
        "minus the condition number of the neural tangent kernel",
        "TE-NAS, Chen et al., ICLR 2021",
        "many",
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
        recorder=ActivationCodes,
    ),
    "jacov": _jacobian(
        activations.jacov, "lack of correlation between input gradients", "Mellor et al., 2020"
    ),
    "epe_nas": _gradient(
        activations.epe_nas,
        "correlation of input gradients within classes of several images",
        "Lopes et al., ICANN 2021",
    ),
    "zen": Proxy(
        activations.zen,
        "log of the effect of a disturbance of noise images",
        "Lin et al., ICCV 2021",
        "many",
    ),
    "stage_entropy": Proxy(
        stage_entropy,
        "log deviations of the maps of the last three stages, weighted 1:1:6",
        "MAE-DET, Sun et al., ICML 2022",
        "many",
    ),
    "expressivity": Proxy(
        az_nas.expressivity,
        "entropy of the principal components of the blocks' maps",
        "AZ-NAS, Lee and Ham, CVPR 2024",
        "forward",
        recorder=BlockEntropies,
        init="kaiming",
    ),
    "progressivity": Proxy(
        az_nas.progressivity,
        "smallest gain in the entropy of the principal components from one block to the next",
        "AZ-NAS, Lee and Ham, CVPR 2024",
        "forward",
        recorder=BlockEntropies,
        init="kaiming",
    ),
    "trainability": _jacobian(
        az_nas.trainability,
        "closeness to 1 of the spectral norms of the blocks' Jacobians",
        "AZ-NAS, Lee and Ham, CVPR 2024",
        init="kaiming",
    ),
    "complexity": Proxy(
        az_nas.complexity, "multiply-adds of one image", "AZ-NAS, Lee and Ham, CVPR 2024"
    ),
}


def list_proxies() -> list[str]:
    """List the names of the built-in proxies."""
    return list(PROXIES)


def score_title(name: str) -> str:
    """Return what tables and reports call a score: its title and its key, or the key alone."""
    title = PROXIES[name].title if name in PROXIES else ""
    return f"{title} ({name})" if title else user_code.short_name(name)


def get_proxy(name: ProxyLike) -> Proxy:
    """Return the row of a proxy.

    Its name is a key of `PROXIES`; `file.py:function` or `package.module:function`; or it is a
    function. A function takes a `Candidate` and returns a number; or it is a knowledge distance,
    whose negative is the score. The text may also name a `Proxy` or a `Knowledge`, which have the
    facts of the function.

    Raises:
        UserError: The name is unknown, and the message has the nearest names; or the function is
            no proxy.
    """
    key = user_code.name_of(name)
    if key in PROXIES:
        distance = KNOWLEDGE[key].distance if key in KNOWLEDGE else None
        if name not in (key, PROXIES[key].score, distance):
            raise UserError(f"{key} is a built-in score; give your function another name")
        return PROXIES[key]
    if not isinstance(name, str):
        return _own(key, name)
    if not user_code.is_spec(name):
        raise unknown("proxy", name, PROXIES)
    found = user_code.find(name, (Proxy, Knowledge))
    if isinstance(found, Proxy):
        return found
    return _agreement(found) if isinstance(found, Knowledge) else _own(name, found)


def get_proxies(names: Iterable[ProxyLike]) -> dict[str, Proxy]:
    """Return the rows of some proxies by name.

    Raises:
        UserError: As in `get_proxy`, or two functions have one name.
    """
    wanted = list(dict.fromkeys(names))
    rows = {user_code.name_of(name): get_proxy(name) for name in wanted}
    if len(rows) < len(wanted):
        raise UserError("two scores have one name; give one of the functions another name")
    return rows


def _own(name: str, function: Callable[..., Any]) -> Proxy:
    """Return the row of a user's function, of which no more is known than its arguments."""
    if len(user_code.needed(function)) == 2:
        return _agreement(get_distance(name if user_code.is_spec(name) else function))
    score, summary = own_score(name, function), summary_of(function)
    return Proxy(score, summary, "", "forward", sees_observations=True, init="default")


def by_init(names: Iterable[str], init: str | None = None) -> dict[str, list[str]]:
    """Group proxies by the initialisation with which they are scored, in their order.

    A proxy that needs no pass fits any initialisation and joins the first group. `init` is that of
    all of them; by default each proxy has its own.
    """
    rows = {name: get_proxy(name) for name in names}
    passing = {name: init or row.init for name, row in rows.items() if row.needs_forward}
    common = next(iter(passing.values()), init or Proxy.init)
    found: dict[str, list[str]] = {}
    for name in rows:
        found.setdefault(passing.get(name, common), []).append(name)
    return found


def inherits(names: Iterable[ProxyLike], init: str | None = None) -> bool:
    """Say whether one of the proxies looks at weights that are inherited from a trained teacher.

    `init` is the initialisation of all of them; by default each proxy has its own.
    """
    rows = [get_proxy(name) for name in names]
    return any(row.needs_forward and (init or row.init) == INHERITED for row in rows)
