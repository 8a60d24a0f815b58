"""The table of knowledge distances: pure functions of the observations of a teacher and a student.

Each serves three purposes. Its negative at initialisation is a zero-cost proxy, during training it
is a loss, and on a table of accuracies it is a column of the rank study.

Region mutual information (Zhao et al., NeurIPS 2019) is not in the table: it compares a dense
prediction with a dense label map, and a classifier has neither.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from diswot.errors import UserError, unknown
from diswot.knowledge.adapters import Adapter, adapt
from diswot.knowledge.attention import at, cwd, nst
from diswot.knowledge.channels import fsp, ickd
from diswot.knowledge.features import Variances, ab, fitnet, pkd, vid
from diswot.knowledge.gradcam import gradcam
from diswot.knowledge.kdsvd import kdsvd
from diswot.knowledge.logits import dist, dkd, kd, mlkd, wttm
from diswot.knowledge.mgd import Generators, mgd
from diswot.knowledge.own import own_distance, summary_of
from diswot.knowledge.relation import relation
from diswot.knowledge.relations import cc, cka, pkt, rkd, sp
from diswot.knowledge.semantic import semantic, semantic_class
from diswot.knowledge.standardised import dist_standardised, dkd_standardised, kd_standardised
from diswot.observation.observe import Observation
from diswot.utils import user_code

Distance = Callable[..., Tensor]
# Weights of distances by name or function
Weights = Mapping[str, float] | Mapping[Distance, float] | Mapping[str | Distance, float]


@dataclass(frozen=True)
class Published:
    """The settings of a training with which a paper, or its code, reports a distance as a loss.

    Attributes:
        weight: Weight of the distance.
        cross_entropy: Weight of the cross-entropy beside it.
        ramp: Share of the training in which the weight of the distance grows from zero.
    """

    weight: float
    cross_entropy: float = 1.0
    ramp: float = 0.0


@dataclass(frozen=True)
class Knowledge:
    """A knowledge distance and its facts.

    Attributes:
        distance: Function of the observations of teacher and student that returns a scalar, lower
            where the two agree more.
        summary: One line.
        paper: Authors and venue; empty if it is from no paper.
        same_width: Whether the distance rejects classifiers of different widths; no adapter helps.
        adapter: What brings stages, grids and widths together; None if nothing must be.
        learned: Makes, from the adapted observation of the teacher, a module that a loss learns
            besides the adapter. The module returns keyword arguments of the distance.
        needs_labels: Whether the distance depends on the targets.
        needs_cam: Whether it needs `Observation.cam_weights`.
        outputs_alone: Whether it depends on logits and targets alone, so that logits of the
            teacher can be stored and no hooks are needed.
        published: Published settings of a training with it; None if the paper has none, or has
            another scale.
    """

    distance: Distance
    summary: str
    paper: str
    same_width: bool = False
    adapter: Adapter | None = None
    learned: Callable[[Observation], nn.Module] | None = None
    needs_labels: bool = False
    needs_cam: bool = False
    outputs_alone: bool = False
    published: Published | None = None

    @property
    def defaults(self) -> dict[str, object]:
        """The default values of the distance's settings."""
        parameters = inspect.signature(self.distance).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    def between(self, teacher: Observation, student: Observation) -> Tensor:
        """Return the distance of two networks on the same images, with the fixed adapter.

        Raises:
            UserError: The widths, or the numbers of classes, do not fit the distance.
        """
        if self.adapter is not None:
            teacher, student = adapt(self.adapter, teacher, student)
        return self.distance(teacher, student)


_STAGES = Adapter()
_GRIDS = Adapter(grids=True)
_WIDTHS = Adapter(widths=True)
_SHAPES = Adapter(grids=True, widths=True)
_MAPS = Adapter(grids=True, widths=True, always=True)
_MIDDLE = Adapter("middle", grids=True, widths=True, always=True)
_LAST_WIDTH = Adapter("last", widths=True)

