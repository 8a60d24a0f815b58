"""The options of a training: what is trained on what, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Argument, Option

from diswot.cli.options import FromOne, Pretrained, Trained

SearchFolder = Annotated[Path | None, Argument(metavar="RUN", help="Folder of a search.")]


@dataclass(frozen=True)
class SubjectOptions:
    """Options of the student, the teacher and the images of a training; by default the run's.

    Attributes:
        student: Student to train: parameters as JSON, a network's name, or its number in the table
            of RUN. Default: the best student of RUN.
        teacher: Teacher network (diswot list teachers), or none to train without a teacher.
            Default: the teacher of RUN.
        teacher_weights: File of the trained teacher's weights: safetensors or a PyTorch state dict.
        pretrained: Use the weights that the library of the teacher, or of a student that trains
            alone, offers; missing ones are downloaded.
        trained: The teacher's function (FILE.py:FUNCTION) loads trained weights itself.
        mean: Mean of each channel, such as 0.5,0.5,0.5, for normalising images; needs --std.
            Default: that of RUN, or else the teacher's or the data's.
        std: Standard deviation of each channel, such as 0.5,0.5,0.5, for normalising images; needs
            --mean. Default: that of RUN, or else the teacher's or the data's.
        space: Search space of the student's parameters. Default: that of RUN, or else s0.
        data: Images to train on (diswot list data), or none to train on --unlabelled alone.
            Default: those of RUN, or else none with --unlabelled, or else digits.
        data_root: Folder of ImageNet16, or of CIFAR, which is downloaded if missing. Default: that
            of RUN, or else ~/.cache/diswot.
        image_size: Height of the images in pixels, and width if they are square. Default: that of
            RUN, or else the teacher's or the data's.
        unlabelled: Folder of images without labels, from which the student learns by the losses to
            its teacher alone, beside the images of --data or RUN. Without --data and RUN, a fifth
            of these images is held out to compare the student with its teacher.
        teacher_classes: CSV file with the classes of a teacher that has other classes than the
            data, or another order: a line for each output, its class and, in a second column, the
            data's name of that class if it is another. Default: the names that the teacher's
            library has, or else the data's.
        teacher_image_size: Height and width in pixels of the images that the teacher sees: those of
            the student, resized. Default: with --pretrained those that the teacher was trained on,
            or else those of the student.
        start: Weights that the student begins with: teacher, those of the teacher that fit; fresh,
            random; or a file, to fine-tune. Default: teacher if more than half of the parameters
            fit, else fresh.
    """

    headings: ClassVar = {
        "Student": "student space start",
        "Teacher": "teacher teacher_weights pretrained trained teacher_classes teacher_image_size",
        "Data": "mean std data data_root image_size unlabelled",
    }

    student: str | None = None
    teacher: str | None = None
    teacher_weights: Path | None = None
    pretrained: Pretrained = False
    trained: Trained = False
    mean: str | None = None
    std: str | None = None
    space: str | None = None
    data: str | None = None
    data_root: Path | None = None
    image_size: int | None = None
    unlabelled: Path | None = None
    teacher_classes: Path | None = None
    teacher_image_size: FromOne = None
    start: str | None = None


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the recipe of a training, and of the settings that override it.

    Attributes:
        recipe: Training recipe: a name (diswot list recipes) or FILE.toml. Options given beside it
            override it. Default: detector for detectors; transformer for networks with layer
            normalisation and no batch normalisation; else short for up to 20 epochs, and plain for
            more.
        epochs: Passes over the training images. Default: the recipe's; plain has 240.
        batch_size: Images of a step, in all processes together. Default: the recipe's; plain has
            64.
        accumulate: Parts that a batch is split into, which saves memory. Default: 1.
        views: Augmented views of each image in a step, 1 or 2; two cost twice the time. Default: 1.
        optimizer: Optimizer: sgd, adamw or lamb. Default: the recipe's.
        lr: Highest learning rate. Default: the recipe's; plain has 0.05, short 0.03 from the
            teacher and 0.1 from random weights.
        weight_decay: Weight decay, not of biases and norms. Default: the recipe's; plain has
            0.0005.
        schedule: Learning-rate schedule: cosine, onecycle, poly or step. Default: the recipe's.
        warmup_epochs: Epochs in which the learning rate rises to its highest value. Default: the
            recipe's.
        milestones: Epochs after which the schedule step lowers the rate, such as 150,180;
            needs --schedule step.
        losses: Distillation losses or presets (diswot list losses) with their weights, such as
            kd:0.9,relation:1 or FILE.py:FUNCTION:0.5. kd:published takes the published weights of
            kd and of the cross-entropy. Default: the recipe's; plain has kd.
        temperature: Temperature of the losses that have one (diswot list losses). Default: each
            loss's own.
        ramp_epochs: Epochs in which the weights of the losses grow from zero. Default: 0, or the
            published ones of dkd:published.
        clip_grad: Largest norm of a step's gradient, such as 10. Default: no limit.
        cross_entropy: Weight of the cross-entropy with the labels. Default: 1.
        dice: Weight of the Dice loss of pixels, for segmentation. Default: 0.
        label_smoothing: Share of each label that is spread over all classes. Default: the
            recipe's; plain has 0.
        ema: Decay per step of a moving average of the weights, such as 0.998. Default: the
            recipe's; plain has no average.
        crop: Largest random shift of an image, in pixels. Default: the recipe's; plain has 4.
        area: Smallest share of an image that a random resized crop shows. Default: the
            recipe's; plain has no such crop.
        flip: Mirror images at random. Default: yes, except for digits.
        cutout: Side of the square that is blanked in each image, in pixels. Default: the recipe's;
            plain has 0.
        cache: Compute the teacher's outputs once for all epochs; needs images without augmentation.
        precision: Arithmetic: fp32, bf16, or auto, which is bf16 on devices that compute in it.
            Default: auto.
        compile: Compile both networks with torch.compile.
        seed: Seed of the weights, of the order of images and of augmentation. Default: 0.
    """

    headings: ClassVar = {
        "Optimisation": (
            "recipe epochs batch_size optimizer lr weight_decay schedule warmup_epochs milestones "
            "clip_grad ema seed"
        ),
        "Losses": "losses temperature ramp_epochs cross_entropy dice label_smoothing",
        "Augmentation": "views crop area flip cutout",
        "Compute": "accumulate cache precision compile",
    }

    recipe: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    views: int | None = None
    optimizer: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    warmup_epochs: float | None = None
    milestones: str | None = None
    losses: str | None = None
    temperature: float | None = None
    ramp_epochs: float | None = None
    clip_grad: float | None = None
    cross_entropy: float | None = None
    dice: float | None = None
    label_smoothing: float | None = None
    ema: float | None = None
    crop: int | None = None
    area: float | None = None
    flip: bool | None = None
    cutout: int | None = None
    cache: Annotated[bool | None, Option("--cache")] = None
    precision: str | None = None
    compile: Annotated[bool | None, Option("--compile")] = None
    seed: Annotated[int | None, Option(min=0)] = None
