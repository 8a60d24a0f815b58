"""The options of the commands: a field is an option, and its line of the docstring is the help."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Option

Pretrained = Annotated[bool, Option("--pretrained")]
Trained = Annotated[bool, Option("--trained")]
FromZero = Annotated[int, Option(min=0)]
FromOne = Annotated[int | None, Option(min=1)]


@dataclass(frozen=True)
class OutputOptions:
    """Options of the output of a command.

    Attributes:
        as_json: Print one JSON object on standard output.
        quiet: Show no progress and no notes.
    """

    as_json: Annotated[bool, Option("--json")] = False
    quiet: Annotated[bool, Option("--quiet", "-q")] = False


@dataclass(frozen=True)
class ProxyOptions:
    """Options of the scores of architectures, and of their space.

    Attributes:
        space: Search space: a name (diswot list spaces), FILE.py:FUNCTION or
            PACKAGE.MODULE:FUNCTION.
        proxies: Scores (diswot list proxies) or FILE.py:FUNCTION, separated by commas, or all.
            Without a trained teacher, all leaves out the scores that look at inherited weights.
    """

    space: str = "s0"
    proxies: str = "all"


@dataclass(frozen=True)
class RankProxyOptions(ProxyOptions):
    """Options of the scores that a rank study compares with accuracies."""

    proxies: str = "default,diswot,semantic,relation"


@dataclass(frozen=True)
class TeacherOptions:
    """Options of the teacher network and its weights.

    Attributes:
        teacher: Teacher network: a name (diswot list teachers), a library's model such as
            timm:resnet50, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION.
        teacher_weights: File of the trained teacher's weights: safetensors or a PyTorch state dict.
        pretrained: Use the weights that the teacher's library offers; missing ones are downloaded.
        trained: The teacher's function (FILE.py:FUNCTION) loads trained weights itself.
    """

    teacher: str = "resnet56"
    teacher_weights: Path | None = None
    pretrained: Pretrained = False
    trained: Trained = False

    @property
    def has_weights(self) -> bool:
        """Whether the options name trained weights."""
        return self.pretrained or self.trained or self.teacher_weights is not None


@dataclass(frozen=True)
class TrainedTeacherOptions(TeacherOptions):
    """Options of the teacher network, with a required name."""

    teacher: str = field(kw_only=True)


@dataclass(frozen=True)
class DataOptions:
    """Options of the images and their normalisation.

    Attributes:
        data: Images: a name (diswot list data), a folder, hf:NAME, FILE.parquet or
            FILE.py:FUNCTION.
        mean: Mean of each channel, such as 0.5,0.5,0.5, for normalising images; needs --std.
            Default: the teacher's, or else the data's.
        std: Standard deviation of each channel, such as 0.5,0.5,0.5, for normalising images; needs
            --mean. Default: the teacher's, or else the data's.
        data_root: Folder of ImageNet16, or of CIFAR, which is downloaded if missing.
            Default: ~/.cache/diswot.
        classes: Number of classes of noise or ImageNet16. For other data it is only checked.
        image_size: Height of the images in pixels, and width if they are square. Default: the
            teacher's, or else the data's.
        task: Task that the data must have: a name (diswot list tasks). Default: that of the data.
    """

    data: str = "noise"
    mean: str | None = None
    std: str | None = None
    data_root: Path | None = None
    classes: int | None = None
    image_size: int | None = None
    task: str | None = None


@dataclass(frozen=True)
class SearchDataOptions(DataOptions):
    """Options of the images that a search scores on, with a required name.

    Attributes:
        data: Images: a name (diswot list data), a folder, hf:NAME, FILE.parquet or
            FILE.py:FUNCTION; noise for random ones.
    """

    data: str = field(kw_only=True)


@dataclass(frozen=True)
class EvaluationDataOptions(DataOptions):
    """Options of the images that a trained teacher is tested on."""

    data: str = "digits"


@dataclass(frozen=True)
class ScoringOptions:
    """Options of the batches and the weights that networks are scored with.

    Attributes:
        batch_size: Images of the batch that networks are scored on.
        repeats: Batches and initialisations that each score is averaged over.
        init: Initialisation of the scored networks (diswot list inits); inherited needs a trained
            teacher. Default: the one that belongs to the score's definition.
        seed: Seed of the weights, the batch and all samples that are drawn.
    """

    batch_size: int = 64
    repeats: int = 1
    init: str | None = None
    seed: FromZero = 0


@dataclass(frozen=True)
class BudgetOptions:
    """Options of the upper limits of the costs of a student.

    Attributes:
        like: Network whose parameters and multiply-adds on the images of --data are the limits: a
            name (diswot list teachers), parameters as JSON, or a run folder. Limits beside it can
            only be lower. --max-memory like and --max-latency like limit these costs to its own.
        max_params: Most parameters of a student, such as 0.4M.
        max_macs: Most multiply-adds of a student for one image, such as 40M.
        max_memory: Highest peak memory of a student's activations for one image, such as 64MB.
        max_latency: Highest measured latency of a student for one image, such as 8ms.
    """

    like: str | None = None
    max_params: str | None = None
    max_macs: str | None = None
    max_memory: str | None = None
    max_latency: str | None = None


@dataclass(frozen=True)
class LatencyOptions:
    """Options of a latency measurement in a search.

    Attributes:
        latency_engine: Engine that latency is measured with: torch or onnx; needs --max-latency, or
            latency among the --objectives.
        latency_threads: CPU threads of a latency measurement; needs --max-latency, or latency among
            the --objectives.
    """

    headings: ClassVar = {"Latency": "latency_engine latency_threads"}

    latency_engine: str = "torch"
    latency_threads: int = 1


@dataclass(frozen=True)
class ScoreLatencyOptions(LatencyOptions):
    """Options of the latency measurement of a scored student.

    Attributes:
        latency_engine: Engine that latency is measured with: torch or onnx; needs --latency.
        latency_threads: CPU threads of a latency measurement; needs --latency.
    """


@dataclass(frozen=True)
class ComputeOptions:
    """Options of the workers that score candidates.

    Attributes:
        workers: Worker processes that score. Default: none, this process scores; with --ray, as
            many as the cluster holds.
        threads: CPU threads of each process that scores. Default: 1 in a worker, all in this
            process.
        timeout: Seconds after which a candidate that a worker scores has failed. Default: none.
        device: Device that scores: cpu, cuda or cuda:1. Default: cpu.
        devices: Devices of the workers, round-robin: cuda:0,cuda:1, or all for every GPU.
        ray: Ray cluster that scores: HOST:PORT, ray://HOST:PORT, auto, or local to start one.
        ray_cpus: CPUs that Ray reserves for each worker; needs --ray. Default: the worker's
            threads.
        ray_gpus: GPUs that Ray reserves for each worker, which scores on them; 0.5 lets two workers
            share one; needs --ray. Default: 0.
    """

    workers: int | None = None
    threads: FromOne = None
    timeout: float | None = None
    device: str | None = None
    devices: str | None = None
    ray: str | None = None
    ray_cpus: float | None = None
    ray_gpus: float | None = None


@dataclass(frozen=True)
class VerifyOptions:
    """Options of the short trainings of the best students after a search.

    Attributes:
        verify: Number of students that are distilled briefly after the search: the best by score,
            the one with the most parameters, and the best others that differ in a third of their
            choices. The result is the most accurate of them. Each starts from its teacher if more
            than half of its parameters fit, else at random. The network of --like is trained alike,
            and named beside the winner.
        verify_epochs: Most epochs of a short training; needs --verify. Default: 9.
        verify_trials: Number of short trainings; needs --verify. Default: one a student; with
            --tune, four.
        tune: Settings of the short trainings that are tuned: temperature, weights, lr, separated by
            commas; needs --verify.
        recipe: Recipe of the short trainings: a name (diswot list recipes) or FILE.toml; needs
            --verify. Default: detector for detectors, transformer for transformers, else plain.
        losses: Distillation losses of the short trainings (diswot list losses) with their weights,
            such as kd:0.9,relation:1 or FILE.py:FUNCTION:0.5; needs --verify. Default: those of the
            recipe, or else kd.
    """

    verify: Annotated[int, Option(min=0, max=10)] = 0
    verify_epochs: FromOne = None
    verify_trials: FromOne = None
    tune: str | None = None
    recipe: str | None = None
    losses: str | None = None


@dataclass(frozen=True)
class SearchOptions:
    """Options of the space, the goals and the run folder of a search.

    Attributes:
        space: Search space: a name (diswot list spaces), FILE.py:FUNCTION or
            PACKAGE.MODULE:FUNCTION. The default, s0, holds small ResNets for images of 32 pixels.
            subnet:TEACHER holds the teacher's own sub-networks.
        trials: Number of candidates within the budget to score.
        objectives: What is optimised: score, or score with params, macs, memory or latency for a
            Pareto front, such as score,latency.
        sampler: Sampler of the architectures: evolution, random, tpe, nsga2, or FILE.py:FUNCTION,
            which returns an Optuna sampler. Default: evolution; with several objectives, nsga2.
        proxy: Score to maximise (diswot list proxies, which says which scores need a teacher), or
            FILE.py:FUNCTION. Default: default; for sub-networks of a trained teacher,
            default_inherited.
        out: Run folder, which keeps all results. Default: the first free one of runs/SPACE-1,
            runs/SPACE-2 and so on; with --storage none.
        no_out: Keep no run folder.
    """

    headings: ClassVar = {"Search": "objectives sampler", "Scoring": "proxy", "Output": "no_out"}

    space: str = "s0"
    trials: int = 500
    objectives: str = "score"
    sampler: str | None = None
    proxy: str | None = None
    out: Path | None = None
    no_out: Annotated[bool, Option("--no-out")] = False


@dataclass(frozen=True)
class StudyOptions:
    """Options of the storage of the trials of a search.

    Attributes:
        storage: Optuna storage URL for the trials. Default: a journal in the run folder.
        study: Name of the Optuna study in the storage; needs --out or --storage.
        resume: Continue a run that was interrupted; needs --out or --storage.
    """

    headings: ClassVar = {"Storage": "storage study resume"}

    storage: str | None = None
    study: str = "diswot"
    resume: Annotated[bool, Option("--resume")] = False


@dataclass(frozen=True)
class TableOptions:
    """Options of the tables of architectures and accuracies of a rank study.

    Attributes:
        table: File of architectures and their accuracies, which are scored.
        study: TOML file of many tables, which are scored and compared in one go.
        target: Column of accuracies that scores are compared with. Default: the distilled accuracy,
            or else the only accuracy.
        where: Condition of the rows, such as tag=in1k or params_m<13; can be repeated, and a row
            must meet all; needs --table or --study. Default: all rows.
        limit: Number of architectures to draw from the rows; needs --table or --study. Default:
            all.
    """

    table: Path | None = None
    study: Path | None = None
    target: str | None = None
    where: list[str] | None = None
    limit: Annotated[int | None, Option(min=3)] = None


@dataclass(frozen=True)
class RankComputeOptions:
    """Options of the processes that score the architectures of a table.

    Attributes:
        workers: Number of processes that score.
        device: Device that scores: cpu, cuda or cuda:1. Default: cpu.
        devices: Devices of the processes, round-robin: cuda:0,cuda:1, or all for every GPU.
    """

    workers: Annotated[int, Option(min=1)] = 1
    device: str | None = None
    devices: str | None = None


@dataclass(frozen=True)
class IntervalOptions:
    """Options of the uncertainty of the comparison of scores with accuracies.

    Attributes:
        seed_sd: Standard deviation of an accuracy over training seeds, from which the highest tau
            that a score can reach is computed.
        resamples: Bootstrap resamples for each 95 % confidence interval.
    """

    headings: ClassVar = {"Statistics": "seed_sd resamples"}

    seed_sd: Annotated[float | None, Option(min=0)] = None
    resamples: FromZero = 1000


@dataclass(frozen=True)
class RankFileOptions:
    """Options of the files that a rank study writes, or reads again.

    Attributes:
        out: Run folder, which keeps all results. Default: the first free one of runs/TABLE-rank-1,
            runs/TABLE-rank-2 and so on; with --from none.
        no_out: Keep no run folder.
        resume: Continue a run that was interrupted; needs --out.
        scores: CSV file that the scores are written to, a row an architecture; needs --table.
        again: File that --scores wrote, which is compared instead of a table; needs neither --table
            nor --study.
    """

    out: Path | None = None
    no_out: Annotated[bool, Option("--no-out")] = False
    resume: Annotated[bool, Option("--resume")] = False
    scores: Path | None = None
    again: Annotated[Path | None, Option("--from")] = None
