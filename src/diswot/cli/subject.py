"""What `diswot distill` trains: the student, its teacher and the images, named and then built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import inputs
from diswot.cli import training as trainings
from diswot.cli.inputs import NamedImages
from diswot.cli.teachers import MatchedTeacher, matched_teacher
from diswot.errors import UserError
from diswot.runs import folder
from diswot.storage.run_files import ALONE, DISTILLED, FRESH, RUN
from diswot.utils.user_code import rooted, short_name

if TYPE_CHECKING:
    from diswot.cli.options import TeacherOptions
    from diswot.cli.training_options import SubjectOptions, TrainingOptions
    from diswot.data.dataset import Dataset
    from diswot.training.starts import Start
    from diswot.training.trainable import Distillation

_UNTRAINED = (
    "a teacher must be trained to teach; give --teacher-weights, or --trained if its function "
    "loads its weights; or train it first: "
    "diswot distill --student {teacher} --teacher none --data {data} --out FOLDER, "
    "which leaves FOLDER/student.safetensors"
)
# Options of the search that mean nothing beside another teacher or other images.
_BOUND = {
    "teacher": ["teacher_weights", "pretrained", "trained"],
    "teacher_weights": ["pretrained", "trained"],
    "trained": ["teacher_weights", "pretrained"],
    "pretrained": ["teacher_weights", "trained", "image_size", "mean", "std"],
    "data": ["data_root", "image_size", "mean", "std"],
}
NONE = "none"  # name of no teacher, and of no labelled images


@dataclass(frozen=True)
class Subject:
    """The student, teacher and images of a training, by name.

    Attributes:
        options: What the user gave; the search and the defaults complete it below.
        student: Parameters as JSON, or a network's name.
        space: Space of these parameters.
        teacher: The teacher, whose name is `none` without one.
        images: The images.
        search: Command of the search that found the student; None without one.
        number: The student's number in the table of the search, as the user gave it; else None.
        scored: Images of the search whose teacher teaches, if the training is on others; else None.
    """

    options: SubjectOptions
    student: str
    space: str
    teacher: TeacherOptions
    images: NamedImages
    search: str | None
    number: str | None
    scored: NamedImages | None = None

    @property
    def alone(self) -> bool:
        """Whether the student trains without a teacher."""
        return self.teacher.teacher == NONE

    @property
    def way(self) -> str:
        """How the student is trained: the name of its folder in that of the search."""
        return ALONE if self.alone else DISTILLED

    @property
    def title(self) -> str:
        """Name of the training: that of the network, or of the space it is from, and the way."""
        network = self.space if inputs.is_architecture(self.student) else self.student
        return f"{short_name(network)}-{self.way}"

    def folder_in(self, run: Path) -> Path:
        """Return the folder of the training inside the folder of the search."""
        return run / (f"{self.way}-{self.number}" if self.number else self.way)

    def prepare(
        self, training: TrainingOptions, record: Mapping[str, Any]
    ) -> tuple[Distillation, Start, list[str]]:
        """Build both networks and load the images; give the student its first weights.

        A resumed training has the record of its checkpoint, whose weights are loaded over those of
        the student, which are random here.

        Returns:
            The student and what it learns from; where its weights are from; and lines on what a
            user may not expect, none if the training is resumed.
        """
        from diswot.models.initialization import fresh
        from diswot.training.starts import begin, resumed
        from diswot.training.trainable import Distillation

        images = self.load_images()
        pretrained = self.alone and self.teacher.pretrained
        build, _ = inputs.named_student(self.student, self.space, images, pretrained=pretrained)
        teacher, classes, lines = self.load_teacher(images, record) or (None, None, ())
        student = fresh(build, "default", training.seed or 0)
        named = partial(trainings.recipe, training, self.images.name, alone=self.alone)
        recipe = named(student=student, record=record)
        given = Distillation(teacher, student, images, recipe, classes)
        choice = self.options.start
        start = resumed(choice, record) if record else begin(choice, given)
        if start.place == FRESH and not pretrained:
            recipe = named(student=student, record=record, fresh=True)
        line = "" if training.recipe is not None else trainings.default_line(student, recipe)
        said = [] if record else [each for each in (*lines, start.line, line) if each]
        return replace(given, recipe=recipe), start, said

    def load_images(self) -> Dataset:
        """Load the images, as the teacher sees them, or a student that trains alone."""
        from diswot.data.unlabelled import with_unlabelled

        if self.images.name == NONE:
            return self._load_unlabelled()
        viewer = self.student if self.alone else self.teacher.teacher
        network = None if self.alone and inputs.is_architecture(viewer) else viewer
        images = self.images.load(network, pretrained=self.teacher.pretrained)
        if images.train is None:
            raise UserError(f"{images.name} has no images to train on; name others with --data")
        more = self.options.unlabelled
        return images if more is None else with_unlabelled(images, more)

    def _load_unlabelled(self) -> Dataset:
        """Load the images without labels alone; their classes are those of the teacher."""
        from diswot.data.unlabelled import unlabelled_alone
        from diswot.models.class_names import read_class_names
        from diswot.models.registry import input_config

        if self.options.unlabelled is None:
            raise UserError("--data none trains on images without labels; name them: --unlabelled")
        wants = input_config(self.teacher.teacher, self.teacher.pretrained)
        if self.options.teacher_classes is not None:
            classes = [names[0] for names in read_class_names(self.options.teacher_classes)]
        elif wants.classes is not None:
            classes = [names[0] for names in wants.classes]
        elif wants.num_classes is not None:
            classes = [str(number) for number in range(wants.num_classes)]
        else:
            raise UserError(
                "the classes are unknown: name those of the teacher with --teacher-classes, or "
                "labelled images with --data"
            )
        size = self.images.size or wants.img_size
        images = unlabelled_alone(self.options.unlabelled, classes, img_size=size)
        return self.images.normalised(images, wants)

    def load_teacher(self, images: Dataset, record: Mapping[str, Any]) -> MatchedTeacher | None:
        """Build the trained teacher; None without one.

        The image size that the checkpoint of a resumed training records holds unless the user
        named one.
        """
        if self.alone:
            return None
        inputs.network_name(self.teacher.teacher, "teacher")
        inputs.check_one_source(self.teacher)
        if not self.teacher.has_weights:
            raise UserError(_UNTRAINED.format(teacher=self.teacher.teacher, data=images.name))
        size = self.options.teacher_image_size
        if size is None and record:  # version 0.1.0 recorded none
            size = record.get("teacher_image_size") or images.size
        return matched_teacher(
            self.teacher,
            images,
            classes=self.options.teacher_classes,
            own=self._scored_classes(),
            size=size,
        )

    def _scored_classes(self) -> tuple[str, ...] | None:
        """Return the classes of the search's images; None if they are unknown."""
        if self.scored is None:
            return None
        try:
            return self.scored.load().classes
        except UserError:  # they are not here any more
            return None

    def facts(self) -> dict[str, Any]:
        """Return what a training records: both networks, the search, and where things are."""
        named = not inputs.is_architecture(self.student)
        teacher = None if self.alone else self.teacher
        return {
            "student": rooted(self.student) if named else json.loads(self.student),
            "teacher": teacher and rooted(teacher.teacher),
            "teacher_weights": teacher and inputs.absolute(teacher.teacher_weights),
            "space": None if named else rooted(self.space),
            "search": self.search,
            "data_root": inputs.absolute(self.images.root),
            "teacher_classes": inputs.absolute(self.options.teacher_classes),
            "teacher_image_size": self.options.teacher_image_size,
            "unlabelled": inputs.absolute(self.options.unlabelled),
        }


