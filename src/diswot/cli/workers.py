"""Where the command line has candidates scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diswot.errors import UserError

if TYPE_CHECKING:
    from diswot.executors.ray import RayCluster


def cluster(address: str | None, cpus: float | None, gpus: float | None) -> RayCluster | None:
    """The Ray cluster that is asked for.

    Raises:
        UserError: There can be none such, or Ray is not installed.
    """
    from diswot.executors.ray import RayCluster
    from diswot.utils import optional_imports

    if address is None:
        if cpus is not None or gpus is not None:
            raise UserError("--ray-cpus and --ray-gpus go with --ray")
        return None
    found = RayCluster(address, cpus, gpus or 0.0)
    optional_imports.imported("ray", "--ray", "ray")
    return found


def places(
    device: str | None, several: str | None, cluster: RayCluster | None = None
) -> tuple[str, ...]:
    """The devices that are named; none if none is.

    Those of a Ray cluster are looked for there.

    Raises:
        UserError: There is no such device here, or both options are given.
    """
    from diswot.utils import devices

    if device is not None and several is not None:
        raise UserError("give --device or --devices, not both")
    if cluster is not None:
        if several is not None:
            raise UserError("--ray gives each worker its GPU: see --ray-gpus, not --devices")
        return () if device is None else (device,)
    if several is not None:
        return devices.parse_devices(several)
    return () if device is None else (str(devices.get_device(device)),)