KNOWLEDGE: dict[str, Knowledge] = {
    "semantic": Knowledge(
        semantic,
        "channel correlations of class gradients",
        "DisWOT, CVPR 2023",
        same_width=True,
        needs_labels=True,
    ),
    "semantic_class": Knowledge(
        semantic_class, "class correlations of class gradients", "", needs_labels=True
    ),
    "gradcam": Knowledge(
        gradcam,
        "class activation maps of the labels",
        "Selvaraju et al., ICCV 2017; DisWOT, CVPR 2023",
        needs_labels=True,
        needs_cam=True,
    ),
    "relation": Knowledge(relation, "image correlations of last maps", "DisWOT, CVPR 2023"),
    "kd": Knowledge(
        kd,
        "softened outputs",
        "Hinton et al., 2015; weights of Tian et al., ICLR 2020",
        outputs_alone=True,
        published=Published(0.9, cross_entropy=0.1),
    ),
    "kd_standardised": Knowledge(
        kd_standardised,
        "softened outputs, logits standardised",
        "Sun et al., CVPR 2024",
        outputs_alone=True,
        published=Published(9.0, cross_entropy=0.1),
    ),
    "dkd": Knowledge(
        dkd,
        "softened outputs of label and other classes, decoupled",
        "Zhao et al., CVPR 2022",
        needs_labels=True,
        outputs_alone=True,
        published=Published(1.0, ramp=20 / 240),
    ),
    "dkd_standardised": Knowledge(
        dkd_standardised,
        "decoupled softened outputs of standardised logits",
        "Sun et al., CVPR 2024",
        needs_labels=True,
        outputs_alone=True,
        published=Published(9.0, ramp=20 / 240),
    ),
    "dist": Knowledge(
        dist,
        "correlations of outputs, between and within classes",
        "Huang et al., NeurIPS 2022",
        outputs_alone=True,
        published=Published(2.0),
    ),
    "dist_standardised": Knowledge(
        dist_standardised,
        "correlations of outputs, logits standardised",
        "Huang et al., NeurIPS 2022; Sun et al., CVPR 2024",
        outputs_alone=True,
    ),
    "wttm": Knowledge(
        wttm,
        "plain outputs against softened, unsure rows count more",
        "Zheng and Yang, ICLR 2024",
        outputs_alone=True,
        published=Published(4.0),
    ),
    "mlkd": Knowledge(
        mlkd,
        "outputs at five temperatures: rows, pairs and classes",
        "Jin et al., CVPR 2023",
        outputs_alone=True,
        published=Published(0.9, cross_entropy=0.1),
    ),
    "fitnet": Knowledge(
        fitnet, "values of the middle maps", "Romero et al., ICLR 2015", adapter=_MIDDLE
    ),
    "at": Knowledge(
        at, "spatial attention maps", "Zagoruyko and Komodakis, ICLR 2017", adapter=_GRIDS
    ),
    "cwd": Knowledge(
        cwd,
        "distributions of each channel over positions",
        "Shu et al., ICCV 2021",
        adapter=_SHAPES,
        published=Published(3.0),
    ),
    "pkd": Knowledge(
        pkd,
        "standardised channels of the maps",
        "Cao et al., NeurIPS 2022",
        adapter=_SHAPES,
        published=Published(6.0),
    ),
    "mgd": Knowledge(
        mgd,
        "values of maps that are generated from masked ones",
        "Yang et al., ECCV 2022",
        adapter=_SHAPES,
        learned=Generators,
    ),
    "nst": Knowledge(
        nst, "distributions of the channels' maps", "Huang and Wang, 2017", adapter=_GRIDS
    ),
    "fsp": Knowledge(
        fsp, "inner products of successive stages", "Yim et al., CVPR 2017", adapter=_WIDTHS
    ),
    "ab": Knowledge(ab, "activation boundaries", "Heo et al., AAAI 2019", adapter=_MAPS),
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
        sp,
        "image correlations of all stages",
        "Tung and Mori, ICCV 2019",
        adapter=_STAGES,
        published=Published(3000.0),
    ),
    "rkd": Knowledge(
        rkd,
        "distances and angles among images",
        "Park et al., CVPR 2019",
        published=Published(25.0),
    ),
    "pkt": Knowledge(pkt, "neighbourhoods among images", "Passalis and Tefas, ECCV 2018"),
    "cc": Knowledge(cc, "kernel of pairs of images", "Peng et al., ICCV 2019"),
    "cka": Knowledge(
        cka,
        "one minus centred kernel alignment, all stages",
        "Kornblith et al., ICML 2019",
        adapter=_STAGES,
    ),
}


def get_distance(name: str | Distance) -> Knowledge:
    """Return the row of a knowledge distance.

    Its name is a key of `KNOWLEDGE`; `file.py:function` or `package.module:function`; or it is a
    function of the observations of teacher and student. The text may also name a `Knowledge`, which
    has the facts of the function.

    Raises:
        UserError: The name is unknown, and the message has the nearest names; or the function is
            no distance.
    """
    key = user_code.name_of(name)
    if key in KNOWLEDGE:
        if name not in (key, KNOWLEDGE[key].distance):
            raise UserError(f"{key} is a built-in distance; give your function another name")
        return KNOWLEDGE[key]
    if not isinstance(name, str):
        return _own(key, name)
    if not user_code.is_spec(name):
        raise unknown("knowledge distance", name, KNOWLEDGE)
    found = user_code.find(name, (Knowledge,))
    return found if isinstance(found, Knowledge) else _own(name, found)


def get_distances(names: Collection[str | Distance]) -> dict[str, Knowledge]:
    """Return the rows of some knowledge distances by name.

    Raises:
        UserError: As in `get_distance`, or two functions have one name.
    """
    rows = {user_code.name_of(name): get_distance(name) for name in names}
    if len(rows) < len(names):
        raise UserError("two losses have one name; give one of the functions another name")
    return rows


def _own(name: str, function: Distance) -> Knowledge:
    """Return the row of a user's function, which may depend on labels and needs no adapter."""
    return Knowledge(own_distance(name, function), summary_of(function), "", needs_labels=True)