def subject_of(run: Path | None, options: SubjectOptions) -> Subject:
    """Return what is trained on what: the options, else the search's choice, else the defaults."""
    student = folder.numbered_student(run, options.student)
    number = options.student if student != options.student else None
    config = _configured(run, {**asdict(options), "student": student})
    if config["teacher"] == NONE and options.teacher_weights is not None:
        raise UserError("--teacher none trains without a teacher; leave --teacher-weights out")
    if config["teacher"] == NONE and options.teacher_image_size is not None:
        raise UserError("--teacher none trains without a teacher; leave --teacher-image-size out")
    if config["teacher"] == NONE and options.unlabelled is not None:
        raise UserError("images without labels need a teacher; leave --unlabelled out")
    found = run is not None and (options.student is None or number is not None)
    return Subject(
        options,
        student=config["student"],
        space=config["space"],
        teacher=inputs.teacher_options(config),
        images=inputs.images_of({**config, "classes": None}),
        search=folder.command(run / RUN) if run is not None and found else None,
        number=number,
        scored=_scored(run, options),
    )


def _scored(run: Path | None, options: SubjectOptions) -> NamedImages | None:
    """Return the images of the search if its teacher teaches, on images that the user names."""
    if run is None or options.data in (None, NONE) or options.teacher or options.teacher_weights:
        return None
    config = folder.search_config(run)
    if "data" not in config:
        return None
    before = inputs.images_of(config)
    return None if before.name == inputs.data_from_root(str(options.data)) else before


def _configured(run: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options over the configuration of the search over the defaults.

    An option for the teacher or the data discards what the search has for its own.
    """
    given = {**options, **inputs.normalisation(options["mean"], options["std"])}
    given |= {name: options[name] or None for name in ("pretrained", "trained")}
    given = {name: value for name, value in given.items() if value is not None}
    defaults = {"space": "s0"} if run else {"space": "s0", "data": "digits"}
    defaults |= {"data": NONE} if options["unlabelled"] is not None else {}
    before = folder.search_config(run) if run else {}
    for name in _BOUND.keys() & given.keys():
        before = {key: value for key, value in before.items() if key not in _BOUND[name]}
    config = {**defaults, **before, **given}
    if "student" not in config:
        raise UserError("name a student: the folder of a search, or --student")
    if config.get("teacher") is None:
        raise UserError("name a teacher, or none to train alone: --teacher")
    return config
