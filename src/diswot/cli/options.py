"""The options of the commands, by the name of their parameter, one line each in the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Teacher = Annotated[
    str, Option(help="Name (diswot list teachers), as timm:resnet50, or file.py:function.")
]
Weights = Annotated[
    Path | None, Option(help="The trained teacher's weights: safetensors or a state dict.")
]
Pretrained = Annotated[
    bool, Option("--pretrained", help="Take the library's weights, fetched if need be.")
]
Mean = Annotated[str | None, Option(help="Normalise with, as 0.5,0.5,0.5, instead of the data's.")]
Std = Annotated[str | None, Option(help="The same; always with --mean.")]
Space = Annotated[str, Option(help="Name (diswot list spaces), or file.py:function.")]
DataName = Annotated[
    str, Option("--data", help="Name (diswot list data), a folder, hf:NAME or a .parquet file.")
]
DataRoot = Annotated[Path | None, Option(help="Where CIFAR lies or is put, or ImageNet16 lies.")]
Classes = Annotated[int | None, Option(help="Number of classes; for noise and ImageNet16.")]
ImageSize = Annotated[
    int | None, Option(help="Height and width in pixels; else the teacher's or the data's.")
]
ScoringBatch = Annotated[int, Option("--batch-size", help="Images to score on.")]
Repeats = Annotated[int, Option(help="Batches and initialisations to average over.")]
Init = Annotated[
    str | None, Option(help="Weights to score with, else the score's own (diswot list inits).")
]
Seed = Annotated[int, Option(min=0, help="Of everything random.")]
Json = Annotated[bool, Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress bars, no notes.")]

Trials = Annotated[int, Option(help="Candidates within the budget to score.")]
MaxParams = Annotated[str | None, Option(help="Such as 0.4M.")]
MaxMacs = Annotated[str | None, Option(help="Of one image, such as 40M.")]
MaxMemory = Annotated[
    str | None, Option(help="Of one image's activations at their peak, such as 64MB.")
]
MaxLatency = Annotated[str | None, Option(help="Measured, of one image, such as 8ms.")]
Objectives = Annotated[
    str, Option(help="score, or with params, macs, memory, latency: score,latency for a front.")
]
Latency = Annotated[bool, Option("--latency", help="Measure the latency of one image, too.")]
LatencyEngine = Annotated[str, Option(help="What latency is measured with: torch or onnx.")]
LatencyThreads = Annotated[int, Option(help="Threads that one image may use.")]
Proxy = Annotated[str, Option(help="Score (diswot list proxies).")]
Sampler = Annotated[
    str | None,
    Option(help="evolution, random, tpe or nsga2; else evolution, or nsga2 for objectives."),
]
Verify = Annotated[
    int, Option(min=0, max=10, help="Distil so many of the best briefly; return the most accurate.")
]
VerifyEpochs = Annotated[int | None, Option(min=1, help="Of each such training, at most; else 9.")]
VerifyTrials = Annotated[
    int | None, Option(min=1, help="Such trainings; else one a student, four with --tune.")
]
Tune = Annotated[
    str | None, Option(help="Search these, too: temperature, weights, lr, with commas.")
]
RunFolder = Annotated[Path | None, Option(help="Run folder, to keep everything in.")]
Storage = Annotated[
    str | None, Option(help="Optuna storage URL, instead of a journal in the run folder.")
]
Study = Annotated[str, Option(help="Name of the study in the storage.")]
Resume = Annotated[bool, Option("--resume", help="Go on with what was stopped.")]

SearchWorkers = Annotated[
    int | None,
    Option("--workers", help="Processes to score in; else this one, or all that Ray holds."),
]
Threads = Annotated[
    int | None, Option(min=1, help="Of each process; else 1 of each worker, all without.")
]
Device = Annotated[
    str | None, Option(help="Where to score: cpu, cuda, cuda:1 or what torch has; else cpu.")
]
Devices = Annotated[
    str | None, Option(help="Workers on each of these: cuda:0,cuda:1, or all for every GPU.")
]
Ray = Annotated[
    str | None,
    Option(
        help="Score on a Ray cluster: HOST:PORT, ray://HOST:PORT, auto, or local for a new one."
    ),
]
RayCpus = Annotated[float | None, Option(help="CPUs of each worker on Ray; else its threads.")]
RayGpus = Annotated[
    float | None, Option(help="GPUs of each worker on Ray, to score on; 0.5 for two on a card.")
]
Timeout = Annotated[float | None, Option(help="Seconds that a candidate may take.")]

Student = Annotated[str, Option(help="Parameters as JSON, or a network's name.")]
Proxies = Annotated[str, Option(help="Names with commas, or all.")]

Run = Annotated[Path | None, Argument(help="Folder of a search.")]
OtherStudent = Annotated[
    str | None,
    Option(help="Parameters as JSON, a network's name, or a number in RUN's table; else the best."),
]
OtherTeacher = Annotated[
    str | None, Option(help="Name, or none to train alone; else the search's.")
]
OtherSpace = Annotated[str | None, Option(help="Else the search's, else s0.")]
OtherData = Annotated[str | None, Option("--data", help="Else the search's, else digits.")]
RecipeName = Annotated[
    str | None,
    Option("--recipe", help="Name (diswot list recipes), or file.toml; options change it."),
]
Epochs = Annotated[int | None, Option(help="Passes over the training images; else 240.")]
TrainingBatch = Annotated[
    int | None, Option("--batch-size", help="Images a step, in all processes; else 64.")
]
Accumulate = Annotated[int | None, Option(help="Parts that a batch is cut into, for memory.")]
Optimizer = Annotated[str | None, Option(help="sgd, adamw or lamb. Default: the recipe's.")]
WarmupEpochs = Annotated[
    float | None, Option(help="Epochs in which the learning rate rises. Default: the recipe's.")
]
Lr = Annotated[float | None, Option(help="Highest learning rate; else 0.05.")]
WeightDecay = Annotated[float | None, Option(help="On weights; else 0.0005.")]
Schedule = Annotated[str | None, Option(help="cosine, onecycle or step; else cosine.")]
Milestones = Annotated[str | None, Option(help="Epochs after which step lowers the rate: 150,180.")]
Losses = Annotated[
    str | None,
    Option(help="Weighted distances or presets (diswot list losses): kd:0.9,relation:1."),
]
Temperature = Annotated[float | None, Option(help="Of kd, dkd and dist; else each its own.")]
CrossEntropy = Annotated[float | None, Option(help="Weight of the labels' loss; else 1.")]
LabelSmoothing = Annotated[float | None, Option(help="Share of a label spread over all classes.")]
Ema = Annotated[float | None, Option(help="Decay a step of averaged weights, such as 0.998.")]
Crop = Annotated[int | None, Option(help="Random shifts of up to so many pixels; else 4.")]
Area = Annotated[float | None, Option(help="Smallest share of an image in a random cut.")]
Cutout = Annotated[int | None, Option(help="Side of a blanked square, in pixels.")]
Cache = Annotated[
    bool | None, Option("--cache", help="Keep the teacher's outputs; needs unaltered images.")
]
Compile = Annotated[
    bool | None, Option("--compile", help="Build both networks with torch.compile.")
]
Hold = Annotated[
    bool | None,
    Option("--hold/--stream", help="Images all in memory, or read as needed; else as fits."),
]
TensorBoard = Annotated[
    bool, Option("--tensorboard", help="Write the curves for TensorBoard, too.")
]
Flip = Annotated[bool | None, Option(help="Mirror images; by default all but digits.")]
Precision = Annotated[str | None, Option(help="auto, fp32 or bf16; else auto.")]
TrainingFolder = Annotated[
    Path | None, Option("--out", help="Folder; else RUN/distilled, or RUN/alone without teacher.")
]

Table = Annotated[Path | None, Option(help="File of architectures and accuracies.")]
Target = Annotated[str | None, Option(help="Column of accuracies; else the distilled, or first.")]
Limit = Annotated[int | None, Option(min=3, help="Score a random sample of so many.")]
SeedDeviation = Annotated[
    float | None, Option(help="Standard deviation of an accuracy over seeds, for the ceiling.")
]
Resamples = Annotated[int, Option(min=0, help="Bootstrap resamples behind each interval.")]
Workers = Annotated[int, Option(min=1, help="Processes to score with.")]
RankFolder = Annotated[Path | None, Option("--out", help="Run folder, to keep everything in.")]
ScoresFile = Annotated[Path | None, Option(help="CSV file to write, a line an architecture.")]
ScoresAgain = Annotated[
    Path | None, Option("--from", help="Scores written before, instead of a table.")
]
