"""Knowledge distances: pure functions of what was observed of a teacher and of a student.

Each serves three masters: its negative at initialisation is a zero-cost proxy, during training it
is a loss, on an accuracy table it is a column of the rank study.

Region mutual information (Zhao et al., NeurIPS 2019) is not among them: it compares a dense
prediction with a dense label map, and a classifier has neither.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from diswot.errors import unknown
from diswot.knowledge.adapters import Adapter, adapt
from diswot.knowledge.attention import at, nst
from diswot.knowledge.channels import fsp, ickd
from diswot.knowledge.features import Variances, ab, fitnet, vid
from diswot.knowledge.gradcam import gradcam
from diswot.knowledge.kdsvd import kdsvd
from diswot.knowledge.logits import dist, dkd, kd
from diswot.knowledge.relation import relation
from diswot.knowledge.relations import cc, cka, pkt, rkd, sp
from diswot.knowledge.semantic import semantic
from diswot.knowledge.semantic_class import semantic_class
from diswot.observation.observe import Observation

Distance = Callable[..., Tensor]


@dataclass(frozen=True)
class Knowledge:
    """A knowledge distance and its facts.

    Attributes:
        distance: Of teacher and student, a scalar; smaller is more alike.
        summary: One line.
        paper: Where it is from.
        same_width: Whether other numbers of channels are an error, which no adapter mends.
        same_classes: Whether other numbers of classes are an error.
        adapter: What brings stages, grids and widths together; None where nothing needs to be.
        learned: What a loss learns besides the adapter, built from the adapted teacher: a module
            that gives keyword arguments of the distance.
        needs_labels: Whether it looks at the labels.
        needs_cam: Whether it needs `Observation.cam_weights`.
        differentiable: Whether it can be a loss.
        outputs_alone: Whether it looks at nothing but logits and labels, so that a teacher's
            logits may be kept, and a pass need not be watched.
    """

    distance: Distance
    summary: str
    paper: str
    same_width: bool = False
    same_classes: bool = False
    adapter: Adapter | None = None
    learned: Callable[[Observation], nn.Module] | None = None
    needs_labels: bool = False
    needs_cam: bool = False
    differentiable: bool = True
    outputs_alone: bool = False

    @property
    def defaults(self) -> dict[str, object]:
        """The distance's own settings."""
        parameters = inspect.signature(self.distance).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    def between(self, teacher: Observation, student: Observation) -> Tensor:
        """The distance of any two networks, brought together by the fixed adapter.

        Raises:
            UserError: The two do not fit, where the row says so.
        """
        if self.adapter is not None:
            teacher, student = adapt(self.adapter, teacher, student)
        return self.distance(teacher, student)


_STAGES = Adapter()
_GRIDS = Adapter(grids=True)
_WIDTHS = Adapter(widths=True)
_MAPS = Adapter(grids=True, widths=True, always=True)
_HINT = Adapter("middle", grids=True, widths=True, always=True)
_LAST_WIDTH = Adapter("last", widths=True)

KNOWLEDGE: dict[str, Knowledge] = {
    "semantic": Knowledge(
        semantic,
        "channel correlations of class gradients",
        "DisWOT, CVPR 2023",
        same_width=True,
        same_classes=True,
        needs_labels=True,
    ),
    "semantic_class": Knowledge(
        semantic_class,
        "class correlations of class gradients",
        "",
        same_classes=True,
        needs_labels=True,
    ),
    "gradcam": Knowledge(
        gradcam,
        "class activation maps of the labels",
        "Selvaraju et al., ICCV 2017; DisWOT, CVPR 2023",
        needs_labels=True,
        needs_cam=True,
    ),
    "relation": Knowledge(relation, "sample correlations of last maps", "DisWOT, CVPR 2023"),
    "kd": Knowledge(
        kd,
        "softened outputs, temperature 4",
        "Hinton et al., 2015",
        same_classes=True,
        outputs_alone=True,
    ),
    "dkd": Knowledge(
        dkd,
        "label and other outputs, apart",
        "Zhao et al., CVPR 2022",
        same_classes=True,
        needs_labels=True,
        outputs_alone=True,
    ),
    "dist": Knowledge(
        dist,
        "correlations of outputs, between and within classes",
        "Huang et al., NeurIPS 2022",
        same_classes=True,
        outputs_alone=True,
    ),
    "fitnet": Knowledge(
        fitnet, "values of the middle maps", "Romero et al., ICLR 2015", adapter=_HINT
    ),
    "at": Knowledge(
        at, "where maps are active", "Zagoruyko and Komodakis, ICLR 2017", adapter=_GRIDS
    ),
    "nst": Knowledge(
        nst, "distributions of channels over places", "Huang and Wang, 2017", adapter=_GRIDS
    ),
    "fsp": Knowledge(
        fsp, "channels against the next stage's", "Yim et al., CVPR 2017", adapter=_WIDTHS
    ),
    "ab": Knowledge(ab, "which neurons are on", "Heo et al., AAAI 2019", adapter=_MAPS),
    "ickd": Knowledge(
        ickd, "channel correlations of last maps", "Liu et al., ICCV 2021", adapter=_LAST_WIDTH
    ),
    "kdsvd": Knowledge(
        kdsvd, "leading singular vectors and their flow", "Lee et al., ECCV 2018", adapter=_WIDTHS
    ),
    "vid": Knowledge(
        vid,
        "likelihood of the teacher's maps",
        "Ahn et al., CVPR 2019",
        adapter=_MAPS,
        learned=Variances,
    ),
    "sp": Knowledge(
        sp, "sample correlations of all stages", "Tung and Mori, ICCV 2019", adapter=_STAGES
    ),
    "rkd": Knowledge(rkd, "distances and angles among samples", "Park et al., CVPR 2019"),
    "pkt": Knowledge(pkt, "neighbourhoods among samples", "Passalis and Tefas, ECCV 2018"),
    "cc": Knowledge(cc, "kernel of pairs of samples", "Peng et al., ICCV 2019"),
    "cka": Knowledge(
        cka,
        "one minus centred kernel alignment, all stages",
        "Kornblith et al., ICML 2019",
        adapter=_STAGES,
    ),
}


def get_distance(name: str) -> Knowledge:
    """The knowledge distance of that name; an unknown name is a `UserError` with the nearest."""
    if name not in KNOWLEDGE:
        raise unknown("knowledge distance", name, KNOWLEDGE)
    return KNOWLEDGE[name]
