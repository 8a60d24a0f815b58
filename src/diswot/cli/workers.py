"""The workers, the devices and the Ray cluster that the options name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diswot.errors import UserError

if TYPE_CHECKING:
    from diswot.cli.options import ComputeOptions
    from diswot.executors.ray import RayCluster
    from diswot.nas.compute import Compute


def compute(options: ComputeOptions) -> Compute:
    """Return where candidates are evaluated."""
    from diswot.nas.compute import Compute

    cluster = _cluster(options)
    places = devices(options.device, options.devices, on_ray=cluster is not None)
    return Compute(options.workers, options.threads, options.timeout, places, cluster)


def _cluster(options: ComputeOptions) -> RayCluster | None:
    """Return the Ray cluster that the options name; None without --ray."""
    from diswot.executors.ray import RayCluster
    from diswot.utils import optional_imports

    if options.ray is None:
        if options.ray_cpus is not None or options.ray_gpus is not None:
            raise UserError("--ray-cpus and --ray-gpus go with --ray")
        return None
    found = RayCluster(options.ray, options.ray_cpus, options.ray_gpus or 0.0)
    optional_imports.imported("ray", "--ray", "ray")
    return found


def devices(device: str | None, several: str | None, *, on_ray: bool = False) -> tuple[str, ...]:
    """Return the devices that --device or --devices names; an empty tuple without both.

    A device of a Ray cluster cannot be checked from here.
    """
    from diswot.utils import devices as known

    if device is not None and several is not None:
        raise UserError("give --device or --devices, not both")
    if on_ray and several is not None:
        raise UserError("--ray gives each worker its GPU: see --ray-gpus, not --devices")
    if several is not None:
        return known.parse_devices(several)
    if device is None:
        return ()
    return (device,) if on_ray else (str(known.get_device(device)),)
