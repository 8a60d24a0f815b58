"""A teacher and a space of networks of a few hundred parameters."""

from torch import nn

WIDTH = 8  # of the maps before the classifier


def _network(width, depth, active, classes):
    layers = [nn.Conv2d(3, width, 3, 2, 1), active()]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, 1, 1, groups=width), active()]
    layers += [nn.Conv2d(width, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, classes))


def teacher(classes=10):
    return _network(16, 2, nn.ReLU, classes)


def space(trial, classes=10):
    """27 networks."""
    width = trial.suggest_categorical("width", [4, 8, 12])
    depth = trial.suggest_int("depth", 1, 3)
    active = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}
    return _network(width, depth, active[trial.suggest_categorical("act", list(active))], classes)
